"""Rules every bus shares: topics as declared, retries and dead letters, settings of Kafka."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from citykit.bus.delivery import deliver
from citykit.bus.kafka.connection import check_settings, confluent_settings, password, python_settings, servers
from citykit.bus.kafka.declared import read_declaration
from citykit.bus.kafka.rights import Right, wanted_rights
from citykit.bus.kafka.topics import declared_plans
from citykit.bus.port import Message, Record, Subscription
from citykit.bus.topics import TOPICS
from citykit.errors import EnvironmentFault, SettingsError, Unavailable
from citykit.settings import KafkaSettings
from services.commands.bus_on_kafka import declaration
from services.registry import SERVICES
from services.testing import embedded_city

SETTINGS = KafkaSettings(certificates="certificates/metering")


def record(number: int) -> Record:
    return Record("t", 0, number, "k", number.to_bytes(4, "big"), {})


# --- topics as declared -------------------------------------------------------------------------------


def test_the_declared_topics_are_those_of_the_code() -> None:
    declared = {(topic.name, topic.owner, topic.partitions) for topic in declaration().topics}
    assert declared == {(topic.name, topic.owner, topic.partitions) for topic in TOPICS}
    assert not any(topic.compaction for topic in declaration().topics)


async def test_the_declared_readers_are_those_that_subscribe(tmp_path: Path) -> None:
    subscribed: dict[str, set[str]] = {}
    async with embedded_city(tmp_path, services=[name for name in SERVICES if name != "gateway"]) as city:
        for service in city.process.services.values():
            for subscription in service.subscriptions:
                assert subscription.group.startswith(service.name)  # rights to groups go by this
                for topic in subscription.topics:
                    subscribed.setdefault(topic, set()).add(service.name)
    assert {topic.name: {*topic.readers} for topic in declaration().topics} == subscribed


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("topics: {t: {owner: a, readers: []}}\ndead_letters: {retention_hours: 1}", "does not say compaction"),
        ("topics: {t: {ownr: a}}\ndead_letters: {retention_hours: 1}", "'ownr'"),
        ("topic: {}\ndead_letters: {retention_hours: 1}", "'topic'"),
    ],
)
def test_a_declaration_with_other_words_is_refused(text: str, words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        read_declaration(text)


def test_each_service_gets_the_rights_it_needs_and_no_content_of_others() -> None:
    rights = wanted_rights(declaration(), KafkaSettings(prefix="p."))
    readings = "p.city.metering.readings.v1"

    def who(operation: str, name: str) -> set[str]:
        return {right.service for right in rights if (right.operation, right.name) == (operation, name)}

    assert who("write", readings) == {"metering"}
    assert who("read", readings) == who("read", f"{readings}.retry") == {"forecasting", "notary"}
    assert who("write", f"{readings}.dead-letters") == {"forecasting", "notary"}
    assert who("write", f"{readings}.retry") == set()
    assert Right("notary", "group", "p.notary", "prefixed", "read") in rights


def test_plans_hold_retention_room_and_copies() -> None:
    plans = {plan.name: plan for plan in declared_plans(declaration(), KafkaSettings(replication=3))}
    readings, letters = plans["city.metering.readings.v1"], plans["city.metering.readings.v1.dead-letters"]
    assert readings.config["retention.ms"] == str(168 * 3_600_000)
    assert letters.config["retention.ms"] == str(2_160 * 3_600_000)
    assert (readings.copies, readings.config["min.insync.replicas"]) == (3, "2")
    assert int(readings.config["max.message.bytes"]) > 1_100_000


# --- delivery -----------------------------------------------------------------------------------------


async def test_a_dead_letter_the_bus_does_not_take_is_tried_again_and_the_record_is_not_passed_over() -> None:
    published: list[Message] = []
    tries = 0

    async def poison(_batch: Sequence[Record]) -> None:
        raise ValueError("cannot read this")

    async def publish(messages: Sequence[Message]) -> None:
        nonlocal tries
        tries += 1
        if tries < 3:
            raise Unavailable("the bus is away")
        published.extend(messages)

    subscription = Subscription("g", ("t",), poison, max_tries=1)
    assert await deliver(subscription, [record(0)], asyncio.Event(), publish) == 1
    assert [message.topic for message in published] == ["t.dead-letters"]
    assert tries == 3


async def test_what_is_dealt_with_before_a_stop_is_told() -> None:
    stopping = asyncio.Event()

    async def handler(batch: Sequence[Record]) -> None:
        if len(batch) > 1 or batch[0].offset == 2:
            stopping.set() if batch[0].offset == 2 else None
            raise Unavailable("away")

    async def publish(_messages: Sequence[Message]) -> None:
        raise AssertionError("nothing is given up")

    subscription = Subscription("g", ("t",), handler)
    assert await deliver(subscription, [record(n) for n in range(5)], stopping, publish) == 2


# --- settings -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"client": "aiokafka"}, "CITY_KAFKA_CLIENT must be one of kafka-python, confluent-kafka"),
        ({"security": "TLS"}, "CITY_KAFKA_SECURITY must be one of"),
        ({"certificates": ""}, "CITY_KAFKA_CERTIFICATES must name a folder"),
        ({"security": "PLAINTEXT", "bootstrap": "127.0.0.1:1,kafka.example:9092"}, "on this machine only"),
        ({"security": "SASL_SSL"}, "needs CITY_KAFKA_USER and CITY_KAFKA_PASSWORD_FILE"),
    ],
)
def test_settings_that_cannot_work_are_refused(changes: dict[str, str], words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        check_settings(replace(SETTINGS, **changes))  # type: ignore[arg-type]


def test_servers_are_host_and_port() -> None:
    assert servers(replace(SETTINGS, bootstrap="a:1, [::1]:2")) == [("a", 1), ("::1", 2)]
    with pytest.raises(SettingsError, match="must be host:port"):
        servers(replace(SETTINGS, bootstrap="a"))


def test_a_password_comes_from_a_file_and_both_clients_get_it(tmp_path: Path) -> None:
    file = tmp_path / "password"
    settings = replace(SETTINGS, security="SASL_SSL", user="metering", password_file=str(file))
    with pytest.raises(EnvironmentFault, match="cannot be read"):
        password(settings)
    file.write_text("\n")
    with pytest.raises(EnvironmentFault, match="is empty"):
        password(settings)
    file.write_text("a horse\n")
    assert python_settings(settings)["sasl_plain_password"] == "a horse"
    assert confluent_settings(settings)["sasl.password"] == "a horse"
    assert "ssl_certfile" not in python_settings(settings)
    assert python_settings(SETTINGS)["ssl_keyfile"] == "certificates/metering/tls.key"
    assert confluent_settings(SETTINGS)["ssl.key.location"] == "certificates/metering/tls.key"
