"""Exchanges a caller's token for one of the called service's audience (RFC 8693), with a small cache. Used by `calls`."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Any

Exchange = Callable[[str, str], Awaitable[tuple[str, int]]]
"""(caller's token, audience) -> (token of that audience, seconds it lives). Identity's ExchangeToken."""

CACHE_MAX = 1_000
CACHE_S = 60.0
TOKEN_MAX = 8_192


class ExchangedTokens:
    """At most 1,000 exchanged tokens, each kept for 60 s at most and never longer than the token it came from."""

    def __init__(self, exchange: Exchange, now: Callable[[], float] = time.time) -> None:
        self._exchange = exchange
        self._now = now
        self._kept: OrderedDict[tuple[bytes, str], tuple[float, str]] = OrderedDict()

    async def of_audience(self, token: str, audience: str) -> str:
        """A token for `audience`. Identity checks `token` at the exchange; its errors pass through."""
        key = (hashlib.sha256(token.encode()).digest(), audience)
        known = self._kept.get(key)
        if known and known[0] > self._now():
            self._kept.move_to_end(key)
            return known[1]
        exchanged, lives_s = await self._exchange(token, audience)
        self._keep(key, exchanged, min(self._now() + min(CACHE_S, lives_s), _expiry(token)))
        return exchanged

    def forget(self, token: str) -> None:
        """Drops what came from `token`, for instance after a service refused it."""
        digest = hashlib.sha256(token.encode()).digest()
        for key in [key for key in self._kept if key[0] == digest]:
            del self._kept[key]

    def _keep(self, key: tuple[bytes, str], token: str, until: float) -> None:
        self._kept[key] = (until, token)
        while len(self._kept) > CACHE_MAX:
            self._kept.popitem(last=False)


def unverified_claims(token: str) -> dict[str, Any]:
    """Claims of a JWT without looking at its signature; {} where it is none. Only for what a forger gains nothing by."""
    try:
        part = token.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    except (IndexError, ValueError, binascii.Error, RecursionError):
        return {}
    return claims if isinstance(claims, dict) else {}


def _expiry(token: str) -> float:
    expiry = unverified_claims(token).get("exp")
    return float(expiry) if isinstance(expiry, int | float) else 0.0


def request_id(token: str, idempotency_key: str) -> str:
    """The request id of a caller's Idempotency-Key: two callers who choose the same key never meet.

    The subject is read unverified: the exchange that precedes every call verifies the same token.
    """
    subject = str(unverified_claims(token).get("sub", ""))
    return "gw-" + hashlib.sha256(f"{subject}\n{idempotency_key}".encode()).hexdigest()[:40]
