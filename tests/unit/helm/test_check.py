"""The program of `helm test`."""

from __future__ import annotations

import importlib.util
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from types import ModuleType

import pytest

from infra.helm.facts import CHART


@pytest.fixture(scope="module")
def check() -> ModuleType:
    spec = importlib.util.spec_from_file_location("chart_check", CHART / "files" / "check.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class _Handler(BaseHTTPRequestHandler):
    late = 0

    def do_GET(self) -> None:
        type(self).late -= self.path == "/late"
        ready = self.path == "/good" or (self.path == "/late" and type(self).late < 0)
        self.send_response(200 if ready else 503)
        self.end_headers()
        self.wfile.write(b"" if ready else b"store.metering: not reached")

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing."""


@pytest.fixture
def address() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), _Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_all_answer(check: ModuleType, address: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert check.main(["0", f"{address}/good"]) == 0
    assert capsys.readouterr().out == f"{address}/good: answers\n"


def test_what_does_not_answer_is_named_with_the_reason(
    check: ModuleType, address: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert check.main(["0", f"{address}/good", f"{address}/bad", "http://127.0.0.1:1/"]) == 1
    said = capsys.readouterr().out
    assert f"{address}/bad: 503: store.metering: not reached" in said
    assert "http://127.0.0.1:1/: " in said
    assert "refused" in said


def test_it_waits_for_what_comes_late(check: ModuleType, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _Handler.late = 1
    monkeypatch.setattr(check, "_PAUSE_S", 0.01)
    assert check.check([f"{address}/late"], 30.0) == {}
