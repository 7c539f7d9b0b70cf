"""Brings topics and rights on the brokers to what is declared, and tells the differences. Used by `city bus topics` and the tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from time import monotonic, sleep
from typing import Any

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # the library does not say what it exports
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewTopic,
    ResourceType,
)

from citykit.bus.kafka.client import MESSAGE_BYTES
from citykit.bus.kafka.connection import confluent_settings
from citykit.bus.kafka.declared import Declaration, Declared
from citykit.bus.kafka.inspector import Inspector, TopicFacts
from citykit.bus.kafka.names import Names
from citykit.bus.topics import Topic
from citykit.errors import EnvironmentFault
from citykit.settings import KafkaSettings

_HOUR_MS = 3_600_000
_APPLY_S = 30.0
_AGAIN_S = 0.1


@dataclass(frozen=True)
class TopicPlan:
    """A topic as it shall be on the brokers.

    Attributes:
        config: in the brokers' words; only these are looked at and set.
    """

    name: str
    partitions: int
    copies: int
    config: Mapping[str, str] = field(default_factory=dict)


def plans(topics: Sequence[Topic], settings: KafkaSettings) -> list[TopicPlan]:
    """Each topic with its dead letters and retries, kept as long as the brokers keep what says nothing of it."""
    return [plan for topic in topics for plan in _family(topic, settings, {}, {})]


def declared_plans(declared: Declaration, settings: KafkaSettings) -> list[TopicPlan]:
    """The same, as declared."""
    aside = {"retention.ms": str(declared.letters_retention_hours * _HOUR_MS)}
    return [plan for topic in declared.topics for plan in _family(topic.topic, settings, _own(topic), aside)]


def _own(topic: Declared) -> dict[str, str]:
    policy = "compact" if topic.compaction else "delete"
    return {"retention.ms": str(topic.retention_hours * _HOUR_MS), "cleanup.policy": policy}


def _family(topic: Topic, settings: KafkaSettings, own: Mapping[str, str], aside: Mapping[str, str]) -> list[TopicPlan]:
    names, copies = Names(settings.prefix), settings.replication
    every = {
        "cleanup.policy": "delete",
        "max.message.bytes": str(MESSAGE_BYTES),
        "min.insync.replicas": str(min(2, copies)),
    }
    return [
        TopicPlan(names.topic(topic.name), topic.partitions, copies, {**every, **own}),
        TopicPlan(names.letters(topic.name), 1, copies, {**every, **aside}),
        TopicPlan(names.retry(topic.name), 1, copies, {**every, **aside}),
    ]


def differences(wanted: Sequence[TopicPlan], inspector: Inspector) -> list[str]:
    """A line per difference; raises ClientFault."""
    found = inspector.topics([plan.name for plan in wanted])
    return [line for plan in wanted for line in _different(plan, found.get(plan.name))]


def _different(plan: TopicPlan, found: TopicFacts | None) -> list[str]:
    if found is None:
        return [f"{plan.name} is missing"]
    lines = []
    if found.partitions != plan.partitions:
        lines.append(f"{plan.name}: {found.partitions} partitions, declared {plan.partitions}")
    if found.copies != plan.copies:
        lines.append(f"{plan.name}: {found.copies} copies, declared {plan.copies}")
    for name, value in plan.config.items():
        if name in found.config and found.config[name] != value:
            lines.append(f"{plan.name}: {name} is {found.config[name]}, declared {value}")
    return lines


def apply(wanted: Sequence[TopicPlan], settings: KafkaSettings, inspector: Inspector) -> list[str]:
    """Makes what is missing and sets what may be changed; returns a line per change.

    Raises:
        EnvironmentFault: partitions or copies differ, which no setting changes; or the brokers refused.
        ClientFault: the brokers do not answer.
    """
    found = inspector.topics([plan.name for plan in wanted])
    _refuse_what_cannot_change(wanted, found)
    admin = AdminClient(confluent_settings(settings))
    made = [plan for plan in wanted if plan.name not in found]
    changed = {
        plan.name: change for plan in wanted if plan.name in found and (change := _change(plan, found[plan.name]))
    }
    if made:
        _wait(admin.create_topics([_new(plan) for plan in made], operation_timeout=_APPLY_S))
        _wait_until_led(made, inspector)
    if changed:
        _wait(admin.incremental_alter_configs([_alteration(name, config) for name, config in changed.items()]))
    return [f"made {plan.name}" for plan in made] + [
        f"set {name}: {', '.join(f'{key}={value}' for key, value in config.items())}"
        for name, config in changed.items()
    ]


def _wait_until_led(made: Sequence[TopicPlan], inspector: Inspector) -> None:
    """Made is not yet known: the brokers tell each other, and choose leaders."""
    end = monotonic() + _APPLY_S
    names = [plan.name for plan in made]
    while len(inspector.topics(names)) < len(names):
        if monotonic() > end:
            raise EnvironmentFault(
                f"the topics were made, but not all brokers knew them after {_APPLY_S:.0f} s; look again"
            )
        sleep(_AGAIN_S)
    inspector.ends((plan.name, number) for plan in made for number in range(plan.partitions))


def _refuse_what_cannot_change(wanted: Sequence[TopicPlan], found: Mapping[str, TopicFacts]) -> None:
    """Other partitions would send a key's later messages elsewhere and so break its order."""
    wrong = [
        f"{plan.name} has {found[plan.name].partitions} partitions and {found[plan.name].copies} copies, declared"
        f" {plan.partitions} and {plan.copies}"
        for plan in wanted
        if plan.name in found
        and (found[plan.name].partitions, found[plan.name].copies) != (plan.partitions, plan.copies)
    ]
    if wrong:
        raise EnvironmentFault(
            f"nothing was changed: {'; '.join(wrong)}. Partitions and copies are not changed in place: order per key would be lost."
            " Declare what is there, or move to a new topic name"
        )


def _change(plan: TopicPlan, found: TopicFacts) -> dict[str, str]:
    return {name: value for name, value in plan.config.items() if found.config.get(name) != value}


def _new(plan: TopicPlan) -> NewTopic:
    return NewTopic(plan.name, plan.partitions, plan.copies, config=dict(plan.config))


def _alteration(name: str, config: Mapping[str, str]) -> ConfigResource:
    entries = [ConfigEntry(key, value, incremental_operation=AlterConfigOpType.SET) for key, value in config.items()]
    return ConfigResource(ResourceType.TOPIC, name, incremental_configs=entries)


def _wait(futures: Mapping[Any, Any]) -> None:
    for key, future in futures.items():
        try:
            future.result(timeout=2 * _APPLY_S)
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise EnvironmentFault(f"the brokers refused {key}: {error.args[0].str()}") from error
