"""The same request id, the same answer, once: used by every use case that changes something."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Generic, TypeVar

from google.protobuf.message import Message

from citykit.access import caller_or_none
from citykit.ids import require_request_id
from citykit.store.port import Store, Unit

R = TypeVar("R", bound=Message)
_SERVICE = "service:"


@dataclass(frozen=True)
class Once(Generic[R]):
    """A mutation's identity and the kind of its answer. `mark` stands for the whole request and, where a person asks, for who asks."""

    request_id: str
    rpc: str
    mark: bytes
    kind: type[R]

    @classmethod
    def of(cls, request: Any, kind: type[R]) -> Once[R]:
        """The present call's mutation; `request` has a `request_id` and is named after its RPC, `kind` is its answer.

        Raises:
            InvalidArgument: no usable request id.
        """
        who = caller_or_none()
        person = who.subject if who and not who.subject.startswith(_SERVICE) else ""
        content = request.SerializeToString(deterministic=True)
        mark = sha256(person.encode() + b"\n" + content if person else content).digest()
        return cls(require_request_id(request.request_id), request.DESCRIPTOR.name.removesuffix("Request"), mark, kind)

    def before(self, unit: Unit) -> R | None:
        """The answer given before.

        Raises:
            RequestReused: the id came before with other content, or from somebody else.
        """
        found = unit.answered(self.request_id, self.rpc, self.mark)
        return None if found is None else self._parsed(found)

    def keep(self, unit: Unit, answer: R) -> R:
        """Keeps the answer for retries, and returns it. Never personal data: answers outlive an erasure."""
        unit.answer(self.request_id, self.rpc, self.mark, answer.SerializeToString(deterministic=True))
        return answer

    async def asked(self, store: Store) -> R | None:
        """`before` in a unit of its own, for use cases that act elsewhere first."""
        return await store.write(self.before)

    def _parsed(self, data: bytes) -> R:
        answer = self.kind()
        answer.ParseFromString(data)
        return answer
