"""Thirty car parks: Birmingham's counts replayed, or seeded days where there is no open data. All positions are simulated; labels say so."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from hashlib import blake2b
from pathlib import Path
from zoneinfo import ZoneInfo

from citykit.errors import EnvironmentFault
from citykit.package import Reading
from simulation.archives import Report
from simulation.calendar import CONTRACTS_BEGIN, DEMO_BEGINS, midnight
from simulation.catalogue import path_of
from simulation.count_sensor import CountSensor, DayOfCounts
from simulation.device import device_signer
from simulation.faults import EVENT, LOCK_OFFLINE, PROVIDER_DOWN, SENSOR_SILENT, SENSOR_STUCK
from simulation.neighbourhood import ZONE, Neighbourhood, Source, Voucher
from simulation.parking import clean_rows

LOTS = 30
CENTRE_E7 = (524_796_000, -19_026_000)
"""Latitude and longitude of the town centre the lots are strewn around."""
RESERVABLE_EVERY = 3
SECOND_SENSOR_EVERY = 5
BAYS = 12
_REPEATED = "its eleven weeks repeat from 20 December on"
_RADIUS_M = 1_400
_E7_PER_M = 90
"""Ten-millionths of a degree of latitude a metre."""
_LONGITUDE_FACTOR = 1.64
_NOISE_PER_MILLE = 8
_HALF_HOURS = 48
_SATURDAY = 5
# Share of a lot that is taken at each hour of a working day and of a day off, per mille.
_WORKDAY = (
    60,
    50,
    45,
    45,
    50,
    80,
    160,
    330,
    560,
    730,
    800,
    830,
    850,
    840,
    800,
    740,
    620,
    480,
    380,
    320,
    260,
    180,
    120,
    80,
)
_DAY_OFF = (
    90,
    70,
    60,
    50,
    50,
    55,
    70,
    110,
    190,
    340,
    520,
    680,
    780,
    820,
    800,
    720,
    590,
    450,
    380,
    350,
    310,
    240,
    170,
    120,
)


@dataclass(frozen=True)
class CarPark:
    """A lot, as it is registered and replayed.

    Attributes:
        kind: "measured" (open data, replayed) or "simulated".
        bays: those that can be reserved; lock: the device at their barrier, empty where there are none.
        day: its counts on a local day of the city.
    """

    id: str
    name: str
    label: str
    kind: str
    capacity: int
    latitude_e7: int
    longitude_e7: int
    bays: tuple[str, ...]
    sensors: tuple[str, ...]
    lock: str
    day: DayOfCounts


class CarParks:
    """The lots of one seed.

    Args:
        source: the Birmingham set; None for lots that are simulated throughout.
        lots: at most so many.
    """

    def __init__(self, seed: int, source: Path | None, lots: int = LOTS) -> None:
        self.seed = seed
        self.start = midnight(CONTRACTS_BEGIN, ZONE)
        self.live_from = midnight(DEMO_BEGINS, ZONE)
        self.synthetic = source is None
        measured = [] if source is None else _measured(source)
        named = measured or [_simulated(seed, number) for number in range(1, lots + 1)]
        self.lots = [self._car_park(number, *one) for number, one in enumerate(named[:lots])]

    @property
    def reservable(self) -> list[CarPark]:
        return [lot for lot in self.lots if lot.bays]

    def sources(self, now: float) -> list[Source]:
        """Attribution of what is replayed at city time `now`."""
        if self.synthetic:
            return []
        today = datetime.fromtimestamp(now, ZONE).date()
        text = f"Contains Birmingham City Council data; positions are simulated; {_REPEATED}"
        weeks = (today - source_day(today)).days // 7
        return [Source("Birmingham car parks, 2016", "Open Government Licence v3.0", text, weeks)]

    def targets(self) -> dict[str, list[str]]:
        """What each fault of parking acts on: two lots each for sensors, four for an event, one lock."""
        alone = [lot for lot in self.lots if len(lot.sensors) == 1]
        return {
            SENSOR_STUCK: [name for lot in alone[:2] for name in lot.sensors],
            SENSOR_SILENT: [name for lot in alone[2:4] for name in lot.sensors],
            EVENT: [name for lot in self.lots[-4:] for name in lot.sensors],
            LOCK_OFFLINE: [lot.lock for lot in self.reservable[:1]],
            PROVIDER_DOWN: ["provider"],
        }

    def sensors(self) -> list[CountSensor]:
        """Every count sensor, as new."""
        return [self._sensor(lot, number) for lot in self.lots for number in range(len(lot.sensors))]

    def vouchers(self, neighbourhood: Neighbourhood) -> list[Voucher]:
        """The manufacturer's word for each sensor and lock."""
        sensors = [(name, "EdDSA") for lot in self.lots for name in lot.sensors]
        locks = [(lot.lock, "ES256") for lot in self.reservable]
        return [neighbourhood.vouch(name, device_signer(self.seed, name, kind)) for name, kind in sensors + locks]

    def _sensor(self, lot: CarPark, number: int) -> CountSensor:
        name = lot.sensors[number]
        day = lot.day if number == 0 else self._noisy(lot, name)
        return CountSensor(name, device_signer(self.seed, name), lot.capacity, day, self.live_from)

    def _noisy(self, lot: CarPark, name: str) -> DayOfCounts:
        """A second sensor sees nearly the same."""

        def day(on: date) -> list[Reading]:
            return [
                Reading(r.time, _within(r.value + self._slip(name, r.time, lot.capacity), lot.capacity))
                for r in lot.day(on)
            ]

        return day

    def _slip(self, name: str, time: int, capacity: int) -> int:
        most = max(1, capacity * _NOISE_PER_MILLE // 1_000)
        return _chance(self.seed, name, str(time), 2 * most + 1) - most

    def _car_park(self, number: int, name: str, kind: str, capacity: int, day: DayOfCounts) -> CarPark:
        lot = _slug(name)
        latitude, longitude = self._position(lot)
        second = (f"count-{lot}-b",) if number % SECOND_SENSOR_EVERY == 0 else ()
        reservable = number % RESERVABLE_EVERY == 0
        return CarPark(
            id=lot,
            name=name,
            label=f"Birmingham, {name}, replayed; position simulated"
            if kind == "measured"
            else f"simulated car park {lot}",
            kind=kind,
            capacity=capacity,
            latitude_e7=latitude,
            longitude_e7=longitude,
            bays=tuple(f"b{bay:02d}" for bay in range(1, min(BAYS, capacity) + 1)) if reservable else (),
            sensors=(f"count-{lot}", *second),
            lock=f"lock-{lot}" if reservable else "",
            day=day,
        )

    def _position(self, lot: str) -> tuple[int, int]:
        """Somewhere around the centre."""
        angle = _chance(self.seed, lot, "angle", 3_600) * math.pi / 1_800
        metres = 150 + math.isqrt(_chance(self.seed, lot, "metres", _RADIUS_M * _RADIUS_M))
        north, east = round(metres * math.cos(angle)), round(metres * math.sin(angle))
        return CENTRE_E7[0] + north * _E7_PER_M, CENTRE_E7[1] + round(east * _E7_PER_M * _LONGITUDE_FACTOR)


SOURCE_BEGINS, SOURCE_WEEKS = date(2016, 10, 4), 11
"""The source's first Tuesday; it ends after whole weeks, on Monday 19 December."""


def source_day(day: date) -> date:
    """The day of the source that is replayed on a day of the city: itself, later the same weekday eleven weeks back, again and again."""
    return SOURCE_BEGINS + timedelta(days=(day - SOURCE_BEGINS).days % (7 * SOURCE_WEEKS))


def load_car_parks(
    seed: int, *, synthetic: bool, report: Report, say: Callable[[str], None], lots: int = LOTS
) -> CarParks:
    """The demo's car parks, on open data where it can be had; says so where it cannot."""
    if synthetic:
        return CarParks(seed, None, lots)
    try:
        return CarParks(seed, path_of("birmingham-parking", report), lots)
    except EnvironmentFault as fault:
        say(f"No open data of car parks: {fault.message}. They are simulated instead.")
        return CarParks(seed, None, lots)


def _measured(source: Path) -> list[tuple[str, str, int, DayOfCounts]]:
    """(name, kind, capacity, counts by day) of each lot of the set."""
    days: dict[str, dict[date, dict[datetime, int]]] = {}
    capacities: dict[str, int] = {}
    for name, reading, occupied, capacity in clean_rows(source):
        moment = datetime.fromisoformat(reading)
        days.setdefault(name, {}).setdefault(moment.date(), {})[moment] = occupied
        capacities[name] = max(capacities.get(name, 0), capacity)
    return [(name, "measured", capacities[name], _replayed(found, ZONE)) for name, found in sorted(days.items())]


def _replayed(days: dict[date, dict[datetime, int]], zone: ZoneInfo) -> DayOfCounts:
    def day(on: date) -> list[Reading]:
        back = source_day(on) - on
        found = sorted(days.get(on + back, {}).items())
        return [Reading(int((moment - back).replace(tzinfo=zone).timestamp()), value) for moment, value in found]

    return day


def _simulated(seed: int, number: int) -> tuple[str, str, int, DayOfCounts]:
    name = f"P{number:02d}"
    capacity = 200 + _chance(seed, name, "capacity", 60) * 20
    lag = _chance(seed, name, "lag", 3) - 1

    def value(start: int, half_hour: int, weekday: int) -> int:
        shape = _DAY_OFF if weekday >= _SATURDAY else _WORKDAY
        share = shape[(half_hour // 2 - lag) % 24] * (100 - half_hour % 2) // 100
        weather = 900 + _chance(seed, "weather", str(start // 86_400), 201)
        chance = 960 + _chance(seed, name, str(start + half_hour), 81)
        return _within(capacity * share * weather * chance // 1_000_000_000, capacity)

    def day(on: date) -> list[Reading]:
        start = midnight(on, ZONE)
        return [
            Reading(start + number * 1_800, value(start, number, on.weekday())) for number in range(_half_hours(on))
        ]

    return name, "simulated", capacity, day


def _half_hours(on: date) -> int:
    return (midnight(on + timedelta(days=1), ZONE) - midnight(on, ZONE)) // 1_800


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def _within(value: int, capacity: int) -> int:
    return min(max(value, 0), capacity)


def _chance(seed: int, *what: str | int) -> int:
    """A number below the last argument, the same for the same arguments."""
    *name, below = what
    digest = blake2b(f"{seed}/{'/'.join(map(str, name))}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") % int(below)
