"""Brokers for the tests of this folder, and buses on topics of their own."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from citykit.bus.kafka import KafkaBus, open_kafka_bus
from citykit.bus.kafka.preflight import preflight
from citykit.bus.kafka.topics import apply, plans
from citykit.bus.topics import Topic
from citykit.settings import KafkaSettings
from citykit.testing.bus_suite import SUITE_TOPICS
from infra.certificates import ensure_certificates
from infra.kafka import BrokerTls, addresses, install, programs
from infra.kafka.archive import ensure_archive
from infra.native import Native, cache_folder

CLIENTS = ("kafka-python", "confluent-kafka")
_PREFIXES = itertools.count(1)


class Brokers:
    """Brokers of one cluster on loopback.

    Args:
        certificates: a folder for certificates; None is plain text.
    """

    def __init__(self, state: Path, count: int, certificates: Path | None = None, names: Iterable[str] = ()) -> None:
        install(cache_folder())
        ensure_archive(cache_folder())
        self.certificates = certificates
        self.tls = None if certificates is None else _tls(certificates, names)
        self.natives = [Native(program, state) for program in programs(cache_folder(), state, count, tls=self.tls)]
        self.bootstrap = addresses(state, count)
        self.scram_bootstrap = addresses(state, count, scram=True) if certificates else ""
        self.count = count

    def start(self) -> None:
        """Starts those that do not run."""
        for native in self.natives:
            if not native.runs():
                native.start()
        for native in self.natives:
            native.wait()

    def stop(self) -> None:
        """As a crash is: what they stored is thrown away, and the last of three would wait long for the others."""
        for native in self.natives:
            native.kill()

    def settings(self, client: str, service: str = "admin", **others: object) -> KafkaSettings:
        """Settings with a prefix of their own, so that each test has topics of its own."""
        values: dict[str, Any] = {
            "bootstrap": self.bootstrap,
            "client": client,
            "security": "PLAINTEXT" if self.certificates is None else "SSL",
            "certificates": "" if self.certificates is None else str(self.certificates / service),
            "prefix": f"t{next(_PREFIXES)}.",
            "replication": self.count,
            "session_s": 3.0,
        }
        return KafkaSettings(**(values | others))


def _tls(folder: Path, names: Iterable[str]) -> BrokerTls:
    ensure_certificates(folder, ["kafka", "admin", *names])
    own, admin = folder / "kafka", folder / "admin"
    return BrokerTls(own / "ca.crt", own / "tls.crt", own / "tls.key", admin / "tls.crt", admin / "tls.key")


def make_topics(settings: KafkaSettings, topics: tuple[Topic, ...] = SUITE_TOPICS) -> None:
    inspector = preflight(settings)
    try:
        apply(plans(topics, settings), settings, inspector)
    finally:
        inspector.close()


@asynccontextmanager
async def kafka_bus(settings: KafkaSettings) -> AsyncIterator[KafkaBus]:
    """A bus on the suite's topics, made where they are missing."""
    make_topics(settings)
    bus = await open_kafka_bus(SUITE_TOPICS, settings)
    try:
        yield bus
    finally:
        await bus.close()
