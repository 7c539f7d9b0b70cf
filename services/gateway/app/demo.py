"""Sessions for the demo's dashboard: the demo logins stand in a file the composition root writes. Never outside a demo."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from city.identity.v1 import identity_service_pb2 as identity
from citykit.errors import NotFound, Unavailable
from citykit.ids import Randomness
from services.gateway.app.calls import Calls

LOGINS_MAX = 100
RENEW_S = 60
"""A kept session is handed out again only if it lives for this long."""
CLIENT = "dashboard"
REDIRECT = "/"


@dataclass(frozen=True)
class Session:
    """A token for the page. `expires_at`: machine time, unix seconds."""

    access_token: str
    expires_at: float
    scope: str


class DemoSessions:
    """Logs in as one of the demo's people by the same code flow a person uses, and keeps the token while it lives."""

    def __init__(
        self, logins: Path, calls: Calls, randomness: Randomness, now: Callable[[], float] = time.time
    ) -> None:
        self._logins = logins
        self._calls = calls
        self._randomness = randomness
        self._now = now
        self._kept: dict[str, Session] = {}
        self._lock = asyncio.Lock()

    async def open(self, name: str) -> Session:
        """A session as `name`, for instance `resident:ada`.

        Raises:
            NotFound: no such demo login.
            Unavailable: the city has not made its logins yet.
        """
        async with self._lock:
            kept = self._kept.get(name)
            if kept is None or kept.expires_at < self._now() + RENEW_S:
                self._kept[name] = await self._log_in(await asyncio.to_thread(self._login, name))
            return self._kept[name]

    async def names(self) -> list[str]:
        """Who can be looked at; empty while the city starts."""
        try:
            return sorted(await asyncio.to_thread(self._read))
        except Unavailable:
            return []

    def _read(self) -> dict[str, dict[str, str]]:
        try:
            logins = json.loads(self._logins.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            raise Unavailable(
                "the demo's logins are not there yet; try again in a few seconds", retry_after_s=2
            ) from None
        return dict(list(logins.items())[:LOGINS_MAX])

    def _login(self, name: str) -> dict[str, str]:
        logins = self._read()
        if name not in logins:
            raise NotFound(
                f"no such demo login; there are {', '.join(sorted(logins))}", reason="no-such-login", field="body.as"
            )
        return logins[name]

    async def _log_in(self, login: dict[str, str]) -> Session:
        verifier = base64.urlsafe_b64encode(self._randomness(32)).rstrip(b"=").decode()
        challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
        authorized = await self._calls.ask(
            "identity", "Authorize",
            identity.AuthorizeRequest(
                client_id=CLIENT, redirect_uri=REDIRECT, scope="openid", code_challenge=challenge, code_challenge_method="S256",
                login=login["login"], password=login["password"], throttle_key="demo",
            ),
        )  # fmt: skip
        answer = await self._calls.ask(
            "identity", "ExchangeCode",
            identity.ExchangeCodeRequest(client_id=CLIENT, redirect_uri=REDIRECT, code=authorized.code, code_verifier=verifier),
        )  # fmt: skip
        return Session(answer.access_token, self._now() + answer.expires_in_s, answer.scope)
