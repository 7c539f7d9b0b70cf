"""Stores verified packages: chain heads, gaps, readings, quarantine and outbox in one unit of work. Called by `app.ingest`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, bindparam, delete, select, update

from citykit.bus.port import Message
from citykit.store.port import Unit
from services.metering.domain.chain import DUPLICATE, FIRST, LATE, Head, Known, Refusal, place, split_gap
from services.metering.store.tables import FACTS, GAPS, HEADS, PACKAGES, QUARANTINE, READINGS

ALREADY_MEASURED = "slot-already-measured"
EPISODE_S = 86_400
IN_MAX = 500
_PACKAGE_COLUMNS = ("device", "sequence", "hash", "previous", "content", "salt")
_READING_COLUMNS = ("meter_point", "slot", "energy_wh", "device", "sequence", "held")
_FACT_COLUMNS = ("id", "subject", "document", "salt")
_SET_HEAD = update(HEADS).where(HEADS.c.device == bindparam("of")).values(
    sequence=bindparam("sequence"), hash=bindparam("hash"), last_slot=bindparam("last_slot")
)  # fmt: skip


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
class _Chain:
    head: Head
    last_slot: int
    new: bool
    moved: bool = False
    known: dict[int, Known] = field(default_factory=dict)
    slots: dict[int, int] = field(default_factory=dict)


@dataclass(slots=True)
class _Rows:
    packages: list[tuple[Any, ...]] = field(default_factory=list)
    readings: list[tuple[Any, ...]] = field(default_factory=list)
    messages: list[Message] = field(default_factory=list)
    facts: list[Fact] = field(default_factory=list)


def store_packages(unit: Unit, candidates: Sequence[Candidate], wording: Wording, now: int) -> list[Outcome]:
    """One outcome for each candidate, in order; all accepted ones are durable with the unit."""
    chains = _chains(unit.connection, {candidate.device for candidate in candidates})
    rows = _Rows()
    outcomes = [_take(unit, chains[item.device], item, rows, wording, now) for item in candidates]
    unit.insert_many(PACKAGES, _PACKAGE_COLUMNS, rows.packages)
    unit.insert_many(READINGS, _READING_COLUMNS, rows.readings)
    _set_heads(unit, chains)
    unit.publish_many(rows.messages)
    add_facts(unit, rows.facts)
    return outcomes


def add_facts(unit: Unit, facts: Sequence[Fact]) -> None:
    """Publishes events and keeps the openings of their commitments."""
    unit.insert_many(FACTS, _FACT_COLUMNS, [fact.row for fact in facts])
    unit.publish_many([fact.message for fact in facts])


def _take(unit: Unit, chain: _Chain, item: Candidate, rows: _Rows, wording: Wording, now: int) -> Outcome:
    known = chain.known if item.sequence > chain.head.sequence else _known(unit.connection, chain, item)
    placement = place(chain.head, known, item.sequence, item.hash, item.previous)
    if isinstance(placement, Refusal) or placement == DUPLICATE:
        return placement
    if placement == LATE:
        _fill_gap(unit, item.device, item.sequence)
    elif item.sequence > chain.head.sequence + 1:
        _open_gap(unit, item, chain.head.sequence, rows, wording)
    held, taken = _verdicts(unit.connection, chain, item)
    _add(chain, item, held, taken, rows)
    rows.messages.append(wording.accepted(item, held))
    for reason, count in Counter(filter(None, held)).items():
        _hold(unit, item, reason, count, rows, wording, now)
    return Accepted(held)


def _add(chain: _Chain, item: Candidate, held: Sequence[str], taken: Collection[int], rows: _Rows) -> None:
    key = (item.device, item.sequence)
    rows.packages.append((*key, item.hash, item.previous, item.content, item.salt))
    rows.readings.extend(
        (item.meter_point, slot, wh, *key, reason)
        for (slot, wh), reason in zip(item.readings, held, strict=True)
        if slot not in taken
    )
    chain.slots.update((slot, wh) for slot, wh in item.readings if slot not in taken)
    chain.known[item.sequence] = Known(item.hash, item.previous)
    chain.moved = True
    chain.last_slot = max(chain.last_slot, item.readings[-1][0])
    if item.sequence > chain.head.sequence:
        chain.head = Head(item.sequence, item.hash)


def _chains(connection: Connection, devices: Iterable[str]) -> dict[str, _Chain]:
    names = list(devices)
    found = connection.execute(select(HEADS).where(HEADS.c.device.in_(names))).all()
    chains = {row.device: _Chain(Head(row.sequence, row.hash), row.last_slot, new=False) for row in found}
    return {name: chains.get(name) or _Chain(FIRST, -1, new=True) for name in names}


def _known(connection: Connection, chain: _Chain, item: Candidate) -> dict[int, Known]:
    near = (item.sequence - 1, item.sequence, item.sequence + 1)
    query = select(PACKAGES.c.sequence, PACKAGES.c.hash, PACKAGES.c.previous)
    found = connection.execute(query.where(PACKAGES.c.device == item.device, PACKAGES.c.sequence.in_(near)))
    return {row.sequence: Known(row.hash, row.previous) for row in found} | chain.known


def _verdicts(connection: Connection, chain: _Chain, item: Candidate) -> tuple[Sequence[str], Collection[int]]:
    """(verdicts, slots of the package that are measured already). What was first stays; a package that contradicts it does not count."""
    first, last = item.readings[0][0], item.readings[-1][0]
    if first > chain.last_slot:
        return item.held, ()
    query = select(READINGS.c.slot, READINGS.c.energy_wh).where(
        READINGS.c.meter_point == item.meter_point, READINGS.c.slot.between(first, last)
    )
    measured = {row.slot: row.energy_wh for row in connection.execute(query)} | chain.slots
    taken = {slot: wh for slot, wh in item.readings if slot in measured}
    contradicts = any(measured[slot] != wh for slot, wh in taken.items())
    return ([ALREADY_MEASURED] * len(item.readings) if contradicts else item.held), taken


def _set_heads(unit: Unit, chains: dict[str, _Chain]) -> None:
    moved = {device: chain for device, chain in chains.items() if chain.moved}
    fresh = [(d, c.head.sequence, c.head.hash, c.last_slot) for d, c in moved.items() if c.new]
    unit.insert_many(HEADS, ("device", "sequence", "hash", "last_slot"), fresh)
    changed = [
        {"of": d, "sequence": c.head.sequence, "hash": c.head.hash, "last_slot": c.last_slot}
        for d, c in moved.items()
        if not c.new
    ]
    if changed:
        unit.execute(_SET_HEAD, changed)


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


def heads(connection: Connection, devices: Sequence[str]) -> list[tuple[str, int, bytes]]:
    """(device, sequence, hash) of the devices that have sent something."""
    query = select(HEADS.c.device, HEADS.c.sequence, HEADS.c.hash).where(HEADS.c.device.in_(devices))
    return [(row.device, row.sequence, row.hash) for row in connection.execute(query)]


def open_reason(connection: Connection, device: str) -> str:
    """Why new readings of the device are held, or empty."""
    query = select(QUARANTINE.c.reason).where(QUARANTINE.c.device == device, QUARANTINE.c.open == 1)
    return connection.execute(query.limit(1)).scalar_one_or_none() or ""
