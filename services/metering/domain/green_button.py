"""Green Button download: ESPI XML (NAESB REQ.21, namespace http://naesb.org/espi) in an Atom feed, as pieces of text.

Element order follows the schema's sequences: UsagePoint, LocalTimeParameters, ReadingType, MeterReading, IntervalBlock per local day.
"""

from __future__ import annotations

import calendar
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import groupby, pairwise
from typing import Any
from uuid import UUID, uuid5
from xml.sax.saxutils import escape

from services.metering.domain.slots import DAY_S, SLOT_S, Offsets

ATOM, ESPI = "http://www.w3.org/2005/Atom", "http://naesb.org/espi"
NO_DST = "FFFFFFFF"
QUALITY = {"measured": 17, "estimated": 8, "quarantined": 10}
"""QualityOfReading: validated, estimated using reference day, questionable."""
# ReadingType values of the schema's enumerations.
_READING_TYPE = (
    ("accumulationBehaviour", 4),  # delta data
    ("commodity", 1),  # electricity, secondary metered
    ("dataQualifier", 12),  # normal
    ("flowDirection", 1),  # forward: delivered to the customer
    ("intervalLength", SLOT_S),
    ("kind", 12),  # energy
    ("phase", 0),
    ("powerOfTenMultiplier", 0),
    ("timeAttribute", 0),
    ("uom", 72),  # Wh
)
_SPACE = UUID("8a4a6b0c-4f5c-5d0e-9a53-6c2f1d7e9b10")
_WEEK_DAYS = 7


@dataclass(frozen=True, slots=True)
class Point:
    """One slot: Wh and quality ("measured", "estimated" or "quarantined")."""

    slot: int
    energy_wh: int
    quality: str


def feed(meter_point: str, points: Iterable[Point], year_offsets: Offsets, updated: int) -> Iterator[str]:
    """The document in pieces, at most one local day each.

    Args:
        points: in order of time.
        year_offsets: of the calendar year around the data: the daylight saving rules are read off them.
        updated: unix seconds.
    """
    at = _iso(updated)
    base = f"/espi/1_1/resource/UsagePoint/{_id(meter_point)}"
    yield f'<?xml version="1.0" encoding="UTF-8"?>\n<feed xmlns="{ATOM}"><id>{_urn(meter_point, "feed")}</id>'
    yield f"<title>Green Button usage of {escape(meter_point)}</title><updated>{at}</updated>"
    usage = "<ServiceCategory><kind>0</kind></ServiceCategory>"
    yield _entry(meter_point, "UsagePoint", base, usage, at, "MeterReading", "LocalTimeParameters")
    yield _entry(meter_point, "LocalTimeParameters", f"{base}/LocalTimeParameters/1", _local_time(year_offsets), at)
    kinds = "".join(f"<{name}>{value}</{name}>" for name, value in _READING_TYPE)
    yield _entry(meter_point, "ReadingType", f"{base}/ReadingType/1", kinds, at)
    yield _entry(meter_point, "MeterReading", f"{base}/MeterReading/1", "", at, "IntervalBlock", "ReadingType")
    for day, group in groupby(points, key=lambda point: year_offsets.local(point.slot) // DAY_S):
        path = f"{base}/MeterReading/1/IntervalBlock/{day}"
        yield _entry(meter_point, "IntervalBlock", path, _block(list(group)), at)
    yield "</feed>\n"


def _entry(meter_point: str, kind: str, path: str, inner: str, at: str, *related: str) -> str:
    links = "".join(f'<link rel="related" href="{path}/{name}"/>' for name in related)
    up = path.rsplit("/", 1)[0]
    return (
        f'<entry><id>{_urn(meter_point, path)}</id><link rel="self" href="{path}"/><link rel="up" href="{up}"/>{links}'
        f'<title>{kind}</title><content><{kind} xmlns="{ESPI}">{inner}</{kind}></content>'
        f"<published>{at}</published><updated>{at}</updated></entry>"
    )


def _block(points: list[Point]) -> str:
    start, end = points[0].slot, points[-1].slot + SLOT_S
    readings = "".join(map(_reading, points))
    return f"<interval><duration>{end - start}</duration><start>{start}</start></interval>{readings}"


def _reading(point: Point) -> str:
    return (
        f"<IntervalReading><ReadingQuality><quality>{QUALITY[point.quality]}</quality></ReadingQuality>"
        f"<timePeriod><duration>{SLOT_S}</duration><start>{point.slot}</start></timePeriod>"
        f"<value>{point.energy_wh}</value></IntervalReading>"
    )


def _local_time(offsets: Offsets) -> str:
    values = [offset for _, offset in offsets.entries]
    standard, summer = min(values), max(values)
    changes = {offset: (start, before) for (_, before), (start, offset) in pairwise(offsets.entries)}
    end, begin = changes.get(standard), changes.get(summer)
    known = standard != summer and end is not None and begin is not None
    parts: list[tuple[str, Any]] = [
        ("dstEndRule", dst_rule(*end) if known and end else NO_DST),
        ("dstOffset", summer - standard if known else 0),
        ("dstStartRule", dst_rule(*begin) if known and begin else NO_DST),
        ("tzOffset", standard),
    ]
    return "".join(f"<{name}>{value}</{name}>" for name, value in parts)


def dst_rule(change: int, offset_before: int) -> str:
    """The schema's DstRuleType of a change at unix time `change`: eight hex digits.

    Bits: 0-11 seconds of the hour, 12-16 hour, 17-19 day of week (Monday is 1), 20-24 day of month (0: not used),
    25-27 occurrence (2 first .. 5 fourth, 7 last), 28-31 month; in the wall time before the change.
    """
    local = datetime.fromtimestamp(change + offset_before, UTC)
    last = local.day + _WEEK_DAYS > calendar.monthrange(local.year, local.month)[1]
    occurrence = 7 if last else 2 + (local.day - 1) // _WEEK_DAYS
    seconds = local.minute * 60 + local.second
    return f"{seconds | local.hour << 12 | local.isoweekday() << 17 | occurrence << 25 | local.month << 28:08X}"


def _urn(meter_point: str, path: str) -> str:
    return f"urn:uuid:{uuid5(_SPACE, f'{meter_point} {path}')}"


def _id(meter_point: str) -> str:
    return uuid5(_SPACE, meter_point).hex


def _iso(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
