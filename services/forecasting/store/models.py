"""The registry of models: card, file of parameters, transaction that registered it."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, insert, select

from citykit.store.port import Unit
from services.forecasting.store.tables import MODELS


@dataclass(frozen=True, slots=True)
class ModelRow:
    """`card` is the canonical document city.model.v1; `file` names the parameters in the service's folder."""

    id: str
    group: str
    trained_at: int
    card: bytes
    file: str
    transaction: str


def add(unit: Unit, row: ModelRow) -> None:
    values = {
        "id": row.id,
        "series_group": row.group,
        "trained_at": row.trained_at,
        "card": row.card,
        "file": row.file,
        "ledger_transaction": row.transaction,
    }
    unit.execute(insert(MODELS).values(values))


def newest(connection: Connection, limit: int) -> list[ModelRow]:
    """Newest first."""
    query = select(MODELS).order_by(MODELS.c.trained_at.desc(), MODELS.c.id).limit(limit)
    return [
        ModelRow(row.id, row.series_group, row.trained_at, bytes(row.card), row.file, row.ledger_transaction)
        for row in connection.execute(query)
    ]
