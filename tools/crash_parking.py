"""Residents and a payee of our own for the crash run: they reserve, pay and park at the running city, and remember every answer.

Each act keeps its request id until the city has answered for certain, across kills. Called by `tools.crash`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import secrets
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc.aio

from city.access.v1 import access_pb2
from city.identity.v1 import identity_service_pb2 as identity
from city.parking.v1 import parking_service_pb2 as parking
from city.parking.v1.parking_service_pb2_grpc import ParkingServiceStub
from city.payments.v1 import payments_service_pb2 as payments
from city.simulation.v1 import simulation_service_pb2 as simulation
from citykit.errors import (
    AlreadyExists,
    CityError,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    PermissionDenied,
)
from citykit.ids import system_randomness
from citykit.service import Dial
from services.demo.parking import TARIFF
from services.demo.residents import Residents
from services.gateway.app.calls import Calls
from services.gateway.app.demo import DemoSessions
from simulation.car_parks import CENTRE_E7
from simulation.device import device_signer
from simulation.lock import Lock
from simulation.neighbourhood import Neighbourhood

LOT, LOCK, BAYS = "crash-lot", "crash-lock", 8
RESIDENTS = tuple(f"crash-{number:02d}" for number in range(1, 4))
SLOT_S, DAY_S = 900, 86_400
_AGAIN_S, _PAUSE_S, _CALL_S = 0.2, 0.02, 20.0
_NEAR = 0.6
"""Share of reservations that begin now and are used; the others lie days ahead, and some are cancelled."""
_LINKED = 3
_TAKEN = (parking.PackageResult.OUTCOME_ACCEPTED, parking.PackageResult.OUTCOME_DUPLICATE)
_CERTAIN = (InvalidArgument, NotFound, AlreadyExists, FailedPrecondition, PermissionDenied)
"""A refusal that stays one. Everything else is asked again with the same request id."""


@dataclass
class Promises:
    """What the city answered.

    Attributes:
        held: reservation -> (lot, bay, from, to, quote) as was told.
        reached: reservation -> the newest state that was told.
        transfers: transfer -> (request, debit, credit, amount).
        refused: what it refused for certain, by reason.
    """

    held: dict[str, tuple[str, str, int, int, int]] = field(default_factory=dict)
    reached: dict[str, str] = field(default_factory=dict)
    transfers: dict[str, tuple[str, str, str, int]] = field(default_factory=dict)
    refused: Counter[str] = field(default_factory=Counter)

    def told(self, one: parking.Reservation) -> None:
        self.held.setdefault(one.id, (one.lot, one.bay, one.from_time.seconds, one.to_time.seconds, one.quote_minor))
        self.reached[one.id] = one.state

    def __str__(self) -> str:
        return f"{len(self.held)} reservations, {len(self.transfers)} transfers"


class ParkingLoad:
    """Drives whatever city runs on the state directory, one session at a time.

    Args:
        folder: of the tool itself: logins and the lock's memory outlive the city.
    """

    def __init__(self, folder: Path, seed: int, neighbourhood: Neighbourhood) -> None:
        self.promises = Promises()
        self._source = random.Random(seed)  # noqa: S311 - reproducible on purpose
        self._neighbourhood = neighbourhood
        self._logins = folder / "crash-logins.json"
        self._signer = device_signer(seed, LOCK, "ES256")
        self._lock = Lock(LOCK, self._signer, {}, folder / "crash-lock.json", lifetime_s=3_600)
        self._sending = asyncio.Lock()

    async def run(self, dial: Callable[[str], grpc.aio.Channel]) -> None:
        """Goes on until cancelled, whatever becomes of the city."""
        async with _kept(dial) as channel:
            calls = Calls(channel)
            self._ramp: Any = ParkingServiceStub(channel("parking"))
            await self._set_up(calls)
            residents = Residents(DemoSessions(self._logins, calls, system_randomness), calls)
            async with asyncio.TaskGroup() as works:
                works.create_task(self._pay(calls))
                for login in RESIDENTS:
                    works.create_task(self._park(login, residents, calls))

    # --- setting up --------------------------------------------------------------------------------

    async def _set_up(self, calls: Calls) -> None:
        if not self._logins.exists():
            made = {f"resident:{login}": {"login": login, "password": secrets.token_urlsafe(18)} for login in RESIDENTS}
            self._logins.write_text(json.dumps(made), encoding="utf-8")
        for entry in json.loads(self._logins.read_text(encoding="utf-8")).values():
            person = identity.CreatePersonRequest(
                request_id=f"crash-person-{entry['login']}",
                login=entry["login"],
                display_name=entry["login"],
                roles=[access_pb2.ROLE_RESIDENT],
                password=entry["password"],
            )
            await self._asked(calls, "identity", "CreatePerson", person)
        voucher = self._neighbourhood.vouch(LOCK, self._signer)
        device = identity.Voucher(
            document=voucher.document, signature=voucher.signature, manufacturer=voucher.manufacturer
        )
        devices = identity.RegisterDevicesRequest(request_id="crash-lock", vouchers=[device])
        await self._asked(calls, "identity", "RegisterDevices", devices)
        lots = parking.RegisterLotsRequest(request_id="crash-lot", lots=[_lot()])
        await self._asked(calls, "parking", "RegisterLots", lots)
        accounts = [
            payments.Account(id=f"crash/{name}", currency="GBP", rule=payments.BALANCE_RULE_FREE) for name in "abc"
        ]
        request = payments.CreateAccountsRequest(request_id="crash-accounts", accounts=accounts)
        await self._asked(calls, "payments", "CreateAccounts", request)

    # --- paying ------------------------------------------------------------------------------------

    async def _pay(self, calls: Calls) -> None:
        """Linked transfers, one request after the other."""
        while True:
            request = self._transfers()
            if await self._asked(calls, "payments", "CreateTransfers", request) is not None:
                for one in request.transfers:
                    self.promises.transfers[one.id] = (
                        request.request_id, one.debit_account, one.credit_account, one.amount_minor,
                    )  # fmt: skip
            await asyncio.sleep(_PAUSE_S)

    def _transfers(self) -> payments.CreateTransfersRequest:
        number = secrets.token_hex(8)
        transfers = [
            payments.Transfer(
                id=f"crash-{number}-{place}",
                kind=payments.TRANSFER_KIND_POSTED,
                debit_account=f"crash/{'abc'[place]}",
                credit_account=f"crash/{'bca'[place]}",
                amount_minor=self._source.randint(1, 10_000),
                currency="GBP",
                reference="crash",
            )
            for place in range(_LINKED)
        ]
        return payments.CreateTransfersRequest(request_id=f"crash-{number}", transfers=transfers)

    # --- parking -----------------------------------------------------------------------------------

    async def _park(self, login: str, residents: Residents, calls: Calls) -> None:
        acts = Acts(login, self._source)
        while True:
            replay = await self._asked(calls, "simulation", "GetReplay", simulation.GetReplayRequest())
            now = replay.city_time.seconds
            service, rpc, request = acts.next(now)
            answer = await self._asked_as(login, residents, service, rpc, request)
            if answer is None:
                acts.give_up()
                continue
            if rpc == "IssueAccess":
                await self._pass(answer.document, now, calls)
            elif rpc != "CreateMandate":
                self.promises.told(answer.reservation)
            acts.answered(rpc, answer)
            await asyncio.sleep(_PAUSE_S)

    async def _pass(self, document: str, now: int, calls: Calls) -> None:
        """Shows the lock a document, and brings what the lock says to the city; asked again until it is taken."""
        keys = await self._asked(calls, "parking", "ListAccessKeys", parking.ListAccessKeysRequest())
        self._lock.learn({key.kid: key.public_key for key in keys.keys})
        self._lock.decide(document, now)
        async with self._sending:
            while packages := self._lock.waiting():
                taken = await self._ingested(packages)
                self._lock.sent(taken)
                if taken < len(packages):
                    await asyncio.sleep(_AGAIN_S)

    async def _ingested(self, packages: list[bytes]) -> int:
        """How many of the first were acknowledged."""

        async def requests() -> AsyncIterator[parking.IngestRequest]:
            yield parking.IngestRequest(packages=packages)

        with contextlib.suppress(grpc.aio.AioRpcError):
            async for answer in self._ramp.Ingest(requests(), timeout=_CALL_S):
                for number, result in enumerate(answer.results):
                    if result.outcome not in _TAKEN:
                        self.promises.refused[f"package {result.reason}"] += 1
                        return number
                return len(answer.results)
        return 0

    async def _asked(self, calls: Calls, service: str, rpc: str, request: Any) -> Any:
        return await self._until_certain(lambda: calls.ask(service, rpc, request))

    async def _asked_as(self, login: str, residents: Residents, service: str, rpc: str, request: Any) -> Any:
        return await self._until_certain(lambda: residents.ask(login, service, rpc, request))

    async def _until_certain(self, call: Callable[[], Awaitable[Any]]) -> Any:
        """The answer, asked for again while the city is away; None for a refusal, which is certain."""
        while True:
            try:
                return await call()
            except _CERTAIN as error:
                self.promises.refused[error.reason] += 1
                return None
            except CityError:
                await asyncio.sleep(_AGAIN_S)


class Acts:
    """One resident: what comes next, with the same request until it was answered."""

    def __init__(self, login: str, source: random.Random) -> None:
        self._login = login
        self._source = source
        self._waiting: tuple[str, str, Any] | None = None
        self._start()

    def _start(self) -> None:
        self._plan = ["CreateMandate", "Hold", "Confirm"]
        self._mandate, self._reservation, self._near = "", "", self._source.random() < _NEAR
        if self._near:
            self._plan += ["IssueAccess", "GetReservation", "IssueAccess", "GetReservation"]
        elif self._source.random() < 0.5:  # noqa: PLR2004 - half of those that lie ahead
            self._plan += ["Cancel"]

    def next(self, now: int) -> tuple[str, str, Any]:
        """(service, rpc, request)."""
        if self._waiting is None:
            rpc = self._plan[0]
            request = self._request(rpc, now)
            if hasattr(request, "request_id"):
                request.request_id = f"{self._login}-{secrets.token_hex(8)}"
            self._waiting = ("payments" if rpc == "CreateMandate" else "parking", rpc, request)
        return self._waiting

    def answered(self, rpc: str, answer: Any) -> None:
        self._waiting = None
        self._plan.pop(0)
        if rpc == "CreateMandate":
            self._mandate = answer.mandate
        elif rpc == "Hold":
            self._reservation = answer.reservation.id
        elif rpc == "Confirm" and answer.reservation.state != "confirmed":
            self._plan = []  # declined, or not certain yet: left to the city
        if not self._plan:
            self._start()

    def give_up(self) -> None:
        """The city refused for certain; something new begins."""
        self._waiting = None
        self._start()

    def _request(self, rpc: str, now: int) -> Any:
        if rpc == "CreateMandate":
            return payments.CreateMandateRequest(
                payee="parking", limit_minor=50_000, currency="GBP", payment_method="pm_visa", lifetime_s=60 * DAY_S
            )
        if rpc == "Hold":
            return self._hold(now)
        if rpc == "Confirm":
            return parking.ConfirmRequest(reservation=self._reservation, mandate=self._mandate)
        if rpc == "IssueAccess":
            return parking.IssueAccessRequest(reservation=self._reservation)
        if rpc == "Cancel":
            return parking.CancelRequest(reservation=self._reservation)
        return parking.GetReservationRequest(reservation=self._reservation)

    def _hold(self, now: int) -> parking.HoldRequest:
        request = parking.HoldRequest(lot=LOT)
        ahead = 0 if self._near else self._source.randint(1, 20) * DAY_S
        slots = 96 if self._near else self._source.randint(4, 32)
        request.from_time.seconds = (now + ahead) // SLOT_S * SLOT_S
        request.to_time.seconds = request.from_time.seconds + slots * SLOT_S
        return request


def _lot() -> parking.Lot:
    return parking.Lot(
        id=LOT,
        name="Lot of the crash run",
        operator="crash",
        capacity=BAYS,
        latitude_e7=CENTRE_E7[0] + 500_000,
        longitude_e7=CENTRE_E7[1],
        tariff=TARIFF["id"],
        bays=[f"c{number}" for number in range(1, BAYS + 1)],
        lock=LOCK,
    )


@contextlib.asynccontextmanager
async def _kept(dial: Callable[[str], grpc.aio.Channel]) -> AsyncIterator[Dial]:
    """`dial` with one channel a service, closed at the end."""
    kept: dict[str, grpc.aio.Channel] = {}

    def channel(service: str) -> grpc.aio.Channel:
        if service not in kept:
            kept[service] = dial(service)
        return kept[service]

    try:
        yield channel
    finally:
        await asyncio.gather(*(one.close(None) for one in kept.values()))
