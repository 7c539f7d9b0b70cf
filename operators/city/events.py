"""Events of the City resource, as `kubectl describe` shows them; limited, so that no loop of ours floods the API server. Called by `reconcile`."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime

from citykit.errors import CityError
from citykit.telemetry import logger
from operators.city.kube import CITY, MANAGER, Api, Object, api_version

BURST = 10
EVERY_S = 6.0
"""One more after each of these."""
SAME_S = 60.0
"""The same sentence is not told again for so long."""
_NOTE_MAX = 1_000


class Events:
    """Tells at most `BURST` at once and one every `EVERY_S` on average; what is too much is counted and dropped.

    Args:
        monotonic: seconds that never go back.
    """

    def __init__(self, api: Api, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._api = api
        self._monotonic = monotonic
        self._room, self._filled = float(BURST), monotonic()
        self._told: dict[str, float] = {}
        self._number = 0
        self.dropped = 0

    async def tell(self, city: Object, reason: str, note: str, *, warning: bool = False) -> None:
        """Never raises: an event that cannot be written holds no rollout up."""
        if not self._may(f"{reason} {note}"):
            self.dropped += 1
            return
        try:
            await self._api.create(self._event(city, reason, note, "Warning" if warning else "Normal"))
        except CityError as error:
            logger("operator").warning("event-lost", extra={"fields": {"why": error.reason}})

    def _may(self, text: str) -> bool:
        now = self._monotonic()
        self._room = min(float(BURST), self._room + (now - self._filled) / EVERY_S)
        self._filled = now
        self._told = {said: at for said, at in self._told.items() if now - at < SAME_S}
        if text in self._told or self._room < 1.0:
            return False
        self._room -= 1.0
        self._told[text] = now
        return True

    def _event(self, city: Object, reason: str, note: str, kind: str) -> Object:
        metadata, now = city["metadata"], datetime.now(UTC)
        self._number += 1
        stamp = now.strftime("%Y-%m-%dT%H:%M:%SZ")
        return {
            "apiVersion": api_version("Event"),
            "kind": "Event",
            "metadata": {"name": f"{metadata['name']}.{int(now.timestamp() * 1e6):x}{self._number:x}"},
            "involvedObject": {
                "apiVersion": api_version(CITY),
                "kind": CITY,
                "name": metadata["name"],
                "namespace": metadata.get("namespace", self._api.namespace),
                "uid": metadata["uid"],
            },
            "reason": reason,
            "message": note[:_NOTE_MAX],
            "type": kind,
            "source": {"component": MANAGER},
            "firstTimestamp": stamp,
            "lastTimestamp": stamp,
            "count": 1,
        }
