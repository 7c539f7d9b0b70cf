"""What the provider says of its own accord: signed, in any order, late, twice, or never. Called by `api`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from citykit.errors import InvalidArgument, PermissionDenied
from citykit.webhooks import verify
from services.payments.app.provider import Provider, key_in, outcome_in
from services.payments.app.settlement import Settlement

BODY_MAX = 16 * 1024


@dataclass(frozen=True)
class Callbacks:
    """`now` is machine time, which the provider's signature is dated with."""

    settlement: Settlement
    provider: Provider
    now: Callable[[], float]

    async def receive(self, body: bytes, signature: str) -> None:
        """Takes an outcome; one that is known, or not certain, or of no operation of ours, changes nothing.

        Raises:
            PermissionDenied: not signed by the provider. InvalidArgument: too long, or no operation.
        """
        if len(body) > BODY_MAX:
            raise InvalidArgument(f"a callback has at most {BODY_MAX} bytes", field="body")
        if not self.provider.secret:
            raise PermissionDenied("this city has no payment provider", reason="no-provider")
        verify(self.provider.secret, body, signature, int(self.now()))
        outcome, key = outcome_in(body), key_in(body)
        if outcome is None or not key:
            raise InvalidArgument("the body must be an operation in JSON: key, outcome, reason", field="body")
        if outcome.certain and await self.settlement.resolve(key, outcome):
            await self.settlement.drive_operation(key)
