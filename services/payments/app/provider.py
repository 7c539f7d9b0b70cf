"""The payment provider behind one class: calls over HTTP, signed; answers are `done`, `refused` or not certain. Called by `app.settlement`.

Wire: `POST /v1/operations` with {key, kind, payment, amount_minor, currency, method, at} acts once for a key, however often it is sent;
`GET /v1/operations/<key>` says what came of it; `GET /v1/operations?from=&to=` lists by `at`. A callback's body is an operation, too.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any

import httpx

from citykit import canonical
from citykit.errors import FailedPrecondition, SettingsError, Unavailable
from citykit.settings import PaymentsSettings
from citykit.webhooks import HEADER, sign
from services.payments.domain.payment import Operation, Payment
from services.payments.domain.reconciliation import Item

DONE, REFUSED, PENDING, ABSENT, AWAY = "done", "refused", "pending", "absent", "away"
REASON_MAX = 64
_CERTAIN = (DONE, REFUSED)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the provider says of an operation: `state` is done, refused, pending (not certain yet), absent (never heard of it) or
    away (no answer, or one that says nothing). `reason` is its word for a refusal."""

    state: str
    reason: str = ""

    @property
    def certain(self) -> bool:
        return self.state in _CERTAIN


class Provider:
    """One HTTP client for the whole service; `close` it at the end.

    Args:
        now: machine time, which the signature is dated with.
    """

    def __init__(self, settings: PaymentsSettings, now: Callable[[], float]) -> None:
        self.secret = _secret(settings)
        self._url = settings.provider_url
        self._now = now
        limits = httpx.Limits(max_connections=32)
        self._client = httpx.AsyncClient(
            base_url=settings.provider_url, timeout=settings.provider_timeout_s, limits=limits, trust_env=False
        )

    def require(self) -> None:
        """Raises: FailedPrecondition, where the city has no provider."""
        if not self._url:
            raise FailedPrecondition(
                "this city has no payment provider; set CITY_PAYMENTS_PROVIDER_URL, or use transfers",
                reason="no-provider",
            )

    async def act(self, operation: Operation, payment: Payment) -> Outcome:
        """Asks for an operation; the same again is safe."""
        body = canonical.encode(
            {
                "key": operation.id,
                "kind": operation.kind,
                "payment": payment.id,
                "amount_minor": operation.amount_minor,
                "currency": payment.currency,
                "method": payment.method,
                "at": operation.created_at,
            }
        )
        headers = {HEADER: sign(self.secret, body, int(self._now())), "Content-Type": "application/json"}
        return await self._asked(self._client.build_request("POST", "/v1/operations", content=body, headers=headers))

    async def status(self, key: str) -> Outcome:
        """What came of an operation."""
        return await self._asked(self._reading(f"/v1/operations/{key}"))

    async def listed(self, from_time: int, to_time: int) -> list[Item]:
        """Money its operations of [from_time, to_time) moved.

        Raises:
            FailedPrecondition: no provider. Unavailable: no answer that can be read.
        """
        self.require()
        try:
            answer = await self._client.send(self._reading(f"/v1/operations?from={from_time}&to={to_time}"))
            answer.raise_for_status()
            rows = json.loads(answer.content)["operations"]
            return [_item(row) for row in rows if row["outcome"] == DONE]
        except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
            raise Unavailable(
                f"the provider does not list its operations ({type(error).__name__}); try again",
                reason="provider-away",
                retry_after_s=5.0,
            ) from None

    async def close(self) -> None:
        await self._client.aclose()

    def _reading(self, path: str) -> httpx.Request:
        headers = {HEADER: sign(self.secret, path.encode(), int(self._now()))}
        return self._client.build_request("GET", path, headers=headers)

    async def _asked(self, request: httpx.Request) -> Outcome:
        try:
            answer = await self._client.send(request)
        except httpx.HTTPError:
            return Outcome(AWAY)
        if answer.status_code == HTTPStatus.NOT_FOUND:
            return Outcome(ABSENT)
        if answer.status_code != HTTPStatus.OK:
            return Outcome(AWAY)
        return outcome_in(answer.content) or Outcome(AWAY)


def outcome_in(body: bytes) -> Outcome | None:
    """What an operation in JSON says; None where it cannot be read."""
    try:
        found = json.loads(body)
        state, reason = str(found["outcome"]), str(found.get("reason", ""))
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    return Outcome(state, _word(reason)) if state in (*_CERTAIN, PENDING) else None


def key_in(body: bytes) -> str:
    """The idempotency key of an operation in JSON; empty where there is none."""
    try:
        found = json.loads(body)["key"]
    except (ValueError, KeyError, TypeError):
        return ""
    return found if isinstance(found, str) else ""


def _item(row: dict[str, Any]) -> Item:
    return Item(str(row["payment"]), str(row["kind"]), int(row["amount_minor"]))


def moved(items: Sequence[Item], kinds: Sequence[str]) -> list[Item]:
    """Those of the kinds that move money."""
    return [item for item in items if item.kind in kinds]


def _word(reason: str) -> str:
    return "".join(char for char in reason[:REASON_MAX] if char.isprintable())


def _secret(settings: PaymentsSettings) -> bytes:
    if not settings.provider_url:
        return b""
    try:
        secret = Path(settings.provider_secret_file).read_bytes().strip()
    except OSError as error:
        raise SettingsError(
            f"CITY_PAYMENTS_PROVIDER_SECRET_FILE cannot be read ({error.strerror}); it holds the key shared with the provider",
            field="CITY_PAYMENTS_PROVIDER_SECRET_FILE",
        ) from None
    if not secret:
        raise SettingsError(
            "CITY_PAYMENTS_PROVIDER_SECRET_FILE is empty; it holds the key shared with the provider",
            field="CITY_PAYMENTS_PROVIDER_SECRET_FILE",
        )
    return secret
