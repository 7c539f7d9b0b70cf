"""What the fake services share: the moment, the list of calls, tokens only the fakes believe."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, field
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from citykit.errors import RequestReused, Unauthenticated

NOW = 1_478_606_400
"""2016-11-08T12:00:00Z."""
SLOT = 1_800
DAY = 86_400
METERS = 100
TX = "9f" * 32
_FAR = 4_000_000_000


def at(seconds: int) -> Timestamp:
    return Timestamp(seconds=seconds)


def fake_token(role: str, subject: str = "ada", audience: str = "gateway") -> str:
    """A token of the form the gateway reads; only the fakes believe it. `role`: one, or several joined by `+`."""
    claims = json.dumps({"sub": subject, "aud": audience, "roles": role.split("+"), "exp": _FAR}).encode()
    return f"e30.{base64.urlsafe_b64encode(claims).rstrip(b'=').decode()}.fake"


def claims_of(token: str) -> dict[str, Any]:
    """Claims of a fake token.

    Raises:
        Unauthenticated: it is none.
    """
    parts = token.split(".")
    if len(parts) != 3 or parts[2] != "fake":
        raise Unauthenticated("the access token does not verify", reason="bad-token")
    claims = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    assert isinstance(claims, dict)
    return claims


@dataclass
class Asked:
    """What the fakes were asked, and what they shall raise instead of answering."""

    requests: list[tuple[str, Any]] = field(default_factory=list)
    errors: dict[str, Exception] = field(default_factory=dict)
    answers: dict[tuple[str, str], tuple[bytes, Any]] = field(default_factory=dict)
    forgetful: bool = False
    """No memory of request ids: for generated requests, which repeat them by chance."""

    phase: str = "live"
    bundle: str = "fine"
    later_s: int = 0
    """How far the replay has gone on from `NOW`."""
    lock_answers: bool = True
    """False: the lock has not said yet that it opened."""
    too_late_s: int = 0
    """Reservations that begin earlier than so long after `NOW` are refused."""
    provider_answers: bool = True
    """False: the payment provider keeps silent."""

    def of(self, rpc: str) -> list[Any]:
        return [request for name, request in self.requests if name == rpc]

    def note(self, rpc: str, request: Any) -> None:
        self.requests.append((rpc, request))
        if rpc in self.errors:
            raise self.errors[rpc]

    def once(self, rpc: str, request: Any, answer: Any) -> Any:
        """The answer given before to this request id; another content is refused, as in the city."""
        self.note(rpc, request)
        if self.forgetful:
            return answer
        content = request.SerializeToString(deterministic=True)
        known = self.answers.setdefault((rpc, request.request_id), (content, answer))
        if known[0] != content:
            raise RequestReused("this request id came before with other content; use a new one", field="request_id")
        return known[1]
