"""What a lot must be, and when it is open."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from city.parking.v1 import parking_service_pb2 as pb
from citykit.errors import InvalidArgument
from citykit.once import Once
from services.parking.domain.errors import LotInvalid
from services.parking.domain.lots import ALWAYS, Lot, is_open, require_lot
from tests.unit.parking.sensing import Sensing, a_lot, sensing

DAYTIME = tuple((day, 480, 1_080) for day in range(5))


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"id_": "High Street"}, "id"),
        ({"name": ""}, "name"),
        ({"operator": "x" * 201}, "name"),
        ({"capacity": 0}, "capacity"),
        ({"capacity": 100_001}, "capacity"),
        ({"latitude_e7": 900_000_001}, "latitude_e7"),
        ({"longitude_e7": -1_800_000_001}, "longitude_e7"),
        ({"tariff": ""}, "tariff"),
        ({"capacity": 1, "bays": ("a", "b")}, "bays"),
        ({"bays": ("a", "a")}, "bays"),
        ({"bays": ("a", "B")}, "bays"),
        ({"sensors": tuple(f"s-{n}" for n in range(51))}, "sensors"),
        ({"sensors": ("s-1", "s-1")}, "sensors"),
        ({"sensors": ("S",)}, "sensors"),
        ({"sensors": ("s-1",), "lock": "s-1"}, "sensors"),
        ({"bay_sensors": (("b-1", "bay-1"), ("b-2", "bay-1"))}, "bay_sensors"),
        ({"bay_sensors": (("b-1", "Bay"),)}, "bay_sensors"),
        ({"capacity": 1, "bay_sensors": (("b-1", "bay-1"), ("b-2", "bay-2"))}, "bay_sensors"),
        ({"open_minutes": ((7, 0, 60),)}, "open_hours"),
        ({"open_minutes": ((0, 60, 60),)}, "open_hours"),
        ({"open_minutes": ((0, 0, 1_441),)}, "open_hours"),
        ({"open_minutes": ALWAYS * 8}, "open_hours"),
    ],
)
def test_what_cannot_be_a_lot_names_the_field(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(LotInvalid, match=field):
        require_lot(a_lot(**changes))


def test_a_lot_that_can_be_one() -> None:
    lot = a_lot(bays=("bay-1",), lock="lock-1", bay_sensors=(("b-1", "bay-1"),))
    assert require_lot(lot) is lot
    assert lot.devices == ("s-1", "b-1", "lock-1")
    assert (lot.counters, a_lot(capacity=1, bay_sensors=(("b-1", "bay-1"),)).counters) == (1, 2)


def test_open_hours_end_before_their_last_minute() -> None:
    lot = a_lot(open_minutes=DAYTIME)
    assert [is_open(lot.open_minutes, 0, minute) for minute in (479, 480, 1_079, 1_080)] == [False, True, True, False]
    assert not is_open(lot.open_minutes, 6, 600)
    assert is_open(a_lot().open_minutes, 6, 0)


async def register(found: Sensing, *lots: Lot, request: str = "r") -> int:
    once = Once(request, "RegisterLots", repr(lots).encode(), pb.RegisterLotsResponse)
    return int((await found.lots.register(once, lots)).registered)


async def test_a_lot_without_hours_is_always_open_and_comes_back_after_a_restart(tmp_path: Path) -> None:
    async with sensing(tmp_path) as found:
        lot = a_lot(open_minutes=(), bays=("bay-1",), lock="lock-1", bay_sensors=(("b-1", "bay-1"),))
        assert await register(found, lot) == 1
        assert await register(found, lot) == 1
    async with sensing(tmp_path) as again:
        kept = again.lots.find(lot.id)
        assert kept is not None
        assert kept.open_minutes == ALWAYS
        assert (kept.bays, kept.bay_sensors, kept.sensors) == (lot.bays, lot.bay_sensors, lot.sensors)


async def test_registering_refuses_lots_twice_and_devices_at_two_lots(tmp_path: Path) -> None:
    async with sensing(tmp_path) as found:
        for lots in ([], [a_lot(), a_lot()], [a_lot(capacity=0)], [a_lot("a"), a_lot("b")]):
            with pytest.raises(InvalidArgument):
                await register(found, *lots)
        await register(found, a_lot("a"))
        with pytest.raises(InvalidArgument, match="at one lot"):
            await register(found, a_lot("b"), request="r-2")
        moved = [a_lot("a", sensors=()), a_lot("b")]
        assert await register(found, *moved, request="r-3") == 2
