"""No interleaving of holds, confirmations, extensions, uses, cancellations, retries, expiries and crashes gives a bay twice.

Over the real store. A crash loses what was not committed and everything in memory: the database's files are copied as a kill would leave them
and opened again. What must hold is computed from reservations and from what callers were told, not from the table of promises.
"""

from __future__ import annotations

import asyncio
import itertools
import shutil
import tempfile
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from sqlalchemy import Connection, select

from city.parking.v1 import parking_service_pb2 as pb
from citykit import canonical
from citykit.clock import ReplayClock
from citykit.errors import CityError
from citykit.once import Once
from citykit.settings import StoreSettings
from citykit.store.engine import sqlite_engine
from citykit.store.port import Unit
from citykit.store.sqlite import SqliteStore, open_sqlite, serve_sqlite
from citykit.telemetry import logger
from services.parking.app.board import Board
from services.parking.app.changes import Changes
from services.parking.app.endings import Endings
from services.parking.app.holds import Holds, Wanted
from services.parking.app.money import Money
from services.parking.app.passages import Passages
from services.parking.app.remembered import Remembered
from services.parking.app.reservations import Reservations
from services.parking.app.tariffs import Permits, Tariffs
from services.parking.app.views import Views
from services.parking.app.words import in_city_words
from services.parking.domain.lots import ALWAYS, Lot
from services.parking.domain.reservation import ENDED, NO_SHOW, OPEN, SLOT_S, used_until
from services.parking.store import access
from services.parking.store import reservations as stored
from services.parking.store.tables import METADATA, PROMISES, RESERVATIONS
from services.parking.store.tariffs import TariffRow, add_tariff
from tests.unit.parking.tariffs import free_tariff

NINE, QUARTERS = 1_478_595_600, 12
LOCK = "lock-1"
LOT = Lot("lot", "Lot", "city", 10, 0, 0, ALWAYS, "bays", ("bay-1", "bay-2"), (), LOCK)
MIGRATIONS = Path(__file__).parents[2] / "services" / "parking" / "migrations"
R = TypeVar("R")


@dataclass
class Parking:
    """Parking's use cases on one store, without gRPC. Nothing costs anything, so payments is never asked."""

    store: SqliteStore
    clock: ReplayClock
    randomness: Callable[[int], bytes]
    board: Board = field(default_factory=Board)

    def __post_init__(self) -> None:
        absent: Any = None
        changes, views = Changes(self.randomness), Views(self.store)
        self.tariffs, self.remembered = Tariffs(self.store, absent), Remembered(self.store)
        money = Money(self.store, absent, changes, self.tariffs, self.board, self.clock, logger("parking"))
        self.endings = Endings(self.store, self.board, changes, money, self.tariffs, self.clock)
        self.holds = Holds(
            self.store, self.board, self.remembered, self.tariffs, Permits(self.store, self.randomness), changes,
            self.endings, views, {LOT.id: LOT}.get, self.clock, self.randomness, "Europe/London", bytes(32),
        )  # fmt: skip
        self.use = Reservations(self.store, self.board, changes, money, self.tariffs, self.holds, views, self.clock)
        self.passages = Passages(changes, money, self.tariffs, self.board, self.clock)

    async def start(self) -> None:
        row = TariffRow("bays", 1, canonical.encode(free_tariff()), "00" * 32)
        await self.store.write(lambda unit: add_tariff(unit, row))
        await self.tariffs.load()
        await self.remembered.load()
        found = await self.store.read(lambda c: (stored.promises(c, 0), stored.hold_ends(c)))
        self.board.load(*found, self.board.changes)

    async def pass_(self, id_: str, act: str, sequence: int) -> None:
        """The lock tells that it opened."""
        now = int(self.clock.now())

        def unit(work: Unit) -> list[Any]:
            number = access.next_number(work, id_, LOCK, act, 0, now)
            return self.passages.note(work, LOCK, sequence, act, [(now, number)], now)

        self.passages.noted(await self.store.write(unit))


@dataclass(frozen=True)
class Asked:
    """A hold as somebody asked for it."""

    request_id: str
    who: str
    first: int
    quarters: int

    def once(self) -> Once[pb.HoldResponse]:
        mark = repr(self).encode().ljust(32)[:32]
        return Once(self.request_id, "Hold", mark, pb.HoldResponse)

    def wanted(self) -> Wanted:
        start = NINE + self.first * SLOT_S
        return Wanted(LOT.id, start, start + self.quarters * SLOT_S, "")


class Interleavings(RuleBasedStateMachine):
    """Every rule may be refused; none may be wrong."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.loop = asyncio.new_event_loop()
        self.clock, self.numbers, self.draws = ReplayClock(NINE), itertools.count(1), itertools.count(1)
        self.asked: dict[str, Asked] = {}
        self.told: dict[str, tuple[str, str]] = {}
        self.confirmed: set[str] = set()
        self.city = self.opened(0)

    def opened(self, life: int) -> Parking:
        self.life = life
        path = self.folder / str(life) / "parking.db"
        if not path.exists():
            path.parent.mkdir()
            path.write_bytes(_empty())
        store = serve_sqlite(path, StoreSettings(readers=1), time.time, sqlite_engine(path), 0)
        city = Parking(store, self.clock, lambda count: next(self.draws).to_bytes(count, "big"))
        self.loop.run_until_complete(city.start())
        return city

    def teardown(self) -> None:
        self.loop.run_until_complete(self.city.store.close())
        self.loop.close()
        shutil.rmtree(self.folder)

    def run(self, act: Coroutine[Any, Any, R]) -> R | None:
        async def guarded() -> R | None:
            try:
                with in_city_words():
                    return await act
            except CityError:
                return None

        return self.loop.run_until_complete(guarded())

    def once(self, rpc: str, kind: type[Any]) -> Once[Any]:
        return Once(f"{rpc}-{next(self.numbers)}", rpc, bytes(32), kind)

    def chosen(self, number: int) -> str:
        return sorted(self.told)[number % len(self.told)]

    @rule(
        spans=st.lists(st.tuples(st.sampled_from(["ada", "bob", "eve"]), st.integers(0, 8), st.integers(1, 4)), min_size=1, max_size=4)
    )  # fmt: skip
    def hold_at_once(self, spans: list[tuple[str, int, int]]) -> None:
        wanted = [Asked(f"hold-{next(self.numbers)}", *span) for span in spans]
        self.asked |= {one.request_id: one for one in wanted}

        async def every() -> list[Any]:
            holds = [self.city.holds.hold(one.once(), one.who, one.wanted()) for one in wanted]
            return await asyncio.gather(*holds, return_exceptions=True)

        for one, answer in zip(wanted, self.loop.run_until_complete(every()), strict=True):
            if isinstance(answer, pb.HoldResponse):
                self.told[one.request_id] = (answer.reservation.id, answer.reservation.bay)

    @rule(number=st.integers(0, 100))
    def ask_again(self, number: int) -> None:
        """A retry, also of what was refused and of what nobody answered: the same reservation, or one at last."""
        if self.asked:
            one = self.asked[sorted(self.asked)[number % len(self.asked)]]
            answer = self.run(self.city.holds.hold(one.once(), one.who, one.wanted()))
            before = self.told.get(one.request_id)
            if before is not None:
                assert answer is not None and (answer.reservation.id, answer.reservation.bay) == before
            elif answer is not None:
                self.told[one.request_id] = (answer.reservation.id, answer.reservation.bay)

    @rule(number=st.integers(0, 100), quarters=st.integers(1, 4))
    def extend(self, number: int, quarters: int) -> None:
        if self.told:
            request = self.chosen(number)
            one = self.asked[request]
            later = one.wanted().to_time + quarters * SLOT_S
            once = self.once("Extend", pb.ExtendResponse)
            self.run(self.city.use.extend(once, one.who, self.told[request][0], later))

    @rule(number=st.integers(0, 100))
    def confirm(self, number: int) -> None:
        if self.told:
            request = self.chosen(number)
            id_ = self.told[request][0]
            once = self.once("Confirm", pb.ConfirmResponse)
            if self.run(self.city.use.confirm(once, self.asked[request].who, id_, "")):
                self.confirmed.add(id_)

    @rule(number=st.integers(0, 100))
    def cancel(self, number: int) -> None:
        if self.told:
            request = self.chosen(number)
            id_ = self.told[request][0]
            once = self.once("Cancel", pb.CancelResponse)
            if self.run(self.city.use.cancel(once, self.asked[request].who, id_)):
                self.confirmed.discard(id_)

    @rule(number=st.integers(0, 100), act=st.sampled_from(["entry", "exit"]))
    def use(self, number: int, act: str) -> None:
        if self.told:
            self.run(self.city.pass_(self.told[self.chosen(number)][0], act, next(self.numbers)))

    @rule(minutes=st.sampled_from([1, 5, 11, 30]))
    def time_passes(self, minutes: int) -> None:
        self.clock.advance_to(self.clock.now() + 60 * minutes)

    @rule()
    def jobs_run(self) -> None:
        self.run(self.city.endings.expire())
        self.run(self.city.endings.miss())

    @rule(
        steps=st.integers(0, 6), span=st.tuples(st.sampled_from(["ada", "bob"]), st.integers(0, 8), st.integers(1, 4))
    )
    def crash(self, steps: int, span: tuple[str, int, int]) -> None:
        """While somebody asks: the answer never comes, whether it was committed or not."""
        one = Asked(f"hold-{next(self.numbers)}", *span)
        self.asked[one.request_id] = one
        before = self.city.store

        async def cut() -> None:
            task = asyncio.ensure_future(self.city.holds.hold(one.once(), one.who, one.wanted()))
            for _ in range(steps):
                await asyncio.sleep(0)
            await before.write(lambda unit: None)  # the writer's thread cannot be killed: let it come to rest
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

        self.loop.run_until_complete(cut())
        life = next(self.numbers)
        (self.folder / str(life)).mkdir()
        for file in (self.folder / str(self.life)).glob("parking.db*"):
            shutil.copy(file, self.folder / str(life) / file.name)
        self.city = self.opened(life)
        self.loop.run_until_complete(before.close())

    @invariant()
    def no_bay_is_given_twice(self) -> None:
        found, taken, counted = self.loop.run_until_complete(self.city.store.read(_everything))
        assert counted == 0
        used = [(one, used_until(one)) for one in found if one.state in OPEN or one.state in (ENDED, NO_SHOW)]
        for (one, end), (other, other_end) in itertools.combinations(used, 2):
            apart = one.bay != other.bay or end <= other.from_time or other_end <= one.from_time
            assert apart, (one, other)
        kept = {(one.bay, slot): one.id for one in found if one.promised for slot in one.slots}
        assert kept == taken
        for slot in range(NINE // SLOT_S, NINE // SLOT_S + QUARTERS):
            free = len(LOT.bays) - sum(1 for _, when in taken if when == slot)
            assert self.city.board.free(LOT, range(slot, slot + 1)) == free

    @invariant()
    def what_was_told_holds(self) -> None:
        found, _, _ = self.loop.run_until_complete(self.city.store.read(_everything))
        by_id = {one.id: one for one in found}
        for id_, bay in self.told.values():
            assert by_id[id_].bay == bay
        for id_ in self.confirmed:
            assert by_id[id_].state in ("confirmed", "active", "ended", "no-show")


@cache
def _empty() -> bytes:
    """A migrated database without rows."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "parking.db"
        store = open_sqlite(path, METADATA, MIGRATIONS, StoreSettings(readers=1))
        asyncio.run(store.close())
        return path.read_bytes()


def _everything(connection: Connection) -> tuple[list[Any], dict[tuple[str, int], str], int]:
    ids = [row.id for row in connection.execute(select(RESERVATIONS.c.id))]
    taken = {(row.bay, row.slot): row.reservation for row in connection.execute(select(PROMISES))}
    return [stored.get(connection, id_) for id_ in ids], taken, stored.double_bookings(connection)


TestInterleavings = Interleavings.TestCase
TestInterleavings.settings = settings(
    max_examples=12, stateful_step_count=20, deadline=None, derandomize=True, phases=[Phase.generate],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)  # fmt: skip
