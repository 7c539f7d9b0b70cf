"""What is known while a bundle is checked: the report so far, and what earlier steps have established for later ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from verifier.bill import Slots
from verifier.canonical import Failure, unhex
from verifier.note import Checkpoint
from verifier.package import Package
from verifier.trust import Trust

SALT = 32


@dataclass(frozen=True)
class Step:
    """One check."""

    name: str
    ok: bool
    detail: str


@dataclass
class Report:
    """What was found. `notes` are what a reader should know that is no failure."""

    steps: list[Step] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return bool(self.steps) and all(step.ok for step in self.steps)


@dataclass
class Log:
    """One log of the bundle: where it stands there, its checkpoint once that held, and the commitments opened in it (index -> commitment).

    Attributes:
        anchor: where the anchor stands in the words of messages.
    """

    where: str
    anchor: str
    given: Any
    checkpoint: Checkpoint | None = None
    commitments: dict[int, bytes] = field(default_factory=dict)

    def head(self) -> Checkpoint:
        if self.checkpoint is None:
            raise Failure(f"the checkpoint of {self.where} did not hold")
        return self.checkpoint

    def open(self, index: int, salt: Any, content: bytes, where: str) -> None:
        """Takes down that `content` under `salt` is to be the entry `index`; what is under the commitment is fixed from here on."""
        if index in self.commitments:
            raise Failure(f"{where}: entry {index} is in the bundle twice")
        self.commitments[index] = commit(unhex(salt, SALT, f"{where}.salt"), content)


@dataclass
class Found:
    """What earlier steps have established for later ones."""

    bundle: Any
    trust: Trust
    earlier: str | None
    report: Report
    logs: list[Log]
    packages: list[Package] = field(default_factory=list)
    keys: dict[str, list[Any]] = field(default_factory=dict)
    tariff: Any = None
    slots: Slots | None = None

    def log(self, name: str) -> Log:
        """The city's log of this name.

        Raises:
            Failure: the bundle has none.
        """
        origin = f"{self.bundle['city']}/{name}"
        for log in self.logs:
            if log.head().origin == origin:
                return log
        raise Failure(
            f"these entries are of the log {origin}; the bundle holds {', '.join(log.head().origin for log in self.logs)}"
        )


Check = Callable[[Found], str]
"""A step: says what it found, or raises Failure."""


def commit(salt: bytes, content: bytes) -> bytes:
    """The salted commitment to `content` (docs/PROOFS.md, "Commitment and log")."""
    return sha256(b"city.commitment.v1\n" + salt + content).digest()
