"""Green Button: the ESPI document element by element, in the order of the schema's sequences."""

from __future__ import annotations

from xml.etree import ElementTree

from services.metering.app.zones import year_offsets
from services.metering.domain.green_button import Point, dst_rule, feed
from services.metering.domain.slots import SLOT_S, Offsets

ATOM, ESPI = "{http://www.w3.org/2005/Atom}", "{http://naesb.org/espi}"
START = 1_475_535_600


def document(points: list[Point], zone: str = "Europe/London") -> ElementTree.Element:
    return ElementTree.fromstring("".join(feed("mp-<1>", points, year_offsets(zone, START), START)))


def contents(root: ElementTree.Element, kind: str) -> list[ElementTree.Element]:
    return [found for entry in root.iter(f"{ATOM}entry") for found in entry.findall(f"{ATOM}content/{ESPI}{kind}")]


def names(element: ElementTree.Element) -> list[str]:
    return [child.tag.removeprefix(ESPI) for child in element]


def values(element: ElementTree.Element) -> dict[str, str]:
    return {child.tag.removeprefix(ESPI): child.text or "" for child in element}


QUALITIES = ["measured", "estimated", "quarantined"]
POINTS = [Point(START + n * SLOT_S, 100 + n, QUALITIES[n % 3]) for n in range(60)]


def test_the_feed_holds_each_resource_with_its_links() -> None:
    root = document(POINTS)
    assert root.tag == f"{ATOM}feed"
    assert [child.tag.removeprefix(ATOM) for child in root][:3] == ["id", "title", "updated"]
    entries = root.findall(f"{ATOM}entry")
    kinds = [entry.findtext(f"{ATOM}title") for entry in entries]
    assert kinds == [
        "UsagePoint",
        "LocalTimeParameters",
        "ReadingType",
        "MeterReading",
        "IntervalBlock",
        "IntervalBlock",
    ]
    ids = [entry.findtext(f"{ATOM}id") or "" for entry in entries]
    assert len(set(ids)) == len(ids)
    assert all(id_.startswith("urn:uuid:") for id_ in ids)
    for entry in entries:
        assert {link.get("rel") for link in entry.findall(f"{ATOM}link")} >= {"self", "up"}


def test_reading_type_and_usage_point_say_what_is_measured() -> None:
    root = document(POINTS)
    kind = contents(root, "ReadingType")[0]
    assert values(kind) == {
        "accumulationBehaviour": "4", "commodity": "1", "dataQualifier": "12", "flowDirection": "1", "intervalLength": "1800",
        "kind": "12", "phase": "0", "powerOfTenMultiplier": "0", "timeAttribute": "0", "uom": "72",
    }  # fmt: skip
    assert names(kind) == sorted(names(kind))
    assert contents(root, "UsagePoint")[0].findtext(f"{ESPI}ServiceCategory/{ESPI}kind") == "0"


def test_blocks_are_local_days_with_every_reading() -> None:
    blocks = contents(document(POINTS), "IntervalBlock")
    assert [len(block.findall(f"{ESPI}IntervalReading")) for block in blocks] == [48, 12]
    interval = blocks[0].find(f"{ESPI}interval")
    assert interval is not None
    assert (names(interval), values(interval)) == (["duration", "start"], {"duration": "86400", "start": str(START)})
    readings = [reading for block in blocks for reading in block.findall(f"{ESPI}IntervalReading")]
    assert names(readings[0]) == ["ReadingQuality", "timePeriod", "value"]
    found = [
        (
            reading.findtext(f"{ESPI}timePeriod/{ESPI}start"),
            reading.findtext(f"{ESPI}value"),
            reading.findtext(f"{ESPI}ReadingQuality/{ESPI}quality"),
        )
        for reading in readings
    ]
    codes = {"measured": "17", "estimated": "8", "quarantined": "10"}
    assert found == [(str(point.slot), str(point.energy_wh), codes[point.quality]) for point in POINTS]


def test_local_time_follows_the_zone() -> None:
    london = contents(document([]), "LocalTimeParameters")[0]
    assert names(london) == ["dstEndRule", "dstOffset", "dstStartRule", "tzOffset"]
    assert values(london) == {
        "dstEndRule": "AE0E2000",
        "dstOffset": "3600",
        "dstStartRule": "3E0E1000",
        "tzOffset": "0",
    }
    utc = contents(document([], "UTC"), "LocalTimeParameters")[0]
    assert values(utc) == {"dstEndRule": "FFFFFFFF", "dstOffset": "0", "dstStartRule": "FFFFFFFF", "tzOffset": "0"}


def test_daylight_saving_rules_match_the_published_example_for_the_united_states() -> None:
    # Second Sunday in March and first Sunday in November at 02:00 wall time, as utilities publish them.
    assert dst_rule(1_457_863_200, -8 * 3_600) == "360E2000"
    assert dst_rule(1_478_422_800, -7 * 3_600) == "B40E2000"


def test_a_half_known_change_is_left_out() -> None:
    root = ElementTree.fromstring("".join(feed("mp", [], Offsets(((0, 0), (START, 3_600))), START)))
    assert values(contents(root, "LocalTimeParameters")[0])["dstStartRule"] == "FFFFFFFF"
