"""The tables of payments. The migrations make them; a test of the kit compares names at the start."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Integer, LargeBinary, MetaData, String, Table

METADATA = MetaData()
BALANCE = ("debits_pending_minor", "debits_posted_minor", "credits_pending_minor", "credits_posted_minor")


def _text(name: str, *, key: bool = False) -> Column[str]:
    return Column(name, String, primary_key=key, nullable=False)


def _number(name: str, *, key: bool = False) -> Column[int]:
    return Column(name, BigInteger, primary_key=key, nullable=False)


ACCOUNTS = Table(
    "accounts", METADATA, _text("id", key=True), _text("currency"), _text("rule"), _number("number"), *map(_number, BALANCE)
)  # fmt: skip
"""`number` counts the account's postings."""
SETS = Table(
    "sets",
    METADATA,
    _number("number", key=True),
    _text("request"),
    Column("seed", LargeBinary, nullable=False),
    Column("root", LargeBinary, nullable=False),
    _number("time"),
    _number("transfers"),
    _number("total"),
)
"""The transfers of one request; `total` counts those of all sets up to this one.
`seed` is random; the salts of the postings and of the root are derived from it."""
TRANSFERS = Table(
    "transfers",
    METADATA,
    _number("set_number", key=True),
    _number("place", key=True),
    _text("id"),
    _text("kind"),
    _text("debit"),
    _text("credit"),
    _number("amount_minor"),
    _number("held_minor"),
    _text("currency"),
    _text("pending"),
    _number("timeout_s"),
    _text("reference"),
    *[_number(f"{side}_{name}") for side in ("debit", "credit") for name in ("number", *BALANCE)],
)
"""As posted, with each account's number and balance after it: both postings can be written again from a row."""
HOLDS = Table(
    "holds",
    METADATA,
    _text("transfer", key=True),
    _text("debit"),
    _text("credit"),
    _number("amount_minor"),
    _text("currency"),
    _number("expires_at"),
    _text("state"),
)
PAYERS = Table("payers", METADATA, _text("subject", key=True), _text("account"))
"""Which pseudonymous account is whose. Erasure removes the row; the account stays."""
MANDATES = Table(
    "mandates",
    METADATA,
    _text("id", key=True),
    _text("subject"),
    _text("payee"),
    _number("limit_minor"),
    _text("currency"),
    _text("method"),
    _number("expires_at"),
)
PAYMENTS = Table(
    "payments",
    METADATA,
    _text("id", key=True),
    *map(_text, ("payee", "reference", "subject", "account", "currency")),
    _number("amount_minor"),
    *map(_text, ("mandate", "method")),
    Column("captures", Integer, nullable=False),
    _text("state"),
    *map(_number, ("authorised_minor", "captured_minor", "refunded_minor")),
    *map(_text, ("waiting_for", "reason")),
    *map(_number, ("refunds", "version", "created_at")),
)
"""Payments that are not declined are unique by payee and reference."""
OPERATIONS = Table(
    "operations",
    METADATA,
    _text("id", key=True),
    _text("payment"),
    _text("kind"),
    _number("amount_minor"),
    _text("reason"),
    _text("state"),
    _number("created_at"),
    _number("tries"),
)
"""What was asked of the provider; `id` is its idempotency key. `created_at` says which local day it belongs to."""
RECEIPTS = Table(
    "receipts",
    METADATA,
    _text("payment", key=True),
    _number("version", key=True),
    Column("document", LargeBinary, nullable=False),
    Column("salt", LargeBinary, nullable=False),
)
DAYS = Table(
    "days",
    METADATA,
    _text("day", key=True),
    Column("report", LargeBinary, nullable=False),
    _number("made_at"),
    _text("ledger_transaction"),
)
"""Reports of days that are over; with the ledger's transaction once the day is closed."""
