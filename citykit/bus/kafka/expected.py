"""What a service expects of the brokers' topics, checked at its start. `topics` brings about what is declared."""

from __future__ import annotations

from collections.abc import Sequence

from citykit.bus.kafka.client import MESSAGE_BYTES
from citykit.bus.kafka.inspector import Inspector, TopicFacts
from citykit.bus.kafka.names import Names
from citykit.bus.topics import Topic
from citykit.errors import EnvironmentFault
from citykit.settings import KafkaSettings

_SHOWN_MAX = 5


def check_brokers_topics(topics: Sequence[Topic], settings: KafkaSettings, inspector: Inspector) -> None:
    """Each topic is there with its dead letters and retries, its partitions, copies enough and room for the largest message.

    Raises:
        EnvironmentFault: with each difference and what to do.
        ClientFault: the brokers do not answer.
    """
    names = Names(settings.prefix)
    wanted = {
        made: partitions
        for topic in topics
        for made, partitions in (
            (names.topic(topic.name), topic.partitions),
            (names.letters(topic.name), 1),
            (names.retry(topic.name), 1),
        )
    }
    found = inspector.topics(list(wanted))
    wrong = [
        line
        for name, partitions in wanted.items()
        for line in _differences(name, partitions, found.get(name), settings)
    ]
    if wrong:
        rest = f" and {len(wrong) - _SHOWN_MAX} more" if len(wrong) > _SHOWN_MAX else ""
        raise EnvironmentFault(
            f"the topics at {settings.bootstrap} are not as this version needs them: {'; '.join(wrong[:_SHOWN_MAX])}{rest}."
            " `city bus topics --apply` makes what is missing and sets what may be changed; `--check` lists it all"
        )


def _differences(name: str, partitions: int, found: TopicFacts | None, settings: KafkaSettings) -> list[str]:
    if found is None:
        return [f"{name} is missing, or this user may not see it"]
    wrong = []
    if found.partitions != partitions:
        wrong.append(f"{name} has {found.partitions} partitions and must have {partitions}")
    if found.copies < settings.replication:
        wrong.append(f"{name} has {found.copies} copies and must have {settings.replication}")
    if int(found.config.get("max.message.bytes", MESSAGE_BYTES)) < MESSAGE_BYTES:
        wrong.append(
            f"{name} takes messages of {found.config['max.message.bytes']} bytes and must take {MESSAGE_BYTES}"
        )
    if "compact" in found.config.get("cleanup.policy", "delete"):
        wrong.append(f"{name} is compacted, which would take events away")
    return wrong
