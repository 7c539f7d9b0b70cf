"""Which request ids may have held a bay: only those are looked up before an attempt is refused. Called by `app.holds`."""

from __future__ import annotations

from citykit.store.port import Store
from services.parking.store.requests import hold_requests

IDS_MAX = 200_000


class Remembered:
    """All of them in memory; where there are more than 200,000, every id counts as known and is looked up."""

    def __init__(self, store: Store, ids_max: int = IDS_MAX) -> None:
        self._store = store
        self._ids_max = ids_max
        self._ids: set[str] = set()
        self._all_known = True

    async def load(self) -> None:
        """What the store holds; once, at start."""
        for request_id in await self._store.read(lambda c: hold_requests(c, self._ids_max + 1)):
            self.add(request_id)

    def known(self, request_id: str) -> bool:
        """Whether an attempt with this id was made before, as far as one can tell."""
        return not self._all_known or request_id in self._ids

    def add(self, request_id: str) -> None:
        """An attempt is being made."""
        self._ids.add(request_id)
        if len(self._ids) > self._ids_max:
            self._all_known = False
            self._ids.clear()
