"""What the city runs on, in words, for the page and GET /api/v1/city: a ledger of one operator says so where people look."""

from __future__ import annotations

import json
import time
from collections.abc import Callable

from city.notary.v1 import notary_service_pb2 as notary
from citykit.errors import CityError
from services.gateway.app.calls import Calls

_FRESH_S = 60.0
_DEADLINE_S = 2.0
UNKNOWN = "The notary is away: which ledger the city stands on is not known now."


class Backbone:
    """Asks the notary for the trust file, at most once a minute.

    Args:
        alone: every service has a process of its own.
    """

    def __init__(self, calls: Calls, *, alone: bool, now: Callable[[], float] = time.monotonic) -> None:
        self._calls = calls
        self._processes = "A process for each service, on Kafka and PostgreSQL" if alone else "One process"
        self._now = now
        self._words = ""
        self._asked_at = float("-inf")

    async def words(self) -> str:
        """`One process; ledger: embedded ledger: one process, one operator; ...`"""
        if not self._words or self._now() - self._asked_at > _FRESH_S:
            try:
                answer = await self._calls.ask("notary", "GetTrust", notary.GetTrustRequest(), timeout_s=_DEADLINE_S)
            except CityError:
                return self._words or UNKNOWN
            self._words, self._asked_at = f"{self._processes}; {_ledger(answer.json)}.", self._now()
        return self._words


def _ledger(trust: str) -> str:
    ledger = json.loads(trust).get("ledger", {})
    return str(ledger.get("note") or f"ledger: {ledger.get('kind', 'Fabric')} channel {ledger.get('channel', '')}")
