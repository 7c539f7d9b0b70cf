"""Simulated residents and locks against a city made up for it: every way of parking, refusals, instructions, a lock that is offline."""

from __future__ import annotations

import asyncio
import base64
import json
import random
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.message import Message

from city.parking.v1 import parking_service_pb2 as parking
from city.payments.v1 import payments_service_pb2 as payments
from citykit import canonical
from citykit.clock import ReplayClock
from citykit.errors import FailedPrecondition, Unavailable
from citykit.ids import seeded_randomness
from citykit.package import ENTRY, NO_PREVIOUS, UNLOCK, Es256Signer, Reading, parse_package, sign_package
from citykit.testing.polling import until
from simulation import parkers
from simulation.barriers import Barriers
from simulation.car_parks import CarParks
from simulation.faults import LOCK_OFFLINE, Faults
from simulation.parkers import Parkers, Visit, plan

NOON = 1_478_606_400
SPEED = 30_000
PARKS = CarParks(7, None, lots=4)
LOCKS = {lot.id: lot.lock for lot in PARKS.reservable}
KEY = Es256Signer.from_seed(sha256(b"parking").digest())
KID = "parking-1"


class City:
    """Answers parkers as the services would; `trouble` is raised once for an RPC."""

    def __init__(self, clock: ReplayClock) -> None:
        self._clock = clock
        self.asked: Counter[str] = Counter()
        self.request_ids: dict[str, list[str]] = {}
        self.trouble: dict[str, Exception] = {}
        self.confirmed = "confirmed"
        self.reservations: dict[str, parking.Reservation] = {}

    @property
    def one(self) -> parking.Reservation:
        return next(iter(self.reservations.values()))

    async def ask(self, login: str, service: str, rpc: str, request: Message) -> Any:
        self.asked[rpc] += 1
        self.request_ids.setdefault(rpc, []).append(getattr(request, "request_id", ""))
        if rpc in self.trouble:
            raise self.trouble.pop(rpc)
        return getattr(self, rpc)(request)

    def Advise(self, request: parking.AdviseRequest) -> parking.AdviseResponse:
        return parking.AdviseResponse(
            advice=[parking.Advice(lot="p02"), parking.Advice(lot="p01", reservable=True, price_minor=100)]
        )

    def CreateMandate(self, request: payments.CreateMandateRequest) -> payments.CreateMandateResponse:
        assert request.payee == "parking"
        return payments.CreateMandateResponse(mandate="m-1")

    def Hold(self, request: parking.HoldRequest) -> parking.HoldResponse:
        assert (request.from_time.seconds % 900, request.to_time.seconds % 900) == (0, 0)
        assert request.from_time.seconds > self._clock.now()
        one = parking.Reservation(id=f"r-{len(self.reservations)}", lot=request.lot, state="held")
        one.from_time.seconds, one.to_time.seconds = request.from_time.seconds, request.to_time.seconds
        self.reservations[one.id] = one
        return parking.HoldResponse(reservation=one)

    def Confirm(self, request: parking.ConfirmRequest) -> parking.ConfirmResponse:
        assert request.mandate == "m-1"
        self.reservations[request.reservation].state = "confirming"
        return parking.ConfirmResponse(reservation=self.reservations[request.reservation])

    def GetReservation(self, request: parking.GetReservationRequest) -> parking.GetReservationResponse:
        self.reservations[request.reservation].state = self.confirmed
        return parking.GetReservationResponse(reservation=self.reservations[request.reservation])

    def Cancel(self, request: parking.CancelRequest) -> parking.CancelResponse:
        return parking.CancelResponse()

    def Extend(self, request: parking.ExtendRequest) -> parking.ExtendResponse:
        assert request.to_time.seconds == self.reservations[request.reservation].to_time.seconds + 900
        return parking.ExtendResponse()

    def IssueAccess(self, request: parking.IssueAccessRequest) -> parking.IssueAccessResponse:
        return parking.IssueAccessResponse(document=f"{request.act} {self.asked['IssueAccess']}")


class Doors:
    """Locks that open, from the `shut`-th document on."""

    def __init__(self, shut: int = 0) -> None:
        self.shown: list[str] = []
        self._shut = shut

    async def show(self, lock: str, document: str) -> bool:
        self.shown.append(document)
        return len(self.shown) > self._shut


def visit(way: str) -> Visit:
    return Visit("parker-01", way, "pm_visa", 0, 0, lead_slots=1, stay_slots=4, late_s=3_600)


async def visited(city: City, clock: ReplayClock, way: str, doors: Doors | None = None) -> Parkers:
    clock.run(SPEED)
    found = Parkers(7, ["parker-01"], city, doors or Doors(), LOCKS, clock, seeded_randomness(1))
    await found.visit(visit(way))
    return found


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parkers, "_POLL_S", 0.0)
    monkeypatch.setattr(parkers, "_RETRY_S", 0.0)
    monkeypatch.setattr(parkers, "_LEAD_MACHINE_S", 0.1)


@pytest.mark.parametrize(
    ("way", "did"),
    [
        ("parks", {"held": 1, "confirmed": 1, "entry": 1, "exit": 1}),
        ("extends", {"held": 1, "confirmed": 1, "entry": 1, "extended": 1, "exit": 1}),
        ("overstays", {"held": 1, "confirmed": 1, "entry": 1, "exit": 1}),
        ("cancels", {"held": 1, "confirmed": 1, "cancelled": 1}),
        ("forgets", {"held": 1}),
        ("stays away", {"held": 1, "confirmed": 1}),
    ],
)
async def test_every_way_of_parking(way: str, did: dict[str, int]) -> None:
    clock = ReplayClock(NOON)
    city = City(clock)
    assert (await visited(city, clock, way)).did == did
    if way == "overstays":
        assert clock.now() >= city.one.to_time.seconds + 3_600


async def test_refusals_are_counted_and_a_busy_city_is_asked_again_with_the_same_id() -> None:
    clock = ReplayClock(NOON)
    city = City(clock)
    city.trouble = {"Hold": FailedPrecondition("full", reason="lot-full")}
    assert (await visited(city, clock, "parks")).did == {"refused: lot-full": 1}
    city.trouble = {"Hold": Unavailable("away", retry_after_s=1)}
    city.request_ids.clear()
    assert (await visited(city, clock, "stays away")).did["held"] == 1
    assert len(city.request_ids["Hold"]) == 2
    assert len(set(city.request_ids["Hold"])) == 1
    city.confirmed = "declined"
    assert (await visited(city, clock, "parks")).did == {"held": 1, "declined": 1}


async def test_a_lock_that_stays_shut_is_shown_new_documents_and_then_left() -> None:
    clock = ReplayClock(NOON)
    city = City(clock)
    doors = Doors(shut=1)
    assert (await visited(city, clock, "parks", doors)).did["exit"] == 1
    assert doors.shown[:2] == ["entry 1", "entry 2"]
    assert (await visited(City(clock), clock, "parks", Doors(shut=9))).did == {
        "held": 1, "confirmed": 1, "the lock refused the entry": 1,
    }  # fmt: skip


async def test_where_no_bay_can_be_reserved_nobody_is_held() -> None:
    clock = ReplayClock(NOON)
    city = City(clock)
    found = Parkers(7, ["parker-01"], city, Doors(), {}, clock, seeded_randomness(1))
    await found.visit(visit("parks"))
    assert found.did == {"no bay to reserve": 1}


async def test_visits_go_on_until_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parkers, "EVERY_S", 0.0)
    clock = ReplayClock(NOON)
    clock.run(SPEED)
    found = Parkers(7, ["parker-01"], City(clock), Doors(), LOCKS, clock, seeded_randomness(1))
    task = asyncio.create_task(found.run())
    await until(lambda: found.did["held"] >= 30, "thirty visits")
    task.cancel()
    await asyncio.wait({task})
    assert task.cancelled()


def test_the_same_seed_gives_the_same_visits_of_every_kind() -> None:
    first, second = ([plan(random.Random(3), ["a", "b"])] for _ in range(2))
    assert first == second
    source = random.Random(3)
    ways = Counter(plan(source, ["a"]).way for _ in range(300))
    assert len(ways) == 6
    assert ways["parks"] > 120


# --- locks --------------------------------------------------------------------------------------------


def document(lock: str, number: int, act: str, now: int) -> str:
    claims = {
        "iss": "city", "aud": lock, "sub": "r-1", "jti": str(number), "act": act, "lot": "p01", "bay": "b01",
        "iat": now, "nbf": now, "exp": now + 600,
    }  # fmt: skip
    header = {"alg": "ES256", "kid": KID, "typ": "city-access+jwt"}
    parts = [base64.urlsafe_b64encode(canonical.encode(part)).rstrip(b"=") for part in (header, claims)]
    signature = base64.urlsafe_b64encode(KEY.sign(b".".join(parts))).rstrip(b"=")
    return b".".join([*parts, signature]).decode()


class Service:
    """Parking, as locks see it."""

    def __init__(self) -> None:
        self.keys = [parking.AccessKey(kid=KID, public_key=KEY.public_key)]
        self.instructions: dict[str, list[bytes]] = {}
        self.taken: list[bytes] = []
        self.outcomes: list[Any] = []

    async def ListAccessKeys(self, request: Any) -> parking.ListAccessKeysResponse:
        return parking.ListAccessKeysResponse(keys=self.keys)

    async def ListInstructions(self, request: parking.ListInstructionsRequest) -> parking.ListInstructionsResponse:
        found = self.instructions.get(request.lock, [])
        return parking.ListInstructionsResponse(instructions=found[request.after_sequence :])

    async def Ingest(self, requests: AsyncIterator[parking.IngestRequest]) -> AsyncIterator[parking.IngestResponse]:
        async for request in requests:
            outcomes = [self.outcomes.pop(0) if self.outcomes else 1 for _ in request.packages]
            self.taken += [package for package, outcome in zip(request.packages, outcomes, strict=True) if outcome == 1]
            yield parking.IngestResponse(
                results=[
                    parking.PackageResult(outcome=parking.PackageResult.Outcome.ValueType(o), reason="x")
                    for o in outcomes
                ]
            )


@pytest.fixture
def lock() -> str:
    return PARKS.reservable[0].lock


def barriers(folder: Path, clock: ReplayClock, faults: Sequence[str] = (), act: str = "entry") -> Barriers:
    async def side(lot: str) -> str:
        assert lot in LOCKS
        return act

    return Barriers(PARKS, clock, Faults([], faults, PARKS.targets()), folder, side, 120)


async def test_a_lock_opens_offline_once_and_tells_the_city_later(tmp_path: Path, lock: str) -> None:
    clock, service = ReplayClock(NOON), Service()
    doors = barriers(tmp_path, clock, [LOCK_OFFLINE])
    assert not await doors.show(lock, document(lock, 1, "entry", NOON))
    await doors.round(service)
    assert await doors.show(lock, document(lock, 2, "entry", NOON))
    assert not await doors.show(lock, document(lock, 2, "entry", NOON))
    await doors.round(service)
    assert service.taken == []
    online = barriers(tmp_path, clock)
    await online.round(service)
    [package] = map(parse_package, service.taken)
    assert (package.device, package.measure, package.values, package.algorithm) == (lock, ENTRY, (2,), "ES256")
    assert doors.did == {"refused: unknown-key": 1, "entry": 1, "refused: replayed": 1}


async def test_an_instruction_is_fetched_and_obeyed_on_the_side_the_car_stands(tmp_path: Path, lock: str) -> None:
    clock, service = ReplayClock(NOON), Service()
    instruction = sign_package(KEY, f"parking-{lock}", 1, NO_PREVIOUS, [Reading(NOON, 7)], UNLOCK)
    service.instructions[lock] = [instruction]
    doors = barriers(tmp_path, clock, act="exit")
    for _ in range(3):
        await doors.round(service)
    assert doors.did == {"exit": 1}
    assert [parse_package(data).measure.name for data in service.taken] == ["exit"]


async def test_what_the_city_defers_is_sent_again_and_what_it_refuses_is_not(tmp_path: Path, lock: str) -> None:
    clock, service = ReplayClock(NOON), Service()
    doors = barriers(tmp_path, clock)
    await doors.round(service)
    for number in (1, 2, 3):
        assert await doors.show(lock, document(lock, number, "entry", NOON))
    service.outcomes = [3, 4, 4]
    await doors.round(service)
    assert (service.taken, doors.did["package refused: x"]) == ([], 1)
    await doors.round(service)
    assert [parse_package(data).values for data in service.taken] == [(2,), (3,)]
    kept = json.loads((tmp_path / f"{lock}.json").read_text(encoding="utf-8"))
    assert kept["queue"] == []


async def test_before_parking_has_keys_nothing_is_fetched(tmp_path: Path) -> None:
    service = Service()
    service.keys = []
    doors = barriers(tmp_path, ReplayClock(NOON))
    await doors.round(service)
    service.keys = [parking.AccessKey(kid=KID, public_key=KEY.public_key)]
    await doors.round(service)
    assert doors.did == {}
