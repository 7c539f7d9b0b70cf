"""How well what was said came true: sums, bins, and what becomes of them in the store."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy import select

from city.parking.v1 import events_pb2 as events
from citykit import canonical
from citykit.errors import Unavailable
from citykit.ids import seeded_randomness
from services.parking.app.calibration import SAID_MAX, Calibration
from services.parking.domain.calibration import Bin, Tally, bin_of, bins, brier_micro, scored, square_micro
from services.parking.store.tables import CALIBRATION_DAYS, SAID
from tests.unit.parking.sensing import DAY, HOUR, NINE, Sensing, Sensor, a_lot, sensing

HALF = 1_800


def test_bins() -> None:
    assert [bin_of(milli) for milli in (0, 99, 100, 999, 1_000)] == [0, 0, 1, 9, 9]


def test_the_square_of_said_less_came() -> None:
    assert [square_micro(900, came) for came in (True, False)] == [10_000, 810_000]


def test_scores_by_bin() -> None:
    tallies = scored([(900, 3, True), (950, 1, False), (120, 2, False)])
    assert tallies == [Tally(1, 2, 240, 0, 28_800), Tally(9, 4, 3_650, 3, 932_500)]
    assert bins([*reversed(tallies), Tally(5, 0, 0, 0, 0)]) == [Bin(100, 2, 120, 0), Bin(900, 4, 912, 750)]
    assert brier_micro(tallies) == (28_800 + 932_500) // 6
    assert brier_micro([]) == 0


@dataclass
class Calibrated:
    found: Sensing
    calibration: Calibration

    async def said(self) -> list[tuple[str, int, int, int]]:
        columns = (SAID.c.lot, SAID.c.arrival, SAID.c.probability_milli, SAID.c.times)
        return [tuple(row) for row in await self.found.store.read(lambda c: c.execute(select(*columns)).all())]


def calibrated(found: Sensing) -> Calibrated:
    return Calibrated(found, Calibration(found.store, found.clock, seeded_randomness(5), "Europe/London"))


async def test_what_was_said_is_scored_once_its_half_hour_was_counted(tmp_path: Path) -> None:
    async with sensing(tmp_path) as found:
        await found.add(a_lot())
        it = calibrated(found)
        for _ in range(3):
            it.calibration.note("high-street", NINE + 60, 900)
        it.calibration.note("high-street", NINE + HALF, 200)
        await it.calibration.work()
        assert await it.said() == [("high-street", NINE, 900, 3), ("high-street", NINE + HALF, 200, 1)]
        nothing = await it.calibration.get()
        assert (nothing.advices, nothing.published_json, nothing.salt) == (0, b"", b"")
        found.advance(2 * HOUR)
        await found.send(Sensor("s-1").package((NINE + 600, 150), (NINE + HALF + 600, 200)))
        await it.calibration.work()
        answer = await it.calibration.get()
        assert [(one.from_milli, one.advices, one.said_milli, one.came_milli) for one in answer.bins] == [
            (200, 1, 200, 0), (900, 3, 900, 1_000),
        ]  # fmt: skip
        assert (answer.advices, answer.brier_micro) == (4, (3 * 10_000 + 40_000) // 4)
        assert await it.said() == []


async def test_sums_grow_and_what_is_never_counted_is_let_go(tmp_path: Path) -> None:
    async with sensing(tmp_path) as found:
        await found.add(a_lot())
        it, sensor = calibrated(found), Sensor("s-1")
        for step in range(2):
            now = NINE + step * HOUR
            it.calibration.note("high-street", now, 950)
            it.calibration.note("nowhere", now, 950)
            await it.calibration.work()
            found.advance(HOUR)
            await found.send(sensor.package((now + 60, 10)))
            found.advance(600)
            await it.calibration.work()
        assert (await it.calibration.get()).bins[0].advices == 2
        assert [row[0] for row in await it.said()] == ["nowhere", "nowhere"]
        found.advance(DAY + HOUR)
        await it.calibration.work()
        assert await it.said() == []


async def test_a_day_is_published_once_with_what_it_commits_to(tmp_path: Path) -> None:
    async with sensing(tmp_path) as found:
        await found.add(a_lot())
        it = calibrated(found)
        await it.calibration.work()
        it.calibration.note("high-street", NINE, 950)
        await found.send(Sensor("s-1").package((NINE, 10)))
        found.advance(2 * HOUR)
        await it.calibration.work()
        for _ in range(2):
            found.advance(DAY)
            for _ in range(2):
                await it.calibration.work()
        messages = [message for _, message in await found.store.outbox(100)]
        told = [m for m in messages if m.topic == "city.parking.events.v1"]
        days = [events.AdviceCalibrated.FromString(message.value).day for message in told]
        assert days == ["2016-11-07", "2016-11-08", "2016-11-09"]
        rows = await found.store.read(lambda c: c.execute(select(CALIBRATION_DAYS)).all())
        for message, row in zip(told, rows, strict=True):
            content = b"city.commitment.v1\n" + row.salt + row.document
            assert message.headers["commitment"] == hashlib.sha256(content).digest()
        answer = await it.calibration.get()
        assert (answer.published_json, answer.salt) == (rows[-1].document, rows[-1].salt)
        document = canonical.decode(answer.published_json)
        assert document["format"] == "city.calibration.v1"
        assert document["bins"] == [{"advices": 1, "came_milli": 1_000, "from_milli": 900, "said_milli": 950}]


async def test_days_are_local_and_a_change_of_the_clocks_has_one_of_each(tmp_path: Path) -> None:
    """On 2016-10-30 the day in London had 25 hours."""
    midnight = 1_477_782_000  # 2016-10-30T00:00 in London, still summer time
    async with sensing(tmp_path, now=midnight - 60) as found:
        await found.add(a_lot())
        it = calibrated(found)
        it.calibration.note("high-street", midnight - 2 * HOUR, 950)
        await found.send(Sensor("s-1").package((midnight - 2 * HOUR, 10)))
        for step in (0, 120, DAY, HOUR):
            found.advance(step)
            await it.calibration.work()
        told = [m for _, m in await found.store.outbox(100) if m.topic == "city.parking.events.v1"]
        days = [events.AdviceCalibrated.FromString(message.value).day for message in told]
        assert days == ["2016-10-28", "2016-10-29", "2016-10-30"]


async def test_while_the_store_is_away_what_was_said_waits(tmp_path: Path) -> None:
    async with sensing(tmp_path) as found:
        it = calibrated(found)
        it.calibration.note("high-street", NINE, 900)
    with pytest.raises(Unavailable):
        await it.calibration.work()
    async with sensing(tmp_path) as again:
        more = calibrated(again)
        more.calibration._said = it.calibration._said
        more.calibration.note("high-street", NINE, 900)
        await more.calibration.work()
        assert await more.said() == [("high-street", NINE, 900, 2)]


async def test_memory_of_what_was_said_is_bounded(tmp_path: Path) -> None:
    async with sensing(tmp_path) as found:
        it = calibrated(found)
        for number in range(SAID_MAX + 10):
            it.calibration.note(f"lot-{number}", NINE, 900)
        it.calibration.note("lot-0", NINE, 900)
        assert len(it.calibration._said) == SAID_MAX
        assert it.calibration._said["lot-0", NINE, 900] == 2
