"""The demo's visitor over HTTP, as the page acts: find parking, reserve, unlock, leave, pay, check. Used by the tests of `city run`."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import httpx

QUARTER = timedelta(minutes=15)
_TRIES, _POLLS, _POLL_S = 12, 2_400, 0.05


class Visitor:
    """ada, with the token the page has. `speeds`: of the replay, as they were seen while the car was parked."""

    def __init__(self, port: int) -> None:
        self._client = httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=30, trust_env=False)
        self._headers: dict[str, str] = {}
        self.speeds: set[int] = set()

    async def park(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """The whole path; the reservation at its end, and what the check said of its bundle."""
        async with self._client:
            await self._until("/api/v1/replay", lambda replay: replay["phase"] == "live")
            session = await self._post("/demo/session", {"as": "resident:ada"})
            self._headers = {"authorization": f"Bearer {session['access_token']}"}
            mandate = await self._post("/api/v1/payments/mandates", _MANDATE)
            path, one = await self._confirmed(mandate["mandate"])
            await self._until("/api/v1/replay", lambda replay: replay["city_time"] >= one["from_time"])
            for state in ("active", "ended"):
                await self._opened(path, state)
                self.speeds.add((await self._get("/api/v1/replay"))["speed"])
            done = await self._until(path, lambda one: one["payment_state"] == "captured" and one["provable"])
            return done, await self._post(f"{path}/check", None)

    async def _confirmed(self, mandate: str) -> tuple[str, dict[str, Any]]:
        """A hold lives for minutes of city time; on a busy machine they may be over before the provider has answered."""
        for _ in range(_TRIES):
            path = f"/api/v1/parking/reservations/{(await self._held())['id']}"
            await self._client.post(f"{path}/confirm", json={"mandate": mandate}, headers=self._keyed())
            one = await self._until(path, lambda one: one["state"] in {"confirmed", "expired"})
            if one["state"] == "confirmed":
                return path, one
        raise AssertionError(f"no reservation was confirmed: {one}")

    async def _held(self) -> dict[str, Any]:
        """A bay from an hour ahead on; at the demo's speed the city may be further when it is asked, so it is asked anew."""
        for _ in range(_TRIES):
            lot = await self._advised(await self._now() + 12 * QUARTER)
            begins = await self._now() + 5 * QUARTER
            begins -= timedelta(minutes=begins.minute % 15, seconds=begins.second, microseconds=begins.microsecond)
            asked = {"lot": lot, "from_time": begins.isoformat(), "to_time": (begins + 8 * QUARTER).isoformat()}
            answer = await self._client.post("/api/v1/parking/reservations", json=asked, headers=self._keyed())
            if answer.is_success:
                held: dict[str, Any] = answer.json()
                return held
        raise AssertionError(f"no bay could be held: {answer.text}")

    async def _now(self) -> datetime:
        return datetime.fromisoformat((await self._get("/api/v1/replay"))["city_time"])

    async def _advised(self, arrival: datetime) -> str:
        place = {"latitude_e7": 524_796_000, "longitude_e7": -19_026_000, "walk_minutes_max": 60, "count": 10}
        answer = await self._get("/api/v1/parking/advice", arrival=arrival.isoformat(), stay_minutes=120, **place)
        return next(str(one["lot"]) for one in answer["advice"] if one["reservable"])

    async def _opened(self, path: str, state: str) -> None:
        """Asks the lock to open until the car is through; an instruction may be too late for a clock that flies."""
        for _ in range(_TRIES):
            await self._post(f"{path}/unlock", {})
            for _ in range(60):
                if (await self._get(path))["state"] == state:
                    return
                await asyncio.sleep(_POLL_S)
        raise AssertionError(f"the lock never made it {state}")

    async def _until(self, path: str, good: Callable[[Any], bool]) -> dict[str, Any]:
        for _ in range(_POLLS):
            try:
                answer = await self._client.get(path, headers=self._headers)
                if answer.is_success and good(found := answer.json()):
                    return dict(found)
            except httpx.TransportError:
                pass  # not listening yet
            await asyncio.sleep(_POLL_S)
        raise AssertionError(f"{path} never came to what was waited for: {answer.text}")

    async def _get(self, path: str, **query: Any) -> Any:
        answer = await self._client.get(path, params=query, headers=self._headers)
        assert answer.is_success, answer.text
        return answer.json()

    async def _post(self, path: str, body: Any) -> Any:
        answer = await self._client.post(path, json=body, headers=self._keyed())
        assert answer.is_success, answer.text
        return answer.json()

    def _keyed(self) -> dict[str, str]:
        return {**self._headers, "idempotency-key": str(uuid.uuid4())}


_MANDATE = {"payee": "parking", "limit_minor": 20_000, "currency": "GBP", "payment_method": "pm_visa"}
