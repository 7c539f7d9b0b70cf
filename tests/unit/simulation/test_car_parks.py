"""Simulated car parks: the source's counts on the city's days, the same packages at every start, faults on their own sensors only."""

from __future__ import annotations

from datetime import UTC, date, datetime
from pathlib import Path

import pytest

from citykit.package import OCCUPIED, Reading, parse_package, verify_package
from simulation.car_parks import CarParks, source_day
from simulation.count_sensor import CountSensor
from simulation.faults import FAULTS, Faults
from simulation.neighbourhood import Neighbourhood

DAY = 86_400
ROWS = """SystemCodeNumber,Capacity,Occupancy,LastUpdated
Bull Ring,3053,100,2016-10-04 07:59:42
Bull Ring,3053,200,2016-10-04 16:30:00
Bull Ring,3053,-3,2016-10-05 08:00:00
Bull Ring,3053,300,2016-11-08 08:26:00
Bull Ring,3053,310,2016-11-08 09:00:00
NIA North,480,20,2016-10-16 08:01:13
"""


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "hourly_parking.csv"
    path.write_text(ROWS, encoding="utf-8")
    return path


def at(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp())


def packages(sensor: CountSensor, until: int) -> list[bytes]:
    return [sensor.sign(readings) for readings in sensor.due(until)]


def test_the_source_is_replayed_on_its_own_days_and_later_by_whole_weeks(source: Path) -> None:
    lots = CarParks(7, source).lots
    assert [(lot.id, lot.name, lot.capacity, lot.kind) for lot in lots] == [
        ("bull-ring", "Bull Ring", 3053, "measured"),
        ("nia-north", "NIA North", 480, "measured"),
    ]
    day = lots[0].day
    summer = [Reading(at("2016-10-04T06:59:42"), 100), Reading(at("2016-10-04T15:30:00"), 200)]
    assert day(date(2016, 10, 4)) == summer
    assert day(date(2016, 10, 5)) == []
    assert day(date(2016, 12, 20)) == [
        Reading(at("2016-12-20T07:59:42"), 100),
        Reading(at("2016-12-20T16:30:00"), 200),
    ]
    assert source_day(date(2016, 12, 19)) == date(2016, 12, 19)
    assert source_day(date(2017, 12, 25)).weekday() == 0


def test_the_attribution_says_how_far_it_is_shifted_and_that_positions_are_simulated(source: Path) -> None:
    parks = CarParks(7, source)
    [now] = parks.sources(at("2016-12-19T12:00:00"))
    [later] = parks.sources(at("2016-12-20T12:00:00"))
    assert (now.shifted_weeks, later.shifted_weeks) == (0, 11)
    assert "Birmingham City Council" in now.text
    assert "simulated" in parks.lots[0].label
    assert CarParks(7, None, lots=3).sources(0.0) == []


def test_backfill_is_a_package_a_day_and_live_is_a_package_a_count(source: Path) -> None:
    sensor = CarParks(7, source).sensors()[0]
    found = [parse_package(data) for data in packages(sensor, at("2016-11-08T08:59:00"))]
    assert [(package.sequence, package.values) for package in found] == [(1, (100, 200)), (2, (300,))]
    assert found[0].measure is OCCUPIED
    assert found[1].previous == found[0].hash
    assert verify_package(found[1], sensor.signer.public_key, "EdDSA")
    assert len(packages(sensor, at("2016-11-08T09:00:00"))) == 1


def test_a_sensor_goes_on_after_what_the_city_holds() -> None:
    parks = CarParks(7, None, lots=1)
    until = parks.live_from + DAY
    whole = packages(parks.sensors()[0], until)
    assert len(whole) == 35 + 48 + 1
    for kept in (0, 1, 34, 35, 36, 60, len(whole)):
        sensor = parks.sensors()[0]
        sensor.resume(kept, parse_package(whole[kept - 1]).hash if kept else b"")
        assert packages(sensor, until) == whole[kept:]


def test_the_same_seed_gives_the_same_lots_and_another_seed_others() -> None:
    first, second, other = (
        [(lot.id, lot.capacity, lot.latitude_e7, lot.bays) for lot in CarParks(seed, None).lots] for seed in (7, 7, 8)
    )
    assert first == second
    assert len({latitude for _, _, latitude, _ in first} & {latitude for _, _, latitude, _ in other}) < 3
    assert sum(bool(bays) for *_, bays in first) == 10
    parks = CarParks(7, None)
    assert all(abs(lot.latitude_e7 - 524_796_000) < 150_000 for lot in parks.lots)
    assert len(parks.sensors()) == 36


def test_counts_stay_within_the_lot_and_a_day_of_a_clock_change_has_its_hours() -> None:
    parks = CarParks(7, None, lots=6)
    for lot in parks.lots:
        assert len(lot.day(date(2016, 10, 30))) == 50
        assert all(0 <= count.value <= lot.capacity for count in lot.day(date(2016, 11, 8)))
    one, two = parks.sensors()[:2]
    assert (one.id, two.id) == ("count-p01", "count-p01-b")
    pairs = zip(one.day(date(2016, 11, 8)), two.day(date(2016, 11, 8)), strict=True)
    assert all(abs(a.value - b.value) <= one.capacity * 8 // 1_000 for a, b in pairs)


def test_the_manufacturer_vouches_for_every_sensor_and_lock() -> None:
    parks = CarParks(7, None, lots=4)
    documents = b"".join(voucher.document for voucher in parks.vouchers(Neighbourhood(7, None, meters=1)))
    for name in [*(sensor.id for sensor in parks.sensors()), *(lot.lock for lot in parks.reservable)]:
        assert f'"{name}"'.encode() in documents


def test_faults_act_on_their_own_sensors() -> None:
    parks = CarParks(7, None)
    faults = Faults([], FAULTS, parks.targets())
    by_name = {sensor.id: sensor for sensor in parks.sensors()}
    readings = [Reading(parks.live_from, 10), Reading(parks.live_from + 60, 20)]

    def values(name: str) -> list[int]:
        sent = faults.sensor_packages(by_name[name], readings)
        return [value for data in sent for value in parse_package(data).values]

    acting = dict(item.split(":") for item in faults.acting())
    assert values(acting["sensor-stuck"]) == [10, 10]
    assert values(acting["sensor-silent"]) == []
    event = by_name[acting["event-unannounced"]]
    assert values(event.id) == [min(event.capacity, value + event.capacity * 35 // 100) for value in (10, 20)]
    assert values("count-p01") == [10, 20]
    assert faults.on("lock-offline", "lock-p01")
    assert not faults.on("lock-offline", "lock-p04")
    assert acting["provider-down"] == "provider"
    faults.switch([])
    assert values(acting["sensor-stuck"]) == [10, 20]
    assert faults.acting() == []
