"""Probabilities that were said, and how they came true. Called by `app.calibration`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from sqlalchemy import Connection, and_, delete, insert, or_, select, update

from citykit.store.port import Unit
from services.parking.domain.calibration import Tally
from services.parking.store.tables import CALIBRATION, CALIBRATION_DAYS, HALF_HOURS, SAID

SCORED_MAX = 10_000
_SAID_COLUMNS = ("lot", "arrival", "probability_milli", "times")
_SAME_HALF_HOUR = and_(HALF_HOURS.c.lot == SAID.c.lot, HALF_HOURS.c.slot == SAID.c.arrival)


def add_said(unit: Unit, rows: Sequence[tuple[str, int, int, int]]) -> None:
    """(lot, half hour of arrival, probability in thousandths, how often it was said)."""
    unit.insert_many(SAID, _SAID_COLUMNS, rows)


def take_due(unit: Unit, until: int, lost: int) -> list[tuple[int, int, bool]]:
    """Takes what was said of half hours that are counted: (probability, how often, whether a bay was free).

    Args:
        until: half hours that began at this time or before are due; lost: those before this time are no longer waited for.
    """
    columns = (SAID.c.number, SAID.c.probability_milli, SAID.c.times, HALF_HOURS.c.occupied, HALF_HOURS.c.capacity)
    query = select(*columns).join(HALF_HOURS, _SAME_HALF_HOUR).where(SAID.c.arrival <= until)
    rows = unit.execute(query.order_by(SAID.c.number).limit(SCORED_MAX))
    last = rows[-1].number if rows else -1
    counted = select(HALF_HOURS.c.slot).where(_SAME_HALF_HOUR).exists()
    done = and_(SAID.c.arrival <= until, SAID.c.number <= last, counted)
    unit.execute(delete(SAID).where(or_(done, SAID.c.arrival < lost)))
    return [(row.probability_milli, row.times, row.occupied < row.capacity) for row in rows]


def add_tallies(unit: Unit, more: Iterable[Tally]) -> None:
    """Adds to the sums of each bin."""
    table = CALIBRATION.c
    for one in more:
        sums = {
            "advices": table.advices + one.advices,
            "said_milli": table.said_milli + one.said_milli,
            "came": table.came + one.came,
            "square_micro": table.square_micro + one.square_micro,
        }
        changed = unit.connection.execute(update(CALIBRATION).where(table.bin == one.bin).values(**sums))
        if changed.rowcount == 0:
            row = (one.bin, one.advices, one.said_milli, one.came, one.square_micro)
            unit.insert_many(CALIBRATION, ("bin", "advices", "said_milli", "came", "square_micro"), [row])


def tallies(connection: Connection) -> list[Tally]:
    """By bin."""
    return [Tally(*row) for row in connection.execute(select(CALIBRATION).order_by(CALIBRATION.c.bin))]


def is_published(connection: Connection, day: str) -> bool:
    """Whether the day's calibration was published."""
    query = select(CALIBRATION_DAYS.c.day).where(CALIBRATION_DAYS.c.day == day)
    return connection.execute(query).one_or_none() is not None


def newest_day(connection: Connection) -> tuple[bytes, bytes]:
    """(document, salt) of the last day that was published; empty before the first."""
    query = (
        select(CALIBRATION_DAYS.c.document, CALIBRATION_DAYS.c.salt).order_by(CALIBRATION_DAYS.c.day.desc()).limit(1)
    )
    row = connection.execute(query).one_or_none()
    return (bytes(row.document), bytes(row.salt)) if row is not None else (b"", b"")


def add_day(unit: Unit, day: str, document: bytes, salt: bytes) -> None:
    """Keeps the opening of a day's calibration."""
    unit.execute(insert(CALIBRATION_DAYS).values(day=day, document=document, salt=salt))
