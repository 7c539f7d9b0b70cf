"""Clusters that several tests share, each started once. Tests that kill a broker for good start their own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.real.bus.brokers import Brokers

SERVICES = ("metering", "payments", "notary", "stranger")


def pytest_configure(config: pytest.Config) -> None:
    """kafka-python leaves the socket of a refused connection to the garbage collector."""
    config.addinivalue_line("filterwarnings", "ignore:unclosed <socket.socket:ResourceWarning")
    config.addinivalue_line(
        "filterwarnings", "ignore:Exception ignored in. <socket.socket:pytest.PytestUnraisableExceptionWarning"
    )


def _running(brokers: Brokers) -> Iterator[Brokers]:
    try:
        brokers.start()
        yield brokers
    finally:
        brokers.stop()


@pytest.fixture(scope="session")
def one_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Brokers]:
    yield from _running(Brokers(tmp_path_factory.mktemp("kafka-one"), 1))


@pytest.fixture(scope="session")
def three_brokers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Brokers]:
    yield from _running(Brokers(tmp_path_factory.mktemp("kafka-three"), 3))


@pytest.fixture(scope="session")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Brokers]:
    """One broker with TLS, certificates for some services, and rights."""
    folder = tmp_path_factory.mktemp("kafka-secured")
    yield from _running(Brokers(folder, 1, folder / "certificates", SERVICES))
