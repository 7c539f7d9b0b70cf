"""Both Kafka clients pass the suite of the bus, on one broker and on three."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from citykit.bus.kafka import KafkaBus, open_kafka_bus
from citykit.settings import KafkaSettings
from citykit.testing.bus_suite import SUITE_TOPICS, BusSuite, Reopen
from tests.real.bus.brokers import Brokers, make_topics


class KafkaSuite(BusSuite):
    """The fixture `settings` says which client and which brokers."""

    @pytest.fixture
    async def reopen(self, settings: KafkaSettings) -> AsyncIterator[Reopen]:
        make_topics(settings)
        buses: list[KafkaBus] = []

        async def again() -> KafkaBus:
            for bus in buses:
                await bus.close()
            buses[:] = [await open_kafka_bus(SUITE_TOPICS, settings)]
            return buses[0]

        yield again
        for bus in buses:
            await bus.close()


class TestKafkaPythonOneBroker(KafkaSuite):
    @pytest.fixture
    def settings(self, one_broker: Brokers) -> KafkaSettings:
        return one_broker.settings("kafka-python")


class TestConfluentKafkaOneBroker(KafkaSuite):
    @pytest.fixture
    def settings(self, one_broker: Brokers) -> KafkaSettings:
        return one_broker.settings("confluent-kafka")


class TestKafkaPythonThreeBrokers(KafkaSuite):
    @pytest.fixture
    def settings(self, three_brokers: Brokers) -> KafkaSettings:
        return three_brokers.settings("kafka-python")


class TestConfluentKafkaThreeBrokers(KafkaSuite):
    @pytest.fixture
    def settings(self, three_brokers: Brokers) -> KafkaSettings:
        return three_brokers.settings("confluent-kafka")
