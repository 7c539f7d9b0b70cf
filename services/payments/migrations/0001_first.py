"""The first tables of payments."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "payments_0001"
down_revision = None
branch_labels = None
depends_on = None

_BALANCE = ("debits_pending_minor", "debits_posted_minor", "credits_pending_minor", "credits_posted_minor")


def _text(name: str, *, key: bool = False) -> sa.Column[Any]:
    return sa.Column(name, sa.String, primary_key=key, nullable=False)


def _number(name: str, *, key: bool = False) -> sa.Column[Any]:
    return sa.Column(name, sa.BigInteger, primary_key=key, nullable=False)


def _blob(name: str) -> sa.Column[Any]:
    return sa.Column(name, sa.LargeBinary, nullable=False)


def _partial_index(name: str, table: str, columns: list[str], where: str, *, unique: bool = False) -> None:
    rows = sa.text(where)
    op.create_index(name, table, columns, unique=unique, sqlite_where=rows, postgresql_where=rows)


def upgrade() -> None:
    _books()
    _payments()


def _books() -> None:
    op.create_table(
        "accounts",
        _text("id", key=True),
        *map(_text, ("currency", "rule")),
        *map(_number, ("number", *_BALANCE)),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "sets",
        sa.Column("number", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True),
        _text("request"),
        *map(_blob, ("seed", "root")),
        *map(_number, ("time", "transfers", "total")),
    )
    op.create_index("ix_sets_time", "sets", ["time"])
    op.create_table(
        "transfers",
        _number("set_number", key=True),
        _number("place", key=True),
        *map(_text, ("id", "kind", "debit", "credit")),
        *map(_number, ("amount_minor", "held_minor")),
        *map(_text, ("currency", "pending")),
        _number("timeout_s"),
        _text("reference"),
        *[_number(f"{side}_{name}") for side in ("debit", "credit") for name in ("number", *_BALANCE)],
        sqlite_with_rowid=False,
    )
    op.create_index("ux_transfers_id", "transfers", ["id"], unique=True)
    for side in ("debit", "credit"):
        op.create_index(f"ux_transfers_{side}", "transfers", [side, f"{side}_number"], unique=True)
    op.create_table(
        "holds",
        _text("transfer", key=True),
        *map(_text, ("debit", "credit")),
        _number("amount_minor"),
        _text("currency"),
        _number("expires_at"),
        _text("state"),
        sqlite_with_rowid=False,
    )
    _partial_index("ix_holds_expiry", "holds", ["expires_at"], "state = 'open' AND expires_at > 0")


def _payments() -> None:
    op.create_table("payers", _text("subject", key=True), _text("account"))
    op.create_table(
        "mandates",
        _text("id", key=True),
        *map(_text, ("subject", "payee")),
        _number("limit_minor"),
        *map(_text, ("currency", "method")),
        _number("expires_at"),
    )
    op.create_index("ix_mandates_subject", "mandates", ["subject"])
    op.create_table(
        "payments",
        _text("id", key=True),
        *map(_text, ("payee", "reference", "subject", "account", "currency")),
        _number("amount_minor"),
        *map(_text, ("mandate", "method")),
        sa.Column("captures", sa.Integer, nullable=False),
        _text("state"),
        *map(_number, ("authorised_minor", "captured_minor", "refunded_minor")),
        *map(_text, ("waiting_for", "reason")),
        *map(_number, ("refunds", "version", "created_at")),
    )
    _partial_index("ux_payments_reference", "payments", ["payee", "reference"], "state <> 'declined'", unique=True)
    op.create_index("ix_payments_subject", "payments", ["subject", "created_at"])
    op.create_index("ix_payments_mandate", "payments", ["mandate"])
    op.create_table(
        "operations",
        _text("id", key=True),
        *map(_text, ("payment", "kind")),
        _number("amount_minor"),
        *map(_text, ("reason", "state")),
        *map(_number, ("created_at", "tries")),
    )
    _partial_index("ix_operations_waiting", "operations", ["tries"], "state = 'waiting'")
    op.create_index("ix_operations_created_at", "operations", ["created_at"])
    op.create_table(
        "receipts", _text("payment", key=True), _number("version", key=True), _blob("document"), _blob("salt")
    )
    op.create_table("days", _text("day", key=True), _blob("report"), _number("made_at"), _text("ledger_transaction"))
