"""The part of the DATEX II 3.7 model that parking publishes, element by element, and a check of a document against it.

Written from the published schemas (names, order, how often, words allowed; every element that may come is optional but those marked 1 or +).
The whole schema is checked by hand when the publication changes: services/parking/README.md says how.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from xml.etree import ElementTree

NAMESPACES = {
    "d2": "http://datex2.eu/schema/3/d2Payload",
    "com": "http://datex2.eu/schema/3/common",
    "fac": "http://datex2.eu/schema/3/facilities",
    "loc": "http://datex2.eu/schema/3/locationReferencing",
    "prk": "http://datex2.eu/schema/3/parking",
    "xsi": "http://www.w3.org/2001/XMLSchema-instance",
}
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
CLOCK = re.compile(r"([01]\d|2[0-3]):[0-5]\d:[0-5]\d")
NUMBER = re.compile(r"\d+")
DECIMAL = re.compile(r"-?\d+\.\d+")
TEXT = re.compile(r"(?s).{0,1024}")
COUNTRY = re.compile(r"[A-Z]{2}")


def words(*allowed: str) -> re.Pattern[str]:
    return re.compile("|".join(allowed))


_DAY = words("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_PAYLOAD = ("com:publicationTime 1", "com:publicationCreator 1")
_FACILITY = (
    "fac:name", "fac:alias *", "fac:lastUpdated", "fac:description", "fac:operatingHours", "fac:locationReference", "fac:owner",
    "fac:operator",
)  # fmt: skip
_ELEMENT = (
    *_FACILITY, "prk:layer 1", "prk:type 1", "prk:parentId", "prk:childId *", "prk:operatorDefinedReference", "prk:occupancyLevel",
    "prk:supply",
)  # fmt: skip

TYPES: dict[str, tuple[str, ...]] = {
    "prk:ParkingTablePublication": (*_PAYLOAD, "prk:headerInformation", "prk:parkingTable +"),
    "prk:ParkingStatusPublication": (
        *_PAYLOAD, "prk:parkingTableReference *", "prk:headerInformation", "prk:parkingStatusInformation +",
    ),
    "com:publicationCreator": ("com:country 1", "com:nationalIdentifier 1"),
    "prk:headerInformation": ("com:informationStatus 1",),
    "prk:parkingTable": ("prk:name", "prk:versionTime 1", "prk:informationManager", "prk:hierarchyElementGeneral +"),
    "prk:Place": (*_ELEMENT, "prk:layout", "prk:availableFloors", "prk:commonComponents"),
    "prk:name": ("com:values 1",),
    "fac:name": ("com:values 1",),
    "com:values": ("com:value +",),
    "fac:OpenAllHours": (),
    "fac:OperatingHoursSpecification": ("fac:label", "fac:operatingAllYear", "fac:urlLinkAddress", "fac:overallPeriod 1"),
    "fac:overallPeriod": ("com:overallStartTime 1", "com:overallEndTime", "com:validPeriod *", "com:exceptionPeriod *"),
    "com:validPeriod": ("com:recurringTimePeriodOfDay *", "com:recurringDayWeekMonthPeriod *"),
    "com:recurringTimePeriodOfDay": ("com:startTimeOfPeriod 1", "com:endTimeOfPeriod 1"),
    "com:recurringDayWeekMonthPeriod": ("com:applicableDay *",),
    "loc:PointLocation": ("loc:pointByCoordinates",),
    "loc:pointByCoordinates": ("loc:pointCoordinates 1",),
    "loc:pointCoordinates": ("loc:latitude 1", "loc:longitude 1"),
    "fac:OrganisationSpecification": ("fac:name 1", "fac:organisationUnit +"),
    "fac:organisationUnit": ("fac:name",),
    "prk:supply": ("prk:quantity 1", "prk:viewType 1"),
    "prk:parkingTableReference": (),
    "fac:reference": (),
    "prk:PlaceStatus": (
        "fac:reference 1", "fac:lastUpdated", "fac:openingStatus", "fac:regularOperatingHoursInForce", "fac:statusDescription",
        "prk:queueingTime", "prk:parkingConditions", "prk:blurredAvailability", "prk:parkingFault *", "prk:occupancy",
        "prk:statusValidity", "prk:supply", "prk:status *",
    ),
    "prk:occupancy": (
        "prk:numberOfSpacesOverride", "prk:numberOfVacantSpaces", "prk:numberOfVacantSpacesGraded", "prk:numberOfOccupiedSpaces",
        "prk:numberOfVehicles", "prk:occupancy", "prk:occupancyGraded", "prk:occupancyTrend",
    ),
}  # fmt: skip
"""Type, or element of one type only -> its children in order: once at most, 1 exactly once, * any number, + at least one."""

VALUES: dict[str, re.Pattern[str]] = {
    "com:publicationTime": TIME, "prk:versionTime": TIME, "com:overallStartTime": TIME, "fac:lastUpdated": TIME,
    "com:country": COUNTRY, "com:nationalIdentifier": TEXT, "com:value": TEXT,
    "com:informationStatus": words("real", "securityExercise", "technicalExercise", "test"),
    "prk:layer": NUMBER, "prk:type": words("campus", "place", "subplaceElement", "identifiedArea", "space"),
    "prk:quantity": NUMBER, "prk:viewType": words("spaceView", "vehicleView"),
    "com:startTimeOfPeriod": CLOCK, "com:endTimeOfPeriod": CLOCK, "com:applicableDay": _DAY,
    "loc:latitude": DECIMAL, "loc:longitude": DECIMAL,
    "fac:openingStatus": words("open", "closed", "closedOnHoliday", "closedOnMaintenance", "temporarilyClosed", "statusUnknown"),
    "prk:parkingFault": words("communicationsFailure", "erroneousOccupancyInformation", "noParkingInformationAvailable"),
    "prk:numberOfVacantSpaces": NUMBER, "prk:numberOfOccupiedSpaces": NUMBER, "prk:occupancy": DECIMAL,
    "prk:numberOfVacantSpacesGraded": words("noParkingSpacesAvailable", "onlyAFewSpacesAvailable", "unknown"),
    "prk:occupancyGraded": words("full", "unknown"),
    "prk:status": words("full", "fullAtEntrance", "spacesAvailable", "almostFull", "unknown"),
}  # fmt: skip
"""Element with text -> what it may say."""

ATTRIBUTES: dict[str, dict[str, re.Pattern[str]]] = {
    "d2:payload": {"xsi:type": words("prk:.*"), "lang": words("[a-z]{2}"), "modelBaseVersion": words("3")},
    "prk:parkingTable": {"id": TEXT, "version": TEXT},
    "prk:hierarchyElementGeneral": {"xsi:type": words("prk:Place"), "id": TEXT, "version": TEXT},
    "prk:parkingStatusInformation": {"xsi:type": words("prk:PlaceStatus")},
    "prk:parkingTableReference": {"targetClass": words("prk:ParkingTable"), "id": TEXT, "version": TEXT},
    "fac:reference": {"targetClass": words("fac:FacilityObject"), "id": TEXT, "version": TEXT},
    "fac:locationReference": {"xsi:type": words("loc:PointLocation")},
    "fac:operator": {"xsi:type": words("fac:OrganisationSpecification"), "id": TEXT, "version": TEXT},
    "com:value": {"lang": words("[a-z]{2}")},
}


@dataclass(frozen=True)
class Fault:
    """Where a document leaves the model."""

    element: str
    why: str


def faults(document: bytes) -> list[Fault]:
    """What in a document is not of the model."""
    return _element(ElementTree.fromstring(document), "")


def _element(item: ElementTree.Element, within: str) -> list[Fault]:
    name = short(item.tag)
    kind = item.get(f"{{{NAMESPACES['xsi']}}}type", name)
    found = _attributes(item, name)
    if not len(item) and (name in VALUES and not (name == "prk:occupancy" and within != "prk:occupancy")):
        text = item.text or ""
        return found if VALUES[name].fullmatch(text) else [*found, Fault(name, f"says {text!r}")]
    if kind not in TYPES:
        return [*found, Fault(name, f"{kind} is no type of the model")]
    found += _children([short(child.tag) for child in item], kind)
    return found + [fault for child in item for fault in _element(child, name)]


def _children(given: list[str], kind: str) -> list[Fault]:
    found, left = [], list(given)
    for rule in TYPES[kind]:
        name, _, times = rule.partition(" ")
        count = 0
        while left and left[0] == name:
            left.pop(0)
            count += 1
        if (times in ("1", "+") and count == 0) or (times in ("1", "") and count > 1):
            found.append(Fault(name, f"comes {count} times in {kind}"))
    return found + [Fault(name, f"does not belong there in {kind}") for name in left]


def _attributes(item: ElementTree.Element, name: str) -> list[Fault]:
    given = {short(key): value for key, value in item.attrib.items()}
    allowed = ATTRIBUTES.get(name, {})
    if name == "fac:operatingHours":
        specified = given.get("xsi:type") == "fac:OperatingHoursSpecification"
        allowed = {"xsi:type": words("fac:.*"), **({"id": TEXT, "version": TEXT} if specified else {})}
    wrong = [key for key, value in given.items() if key not in allowed or not allowed[key].fullmatch(value)]
    return [Fault(name, f"attribute {key}") for key in [*wrong, *(allowed.keys() - given.keys())]]


def short(name: str) -> str:
    """`prk:status` of a qualified name."""
    if not name.startswith("{"):
        return name
    uri, _, local = name[1:].partition("}")
    return f"{next((key for key, value in NAMESPACES.items() if value == uri), uri)}:{local}"
