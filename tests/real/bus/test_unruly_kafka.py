"""The city on Kafka, which doubles, delays and reorders a fifth of everything, comes to what it comes to on the embedded bus."""

from __future__ import annotations

from pathlib import Path

from citykit.bus.kafka import open_kafka_bus
from citykit.bus.topics import TOPICS
from citykit.testing.unruly_bus import UnrulyBus
from tests.real.bus.brokers import Brokers, make_topics
from tests.system.test_unruly_bus import lived


async def test_on_unruly_kafka_it_comes_to_the_same(one_broker: Brokers, tmp_path: Path) -> None:
    settings = one_broker.settings("kafka-python")
    make_topics(settings, TOPICS)
    kafka = await open_kafka_bus(TOPICS, settings)
    try:
        unruly = UnrulyBus(kafka, seed=6)
        found = await lived(tmp_path / "kafka", lambda _: unruly)
    finally:
        await kafka.close()
    assert all(unruly.troubles[kind] for kind in ("twice", "late", "overtaken", "again")), unruly.troubles
    assert found == await lived(tmp_path / "embedded")
