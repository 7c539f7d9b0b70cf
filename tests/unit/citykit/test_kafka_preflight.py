"""The first look at the brokers, against servers of our own making that are wrong in one way each."""

from __future__ import annotations

import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from citykit.bus.kafka.preflight import preflight
from citykit.errors import EnvironmentFault
from citykit.settings import KafkaSettings
from infra.certificates import ensure_certificates
from infra.native import free_port

ANSWER = struct.pack(">ii", 10, 7) + bytes(6)
Wrap = Callable[[socket.socket], socket.socket]


@contextmanager
def server(answer: bytes, wrap: Wrap = lambda plain: plain) -> Iterator[str]:
    """Answers every caller's first words with the same bytes."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        thread = threading.Thread(target=_serve, args=(listening, answer, wrap))
        thread.start()
        try:
            yield f"127.0.0.1:{listening.getsockname()[1]}"
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            thread.join()


def _serve(listening: socket.socket, answer: bytes, wrap: Wrap) -> None:
    while True:
        try:
            plain, _ = listening.accept()
        except OSError:
            return
        with suppress(OSError), plain, wrap(plain) as caller:
            caller.recv(1_024)
            caller.sendall(answer)


def tls(folder: Path) -> Wrap:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "tls.crt", folder / "tls.key")
    return lambda plain: context.wrap_socket(plain, server_side=True)


def told(bootstrap: str, certificates: Path | None = None, security: str = "SSL") -> str:
    folder = "" if certificates is None else str(certificates)
    settings = KafkaSettings(bootstrap=bootstrap, security=security, certificates=folder, start_s=1.0, request_s=5.0)
    with pytest.raises(EnvironmentFault) as caught:
        preflight(settings)
    return caught.value.message


@pytest.fixture
def certificates(tmp_path: Path) -> Path:
    ensure_certificates(tmp_path, ["kafka", "metering"])
    return tmp_path


def test_a_broker_with_an_expired_certificate_is_told(certificates: Path) -> None:
    ensure_certificates(certificates, ["late"], leaf_days=1e-9)
    with server(ANSWER, tls(certificates / "late")) as where:
        assert "certificate has expired" in told(where, certificates / "metering")


def test_a_server_that_is_no_broker_is_told(certificates: Path) -> None:
    with server(b"HTTP/1.1 400 Bad", tls(certificates / "kafka")) as where:
        assert "does not speak Kafka" in told(where, certificates / "metering")
    with server(b"HTTP/1.1 400 Bad") as where:
        assert "does not speak Kafka" in told(where, security="PLAINTEXT")


def test_plain_text_where_tls_is_wanted_and_the_other_way_round(certificates: Path) -> None:
    with server(b"what?") as where:
        assert "does not speak TLS" in told(where, certificates / "metering")
    with server(ANSWER, tls(certificates / "kafka")) as where:
        assert "does not take plain text" in told(where, security="PLAINTEXT")


def test_the_first_refusal_is_told_where_every_server_refuses() -> None:
    nobody = f"127.0.0.1:{free_port()}"
    assert f"nobody answers at {nobody}" in told(f"{nobody},127.0.0.1:{free_port()}", security="PLAINTEXT")


def test_a_broker_that_greets_and_then_says_nothing_is_given_up(certificates: Path) -> None:
    with server(ANSWER) as where:
        assert "did not answer within 1 s" in told(where, security="PLAINTEXT")


def test_files_that_are_missing_mixed_up_or_no_certificates_are_told(certificates: Path, tmp_path: Path) -> None:
    own = certificates / "metering"
    assert "cannot be read as a certificate" in told("127.0.0.1:1", tmp_path / "nothing")
    (own / "tls.key").write_bytes((certificates / "kafka" / "tls.key").read_bytes())
    assert "cannot be used" in told("127.0.0.1:1", own)
    (own / "tls.crt").write_text("no certificate")
    assert "cannot be read as a certificate" in told("127.0.0.1:1", own)
