"""Destroys what is stored of a resident. Called by `app.erasure`.

Readings, openings (package bytes and salts), estimates, bills, appeals and contracts go; of a package its number in the chain and
its hash stay (so that a replay is known), of a run its root, count and total, of a bill its commitment.
"""

from __future__ import annotations

from sqlalchemy import delete, select, update

from citykit.store.port import Unit
from services.metering.store.archive import erase_later, source
from services.metering.store.tables import (
    APPEALS,
    BILL_PAYMENTS,
    BILLS,
    CONTRACTS,
    ESTIMATES,
    FACTS,
    PACKAGES,
    QUARANTINE,
    READINGS,
)


def erase_span(unit: Unit, meter_point: str, from_time: int, to_time: int) -> list[str]:
    """Everything measured at a meter point in [from_time, to_time); returns the devices concerned."""
    inside = (READINGS.c.meter_point == meter_point, READINGS.c.slot.between(from_time, to_time - 1))
    stored = source(unit.connection, meter_point, from_time, to_time)
    there = (stored.c.meter_point == meter_point, stored.c.slot.between(from_time, to_time - 1))
    wanted = select(stored.c.device, stored.c.sequence).where(*there).distinct()
    pairs = [(row.device, row.sequence) for row in unit.execute(wanted)]
    for device, sequence in pairs:
        at = (PACKAGES.c.device == device, PACKAGES.c.sequence == sequence)
        unit.execute(update(PACKAGES).where(*at).values(content=b"", salt=b""))
    unit.execute(delete(READINGS).where(*inside))
    erase_later(unit, meter_point, from_time, to_time)
    unit.execute(
        delete(ESTIMATES).where(
            ESTIMATES.c.meter_point == meter_point, ESTIMATES.c.slot.between(from_time, to_time - 1)
        )
    )
    devices = sorted({device for device, _ in pairs})
    unit.execute(delete(FACTS).where(FACTS.c.subject.in_([meter_point, *devices])))
    held = (QUARANTINE.c.meter_point == meter_point, QUARANTINE.c.since >= from_time, QUARANTINE.c.open == 0)
    unit.execute(delete(QUARANTINE).where(*held))
    unit.execute(
        update(QUARANTINE)
        .where(QUARANTINE.c.meter_point == meter_point)
        .values(explanation="erased with its resident's data")
    )
    return devices


def erase_contract(unit: Unit, contract: str) -> int:
    """The contract, its bills and what was paid of them; returns how many bills."""
    own = select(BILLS.c.id).where(BILLS.c.contract == contract)
    unit.execute(delete(BILL_PAYMENTS).where(BILL_PAYMENTS.c.bill.in_(own)))
    bills = unit.connection.execute(delete(BILLS).where(BILLS.c.contract == contract)).rowcount
    unit.execute(delete(CONTRACTS).where(CONTRACTS.c.id == contract))
    return bills


def erase_appeals(unit: Unit, subject: str) -> None:
    unit.execute(delete(APPEALS).where(APPEALS.c.subject == subject))
