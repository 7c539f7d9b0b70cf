"""Readings in monthly partitions, and in the archive: every view says the same numbers before, across and after the border, as on SQLite."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from citykit.bus.port import Message
from citykit.clock import ReplayClock
from citykit.errors import Damaged
from citykit.package import NO_PREVIOUS
from citykit.settings import StoreSettings
from citykit.store.driver import rows
from citykit.store.port import Store, Unit
from citykit.store.postgres import open_postgres
from citykit.store.sqlite import open_sqlite
from services.metering.app.archiving import Archiving
from services.metering.app.ingest import explain
from services.metering.app.zones import zone_offsets
from services.metering.domain.slots import SLOT_S
from services.metering.store import archive, months, usage
from services.metering.store.devices import MeterPointRow, put_meter_points
from services.metering.store.erasure import erase_span
from services.metering.store.months import Month, make_room, month_of
from services.metering.store.packages import Accepted, Candidate, Fact, Wording, store_packages
from services.metering.store.proofs import sequences_of
from services.metering.store.tables import ESTIMATES, METADATA, READINGS
from tests.real.store.serving import Server

MIGRATIONS = Path(usage.__file__).parents[1] / "migrations"
FIRST, COUNT, METERS = Month(2016, 10), 4, 12
COLUMNS = ("meter_point", "slot", "energy_wh", "device", "sequence", "held")
POINT = "mp-03"
_STEP = 6 * SLOT_S
View = Callable[[Any, int, int], Any]


def readings() -> list[tuple[str, int, int, str, int, str]]:
    """Four months of twelve meters, a slot every three hours; one in eleven is held."""
    found = []
    for meter in range(METERS):
        for number, slot in enumerate(range(FIRST.start, FIRST.later(COUNT).start, _STEP)):
            held = 'spike, "odd"\nword' if (meter + number) % 11 == 0 else ""
            found.append(
                (f"mp-{meter:02d}", slot, (meter * 37 + number * 13) % 900, f"d-{meter}", number // 8 + 1, held)
            )
    return found


def fill(unit: Unit) -> None:
    put_meter_points(unit, [MeterPointRow(f"mp-{n:02d}", f"d-{n}", 11_500, "Europe/London") for n in range(METERS)])
    found = readings()
    make_room(unit.connection, [row[1] for row in found])
    unit.insert_many(READINGS, COLUMNS, found)
    guessed = [(POINT, slot, 77, "held") for slot in range(FIRST.start, FIRST.later(COUNT).start, 11 * _STEP)]
    unit.insert_many(ESTIMATES, ("meter_point", "slot", "energy_wh", "reason"), guessed)


VIEWS: dict[str, View] = {
    "slots": lambda c, a, b: usage.slots(c, POINT, a, b),
    "days": lambda c, a, b: usage.sums(c, POINT, a, b, 86_400, zone_offsets("Europe/London").clipped(a, b)),
    "load": lambda c, a, b: usage.city_load(c, a, b, 10),
    "measured": lambda c, a, b: usage.measured(c, POINT, a, b),
    "held": lambda c, a, b: usage.held(c, POINT, a, b),
    "missing": lambda c, a, b: usage.missing_slots(c, POINT, a, b),
    "packages": lambda c, a, b: sequences_of(c, POINT, a, b),
}


async def seen(store: Store) -> dict[str, Any]:
    """Every view over: all, before, across and after the border that two archived months make."""
    border = FIRST.later(2).start
    spans = [(FIRST.start, FIRST.later(COUNT).start), (FIRST.start, border), (border - 40 * _STEP, border + 40 * _STEP),
             (border, FIRST.later(COUNT).start), (border - SLOT_S, border + SLOT_S)]  # fmt: skip
    found = {}
    for name, view in VIEWS.items():
        for start, end in spans:
            found[f"{name} {start} {end}"] = await store.read(lambda c, v=view, a=start, b=end: v(c, a, b))  # type: ignore[misc]
    return found


@dataclass
class Filled:
    store: Store
    archiving: Archiving
    folder: Path
    machine: list[float]

    async def tables(self) -> list[str]:
        return [month.name for month in await self.store.read(months.months)]

    async def archived(self) -> list[str]:
        return [item.month for item in await self.store.read(archive.archived)]


@pytest.fixture
async def filled(quick_server: Server, tmp_path: Path) -> AsyncIterator[Filled]:
    """Two of the four months are due."""
    store = open_postgres("metering", METADATA, MIGRATIONS, StoreSettings(), quick_server.database(["metering"]))
    machine = [1_000_000.0]
    clock = ReplayClock(float(FIRST.later(COUNT).start))
    archiving = Archiving(store, clock, tmp_path / "archive", 2, lambda: machine[0])
    await store.write(fill)
    yield Filled(store, archiving, tmp_path / "archive", machine)
    await store.close()


async def test_every_view_says_the_same_over_table_and_archive(filled: Filled, tmp_path: Path) -> None:
    embedded = open_sqlite(tmp_path / "m.db", METADATA, MIGRATIONS, StoreSettings())
    await embedded.write(fill)
    expected = await seen(embedded)
    await embedded.close()
    assert await seen(filled.store) == expected
    assert await filled.tables() == ["2016-10", "2016-11", "2016-12", "2017-01"]
    await filled.archiving.run()
    assert await filled.archived() == ["2016-10", "2016-11"]
    assert await seen(filled.store) == expected
    await filled.archiving.run()
    assert len(await filled.tables()) == 4, "readers that began before still have the partitions"
    filled.machine[0] += 601
    await filled.archiving.run()
    assert await filled.tables() == ["2016-12", "2017-01"]
    assert await seen(filled.store) == expected
    assert len(list(filled.folder.iterdir())) == 2


async def test_an_erasure_reaches_the_archive(filled: Filled) -> None:
    before = await seen(filled.store)
    await filled.archiving.run()
    start, end = FIRST.start, FIRST.later(3).start
    devices = await filled.store.write(lambda unit: erase_span(unit, POINT, start, end))
    assert devices == ["d-3"]
    assert await filled.store.read(lambda c: usage.slots(c, POINT, start, end)) == []
    load = await filled.store.read(lambda c: usage.city_load(c, start, start + 1, 1))
    assert load[0].meters < before[f"load {FIRST.start} {FIRST.later(COUNT).start}"][0].meters + 1
    filled.machine[0] += 5
    await filled.archiving.run()
    assert await filled.store.read(archive.erasures) == []
    assert await filled.store.read(lambda c: usage.slots(c, POINT, start, end)) == []
    other = await filled.store.read(lambda c: usage.measured(c, "mp-04", start, FIRST.later(1).start))
    assert len(other) > 200
    named = [Path(item.file) for item in await filled.store.read(archive.archived)]
    held = archive._duck(
        f"SELECT count(*) FROM read_parquet({[str(path) for path in named]!r}) WHERE meter_point = '{POINT}'"
    )
    assert held == [(0,)]


async def test_a_month_that_changes_while_it_is_written_stays(filled: Filled, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = archive.write_month

    def changed(connection: Any, month: Month, folder: Path, at: int) -> Any:
        found = whole(connection, month, folder, at)
        change = "UPDATE readings SET held = 'late' WHERE meter_point = ? AND slot = ?"
        if month == FIRST:
            writing = filled.store.write(lambda unit: rows_of(unit, change))
            asyncio.run_coroutine_threadsafe(writing, loop).result()
        return found

    def rows_of(unit: Unit, statement: str) -> int:
        from citykit.store.driver import change  # noqa: PLC0415

        return change(unit.connection, statement, (POINT, FIRST.start + _STEP))

    loop = asyncio.get_running_loop()
    monkeypatch.setattr(archive, "write_month", changed)
    await filled.archiving.run()
    assert await filled.archived() == ["2016-11"]


async def test_a_file_that_is_gone_is_said(filled: Filled) -> None:
    await filled.archiving.run()
    assert await filled.store.read(archive.damage) == []
    first, second = sorted(filled.folder.iterdir())
    first.write_bytes(first.read_bytes()[:-1] + b"?")
    said = await filled.store.read(archive.damage)
    assert [text.split(" is not")[0] for text in said] == ["the archive of 2016-10"]
    for path in (first, second):
        path.unlink()
    assert len(await filled.store.read(archive.damage)) == 2
    with pytest.raises(Damaged, match="put the folder back"):
        await filled.store.read(lambda c: usage.slots(c, POINT, FIRST.start, FIRST.later(1).start))
    assert await filled.store.read(lambda c: usage.slots(c, POINT, FIRST.later(2).start, FIRST.later(3).start))


async def test_a_package_for_an_archived_month_is_kept_and_does_not_count(filled: Filled) -> None:
    await filled.archiving.run()
    before = await seen(filled.store)
    said: list[str] = []

    def fact(device: str, reason: str) -> Fact:
        said.append(reason)
        return Fact(message(device), (f"{device}-{reason}", device, b"{}", bytes(32)))

    wording = Wording(
        accepted=lambda item, held: message(item.device),
        gap=lambda device, after, until: fact(device, "gap"),
        quarantined=fact,
        explain=explain,
    )
    times = [FIRST.start + SLOT_S, FIRST.start + 2 * SLOT_S]
    package = Candidate(
        "d-3", POINT, 1, bytes(32), NO_PREVIOUS, b"c", bytes(32), [(time, 5) for time in times], ["", ""], ""
    )
    [outcome] = await filled.store.write(lambda unit: store_packages(unit, [package], wording, times[0]))
    assert outcome == Accepted([archive.MONTH_ARCHIVED] * 2)
    assert said == [archive.MONTH_ARCHIVED]
    assert await seen(filled.store) == before
    count = await filled.store.read(
        lambda c: rows(c, "SELECT count(*) FROM readings WHERE sequence = 1 AND slot = ?", times[:1])
    )
    assert count == [(0,)]
    assert await filled.store.read(lambda c: rows(c, "SELECT count(*) FROM packages")) == [(1,)]


def message(key: str) -> Message:
    return Message("city.metering.readings.v1", key, b"x", {})


async def test_a_month_gets_its_partition_with_its_first_reading_and_again_after_a_rollback(filled: Filled) -> None:
    late = FIRST.later(20)

    def one(unit: Unit, *, fails: bool = False) -> None:
        make_room(unit.connection, [late.start])
        unit.insert_many(READINGS, COLUMNS, [(POINT, late.start, 1, "d-3", 900, "")])
        if fails:
            raise ValueError("on purpose")

    ends = await asyncio.gather(
        *(filled.store.write(lambda unit: one(unit, fails=True)) for _ in range(3)), return_exceptions=True
    )
    assert [type(end) for end in ends] == [ValueError] * 3
    assert late.name not in await filled.tables()
    await filled.store.write(one)
    assert late.name in await filled.tables()
    assert month_of(late.start) == late and month_of(late.end - 1) == late


async def test_readings_that_were_there_before_the_partitions_are_kept(quick_server: Server) -> None:
    place = quick_server.database(["metering"])
    await open_postgres("metering", METADATA, MIGRATIONS, StoreSettings(), place).close()
    from dataclasses import replace  # noqa: PLC0415

    with replace(quick_server.admin, database=place.database).connect() as admin:
        admin.execute("SET search_path = metering")
        admin.execute("SET ROLE city_metering")
        admin.execute("DROP TABLE readings, archived_months, archive_erasures")
        admin.execute(
            "CREATE TABLE readings (meter_point varchar, slot bigint, energy_wh bigint NOT NULL, device varchar NOT NULL,"
            " sequence bigint NOT NULL, held varchar NOT NULL, PRIMARY KEY (meter_point, slot))"
        )
        admin.execute("UPDATE schema_version SET version_num = 'metering_0002'")
        with admin.cursor() as cursor, cursor.copy("COPY readings FROM STDIN") as copy:
            for row in readings():
                copy.write_row(row)
    store = open_postgres("metering", METADATA, MIGRATIONS, StoreSettings(), place)
    count = await store.read(lambda c: rows(c, "SELECT count(*), sum(energy_wh) FROM readings"))
    tables = [month.name for month in await store.read(months.months)]
    await store.close()
    assert count == [(len(readings()), sum(row[2] for row in readings()))]
    assert tables == ["2016-10", "2016-11", "2016-12", "2017-01", "2017-02", "2017-03"]
