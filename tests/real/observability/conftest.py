"""A synthetic city in a process of its own, watched by a Prometheus server; started once for this folder."""

from __future__ import annotations

import json
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from infra.native import Native, Program, free_port
from infra.observability import Target, install, program
from infra.observability.prometheus import port_of

_POLL_S = 0.5


@dataclass(frozen=True)
class Watched:
    """The city and the server that watches it.

    Attributes:
        dashboard, operations, prometheus: ports of loopback.
    """

    state: Path
    dashboard: int
    operations: int
    prometheus: int
    city: Native

    def get(self, port: int, path: str) -> tuple[int, Any]:
        """Status and JSON; 0 where nobody listens yet."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=20) as answer:
                return answer.status, json.loads(answer.read())
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.loads(error.read())
        except OSError:
            return 0, None

    def ask(self, query: str) -> list[Any]:
        """The result of an instant query.

        Raises:
            AssertionError: Prometheus does not take the query.
        """
        status, body = self.get(self.prometheus, "/api/v1/query?" + urllib.parse.urlencode({"query": query}))
        assert status == 200, (query, body)
        found: list[Any] = body["data"]["result"]
        return found

    def until(self, condition: Any, what: str, limit_s: float) -> None:
        end = time.monotonic() + limit_s
        while not condition():
            assert self.city.runs(), f"the city ended; its log ends:\n{self.city.tail()}"
            assert time.monotonic() < end, f"not within {limit_s:.0f} s: {what}"
            time.sleep(_POLL_S)


def city_program(state: Path, dashboard: int, operations: int) -> Program:
    argv = [
        sys.executable, "-m", "services", "run", "--synthetic", "--state", str(state / "city"), "--port", str(dashboard),
        "--faults", "forged,replayed", "--speed", "900",
    ]  # fmt: skip
    env = {
        "CITY_OBSERVABILITY_PORT": str(operations),
        "CITY_OBSERVABILITY_LOOK_S": "1",
        "CITY_TELEMETRY_LOG_FORMAT": "json",
        "CITY_TELEMETRY_LOG_LEVEL": "INFO",
        "CITY_TELEMETRY_TRACE_FILE": str(state / "spans.jsonl"),
        "CITY_TELEMETRY_TRACE_RATIO": "1",
    }
    return Program("city", argv, lambda: True, env=env)


@pytest.fixture(scope="session")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    state, (dashboard, operations) = tmp_path_factory.mktemp("watched"), (free_port(), free_port())
    install(state)
    server = program(state / "prometheus", [Target("city", f"127.0.0.1:{operations}")], every="1s")
    city, prometheus = Native(city_program(state, dashboard, operations), state), Native(server, state)
    try:
        prometheus.start()
        city.start()
        prometheus.wait()
        yield Watched(state, dashboard, operations, port_of(server), city)
    finally:
        city.stop()
        prometheus.stop()
