"""The lots as others read them: DATEX II 3 (XML, namespaces of the parking model) and Smart Data Models OffStreetParking (key-values).

Elements, order and words are those of the published models, named in services/parking/README.md. What is unknown is said to be unknown;
it is never a number.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from itertools import groupby
from typing import Any

from services.parking.domain.lots import ALWAYS, DAY_MINUTES, Lot
from services.parking.domain.markup import DECLARATION, element, leaf
from services.parking.domain.states import DISPUTED, UNKNOWN, LotState

_NAMESPACES = {
    "xmlns_d2": "http://datex2.eu/schema/3/d2Payload",
    "xmlns_com": "http://datex2.eu/schema/3/common",
    "xmlns_fac": "http://datex2.eu/schema/3/facilities",
    "xmlns_loc": "http://datex2.eu/schema/3/locationReferencing",
    "xmlns_prk": "http://datex2.eu/schema/3/parking",
    "xmlns_xsi": "http://www.w3.org/2001/XMLSchema-instance",
}
_TABLE = "lots"
_LANGUAGE = "en"
_DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_SHORT_DAYS = ("Mo", "Tu", "We", "Th", "Fr", "Sa", "Su")
_ALMOST_FULL_PERCENT = 95
_E7_DIGITS = 7
_CONTEXT = [
    "https://raw.githubusercontent.com/smart-data-models/dataModel.Parking/master/context.jsonld",
    "https://uri.etsi.org/ngsi-ld/v1/ngsi-ld-core-context.jsonld",
]


@dataclass(frozen=True, slots=True)
class Seen:
    """A lot as it is now."""

    lot: Lot
    state: LotState
    open: bool


@dataclass(frozen=True, slots=True)
class Publisher:
    """Who publishes, and when. `country` is a code of ISO 3166-1; `test`: the data is a demonstration's."""

    city: str
    country: str
    test: bool
    now: int


def datex_table(publisher: Publisher, lots: Sequence[Lot]) -> str:
    """ParkingTablePublication: what lots there are."""
    table = element(
        "prk:parkingTable",
        _text("prk:name", f"Car parks of {publisher.city}"),
        leaf("prk:versionTime", _time(publisher.now)),
        *map(_place, lots),
        id=_TABLE,
        version=_version(lots),
    )
    return _payload("prk:ParkingTablePublication", publisher, _header(publisher), table)


def datex_status(publisher: Publisher, seen: Sequence[Seen]) -> str:
    """ParkingStatusPublication: how full they are."""
    version = _version([one.lot for one in seen])
    reference = element("prk:parkingTableReference", targetClass="prk:ParkingTable", id=_TABLE, version=version)
    return _payload("prk:ParkingStatusPublication", publisher, reference, _header(publisher), *map(_status, seen))


def off_street_parking(city: str, seen: Iterable[Seen]) -> list[dict[str, Any]]:
    """NGSI-LD entities in the form of key-values."""
    return [_entity(city, one) for one in seen]


def _payload(kind: str, publisher: Publisher, *content: str) -> str:
    creator = element(
        "com:publicationCreator", leaf("com:country", publisher.country), leaf("com:nationalIdentifier", publisher.city)
    )
    time = leaf("com:publicationTime", _time(publisher.now))
    attributes = {"xsi_type": kind, "lang": _LANGUAGE, "modelBaseVersion": "3"}
    return DECLARATION + element("d2:payload", time, creator, *content, **_NAMESPACES, **attributes) + "\n"


def _header(publisher: Publisher) -> str:
    return element("prk:headerInformation", leaf("com:informationStatus", "test" if publisher.test else "real"))


def _place(lot: Lot) -> str:
    return element(
        "prk:hierarchyElementGeneral",
        _text("fac:name", lot.name),
        _hours(lot),
        _location(lot),
        *([_operator(lot.operator)] if lot.operator else []),
        leaf("prk:layer", 1),
        leaf("prk:type", "place"),
        element("prk:supply", leaf("prk:quantity", lot.capacity), leaf("prk:viewType", "spaceView")),
        xsi_type="prk:Place",
        id=lot.id,
        version=_version([lot]),
    )


def _hours(lot: Lot) -> str:
    if lot.open_minutes == ALWAYS:
        return element("fac:operatingHours", xsi_type="fac:OpenAllHours")
    period = element("fac:overallPeriod", leaf("com:overallStartTime", _time(0)), *map(_period, _by_hours(lot)))
    return element(
        "fac:operatingHours",
        period,
        xsi_type="fac:OperatingHoursSpecification",
        id=f"{lot.id}-hours",
        version=_version([lot]),
    )


def _period(hours: tuple[tuple[int, int], list[int]]) -> str:
    (start, end), days = hours
    times = element(
        "com:recurringTimePeriodOfDay",
        leaf("com:startTimeOfPeriod", f"{_clock(start)}:00"),
        leaf("com:endTimeOfPeriod", "23:59:59" if end == DAY_MINUTES else f"{_clock(end)}:00"),
    )
    applicable = [leaf("com:applicableDay", _DAYS[day]) for day in days]
    return element("com:validPeriod", times, element("com:recurringDayWeekMonthPeriod", *applicable))


def _location(lot: Lot) -> str:
    coordinates = element(
        "loc:pointCoordinates",
        leaf("loc:latitude", _degrees(lot.latitude_e7)),
        leaf("loc:longitude", _degrees(lot.longitude_e7)),
    )
    point = element("loc:pointByCoordinates", coordinates)
    return element("fac:locationReference", point, xsi_type="loc:PointLocation")


def _operator(name: str) -> str:
    return element(
        "fac:operator",
        _text("fac:name", name),
        element("fac:organisationUnit"),
        xsi_type="fac:OrganisationSpecification",
        id=sha256(name.encode()).hexdigest()[:16],
        version="1",
    )


def _status(seen: Seen) -> str:
    lot, state = seen.lot, seen.state
    faults = {UNKNOWN: "noParkingInformationAvailable", DISPUTED: "erroneousOccupancyInformation"}
    fault = faults.get(state.quality)
    return element(
        "prk:parkingStatusInformation",
        element("fac:reference", targetClass="fac:FacilityObject", id=lot.id, version=_version([lot])),
        *([leaf("fac:lastUpdated", _time(state.time))] if state.time else []),
        leaf("fac:openingStatus", "open" if seen.open else "closed"),
        *([leaf("prk:parkingFault", fault)] if fault else []),
        _occupancy(lot, state.shown),
        leaf("prk:status", _fullness(lot, state.shown)),
        xsi_type="prk:PlaceStatus",
    )


def _occupancy(lot: Lot, cars: int | None) -> str:
    if cars is None:
        return element(
            "prk:occupancy",
            leaf("prk:numberOfVacantSpacesGraded", "unknown"),
            leaf("prk:occupancyGraded", "unknown"),
        )
    return element(
        "prk:occupancy",
        leaf("prk:numberOfVacantSpaces", lot.capacity - cars),
        leaf("prk:numberOfOccupiedSpaces", cars),
        leaf("prk:occupancy", f"{100 * cars / lot.capacity:.1f}"),
    )


def _fullness(lot: Lot, cars: int | None) -> str:
    if cars is None:
        return "unknown"
    if cars >= lot.capacity:
        return "full"
    return "almostFull" if 100 * cars >= _ALMOST_FULL_PERCENT * lot.capacity else "spacesAvailable"


def _entity(city: str, seen: Seen) -> dict[str, Any]:
    lot, state = seen.lot, seen.state
    status = ["open" if seen.open else "closed"]
    known: dict[str, Any] = {}
    if state.shown is not None:
        status.append(_fullness(lot, state.shown))
        known = {
            "availableSpotNumber": lot.capacity - state.shown,
            "occupiedSpotNumber": state.shown,
            "occupancy": round(state.shown / lot.capacity, 4),
            "occupancyModified": _time(state.time),
            "observationDateTime": _time(state.time),
        }
    return {
        "@context": _CONTEXT,
        "id": f"urn:ngsi-ld:OffStreetParking:{city.replace('/', ':')}:{lot.id}",
        "type": "OffStreetParking",
        "name": lot.name,
        "category": ["public", "feeCharged", *(["barrierAccess"] if lot.lock else [])],
        "allowedVehicleType": ["car"],
        "location": {
            "type": "Point",
            "coordinates": [float(_degrees(lot.longitude_e7)), float(_degrees(lot.latitude_e7))],
        },
        "totalSpotNumber": lot.capacity,
        "openingHours": ", ".join(_opening(hours) for hours in _by_hours(lot)),
        "occupancyDetectionType": [_detection(lot)],
        "reservationType": ["partly" if lot.bays and lot.lock else "notAvailable"],
        "status": status,
        **known,
    }


def _detection(lot: Lot) -> str:
    if len(lot.bay_sensors) == lot.capacity:
        return "singleSpaceDetection"
    return "balancing" if lot.sensors else "none"


def _opening(hours: tuple[tuple[int, int], list[int]]) -> str:
    (start, end), days = hours
    return f"{','.join(_SHORT_DAYS[day] for day in days)} {_clock(start)}-{_clock(min(end, DAY_MINUTES - 1))}"


def _by_hours(lot: Lot) -> list[tuple[tuple[int, int], list[int]]]:
    """((from minute, to minute), weekdays), for weekdays with the same hours."""
    found = sorted((start, end, day) for day, start, end in lot.open_minutes)
    return [(hours, [day for _, _, day in days]) for hours, days in groupby(found, key=lambda one: (one[0], one[1]))]


def _text(name: str, value: str) -> str:
    return element(name, element("com:values", leaf("com:value", value, lang=_LANGUAGE)))


def _version(lots: Sequence[Lot]) -> str:
    """Changes with what is said of the lots."""
    return sha256(repr(tuple(lots)).encode()).hexdigest()[:12]


def _time(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _clock(minute: int) -> str:
    return f"{minute // 60:02d}:{minute % 60:02d}"


def _degrees(e7: int) -> str:
    sign, digits = "-" if e7 < 0 else "", f"{abs(e7):0{_E7_DIGITS + 1}d}"
    return f"{sign}{digits[:-_E7_DIGITS]}.{digits[-_E7_DIGITS:]}"
