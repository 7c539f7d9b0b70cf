"""Stores verified packages: chain heads, gaps, readings, quarantine and outbox in one unit of work. Called by `app.ingest`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, delete, select, update

from citykit.bus.port import Message
from citykit.onramp.chain import DUPLICATE, LATE, Refusal, split_gap
from citykit.onramp.heads import Chain, chains, placement, set_heads
from citykit.store.port import Unit
from services.metering.store.archive import MONTH_ARCHIVED, writers_horizon
from services.metering.store.months import make_room
from services.metering.store.tables import CHAINS, FACTS, GAPS, PACKAGES, QUARANTINE, READINGS

ALREADY_MEASURED = "slot-already-measured"
EPISODE_S = 86_400
IN_MAX = 500
_PACKAGE_COLUMNS = ("device", "sequence", "hash", "previous", "content", "salt")
_READING_COLUMNS = ("meter_point", "slot", "energy_wh", "device", "sequence", "held")
_FACT_COLUMNS = ("id", "subject", "document", "salt")


@dataclass(frozen=True, slots=True)
class Candidate:
    """A package whose signature and claims hold. `held` has one reason ("" counts) for each of `readings` (slot, Wh)."""

    device: str
    meter_point: str
    sequence: int
    hash: bytes
    previous: bytes
    content: bytes
    salt: bytes
    readings: Sequence[tuple[int, int]]
    held: Sequence[str]
    trace: str


@dataclass(frozen=True, slots=True)
class Accepted:
    """A stored package. `held` as judged; all are marked where it contradicts what was measured before."""

    held: Sequence[str]


Outcome = Accepted | Refusal | str
"""`str` is DUPLICATE."""


@dataclass(frozen=True, slots=True)
class Fact:
    """An event of the log metering.events: its message and the opening of its commitment."""

    message: Message
    row: tuple[str, str, bytes, bytes]


@dataclass(frozen=True, slots=True)
class Wording:
    """How the app says things to the bus: kept out of the store."""

    accepted: Callable[[Candidate, Sequence[str]], Message]
    gap: Callable[[str, int, int], Fact]
    quarantined: Callable[[str, str], Fact]
    explain: Callable[[Candidate, str], str]


@dataclass(slots=True)
class _Rows:
    packages: list[tuple[Any, ...]] = field(default_factory=list)
    readings: list[tuple[Any, ...]] = field(default_factory=list)
    messages: list[Message] = field(default_factory=list)
    facts: list[Fact] = field(default_factory=list)
    slots: dict[str, dict[int, int]] = field(default_factory=dict)
    horizon: int = 0


def store_packages(unit: Unit, candidates: Sequence[Candidate], wording: Wording, now: int) -> list[Outcome]:
    """One outcome for each candidate, in order; all accepted ones are durable with the unit."""
    found = chains(unit.connection, CHAINS, (candidate.device for candidate in candidates))
    rows = _Rows(slots={device: {} for device in found}, horizon=writers_horizon(unit.connection))
    outcomes = [_take(unit, found[item.device], item, rows, wording, now) for item in candidates]
    unit.insert_many(PACKAGES, _PACKAGE_COLUMNS, rows.packages)
    make_room(unit.connection, [row[1] for row in rows.readings])
    unit.insert_many(READINGS, _READING_COLUMNS, rows.readings)
    set_heads(unit, CHAINS, found.values())
    unit.publish_many(rows.messages)
    add_facts(unit, rows.facts)
    return outcomes


def add_facts(unit: Unit, facts: Sequence[Fact]) -> None:
    """Publishes events and keeps the openings of their commitments."""
    unit.insert_many(FACTS, _FACT_COLUMNS, [fact.row for fact in facts])
    unit.publish_many([fact.message for fact in facts])


def _take(unit: Unit, chain: Chain, item: Candidate, rows: _Rows, wording: Wording, now: int) -> Outcome:
    placed = placement(unit.connection, CHAINS, chain, item.sequence, item.hash, item.previous)
    if isinstance(placed, Refusal) or placed == DUPLICATE:
        return placed
    if placed == LATE:
        _fill_gap(unit, item.device, item.sequence)
    elif item.sequence > chain.head.sequence + 1:
        _open_gap(unit, item, chain.head.sequence, rows, wording)
    held, taken = _verdicts(unit.connection, chain, item, rows.slots[item.device], rows.horizon)
    _add(chain, item, held, taken, rows)
    rows.messages.append(wording.accepted(item, held))
    for reason, count in Counter(filter(None, held)).items():
        _hold(unit, item, reason, count, rows, wording, now)
    return Accepted(held)


def _add(chain: Chain, item: Candidate, held: Sequence[str], taken: Collection[int], rows: _Rows) -> None:
    key = (item.device, item.sequence)
    rows.packages.append((*key, item.hash, item.previous, item.content, item.salt))
    rows.readings.extend(
        (item.meter_point, slot, wh, *key, reason)
        for (slot, wh), reason in zip(item.readings, held, strict=True)
        if slot not in taken
    )
    rows.slots[item.device].update((slot, wh) for slot, wh in item.readings if slot not in taken)
    chain.take(item.sequence, item.hash, item.previous, item.readings[-1][0])


def _verdicts(
    connection: Connection, chain: Chain, item: Candidate, here: dict[int, int], archived_until: int
) -> tuple[Sequence[str], Collection[int]]:
    """(verdicts, slots of the package that are measured already). What was first stays; a package that contradicts it does not count.

    Nor does one that reaches into a month that went to the archive: no reading of it is kept.
    """
    first, last = item.readings[0][0], item.readings[-1][0]
    if first < archived_until:
        return [MONTH_ARCHIVED] * len(item.readings), {slot for slot, _ in item.readings}
    if first > chain.last_time:
        return item.held, ()
    query = select(READINGS.c.slot, READINGS.c.energy_wh).where(
        READINGS.c.meter_point == item.meter_point, READINGS.c.slot.between(first, last)
    )
    measured = {row.slot: row.energy_wh for row in connection.execute(query)} | here
    taken = {slot: wh for slot, wh in item.readings if slot in measured}
    contradicts = any(measured[slot] != wh for slot, wh in taken.items())
    return ([ALREADY_MEASURED] * len(item.readings) if contradicts else item.held), taken


def _open_gap(unit: Unit, item: Candidate, after: int, rows: _Rows, wording: Wording) -> None:
    unit.insert_many(GAPS, ("device", "after_sequence", "before_sequence"), [(item.device, after, item.sequence)])
    rows.facts.append(wording.gap(item.device, after, item.sequence))


def _fill_gap(unit: Unit, device: str, sequence: int) -> None:
    around = (GAPS.c.device == device, GAPS.c.after_sequence < sequence, GAPS.c.before_sequence > sequence)
    found = unit.execute(select(GAPS).where(*around))
    unit.execute(delete(GAPS).where(*around))
    left = [(device, *part) for row in found for part in split_gap(row.after_sequence, row.before_sequence, sequence)]
    unit.insert_many(GAPS, ("device", "after_sequence", "before_sequence"), left)


def _hold(unit: Unit, item: Candidate, reason: str, count: int, rows: _Rows, wording: Wording, now: int) -> None:
    """One row for an episode: the same reason at the same device with less than a day between."""
    same = (QUARANTINE.c.device == item.device, QUARANTINE.c.reason == reason)
    newest = select(QUARANTINE.c.number, QUARANTINE.c.last_slot, QUARANTINE.c.open).where(*same)
    found = unit.execute(newest.order_by(QUARANTINE.c.number.desc()).limit(1))
    last_slot = item.readings[-1][0]
    if found and (found[0].open or found[0].last_slot + EPISODE_S > item.readings[0][0]):
        more = {"readings": QUARANTINE.c.readings + count, "last_slot": max(found[0].last_slot, last_slot)}
        unit.execute(update(QUARANTINE).where(QUARANTINE.c.number == found[0].number).values(**more))
        return
    row = (
        item.device,
        item.meter_point,
        reason,
        wording.explain(item, reason),
        now,
        last_slot,
        count,
        int(reason == "drift"),
    )
    columns = ("device", "meter_point", "reason", "explanation", "since", "last_slot", "readings", "open")
    unit.insert_many(QUARANTINE, columns, [row])
    rows.facts.append(wording.quarantined(item.device, reason))


def recent_readings(connection: Connection, device: str, meter_point: str, limit: int) -> list[tuple[int, int, str]]:
    """(slot, Wh, held) of the newest readings of a device, in order of time, to rebuild its profile."""
    query = select(READINGS.c.slot, READINGS.c.energy_wh, READINGS.c.held).where(
        READINGS.c.meter_point == meter_point, READINGS.c.device == device
    )
    rows = connection.execute(query.order_by(READINGS.c.slot.desc()).limit(limit)).all()
    return [(row.slot, row.energy_wh, row.held) for row in reversed(rows)]


def open_reason(connection: Connection, device: str) -> str:
    """Why new readings of the device are held, or empty."""
    query = select(QUARANTINE.c.reason).where(QUARANTINE.c.device == device, QUARANTINE.c.open == 1)
    return connection.execute(query.limit(1)).scalar_one_or_none() or ""
