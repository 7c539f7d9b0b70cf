"""What is wrong with brokers, topics, certificates or credentials stops the start, and says what to do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # the library does not say what it exports
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ResourceType,
)

from citykit.bus.kafka import open_kafka_bus
from citykit.bus.kafka.declared import read_declaration
from citykit.bus.kafka.preflight import preflight
from citykit.bus.kafka.rights import apply_rights, rights_differences, wanted_rights
from citykit.bus.kafka.topics import apply, declared_plans, differences
from citykit.bus.port import Bus, Message, Subscription
from citykit.bus.topics import TOPICS, Topic
from citykit.errors import EnvironmentFault, Unavailable
from citykit.settings import KafkaSettings
from citykit.testing.bus_suite import SUITE_TOPICS, Collector, messages
from citykit.testing.polling import until
from infra.certificates import ensure_certificates
from infra.kafka.scram import set_password
from infra.native import free_port
from tests.real.bus.brokers import CLIENTS, Brokers, kafka_bus, make_topics

both = pytest.mark.parametrize("client", CLIENTS)

DECLARED = """
defaults: {partitions: 2, retention_hours: 5, compaction: false}
dead_letters: {retention_hours: 50}
topics:
  suite.readings:
    owner: metering
    readers: [notary]
"""


async def refused(settings: KafkaSettings, topics: tuple[Topic, ...] = SUITE_TOPICS) -> str:
    with pytest.raises(EnvironmentFault) as caught:
        await open_kafka_bus(topics, settings)
    return caught.value.message


def configure(brokers: Brokers, topic: str, name: str, value: str) -> None:
    entry = ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[entry])
    admin = AdminClient({"bootstrap.servers": brokers.bootstrap})
    next(iter(admin.incremental_alter_configs([resource]).values())).result(timeout=30)


# --- topics ----------------------------------------------------------------------------------------


@both
async def test_a_topic_that_is_missing_or_otherwise_is_named(one_broker: Brokers, client: str) -> None:
    settings = one_broker.settings(client)
    missing = await refused(settings)
    assert f"{settings.prefix}suite.one is missing" in missing
    assert "city bus topics --apply" in missing
    make_topics(settings)
    wrong = await refused(settings, (replace(SUITE_TOPICS[0], partitions=8), SUITE_TOPICS[1]))
    assert f"{settings.prefix}suite.one has 4 partitions and must have 8" in wrong
    assert "has 1 copies and must have 3" in await refused(replace(settings, replication=3))


async def test_settings_that_would_lose_events_or_refuse_the_largest_are_named(one_broker: Brokers) -> None:
    settings = one_broker.settings("kafka-python")
    make_topics(settings)
    topic = f"{settings.prefix}suite.one"
    configure(one_broker, topic, "max.message.bytes", "100000")
    assert "takes messages of 100000 bytes" in await refused(settings)
    configure(one_broker, topic, "max.message.bytes", "1300000")
    configure(one_broker, topic, "cleanup.policy", "compact")
    assert "is compacted" in await refused(settings)


async def test_topics_become_as_declared_and_partitions_are_never_changed_in_place(one_broker: Brokers) -> None:
    settings = one_broker.settings("kafka-python")
    inspector = preflight(settings)
    declared = read_declaration(DECLARED)
    plans = declared_plans(declared, settings)
    topic = f"{settings.prefix}suite.readings"
    assert differences(plans, inspector)[0] == f"{topic} is missing"
    assert apply(plans, settings, inspector) == [f"made {plan.name}" for plan in plans]
    assert differences(plans, inspector) == []
    configure(one_broker, topic, "retention.ms", "1000")
    await until(lambda: differences(plans, inspector) != [], "the change to be told")
    assert differences(plans, inspector) == [f"{topic}: retention.ms is 1000, declared 18000000"]
    assert apply(plans, settings, inspector) == [f"set {topic}: retention.ms=18000000"]
    await until(lambda: differences(plans, inspector) == [], "all as declared")
    more = declared_plans(read_declaration(DECLARED.replace("partitions: 2", "partitions: 3")), settings)
    with pytest.raises(EnvironmentFault, match="has 2 partitions and 1 copies, declared 3 and 1"):
        apply(more, settings, inspector)
    inspector.close()


def city_bus(settings: KafkaSettings, *words: str, mode: str = "demo") -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ,
        "CITY_GENERAL_MODE": mode,
        "CITY_KAFKA_BOOTSTRAP": settings.bootstrap,
        "CITY_KAFKA_CERTIFICATES": settings.certificates,
        "CITY_KAFKA_PREFIX": settings.prefix,
    }
    command = [sys.executable, "-m", "services", "bus", *words]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)


async def test_the_command_makes_topics_and_rights_and_then_finds_nothing_to_do(secured: Brokers) -> None:
    admin = secured.settings("kafka-python")
    missing = city_bus(admin, "topics", "--check")
    assert (missing.returncode, "city.identity.events.v1 is missing" in missing.stdout) == (1, True)
    made = city_bus(admin, "topics", "--apply")
    assert (made.returncode, made.stderr) == (0, "")
    assert f"gave: notary may read group beginning with {admin.prefix}notary" in made.stdout
    await until(lambda: city_bus(admin, "topics", "--check").returncode == 0, "all as declared")
    assert "24 topics and" in city_bus(admin, "topics", "--apply").stdout
    told = city_bus(admin, "topics", "--json", mode="cluster")
    assert {row["topic"]: row["records"] for row in json.loads(told.stdout)}["city.parking.events.v1"] == 0
    assert json.loads(city_bus(admin, "dead-letters", "--json", mode="cluster").stdout) == []
    assert secured.certificates is not None
    metering = replace(admin, certificates=str(secured.certificates / "metering"))
    refused_to = city_bus(metering, "topics", "--apply")
    assert "use the certificate of an administrator" in refused_to.stderr
    bus = await open_kafka_bus(TOPICS, metering)  # every service sees all topics, whatever it may read of them
    assert len(await bus.topics()) == len(TOPICS)
    await bus.close()


# --- connection ------------------------------------------------------------------------------------


async def test_an_address_nobody_listens_at_is_told(one_broker: Brokers) -> None:
    settings = one_broker.settings("kafka-python", bootstrap=f"127.0.0.1:{free_port()}")
    told = await refused(settings)
    assert "nobody answers at 127.0.0.1" in told
    assert "make up PARTS=kafka" in told


@both
async def test_one_address_of_several_may_be_away(one_broker: Brokers, client: str) -> None:
    settings = one_broker.settings(client, bootstrap=f"127.0.0.1:{free_port()},{one_broker.bootstrap}")
    async with kafka_bus(settings) as bus:
        await bus.publish(messages(5))
        assert sum(state.records for state in await bus.topics()) == 5


async def test_plain_text_to_a_tls_port_and_tls_to_a_plain_port_are_told(one_broker: Brokers, secured: Brokers) -> None:
    plain = secured.settings("kafka-python", security="PLAINTEXT")
    assert "does not take plain text" in await refused(plain)
    tls = secured.settings("kafka-python", bootstrap=one_broker.bootstrap)
    assert "does not speak TLS" in await refused(tls)


async def test_an_expired_certificate_is_told_by_file_and_date(secured: Brokers, tmp_path: Path) -> None:
    ensure_certificates(tmp_path, ["metering"], leaf_days=1e-9)
    told = await refused(secured.settings("kafka-python", certificates=str(tmp_path / "metering")))
    assert "tls.crt expired on" in told
    assert "renew" in told


async def test_a_certificate_of_another_authority_is_told(secured: Brokers, tmp_path: Path) -> None:
    ensure_certificates(tmp_path, ["metering"])
    told = await refused(secured.settings("kafka-python", certificates=str(tmp_path / "metering")))
    assert "does not hold" in told
    assert "another authority" in told
    assert secured.certificates is not None
    (tmp_path / "metering" / "ca.crt").write_bytes((secured.certificates / "admin" / "ca.crt").read_bytes())
    told = await refused(secured.settings("kafka-python", certificates=str(tmp_path / "metering")))
    assert "does not take our certificate" in told


@both
async def test_a_password_opens_and_a_wrong_one_is_told_without_being_shown(
    secured: Brokers, client: str, tmp_path: Path
) -> None:
    assert secured.tls is not None
    set_password(int(secured.bootstrap.rpartition(":")[2]), secured.tls, "admin", "right-horse")
    file = tmp_path / "password"
    file.write_text("right-horse\n")
    settings = secured.settings(
        client, bootstrap=secured.scram_bootstrap, security="SASL_SSL", user="admin", password_file=str(file)
    )
    async with kafka_bus(settings) as bus:
        await bus.publish(messages(5, topic="suite.two"))
        await until(lambda: _records(bus, 5), "5 records")
    file.write_text("wrong-horse")
    told = await refused(settings)
    assert "refuse the credentials of admin" in told
    assert "wrong-horse" not in told


async def _records(bus: Bus, count: int) -> bool:
    return sum(state.records for state in await bus.topics()) == count


# --- rights ----------------------------------------------------------------------------------------


@both
async def test_a_service_publishes_its_own_and_reads_what_it_may(secured: Brokers, client: str) -> None:
    admin = secured.settings(client)
    declared = read_declaration(DECLARED)
    inspector = preflight(admin)
    apply(declared_plans(declared, admin), admin, inspector)
    inspector.close()
    rights = wanted_rights(declared, admin)
    assert len(rights_differences(rights, admin)) >= len(rights)
    apply_rights(rights, admin)
    assert rights_differences(rights, admin) == []
    topics = tuple(topic.topic for topic in declared.topics)

    def own(service: str) -> KafkaSettings:
        assert secured.certificates is not None
        return replace(admin, certificates=str(secured.certificates / service), delivery_s=5.0)

    fact = Message("suite.readings", "k", b"fact")
    metering, notary = await open_kafka_bus(topics, own("metering")), await open_kafka_bus(topics, own("notary"))
    try:
        await metering.publish([fact])
        with pytest.raises(Unavailable, match=r"[Aa]uthoriz"):
            await notary.publish([fact])
        await until(lambda: _reads(notary), "the notary to read")
    finally:
        await metering.close()
        await notary.close()
    assert "is missing, or this user may not see it" in await refused(own("stranger"), topics)


async def _reads(bus: Bus) -> bool:
    collector = Collector()
    async with bus.consume(Subscription("notary", ("suite.readings",), collector)):
        await until(lambda: len(collector.records) >= 1, "the fact")
    return collector.records[0].value == b"fact"
