"""The lots as DATEX II 3 and Smart Data Models: element by element against the published models; what is unknown is never a number."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from citykit.errors import FailedPrecondition, InvalidArgument
from citykit.settings import GeneralSettings
from services.parking.app.publications import Publications, country
from services.parking.domain.lots import ALWAYS
from services.parking.domain.publishing import Publisher, Seen, datex_status, datex_table, off_street_parking
from services.parking.domain.states import COUNTED, DISPUTED, UNKNOWN, LotState
from tests.unit.parking.datex_model import NAMESPACES, Fault, faults
from tests.unit.parking.sensing import NINE, Sensor, a_lot, sensing

PUBLISHER = Publisher("provable.city/demo", "GB", test=True, now=NINE)
WEEKDAYS = tuple((day, 480, 1_080) for day in range(5))
PLAIN = a_lot(name='High & "Street" <1>', bays=("bay-1",), lock="lock-1")
NIGHTS = a_lot(
    "nights", open_minutes=((5, 540, 1_440), *WEEKDAYS), operator="", latitude_e7=-5, longitude_e7=1_234_567_890
)
LOTS = (PLAIN, NIGHTS)

# dataModel.Parking/OffStreetParking 0.1.3 and what it takes from GSMA-Commons and Location-Commons
SMART: dict[str, Any] = {
    "id": str, "type": {"OffStreetParking"}, "name": str, "@context": list, "location": dict,
    "category": [{"barrierAccess", "feeCharged", "free", "freeAccess", "public", "private"}],
    "allowedVehicleType": [{"car", "anyVehicle", "van"}], "totalSpotNumber": int, "availableSpotNumber": int,
    "occupiedSpotNumber": int, "occupancy": float, "occupancyModified": "time", "observationDateTime": "time",
    "openingHours": str, "occupancyDetectionType": [{"balancing", "manual", "modelBased", "none", "singleSpaceDetection"}],
    "reservationType": [{"mandatory", "notAvailable", "optional", "partly"}],
    "status": [{"almostFull", "closed", "full", "open", "spacesAvailable"}],
}  # fmt: skip
SMART_REQUIRED = {"id", "type", "location"}


def state(cars: int | None, quality: str = COUNTED, time: int = NINE - 60) -> LotState:
    return LotState("high-street", time, cars, 200, quality, 90)


def status(*seen: Seen) -> ElementTree.Element:
    document = datex_status(PUBLISHER, seen).encode()
    assert faults(document) == []
    return ElementTree.fromstring(document)


def texts(root: ElementTree.Element, path: str) -> list[str]:
    return [item.text or "" for item in root.findall(path, NAMESPACES)]


def test_the_table_is_of_the_model() -> None:
    document = datex_table(PUBLISHER, LOTS).encode()
    assert faults(document) == []
    root = ElementTree.fromstring(document)
    assert texts(root, ".//fac:name/com:values/com:value") == ['High & "Street" <1>', "city", "High Street"]
    assert texts(root, ".//loc:latitude") == ["52.4800000", "-0.0000005"]
    assert texts(root, ".//loc:longitude") == ["-1.9000000", "123.4567890"]
    assert texts(root, ".//prk:quantity") == ["200", "200"]
    assert texts(root, ".//com:endTimeOfPeriod") == ["18:00:00", "23:59:59"]
    assert [len(item) for item in root.findall(".//com:recurringDayWeekMonthPeriod", NAMESPACES)] == [5, 1]
    assert texts(root, ".//com:informationStatus") == ["test"]


def test_a_real_city_says_so() -> None:
    document = datex_table(replace(PUBLISHER, test=False), LOTS)
    assert "<com:informationStatus>real</com:informationStatus>" in document


def test_the_status_refers_to_the_table_and_its_lots() -> None:
    table = ElementTree.fromstring(datex_table(PUBLISHER, LOTS).encode())
    root = status(*(Seen(lot, state(50), True) for lot in LOTS))
    of_table = table.find("prk:parkingTable", NAMESPACES)
    reference = root.find("prk:parkingTableReference", NAMESPACES)
    assert of_table is not None
    assert reference is not None
    assert (reference.get("id"), reference.get("version")) == (of_table.get("id"), of_table.get("version"))
    versions = [(e.get("id"), e.get("version")) for e in table.findall(".//prk:hierarchyElementGeneral", NAMESPACES)]
    assert [(e.get("id"), e.get("version")) for e in root.findall(".//fac:reference", NAMESPACES)] == versions


def test_how_full_a_lot_is() -> None:
    root = status(*(Seen(PLAIN, state(cars), cars < 200) for cars in (0, 150, 190, 200)))
    assert texts(root, ".//prk:status") == ["spacesAvailable", "spacesAvailable", "almostFull", "full"]
    assert texts(root, ".//prk:numberOfVacantSpaces") == ["200", "50", "10", "0"]
    assert texts(root, ".//prk:numberOfOccupiedSpaces") == ["0", "150", "190", "200"]
    assert texts(root, ".//prk:occupancy/prk:occupancy") == ["0.0", "75.0", "95.0", "100.0"]
    assert texts(root, ".//fac:openingStatus") == ["open", "open", "open", "closed"]
    assert texts(root, ".//fac:lastUpdated") == ["2016-11-08T08:59:00Z"] * 4


@pytest.mark.parametrize(
    ("unknown", "fault"),
    [
        (state(None, UNKNOWN, 0), "noParkingInformationAvailable"),
        (state(150, DISPUTED), "erroneousOccupancyInformation"),
    ],
)
def test_what_is_unknown_is_published_as_unknown(unknown: LotState, fault: str) -> None:
    root = status(Seen(PLAIN, unknown, True))
    assert texts(root, ".//prk:status") == ["unknown"]
    assert texts(root, ".//prk:numberOfVacantSpacesGraded") == texts(root, ".//prk:occupancyGraded") == ["unknown"]
    assert texts(root, ".//prk:parkingFault") == [fault]
    assert not texts(root, ".//prk:numberOfVacantSpaces")
    entity = off_street_parking("provable.city/demo", [Seen(PLAIN, unknown, True)])[0]
    assert entity["status"] == ["open"]
    assert not {"availableSpotNumber", "occupiedSpotNumber", "occupancy", "observationDateTime"} & entity.keys()


def fits(value: Any, rule: Any) -> bool:
    if rule == "time":
        return bool(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", value))
    if isinstance(rule, set):
        return value in rule
    if isinstance(rule, list):
        return bool(value) and len(set(value)) == len(value) and all(item in rule[0] for item in value)
    return isinstance(value, rule) and not isinstance(value, bool)


@pytest.mark.parametrize("cars", [0, 150, 199, 200, None])
def test_smart_data_models_attribute_by_attribute(cars: int | None) -> None:
    watched = tuple((f"b-{n}", f"bay-{n}") for n in range(2))
    lots = (*LOTS, a_lot("none", sensors=()), a_lot("bays", capacity=2, bay_sensors=watched))
    for entity in off_street_parking("provable.city/demo", [Seen(lot, state(cars), cars != 0) for lot in lots[:3]]):
        assert entity.keys() >= SMART_REQUIRED
        assert [key for key, value in entity.items() if not fits(value, SMART[key])] == []
        assert entity["location"]["type"] == "Point"
        if cars is not None:
            assert entity["availableSpotNumber"] + entity["occupiedSpotNumber"] == entity["totalSpotNumber"]
            assert 0 <= entity["occupancy"] <= 1
    kinds = [
        entity["occupancyDetectionType"]
        for entity in off_street_parking("c", [Seen(x, state(None), True) for x in lots])
    ]
    assert kinds == [["balancing"], ["balancing"], ["none"], ["singleSpaceDetection"]]


def test_smart_data_models_say_what_can_be_reserved_and_when_it_is_open() -> None:
    first, second = off_street_parking("provable.city/demo", [Seen(lot, state(1), True) for lot in LOTS])
    assert first["id"] == "urn:ngsi-ld:OffStreetParking:provable.city:demo:high-street"
    assert (first["reservationType"], second["reservationType"]) == (["partly"], ["notAvailable"])
    assert (first["category"], second["category"]) == (
        ["public", "feeCharged", "barrierAccess"],
        ["public", "feeCharged"],
    )
    assert first["openingHours"] == "Mo,Tu,We,Th,Fr,Sa,Su 00:00-23:59"
    assert second["openingHours"] == "Mo,Tu,We,Th,Fr 08:00-18:00, Sa 09:00-23:59"
    assert first["location"]["coordinates"] == [-1.9, 52.48]


def test_the_check_of_the_model_finds_what_is_wrong() -> None:
    good = datex_status(PUBLISHER, [Seen(PLAIN, state(150), True)])
    bad = [
        (good.replace("spacesAvailable", "roomy"), Fault("prk:status", "says 'roomy'")),
        (good.replace("numberOfVacantSpaces>", "vacant>"), Fault("prk:vacant", "prk:vacant is no type of the model")),
        (good.replace(' lang="en"', ""), Fault("d2:payload", "attribute lang")),
        (
            good.replace(
                "<fac:openingStatus>open</fac:openingStatus>", "<fac:openingStatus>open</fac:openingStatus>" * 2
            ),
            Fault("fac:openingStatus", "comes 2 times in prk:PlaceStatus"),
        ),
        (good.replace("2016-11-08T09:00:00Z", "today"), Fault("com:publicationTime", "says 'today'")),
    ]
    for document, fault in bad:
        assert fault in faults(document.encode())


async def test_publications_are_made_of_what_is_known_now(tmp_path: Path) -> None:
    async with sensing(tmp_path) as found:
        it = Publications(found.lots, found.states, found.clock, GeneralSettings())
        assert json.loads(it.get("smart-data-models").content) == []
        with pytest.raises(FailedPrecondition, match="RegisterLots"):
            it.get("datex-table")
        with pytest.raises(InvalidArgument, match="datex-status"):
            it.get("json")
        await found.add(a_lot(open_minutes=WEEKDAYS), a_lot("b", sensors=("s-2",)))
        await found.send(Sensor("s-1").package((NINE, 150)))
        for format_ in ("datex-table", "datex-status"):
            answer = it.get(format_)
            assert answer.media_type == "application/xml"
            assert faults(answer.content) == []
        root = ElementTree.fromstring(it.get("datex-status").content)
        assert texts(root, ".//prk:status") == ["unknown", "spacesAvailable"]
        assert texts(root, ".//com:country") == ["GB"]
        found.advance(10 * 3_600)
        assert [one["status"] for one in json.loads(it.get("smart-data-models").content)] == [["open"], ["closed"]]


def test_the_country_of_a_zone() -> None:
    assert (country("Europe/London"), country("Europe/Berlin"), country("UTC")) == ("GB", "DE", "ZZ")


def test_always_open_is_said_in_one_word() -> None:
    assert a_lot().open_minutes == ALWAYS
    assert 'xsi:type="fac:OpenAllHours"' in datex_table(PUBLISHER, [a_lot()])
