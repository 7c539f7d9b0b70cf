"""Lots as they were registered. Called by `app.lots`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from sqlalchemy import Connection, delete, select

from citykit import canonical
from citykit.store.port import Unit
from services.parking.domain.lots import Lot
from services.parking.store.tables import LOTS


def put_lots(unit: Unit, lots: Sequence[Lot]) -> None:
    """Registers lots, or replaces what was said of them."""
    unit.execute(delete(LOTS).where(LOTS.c.id.in_([lot.id for lot in lots])))
    unit.insert_many(LOTS, ("id", "document"), [(lot.id, canonical.encode(asdict(lot))) for lot in lots])


def lots(connection: Connection) -> list[Lot]:
    """Every lot, by id."""
    rows = connection.execute(select(LOTS.c.document).order_by(LOTS.c.id)).scalars()
    return [_lot(canonical.decode(document)) for document in rows]


def _lot(document: dict[str, Any]) -> Lot:
    pairs = {name: tuple(map(tuple, document[name])) for name in ("open_minutes", "bay_sensors")}
    texts = {name: tuple(document[name]) for name in ("bays", "sensors")}
    return Lot(**{**document, **pairs, **texts})
