"""Usage of a meter point, load of the city, state of each meter: each view is one statement. Called by `app.usage`."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, Subquery, case, func, literal, select, union_all
from sqlalchemy.sql.elements import ColumnElement

from services.metering.domain.slots import SLOT_S, Offsets
from services.metering.store.archive import horizon, load, source
from services.metering.store.tables import ESTIMATES, GAPS, HEADS, METER_POINTS, QUARANTINE, READINGS

MEASURED, ESTIMATED, QUARANTINED, MISSING, MIXED = "measured", "estimated", "quarantined", "missing", "mixed"
HOUR_S = 3_600


@dataclass(frozen=True, slots=True)
class UsageRow:
    """Energy that counts from `time` on; of held slots the estimate, if there is one."""

    time: int
    energy_wh: int
    quality: str
    reason: str


@dataclass(frozen=True, slots=True)
class LoadRow:
    time: int
    energy_wh: int
    meters: int


@dataclass(frozen=True, slots=True)
class StateRow:
    meter_point: str
    device: str
    last_slot: int
    last_wh: int
    quarantined_reason: str
    gaps: int


def slots(connection: Connection, meter_point: str, from_time: int, to_time: int) -> list[UsageRow]:
    """One row for each slot that was measured, held or estimated."""
    merged = _slots(connection, meter_point, from_time, to_time)
    rows = connection.execute(select(merged).order_by(merged.c.slot))
    return [UsageRow(slot, wh, quality, reason) for slot, wh, quality, reason in rows]


def sums(
    connection: Connection, meter_point: str, from_time: int, to_time: int, step_s: int, offsets: Offsets
) -> list[UsageRow]:
    """One row for each local hour or day (`step_s`) with data; quality is `mixed` where its slots differ."""
    merged = _slots(connection, meter_point, from_time, to_time)
    shift = _shift(merged.c.slot, offsets)
    step = (merged.c.slot + shift - (merged.c.slot + shift) % step_s).label("step")
    kinds = func.count(func.distinct(merged.c.quality))
    quality = case((kinds == 1, func.min(merged.c.quality)), else_=MIXED)
    query = select(func.min(merged.c.slot), func.sum(merged.c.energy_wh), quality, func.max(merged.c.reason))
    rows = connection.execute(query.group_by(step).order_by(func.min(merged.c.slot)))
    return [UsageRow(*row) for row in rows]


def _slots(connection: Connection, meter_point: str, from_time: int, to_time: int) -> Subquery:
    """slot, energy_wh, quality, reason: a reading that counts, else the estimate, else what is held (0 Wh)."""
    readings = source(connection, meter_point, from_time, to_time)
    counts = readings.c.held == ""
    inside = (readings.c.meter_point == meter_point, readings.c.slot >= from_time, readings.c.slot < to_time)
    estimate = (ESTIMATES.c.meter_point == readings.c.meter_point) & (ESTIMATES.c.slot == readings.c.slot)
    read = (
        select(
            readings.c.slot,
            case((counts, readings.c.energy_wh), else_=func.coalesce(ESTIMATES.c.energy_wh, 0)).label("energy_wh"),
            case((counts, MEASURED), (ESTIMATES.c.slot.is_not(None), ESTIMATED), else_=QUARANTINED).label("quality"),
            readings.c.held.label("reason"),
        )
        .outerjoin(ESTIMATES, estimate & ~counts)
        .where(*inside)
    )
    unread = readings.alias("unread")
    measured = select(literal(1)).where(
        unread.c.meter_point == ESTIMATES.c.meter_point, unread.c.slot == ESTIMATES.c.slot
    )
    guessed = select(
        ESTIMATES.c.slot, ESTIMATES.c.energy_wh, literal(ESTIMATED).label("quality"), ESTIMATES.c.reason
    ).where(
        ESTIMATES.c.meter_point == meter_point,
        ESTIMATES.c.slot >= from_time,
        ESTIMATES.c.slot < to_time,
        ~measured.exists(),
    )
    return union_all(read, guessed).subquery("merged")


def _shift(slot: ColumnElement[int], offsets: Offsets) -> ColumnElement[int]:
    entries = offsets.entries
    if len(entries) == 1:
        return literal(entries[0][1])
    later = [(slot >= start, literal(offset)) for start, offset in reversed(entries[1:])]
    return case(*later, else_=literal(entries[0][1]))


def city_load(connection: Connection, from_time: int, to_time: int, least_meters: int) -> list[LoadRow]:
    """Sums of what counts over all meters; slots of fewer than `least_meters` are left out."""
    edge = horizon(connection)
    old = load(connection, from_time, min(to_time, edge)) if from_time < edge else {}
    shown = [LoadRow(slot, *old[slot]) for slot in sorted(old) if old[slot][1] >= least_meters]
    return shown + _live_load(connection, max(from_time, edge), to_time, least_meters)


def _live_load(connection: Connection, from_time: int, to_time: int, least_meters: int) -> list[LoadRow]:
    counted = func.count()
    query = (
        select(READINGS.c.slot, func.sum(READINGS.c.energy_wh), counted)
        .select_from(METER_POINTS.join(READINGS, READINGS.c.meter_point == METER_POINTS.c.id))
        .where(READINGS.c.slot >= from_time, READINGS.c.slot < to_time, READINGS.c.held == "")
        .group_by(READINGS.c.slot)
        .having(counted >= least_meters)
        .order_by(READINGS.c.slot)
    )
    return [LoadRow(*row) for row in connection.execute(query)]


def meter_states(connection: Connection, after: str, limit: int, recent: int) -> list[StateRow]:
    """The newest state of each meter point with an id beyond `after`; a reason counts while open or not older than `recent`."""
    gaps = select(func.count()).where(GAPS.c.device == METER_POINTS.c.device).scalar_subquery()
    held = (QUARANTINE.c.open == 1) | (QUARANTINE.c.last_slot >= recent)
    reason = (
        select(QUARANTINE.c.reason)
        .where(QUARANTINE.c.device == METER_POINTS.c.device, held)
        .order_by(QUARANTINE.c.open.desc(), QUARANTINE.c.number.desc())
        .limit(1)
        .scalar_subquery()
    )
    newest = (READINGS.c.meter_point == METER_POINTS.c.id) & (READINGS.c.slot == HEADS.c.last_slot)
    query = (
        select(
            METER_POINTS.c.id,
            METER_POINTS.c.device,
            func.coalesce(HEADS.c.last_slot, 0),
            func.coalesce(READINGS.c.energy_wh, 0),
            func.coalesce(reason, ""),
            gaps,
        )
        .outerjoin(HEADS, HEADS.c.device == METER_POINTS.c.device)
        .outerjoin(READINGS, newest)
        .where(METER_POINTS.c.id > after)
        .order_by(METER_POINTS.c.id)
        .limit(limit)
    )
    return [StateRow(*row) for row in connection.execute(query)]


def missing_slots(connection: Connection, meter_point: str, from_time: int, to_time: int) -> list[tuple[int, str]]:
    """(slot, reason) of slots in [from_time, to_time) that have neither a reading that counts nor an estimate."""
    readings = source(connection, meter_point, from_time, to_time)
    counting = select(readings.c.slot).where(
        readings.c.meter_point == meter_point, readings.c.slot.between(from_time, to_time - 1), readings.c.held == ""
    )
    guessed = select(ESTIMATES.c.slot).where(
        ESTIMATES.c.meter_point == meter_point, ESTIMATES.c.slot.between(from_time, to_time - 1)
    )
    there = set(connection.execute(union_all(counting, guessed)).scalars())
    reasons = held(connection, meter_point, from_time, to_time)
    return [(slot, reasons.get(slot, "")) for slot in range(from_time, to_time, SLOT_S) if slot not in there]


def measured(connection: Connection, meter_point: str, from_time: int, to_time: int) -> dict[int, int]:
    """slot -> Wh of readings that count."""
    readings = source(connection, meter_point, from_time, to_time)
    query = select(readings.c.slot, readings.c.energy_wh).where(
        readings.c.meter_point == meter_point, readings.c.slot.between(from_time, to_time - 1), readings.c.held == ""
    )
    return {slot: wh for slot, wh in connection.execute(query)}


def held(connection: Connection, meter_point: str, from_time: int, to_time: int) -> dict[int, str]:
    """slot -> reason of readings set aside."""
    readings = source(connection, meter_point, from_time, to_time)
    query = select(readings.c.slot, readings.c.held).where(
        readings.c.meter_point == meter_point, readings.c.slot.between(from_time, to_time - 1), readings.c.held != ""
    )
    return {slot: reason for slot, reason in connection.execute(query)}
