"""The same request id, the same answer, once: used by every use case that changes something."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

from google.protobuf.message import Message

from citykit.store.port import Store, Unit

R = TypeVar("R", bound=Message)


@dataclass(frozen=True)
class Once(Generic[R]):
    """A mutation's identity and the kind of its answer. `fingerprint` is of the whole request."""

    request_id: str
    rpc: str
    fingerprint: bytes
    kind: type[R]

    def before(self, unit: Unit) -> R | None:
        """The answer given before.

        Raises:
            RequestReused: the id came before with other content.
        """
        found = unit.answered(self.request_id, self.rpc, self.fingerprint)
        return None if found is None else self._parsed(found)

    def keep(self, unit: Unit, answer: R) -> R:
        """Keeps the answer for retries, and returns it."""
        unit.answer(self.request_id, self.rpc, self.fingerprint, answer.SerializeToString(deterministic=True))
        return answer

    async def asked(self, store: Store) -> R | None:
        """`before` in a unit of its own, for use cases that act elsewhere first."""
        return await store.write(self.before)

    def _parsed(self, data: bytes) -> R:
        answer = self.kind()
        answer.ParseFromString(data)
        return answer
