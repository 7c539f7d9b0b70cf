"""The on-ramp of sensors and locks: what counts, what is only logged, what is refused, and what is remembered."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select

from city.parking.v1 import events_pb2 as events
from city.parking.v1 import parking_service_pb2 as pb
from citykit.errors import InvalidArgument, ResourceExhausted
from citykit.onramp.chain import Refusal
from citykit.package import ENERGY, ENTRY, EXIT, commitment
from citykit.settings import ParkingSettings
from services.parking.app.ingest import result
from services.parking.app.states import KEPT_S
from services.parking.domain.states import COUNTED, DISPUTED, UNKNOWN, LotState
from services.parking.store.counts import history
from services.parking.store.packages import Accepted
from services.parking.store.tables import HALF_HOURS, PACKAGES
from tests.unit.parking.sensing import DAY, HOUR, MINUTE, NINE, Sensing, Sensor, a_lot, sensing

HALF = 1_800


def reasons(answers: Sequence[Any]) -> list[str]:
    return [item.reason if isinstance(item, Refusal) else result(item).reason or "accepted" for item in answers]


async def observed(found: Sensing) -> list[events.StatesObserved]:
    return [events.StatesObserved.FromString(message.value) for _, message in await found.store.outbox(1_000)]


def state(found: Sensing, lot: str = "high-street") -> LotState:
    item = found.lots.find(lot)
    assert item is not None
    return found.states.state(item, int(found.clock.now()))


async def test_counts_are_durable_committed_to_and_shown(tmp_path: Path) -> None:
    async with sensing(tmp_path) as found:
        await found.add(a_lot())
        sensor = Sensor("s-1")
        raws = [sensor.package((NINE - HALF, 70), (NINE - 60, 80)), sensor.package((NINE, 82))]
        assert await found.send(*raws) == [Accepted(2), Accepted(1)]
        assert (state(found).quality, state(found).occupied) == (COUNTED, 82)
        said = await observed(found)
        assert [(list(one.times), list(one.occupied), one.capacity) for one in said] == [
            ([NINE - HALF, NINE - 60], [70, 80], 200), ([NINE], [82], 200),
        ]  # fmt: skip
        rows = await found.store.read(lambda c: c.execute(select(PACKAGES)).all())
        messages = [message for _, message in await found.store.outbox(10)]
        assert [m.headers["commitment"] for m in messages] == [commitment(row.salt, row.content) for row in rows]
        assert {message.key for message in messages} == {"high-street"}
        assert await found.ingest.heads(["s-1", "nobody"]) == [("s-1", 2, sensor.previous)]
    async with sensing(tmp_path) as again:
        await again.add(a_lot())
        assert state(again).occupied == 82
        assert again.states.counted("high-street", NINE - HALF) == 70  # a minute before nine is nearer to nine
        assert again.states.counted("high-street", NINE) == 82


async def test_the_same_answers_as_at_metering(tmp_path: Path) -> None:
    async with sensing(tmp_path) as found:
        await found.add(a_lot(lock="lock-1"))
        sensor, lock, stranger, homeless = (Sensor(name) for name in ("s-1", "lock-1", "s-9", "s-8"))
        found.registry.put(homeless.row())
        first = sensor.package((NINE - HALF, 1))
        await found.send(first)
        forged = bytearray(Sensor("s-1", 1, sensor.previous).package((NINE, 2)))
        forged[-1] ^= 1
        answers = await found.send(
            first,
            Sensor("s-1", 0).package((NINE, 5)),
            Sensor("s-1", 1, b"x" * 32).package((NINE, 5)),
            bytes(forged),
            stranger.package((NINE, 1)),
            homeless.package((NINE, 1)),
            Sensor("s-1", 1, sensor.previous).package((NINE - HALF, 1), measure=ENERGY),
            lock.package((NINE, 1)),
            Sensor("s-1", 1, sensor.previous).package((NINE + 301, 1)),
            b"",
            sensor.package((NINE, 2)),
        )
        assert reasons(answers) == [
            "duplicate", "sequence-replayed", "chain-broken", "bad-signature", "unknown-device", "no-lot", "wrong-measure",
            "wrong-measure", "from-the-future", "truncated", "accepted",
        ]  # fmt: skip
        assert result(answers[0]).outcome == pb.PackageResult.OUTCOME_DUPLICATE
        assert result(answers[4]).outcome == pb.PackageResult.OUTCOME_REJECTED
        with pytest.raises(InvalidArgument, match="256"):
            await found.send(*[b""] * 257)


async def test_a_flood_of_counts_is_deferred(tmp_path: Path) -> None:
    async with sensing(tmp_path, ParkingSettings(device_rate_per_s=1, device_burst=2)) as found:
        await found.add(a_lot())
        sensor = Sensor("s-1")
        answers = await found.send(*[sensor.package((NINE - 100 + n, 1)) for n in range(3)])
        assert reasons(answers) == ["accepted", "accepted", "device-rate"]
        assert result(answers[2]).outcome == pb.PackageResult.OUTCOME_DEFERRED
        assert result(answers[2]).retry_after_ms > 0


async def test_nothing_is_kept_where_the_outbox_is_full(tmp_path: Path) -> None:
    async with sensing(tmp_path) as found:
        await found.add(a_lot())
        raw = Sensor("s-1").package((NINE, 80))
        found.store._outbox_size = 1_000_000
        with pytest.raises(ResourceExhausted):
            await found.send(raw)
        found.store._outbox_size = 0
        assert state(found).quality == UNKNOWN
        assert await found.send(raw) == [Accepted(1)]


async def test_impossible_counts_are_logged_said_and_not_counted(tmp_path: Path) -> None:
    async with sensing(tmp_path) as found:
        await found.add(a_lot())
        answers = await found.send(Sensor("s-1").package((NINE - 3, 80), (NINE - 2, 201), (NINE - 1, -4)))
        assert answers == [Accepted(1, impossible=2)]
        said = result(answers[0])
        assert (said.outcome, said.reason) == (pb.PackageResult.OUTCOME_ACCEPTED, "impossible-count")
        assert "2 counts" in said.message
        assert state(found).occupied == 80
        assert [list(one.occupied) for one in await observed(found)] == [[80]]


async def test_late_packages_fill_the_past_and_leave_the_present(tmp_path: Path) -> None:
    async with sensing(tmp_path) as found:
        await found.add(a_lot())
        sensor = Sensor("s-1")
        late, newest = sensor.package((NINE - HOUR, 60)), sensor.package((NINE, 80))
        assert await found.send(newest) == [Accepted(1)]
        assert await found.send(late) == [Accepted(1)]
        assert state(found).occupied == 80
        assert found.states.counted("high-street", NINE - HOUR) == 60


async def test_the_last_count_of_a_half_hour_stays(tmp_path: Path) -> None:
    async with sensing(tmp_path, now=NINE + HALF) as found:
        await found.add(a_lot())
        sensor = Sensor("s-1")
        first, second = sensor.package((NINE + 60, 60)), sensor.package((NINE + 120, 61), (NINE + 700, 70))
        await found.send(second)
        await found.send(first)
        assert found.states.counted("high-street", NINE) == 70
        assert await found.store.read(lambda c: history(c, "high-street", NINE)) == {NINE: 70}
        assert found.states.counted("high-street", NINE + HALF) is None


async def test_a_silent_sensor_makes_its_lot_unknown(tmp_path: Path) -> None:
    """The source of the demonstration tells of 08:00 to 16:30 only."""
    half_past_four = NINE + 7 * HOUR + HALF
    async with sensing(tmp_path, now=half_past_four) as found:
        await found.add(a_lot())
        await found.send(Sensor("s-1").package((half_past_four, 80)))
        assert state(found).quality == COUNTED
        found.advance(5_400)
        assert state(found).occupied == 80
        found.advance(1)
        assert (state(found).quality, state(found).shown, state(found).time) == (UNKNOWN, None, half_past_four)


async def test_a_stuck_sensor_is_found_by_its_own_week_and_no_longer_counted(tmp_path: Path) -> None:
    async with sensing(tmp_path, now=NINE + 6 * HOUR) as found:
        await found.add(a_lot())
        sensor = Sensor("s-1")
        for day in range(7, 0, -1):
            usual = [(NINE - day * DAY + n * HALF, 50 + 10 * n) for n in range(12)]
            assert (await found.send(sensor.package(*usual))) == [Accepted(12)]
        stuck = (await found.send(sensor.package(*[(NINE + n * HALF, 77) for n in range(10)])))[0]
        assert stuck == Accepted(6, stuck=4)
        assert result(stuck).reason == "stuck"
        assert list((await observed(found))[-1].times) == [NINE + n * HALF for n in range(6)]
        assert found.states.counted("high-street", NINE + 6 * HALF) is None
        found.advance(-1)
        assert state(found).quality == DISPUTED
        assert (await found.send(sensor.package((NINE + 6 * HOUR, 90))))[0] == Accepted(1)
        assert (state(found).quality, state(found).occupied) == (COUNTED, 90)


async def test_two_sensors_speak_where_they_agree(tmp_path: Path) -> None:
    async with sensing(tmp_path) as found:
        await found.add(a_lot(sensors=("s-1", "s-2")))
        one, two = Sensor("s-1"), Sensor("s-2")
        await found.send(one.package((NINE - 20, 80)), two.package((NINE - 10, 84)), two.package((NINE, 150)))
        assert [list(item.occupied) for item in await observed(found)] == [[80], [84], []]
        assert state(found).quality == DISPUTED
        assert await found.send(one.package((NINE - HOUR, 10))) == [Accepted(1)]
        assert list((await observed(found))[-1].times) == []


async def test_a_sensor_left_behind_by_the_other_is_stuck(tmp_path: Path) -> None:
    async with sensing(tmp_path, now=NINE + 4 * HOUR) as found:
        await found.add(a_lot(sensors=("s-1", "s-2")))
        one, two = Sensor("s-1"), Sensor("s-2")
        for n in range(8):
            await found.send(two.package((NINE + n * HALF - 1, 80 + 10 * n)), one.package((NINE + n * HALF, 80)))
        assert state(found).quality == COUNTED
        assert state(found).occupied == 150


async def test_sensors_of_all_bays_make_the_count_and_of_some_do_not(tmp_path: Path) -> None:
    bays = tuple((f"b-{n}", f"bay-{n}") for n in range(4))
    async with sensing(tmp_path) as found:
        await found.add(
            a_lot("small", capacity=4, sensors=(), bay_sensors=bays),
            a_lot("large", sensors=("s-1",), bay_sensors=(("b-9", "bay-9"),)),
        )
        answers = await found.send(
            *[Sensor(f"b-{n}").package((NINE - 10 + n, n % 2)) for n in range(4)],
            Sensor("b-9").package((NINE, 1), (NINE + 1, 2)),
        )
        assert answers == [Accepted(1)] * 4 + [Accepted(1, impossible=1)]
        assert [list(one.occupied) for one in await observed(found)] == [[], [], [], [2], []]
        assert (state(found, "small").occupied, state(found, "large").quality) == (2, UNKNOWN)


async def test_a_lock_s_doings_are_handed_on_in_the_same_unit(tmp_path: Path) -> None:
    async with sensing(tmp_path) as found:
        await found.add(a_lot(lock="lock-1"))
        lock = Sensor("lock-1")
        assert await found.send(lock.package((NINE - 5, 7), measure=ENTRY), lock.package((NINE, 7), measure=EXIT)) == [
            Accepted(1),
            Accepted(1),
        ]
        assert found.passages.said == [
            ("lock-1", 1, "entry", ((NINE - 5, 7),)), ("lock-1", 2, "exit", ((NINE, 7),)),
        ]  # fmt: skip
        assert found.passages.after == 1
        assert [(one.device, list(one.times)) for one in await observed(found)] == [("lock-1", [])] * 2


async def test_the_state_is_computed_once_for_a_moment(tmp_path: Path) -> None:
    async with sensing(tmp_path) as found:
        await found.add(a_lot())
        sensor = Sensor("s-1")
        await found.send(sensor.package((NINE - MINUTE, 80)))
        assert state(found) is state(found)
        await found.send(sensor.package((NINE, 81)))
        assert state(found).occupied == 81


async def test_old_half_hours_are_forgotten(tmp_path: Path) -> None:
    async with sensing(tmp_path) as found:
        await found.add(a_lot())
        sensor = Sensor("s-1")
        await found.send(sensor.package(*[(NINE - KEPT_S - HOUR + n * HOUR, n) for n in range(3)], (NINE, 3)))
        await found.states.prune()
        left = await found.store.read(lambda c: c.execute(select(func.count()).select_from(HALF_HOURS)).scalar_one())
        assert left == 3


async def test_memory_holds_a_day_of_half_hours(tmp_path: Path) -> None:
    async with sensing(tmp_path) as found:
        await found.add(a_lot())
        sensor = Sensor("s-1")
        for day in range(4):
            now = found.advance(DAY if day else 0)
            await found.send(sensor.package(*[(now - n * HALF, n) for n in range(47, -1, -1)]))
        assert len(found.states._half_hours["high-street"]) <= 97
        assert found.states.counted("high-street", NINE) is None
