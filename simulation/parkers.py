"""Simulated residents who look for a bay, reserve it, park and pay; some cancel, overstay or never come. Seeded, and few at once.

They are clients like any other: logged in at identity, refused where a person would be. Run by the demo beside the driver.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from google.protobuf.message import Message

from city.parking.v1 import parking_service_pb2 as parking
from city.payments.v1 import payments_service_pb2 as payments
from citykit.clock import ReplayClock, unix
from citykit.errors import CityError
from citykit.ids import Randomness
from simulation.car_parks import CENTRE_E7

SLOT_S = 900
EVERY_S = 0.6
"""Machine seconds between two visits."""
VISITS_MAX = 16
"""Visits at once."""
PARKS, EXTENDS, OVERSTAYS, CANCELS, FORGETS, STAYS_AWAY = (
    "parks",
    "extends",
    "overstays",
    "cancels",
    "forgets",
    "stays away",
)
_WAYS = ((PARKS, 58), (EXTENDS, 8), (OVERSTAYS, 12), (CANCELS, 10), (FORGETS, 4), (STAYS_AWAY, 8))
_METHODS = (("pm_visa", 14), ("pm_later", 1), ("pm_declined", 1))
_LEAD_MACHINE_S = 3.0
"""However fast city time flies, a reservation is made so many machine seconds ahead."""
_LEAD_MIN_S, _LEAD_MAX_S = 1_800, 10 * 86_400
_STAY_SLOTS = (2, 16)
_LIMIT_MINOR = 10_000
_MANDATE_S = 30 * 86_400
_TRIES, _RETRY_S, _DOCUMENTS_MAX = 4, 0.25, 3
_POLL_S = 0.2
_POLLS_MAX = 600
_NEAR_E7 = 90_000


class Residents(Protocol):
    """Asks the city in the name of a resident."""

    async def ask(self, login: str, service: str, rpc: str, request: Message) -> Any: ...


class Barriers(Protocol):
    """The locks at the lots, as a driver in front of one has them."""

    async def show(self, lock: str, document: str) -> bool:
        """Holds an access document to the lock; True if it opened."""


@dataclass(frozen=True)
class Visit:
    """What one resident is up to.

    Attributes:
        lead_slots: quarters of an hour until arrival; stay_slots: how long.
        late_s: how long after the end an overstayer leaves.
    """

    login: str
    way: str
    method: str
    latitude_e7: int
    longitude_e7: int
    lead_slots: int
    stay_slots: int
    late_s: int


def plan(source: random.Random, logins: Sequence[str]) -> Visit:
    """The next visit of a seed."""
    return Visit(
        login=source.choice(logins),
        way=_drawn(source, _WAYS),
        method=_drawn(source, _METHODS),
        latitude_e7=CENTRE_E7[0] + source.randint(-_NEAR_E7, _NEAR_E7),
        longitude_e7=CENTRE_E7[1] + source.randint(-_NEAR_E7, _NEAR_E7),
        lead_slots=source.randint(0, 8),
        stay_slots=source.randint(*_STAY_SLOTS),
        late_s=source.randint(1_200, 3 * 3_600),
    )


class Parkers:
    """All of them.

    Args:
        locks: lock of each lot that has one, by the lot's id.
        randomness: for request ids, which must be new at each start.
    """

    def __init__(
        self,
        seed: int,
        logins: Sequence[str],
        residents: Residents,
        barriers: Barriers,
        locks: dict[str, str],
        clock: ReplayClock,
        randomness: Randomness,
    ) -> None:
        self._source = random.Random(seed)  # noqa: S311 - reproducible on purpose
        self._logins = logins
        self._residents = residents
        self._barriers = barriers
        self._locks = locks
        self._clock = clock
        self._randomness = randomness
        self.did: Counter[str] = Counter()

    async def run(self) -> None:
        """Visits one after the other, some at once, until cancelled."""
        async with asyncio.TaskGroup() as visits:
            room = asyncio.Semaphore(VISITS_MAX)
            while True:
                await room.acquire()
                task = visits.create_task(self.visit(plan(self._source, self._logins)))
                task.add_done_callback(lambda _: room.release())
                await asyncio.sleep(EVERY_S)

    async def visit(self, visit: Visit) -> None:
        """One visit; what the city refuses is counted by its reason."""
        try:
            await self._park(visit)
        except CityError as error:
            self.did[f"refused: {error.reason}"] += 1

    async def _park(self, visit: Visit) -> None:
        lot = await self._advised(visit)
        if lot is None:
            self.did["no bay to reserve"] += 1
            return
        mandate = await self._mandate(visit) if visit.way != FORGETS else ""
        held = await self._held(visit, lot)
        self.did["held"] += 1
        if visit.way == FORGETS:
            return
        confirmed = await self._confirmed(visit, held.id, mandate)
        self.did[confirmed.state] += 1
        if confirmed.state != "confirmed" or visit.way == STAYS_AWAY:
            return
        if visit.way == CANCELS:
            await self._ask(visit, "parking", "Cancel", parking.CancelRequest(reservation=held.id))
            self.did["cancelled"] += 1
            return
        await self._use(visit, confirmed)

    async def _advised(self, visit: Visit) -> str | None:
        """The best lot with bays to reserve."""
        request = parking.AdviseRequest(
            latitude_e7=visit.latitude_e7,
            longitude_e7=visit.longitude_e7,
            stay_minutes=visit.stay_slots * 15,
            walk_minutes_max=60,
            count=10,
        )
        request.arrival_time.seconds = self._arrival(visit)
        answer = await self._residents.ask("", "parking", "Advise", request)
        return next((one.lot for one in answer.advice if one.reservable and one.lot in self._locks), None)

    async def _mandate(self, visit: Visit) -> str:
        request = payments.CreateMandateRequest(
            payee="parking",
            limit_minor=_LIMIT_MINOR,
            currency="GBP",
            payment_method=visit.method,
            lifetime_s=_MANDATE_S,
        )
        answer = await self._ask(visit, "payments", "CreateMandate", request)
        return str(answer.mandate)

    async def _held(self, visit: Visit, lot: str) -> parking.Reservation:
        request = parking.HoldRequest(lot=lot, plate=f"SIM {visit.login[-2:]}")
        request.from_time.seconds = self._arrival(visit)
        request.to_time.seconds = request.from_time.seconds + visit.stay_slots * SLOT_S
        answer = await self._ask(visit, "parking", "Hold", request)
        return answer.reservation  # type: ignore[no-any-return]

    async def _confirmed(self, visit: Visit, reservation: str, mandate: str) -> parking.Reservation:
        request = parking.ConfirmRequest(reservation=reservation, mandate=mandate)
        found = (await self._ask(visit, "parking", "Confirm", request)).reservation
        for _ in range(_POLLS_MAX):
            if found.state != "confirming":
                break
            await asyncio.sleep(_POLL_S)
            question = parking.GetReservationRequest(reservation=reservation)
            found = (await self._residents.ask(visit.login, "parking", "GetReservation", question)).reservation
        return found  # type: ignore[no-any-return]

    async def _use(self, visit: Visit, booked: parking.Reservation) -> None:
        await self._clock.sleep_until(booked.from_time.seconds + 120)
        if not await self._passed(visit, booked, "entry"):
            return
        until = booked.to_time.seconds
        if visit.way == EXTENDS:
            until += SLOT_S
            request = parking.ExtendRequest(reservation=booked.id)
            request.to_time.seconds = until
            with contextlib.suppress(CityError):
                await self._ask(visit, "parking", "Extend", request)
                self.did["extended"] += 1
        leaves = until + visit.late_s if visit.way == OVERSTAYS else until - 300
        await self._clock.sleep_until(leaves)
        await self._passed(visit, booked, "exit")

    async def _passed(self, visit: Visit, booked: parking.Reservation, act: str) -> bool:
        """Shows the lock a document for `act`; a new one where it stays shut: at a high speed one is soon out of date."""
        for _ in range(_DOCUMENTS_MAX):
            request = parking.IssueAccessRequest(reservation=booked.id, act=act)
            document = (await self._ask(visit, "parking", "IssueAccess", request)).document
            if await self._barriers.show(self._locks[booked.lot], document):
                self.did[act] += 1
                return True
        self.did[f"the lock refused the {act}"] += 1
        return False

    async def _ask(self, visit: Visit, service: str, rpc: str, request: Any) -> Any:
        """With a request id of its own, again where the city is busy or away; the id makes that safe."""
        request.request_id = f"parker-{self._randomness(12).hex()}"
        for attempt in range(_TRIES):
            try:
                return await self._residents.ask(visit.login, service, rpc, request)
            except CityError as error:
                if error.retry_after_s is None or attempt == _TRIES - 1:
                    raise
                await asyncio.sleep(_RETRY_S * 2**attempt)
        raise AssertionError("the loop returns or raises")

    def _arrival(self, visit: Visit) -> int:
        """A quarter of an hour that is still ahead when the city has answered, at whatever speed."""
        lead = min(max(_LEAD_MIN_S, int(self._clock.speed * _LEAD_MACHINE_S)), _LEAD_MAX_S)
        return (unix(self._clock) + lead) // SLOT_S * SLOT_S + visit.lead_slots * SLOT_S


def _drawn(source: random.Random, weighted: Sequence[tuple[str, int]]) -> str:
    return source.choices([name for name, _ in weighted], [weight for _, weight in weighted])[0]
