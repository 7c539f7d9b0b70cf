"""The same request id, the same answer, once: used by every use case that changes something."""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from typing import Any

from citykit.access import caller_or_none
from citykit.ids import require_request_id
from citykit.store.port import Unit


@dataclass(frozen=True, slots=True)
class Asked:
    """One mutation as it was asked.

    Attributes:
        mark: keyed hash of caller and content, so that what is kept tells nothing of a password or a purpose.
    """

    request_id: str
    rpc: str
    mark: bytes

    def before(self, unit: Unit) -> bytes | None:
        """The answer given before.

        Raises:
            RequestReused: the id came before with other content, or from somebody else.
        """
        return unit.answered(self.request_id, self.rpc, self.mark)

    def keep(self, unit: Unit, answer: bytes) -> bytes:
        """Keeps the answer for retries, and returns it. Never personal data: answers outlive an erasure."""
        unit.answer(self.request_id, self.rpc, self.mark, answer)
        return answer


def asked(key: bytes, request: Any) -> Asked:
    """The present call's mutation.

    Args:
        key: of the service, for the mark.
        request: a message with a `request_id`, named after its RPC.

    Raises:
        InvalidArgument: no usable request id.
    """
    who = caller_or_none()
    subject = who.subject if who else ""
    content = f"{subject}\n".encode() + request.SerializeToString(deterministic=True)
    rpc = request.DESCRIPTOR.name.removesuffix("Request")
    return Asked(require_request_id(request.request_id), rpc, hmac.new(key, content, "sha256").digest())
