"""Limits failed logins, by login and by address. In memory: a restart forgives."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from citykit.errors import ResourceExhausted

_HOUR_S = 3_600
_KEYS_MAX = 10_000


class Throttle:
    """Tries within an hour, by key; the keys not used for longest are forgotten beyond 10,000.

    Args:
        tries: failed logins an hour for one key.
    """

    def __init__(self, tries: int, now: Callable[[], float]) -> None:
        self._tries = tries
        self._now = now
        self._tried: OrderedDict[str, list[float]] = OrderedDict()

    def begin(self, *keys: str) -> None:
        """Counts a try before it is known how it ends, so that many at once do not slip through.

        Raises:
            ResourceExhausted: a key has failed too often; says when to try again.
        """
        recent = {key: [at for at in self._tried.get(key, ()) if at > self._now() - _HOUR_S] for key in keys}
        full = [tries for tries in recent.values() if len(tries) >= self._tries]
        if full:
            wait = max(tries[-self._tries] for tries in full) + _HOUR_S - self._now()
            message = f"too many failed logins; try again in {int(wait / 60) + 1} minutes"
            raise ResourceExhausted(message, reason="throttled", retry_after_s=wait)
        for key, tries in recent.items():
            self._tried[key] = [*tries, self._now()]
            self._tried.move_to_end(key)
        while len(self._tried) > _KEYS_MAX:
            self._tried.popitem(last=False)

    def succeeded(self, *keys: str) -> None:
        """A right login takes back its own try; failures before it still count."""
        for key in keys:
            if self._tried.get(key):
                self._tried[key].pop()
