"""Stores verified packages of sensors and locks: chain, counts, passages and outbox in one unit of work. Called by `app.ingest`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from citykit.bus.port import Message
from citykit.onramp.chain import DUPLICATE, Refusal
from citykit.onramp.heads import Chain, chains, placement, set_heads
from citykit.store.port import Unit
from services.parking.domain.lots import Lot
from services.parking.domain.reservation import Reservation
from services.parking.domain.states import (
    DAY_S,
    HALF_HOUR_S,
    HISTORY_DAYS,
    STUCK_S,
    Count,
    fused,
    is_possible,
    is_stuck,
    said,
)
from services.parking.store import counts
from services.parking.store.counts import HalfHour
from services.parking.store.tables import CHAINS, PACKAGES

_COLUMNS = ("device", "sequence", "hash", "previous", "content", "salt")


@dataclass(frozen=True, slots=True)
class Candidate:
    """A package whose signature and claims hold.

    Attributes:
        most: the highest value the device can say; 0 for a lock.
        watches: it watches one bay.
        readings: (time, value) in order of time.
    """

    device: str
    lot: Lot
    most: int
    watches: bool
    measure: str
    sequence: int
    hash: bytes
    previous: bytes
    content: bytes
    salt: bytes
    readings: Sequence[tuple[int, int]]
    trace: str


@dataclass(frozen=True, slots=True)
class Accepted:
    """A stored package: how many of its counts count, how many are impossible, how many the sensor was stuck in."""

    counted: int
    impossible: int = 0
    stuck: int = 0


Outcome = Accepted | Refusal | str
"""`str` is DUPLICATE."""


class Notes(Protocol):
    """Takes over what a lock says, in the same unit of work."""

    def __call__(
        self, unit: Unit, device: str, sequence: int, measure: str, readings: Sequence[tuple[int, int]], now: int, /
    ) -> list[Reservation]: ...


@dataclass(slots=True)
class Kept:
    """What a unit of work changed, for what is remembered in memory."""

    outcomes: list[Outcome] = field(default_factory=list)
    counts: dict[str, dict[str, Count]] = field(default_factory=dict)
    half_hours: dict[tuple[str, int], HalfHour] = field(default_factory=dict)
    reservations: list[Reservation] = field(default_factory=list)


@dataclass(slots=True)
class _Work:
    """One unit of work. `words`: lot -> device -> newest word, as the unit has it."""

    unit: Unit
    now: int
    silence_s: int
    words: dict[str, dict[str, Count]]
    rows: list[tuple[Any, ...]] = field(default_factory=list)
    kept: Kept = field(default_factory=Kept)


def store_packages(
    unit: Unit,
    candidates: Sequence[Candidate],
    notes: Notes,
    observed: Callable[[Candidate, list[tuple[int, int]]], Message],
    now: int,
    silence_s: int,
) -> Kept:
    """One outcome for each candidate, in order; all accepted ones are durable with the unit.

    Args:
        observed: the message on an accepted package and (time, cars) of the lot that it brings.
    """
    found = chains(unit.connection, CHAINS, (item.device for item in candidates))
    work = _Work(unit, now, silence_s, counts.newest(unit.connection, {item.lot.id for item in candidates}))
    messages: list[Message] = []
    for item in candidates:
        outcome, states = _take(work, found[item.device], item, notes)
        work.kept.outcomes.append(outcome)
        if isinstance(outcome, Accepted):
            messages.append(observed(item, states))
    unit.insert_many(PACKAGES, _COLUMNS, work.rows)
    set_heads(unit, CHAINS, found.values())
    for lot, words in work.kept.counts.items():
        counts.put_newest(unit, lot, list(words.values()))
    counts.put_half_hours(unit, work.kept.half_hours.values())
    unit.publish_many(messages)
    return work.kept


def _take(work: _Work, chain: Chain, item: Candidate, notes: Notes) -> tuple[Outcome, list[tuple[int, int]]]:
    placed = placement(work.unit.connection, CHAINS, chain, item.sequence, item.hash, item.previous)
    if isinstance(placed, Refusal) or placed == DUPLICATE:
        return placed, []
    chain.take(item.sequence, item.hash, item.previous, item.readings[-1][0])
    work.rows.append((item.device, item.sequence, item.hash, item.previous, item.content, item.salt))
    if not item.most:
        work.kept.reservations += notes(work.unit, item.device, item.sequence, item.measure, item.readings, work.now)
        return Accepted(len(item.readings)), []
    return _counted(work, item)


def _counted(work: _Work, item: Candidate) -> tuple[Accepted, list[tuple[int, int]]]:
    possible = [(time, value) for time, value in item.readings if is_possible(value, item.most)]
    stuck, states = 0, []
    for time, value in possible:
        one, late = _word(work, item, time, value)
        stuck += one.stuck
        cars = None if one.stuck else _cars(work, item, time, value, late)
        if cars is not None:
            states.append((time, cars))
            _keep_half_hour(work.kept, item.lot, time, cars)
    return Accepted(len(possible) - stuck, len(item.readings) - len(possible), stuck), states


def _word(work: _Work, item: Candidate, time: int, value: int) -> tuple[Count, bool]:
    """The sensor's word, and whether a later one is known already."""
    words = work.words.setdefault(item.lot.id, {})
    before = words.get(item.device)
    if before is not None and time <= before.time:
        return Count(item.device, time, value, time), True
    one = said(before, item.device, time, value, work.silence_s)
    if not item.watches and one.time - one.since >= STUCK_S:
        others = [words[name] for name in item.lot.sensors if name != item.device and name in words]
        past = counts.history(work.unit.connection, item.lot.id, time - (HISTORY_DAYS + 1) * DAY_S)
        one = Count(item.device, time, value, one.since, is_stuck(item.lot, one, others, past))
    words[item.device] = one
    work.kept.counts.setdefault(item.lot.id, {})[item.device] = one
    return one, False


def _cars(work: _Work, item: Candidate, time: int, value: int, late: bool) -> int | None:
    """How many cars were in the lot then; None where several sources must agree and do not, or a bay says little."""
    lot = item.lot
    if not item.watches and lot.counters == 1:
        return value
    if late or (item.watches and len(lot.bay_sensors) < lot.capacity):
        return None
    heard, watched = split(lot, work.words[lot.id])
    return fused(lot, heard, watched, time, work.silence_s).shown


def split(lot: Lot, words: dict[str, Count]) -> tuple[list[Count], list[Count]]:
    """Newest words of the sensors that count the lot, and of those that watch a bay."""
    heard = [words[device] for device in lot.sensors if device in words]
    return heard, [words[device] for device, _ in lot.bay_sensors if device in words]


def _keep_half_hour(kept: Kept, lot: Lot, time: int, cars: int) -> None:
    slot = (time + HALF_HOUR_S // 2) // HALF_HOUR_S * HALF_HOUR_S  # the nearest, as forecasting snaps it
    before = kept.half_hours.get((lot.id, slot))
    if before is None or before.time <= time:
        kept.half_hours[lot.id, slot] = HalfHour(lot.id, slot, time, cars, lot.capacity)
