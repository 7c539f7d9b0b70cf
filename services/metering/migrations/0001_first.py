"""The first tables of metering."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "metering_0001"
down_revision = None
branch_labels = None
depends_on = None

_COUNTER = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def _key(name: str, kind: type[sa.types.TypeEngine[Any]] = sa.String) -> sa.Column[Any]:
    return sa.Column(name, kind, primary_key=True)


def _column(name: str, kind: type[sa.types.TypeEngine[Any]] = sa.String) -> sa.Column[Any]:
    return sa.Column(name, kind, nullable=False)


def upgrade() -> None:
    _devices()
    _contracts()
    _readings()
    _quarantine()
    _bills()


def _devices() -> None:
    number, blob = sa.BigInteger, sa.LargeBinary
    op.create_table("devices", _key("device"), _column("from_time", number), sa.Column("last_sequence", number))
    op.create_table(
        "device_keys",
        _key("device"),
        _key("from_sequence", number),
        _column("public_key", blob),
        _column("algorithm"),
        _column("ledger_transaction"),
    )
    op.create_table(
        "meter_points",
        _key("id"),
        sa.Column("device", sa.String, nullable=False, unique=True),
        _column("max_slot_wh", number),
        _column("zone"),
    )


def _contracts() -> None:
    number, blob = sa.BigInteger, sa.LargeBinary
    names = ("meter_point", "subject", "tariff", "from_date", "to_date")
    op.create_table("contracts", _key("id"), *map(_column, names))
    op.create_index("ix_contracts_meter_point", "contracts", ["meter_point"])
    op.create_index("ix_contracts_subject", "contracts", ["subject"])
    op.create_table(
        "tariffs",
        _key("id"),
        _key("version", number),
        _column("valid_from"),
        _column("document", blob),
        _column("ledger_transaction"),
    )


def _readings() -> None:
    number, blob = sa.BigInteger, sa.LargeBinary
    op.create_table(
        "heads", _key("device"), _column("sequence", number), _column("hash", blob), _column("last_slot", number)
    )
    blobs = [_column(name, blob) for name in ("hash", "previous", "content", "salt")]
    op.create_table("packages", _key("device"), _key("sequence", number), *blobs)
    op.create_table(
        "readings",
        _key("meter_point"),
        _key("slot", number),
        _column("energy_wh", number),
        _column("device"),
        _column("sequence", number),
        _column("held"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "estimates",
        _key("meter_point"),
        _key("slot", number),
        _column("energy_wh", number),
        _column("reason"),
        sqlite_with_rowid=False,
    )
    op.create_table("gaps", _key("device"), _key("after_sequence", number), _column("before_sequence", number))


def _quarantine() -> None:
    number = sa.BigInteger
    op.create_table(
        "quarantine",
        sa.Column("number", _COUNTER, primary_key=True, autoincrement=True),
        *[_column(name) for name in ("device", "meter_point", "reason", "explanation")],
        *[_column(name, number) for name in ("since", "last_slot", "readings")],
        _column("open", sa.Integer),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_quarantine_device", "quarantine", ["device", "reason"])
    op.create_table(
        "appeals",
        _key("id"),
        *[_column(name) for name in ("meter_point", "subject")],
        *[_column(name, number) for name in ("from_time", "to_time")],
        *[_column(name) for name in ("statement", "state", "decision_reason")],
    )
    op.create_index("ix_appeals_subject", "appeals", ["subject"])
    op.create_table(
        "refusals",
        _key("reason"),
        _key("device"),
        _column("count", number),
        _column("last_at", number),
        _column("message"),
    )


def _bills() -> None:
    number, blob = sa.BigInteger, sa.LargeBinary
    op.create_table(
        "runs",
        _key("id"),
        *[_column(name) for name in ("from_date", "to_date", "tariff")],
        _column("tariff_version", number),
        _column("root", blob),
        *[_column(name, number) for name in ("count", "total_minor")],
        _column("ledger_transaction"),
    )
    op.create_table(
        "bills",
        _key("id"),
        _column("run"),
        _column("position", number),
        *[_column(name) for name in ("contract", "meter_point", "from_date", "to_date")],
        _column("total_minor", number),
        _column("currency"),
        *[_column(name, blob) for name in ("document", "salt")],
        _column("corrects"),
        _column("issued_at", number),
        _column("provable", sa.Integer),
    )
    for name in ("run", "contract", "corrects"):
        op.create_index(f"ix_bills_{name}", "bills", [name])
    op.create_table("leaves", _key("run"), _key("position", number), _column("commitment", blob))
    op.create_table("facts", _key("id"), _column("subject"), _column("document", blob), _column("salt", blob))
    op.create_index("ix_facts_subject", "facts", ["subject"])
