"""What topics and groups are called on the brokers: the city's names behind the prefix of the settings."""

from __future__ import annotations

from dataclasses import dataclass

from citykit.bus.rules import RETRY
from citykit.bus.topics import DEAD_LETTERS

REPLAY_GROUP = "bus.replay"
"""Its commits say which dead letters were put back."""


@dataclass(frozen=True)
class Names:
    """A topic `t` has its dead letters in `t.dead-letters`, and what is put back in `t.retry`, which each group reads for its own."""

    prefix: str

    def topic(self, name: str) -> str:
        return self.prefix + name

    def letters(self, name: str) -> str:
        return self.prefix + name + DEAD_LETTERS

    def retry(self, name: str) -> str:
        return self.prefix + name + RETRY

    def group(self, name: str) -> str:
        return self.prefix + name

    def bare(self, found: str) -> str:
        """The city's name of what the brokers call so."""
        return found.removeprefix(self.prefix)

    def is_retry(self, found: str) -> bool:
        return found.endswith(RETRY)
