"""Topics as data: reads the file that declares them. Used by `city bus topics` and the tests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from citykit.bus.topics import Topic
from citykit.errors import SettingsError

_KEYS = {"defaults", "dead_letters", "topics"}
_TOPIC_KEYS = {"owner", "readers", "partitions", "retention_hours", "compaction"}


@dataclass(frozen=True)
class Declared:
    """One topic.

    Attributes:
        owner: the service that publishes.
        readers: the services that may read.
        retention_hours: how long a message is kept.
        compaction: whether a later message of a key replaces the earlier one.
    """

    name: str
    owner: str
    readers: tuple[str, ...]
    partitions: int
    retention_hours: int
    compaction: bool

    @property
    def topic(self) -> Topic:
        """What the adapters need of it."""
        return Topic(self.name, self.owner, partitions=self.partitions)


@dataclass(frozen=True)
class Declaration:
    """All of a city's topics."""

    topics: tuple[Declared, ...]
    letters_retention_hours: int


def read_declaration(text: str) -> Declaration:
    """The topics a YAML document declares.

    Raises:
        SettingsError: a word it does not know, or one that is missing.
    """
    document = yaml.safe_load(text)
    _only(document, _KEYS, "the file")
    defaults = document.get("defaults", {})
    _only(defaults, _TOPIC_KEYS - {"owner", "readers"}, "defaults")
    topics = tuple(_declared(name, {**defaults, **values}) for name, values in document["topics"].items())
    return Declaration(topics, int(document["dead_letters"]["retention_hours"]))


def _declared(name: str, values: Mapping[str, Any]) -> Declared:
    _only(values, _TOPIC_KEYS, name)
    if missing := sorted(_TOPIC_KEYS - set(values)):
        raise SettingsError(f"topic {name} does not say {', '.join(missing)}; say it there or in defaults")
    return Declared(
        name,
        str(values["owner"]),
        tuple(values["readers"]),
        int(values["partitions"]),
        int(values["retention_hours"]),
        bool(values["compaction"]),
    )


def _only(values: Mapping[str, Any], known: set[str], where: str) -> None:
    if unknown := sorted(set(values) - known):
        raise SettingsError(f"{where} holds {unknown[0]!r}, which is none of {', '.join(sorted(known))}")
