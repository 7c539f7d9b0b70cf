"""Stored packages with the openings of their commitments, for proof bundles and bills. Called by `app.bundles` and `app.billing`."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from sqlalchemy import Connection, select

from services.metering.store.archive import source
from services.metering.store.packages import ALREADY_MEASURED
from services.metering.store.tables import PACKAGES

_IN_MAX = 500


@dataclass(frozen=True, slots=True)
class PackageRow:
    device: str
    sequence: int
    content: bytes
    salt: bytes


def packages(connection: Connection, wanted: Collection[tuple[str, int]]) -> list[PackageRow]:
    """The packages named (device, sequence), in that order; those erased are left out."""
    rows: list[PackageRow] = []
    for device in sorted({device for device, _ in wanted}):
        sequences = sorted(sequence for name, sequence in wanted if name == device)
        for at in range(0, len(sequences), _IN_MAX):
            rows += _some(connection, device, sequences[at : at + _IN_MAX])
    return rows


def _some(connection: Connection, device: str, sequences: list[int]) -> list[PackageRow]:
    query = (
        select(PACKAGES.c.sequence, PACKAGES.c.content, PACKAGES.c.salt)
        .where(PACKAGES.c.device == device, PACKAGES.c.sequence.in_(sequences), PACKAGES.c.salt != b"")
        .order_by(PACKAGES.c.sequence)
    )
    return [PackageRow(device, row.sequence, bytes(row.content), bytes(row.salt)) for row in connection.execute(query)]


def sequences_of(
    connection: Connection, meter_point: str, from_time: int, to_time: int, without: Collection[int] = ()
) -> list[tuple[str, int]]:
    """(device, sequence), in order, of the packages that hold a slot of [from_time, to_time) that is not in `without`.

    Packages that contradict an earlier one are left out: no bill counts them.
    """
    readings = source(connection, meter_point, from_time, to_time)
    query = select(readings.c.slot, readings.c.device, readings.c.sequence, readings.c.held).where(
        readings.c.meter_point == meter_point, readings.c.slot.between(from_time, to_time - 1)
    )
    return sorted(
        {
            (row.device, row.sequence)
            for row in connection.execute(query)
            if row.slot not in without and row.held != ALREADY_MEASURED
        }
    )
