"""Writes what a newcomer can check to `<state>/out`: trust.json and bundles, each checked with the offline verifier. Used by `city.py`."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from city.metering.v1 import metering_service_pb2 as metering
from city.notary.v1 import notary_service_pb2 as notary
from city.parking.v1 import parking_service_pb2 as parking
from city.payments.v1 import payments_service_pb2 as payments
from citykit.clock import Clock, unix
from citykit.errors import CityError, Unavailable
from citykit.ids import system_randomness
from citykit.run import Process
from services.demo.residents import Residents
from services.demo.summary import Summary
from services.gateway.app.calls import Calls
from services.gateway.app.demo import DemoSessions
from services.gateway.main import DEMO_LOGINS as LOGINS
from simulation.neighbourhood import RESIDENT

_ANCHOR_WAIT_S = 60.0
_POLL_S = 0.05
_VERIFY_S = 60.0
_LOOK_S = 2.0
_DAY_S = 86_400


class Artefacts:
    """One run's files.

    Args:
        say: shows what the verifier found wrong.
    """

    def __init__(self, process: Process, state: Path, summary: Summary, say: Callable[[str], None]) -> None:
        self._calls = Calls(partial(process.dial, "gateway"))
        self.residents = Residents(DemoSessions(state / LOGINS, self._calls, system_randomness), self._calls)
        self._out = state / "out"
        self._summary = summary
        self._say = say

    async def bills(self) -> None:
        """trust.json, and the bundles of the resident's bills."""
        await self._trust()
        request = metering.ListBillsRequest(page_size=500)
        for bill in (await self.residents.ask(RESIDENT, "metering", "ListBills", request)).bills:
            if not self._path(bill.id).exists():
                await self._keep(self._path(bill.id), await self._bill(bill.id))

    async def parking(self, logins: Sequence[str], clock: Clock) -> None:
        """The bundle of one finished parking session and the statement of who paid it, once there are any. Runs until both are there."""
        while not list(self._out.glob("bundles/statement-*.json")):
            for login in logins:
                if await self._session_of(login, clock):
                    return
            await asyncio.sleep(_LOOK_S)

    async def _session_of(self, login: str, clock: Clock) -> bool:
        """Whether the resident has a session that can be proven; its bundles are written then."""
        try:
            request = parking.ListReservationsRequest(page_size=20)
            answer = await self.residents.ask(login, "parking", "ListReservations", request)
            one = next((r for r in answer.reservations if r.state == "ended" and r.provable), None)
            if one is None:
                return False
            bundle = await self.residents.ask(
                login, "parking", "GetSessionBundle", parking.GetSessionBundleRequest(reservation=one.id)
            )
            statement = payments.GetStatementBundleRequest()
            statement.from_time.seconds = one.from_time.seconds - _DAY_S
            statement.to_time.seconds = unix(clock)
            account = await self.residents.ask(login, "payments", "GetStatementBundle", statement)
            await self._trust()
        except CityError:
            return False  # not anchored yet, or busy: looked at again
        await self._keep(self._path(f"parking-{one.id}"), bytes(bundle.bundle_json))
        await self._keep(self._path(f"statement-{login}"), bytes(account.bundle_json))
        return True

    async def _trust(self) -> None:
        (self._out / "bundles").mkdir(parents=True, exist_ok=True)
        trust = await self._calls.ask("notary", "GetTrust", notary.GetTrustRequest())
        (self._out / "trust.json").write_text(trust.json + "\n", encoding="utf-8")

    async def _bill(self, bill: str) -> bytes:
        """The bundle, once the bill is anchored."""
        for _ in range(int(_ANCHOR_WAIT_S / _POLL_S)):
            found = await self.residents.ask(RESIDENT, "metering", "GetBill", metering.GetBillRequest(bill=bill))
            if found.bill.provable:
                request = metering.GetBillBundleRequest(bill=bill)
                return bytes((await self.residents.ask(RESIDENT, "metering", "GetBillBundle", request)).bundle_json)
            await asyncio.sleep(_POLL_S)
        raise Unavailable(
            f"the bill {bill} was not anchored within {_ANCHOR_WAIT_S:.0f} s; `city log list` shows the anchors"
        )

    def _path(self, name: str) -> Path:
        return self._out / "bundles" / f"{name}.json"

    async def _keep(self, path: Path, bundle: bytes) -> None:
        """Writes a bundle once the verifier has looked at it, whatever it found."""
        unfinished = path.with_suffix(".part")
        unfinished.write_bytes(bundle)
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "verifier", str(unfinished), "--trust", str(self._out / "trust.json"),
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        async with asyncio.timeout(_VERIFY_S):
            output, _ = await process.communicate()
        unfinished.replace(path)
        self._summary.proofs_checked += 1
        if process.returncode:
            self._summary.proofs_failed += 1
            self._say(output.decode(errors="replace"))
