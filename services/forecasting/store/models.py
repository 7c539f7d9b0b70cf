"""The registry of models: card, file of parameters, transaction that registered it."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, insert, select

from citykit.store.port import Unit
from services.forecasting.store.tables import MODELS


@dataclass(frozen=True, slots=True)
class ModelRow:
    """`card` is the canonical document city.model.v1, with the salt of its commitment; `file` names the parameters in the service's folder."""

    id: str
    group: str
    trained_at: int
    card: bytes
    salt: bytes
    file: str
    transaction: str


def add(unit: Unit, row: ModelRow) -> None:
    values = {
        "id": row.id,
        "series_group": row.group,
        "trained_at": row.trained_at,
        "card": row.card,
        "salt": row.salt,
        "file": row.file,
        "ledger_transaction": row.transaction,
    }
    unit.execute(insert(MODELS).values(values))


def newest(connection: Connection, limit: int) -> list[ModelRow]:
    """Newest first."""
    query = select(MODELS).order_by(MODELS.c.trained_at.desc(), MODELS.c.id).limit(limit)
    return [
        ModelRow(r.id, r.series_group, r.trained_at, bytes(r.card), bytes(r.salt), r.file, r.ledger_transaction)
        for r in connection.execute(query)
    ]
