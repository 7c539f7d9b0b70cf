"""The first tables of parking."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "parking_0001"
down_revision = None
branch_labels = None
depends_on = None

_COUNTER = sa.BigInteger().with_variant(sa.Integer, "sqlite")
_NUMBER, _SMALL, _BLOB = sa.BigInteger, sa.Integer, sa.LargeBinary


def _key(name: str, kind: type[sa.types.TypeEngine[Any]] = sa.String) -> sa.Column[Any]:
    return sa.Column(name, kind, primary_key=True)


def _column(name: str, kind: type[sa.types.TypeEngine[Any]] = sa.String) -> sa.Column[Any]:
    return sa.Column(name, kind, nullable=False)


def _counter(name: str) -> sa.Column[Any]:
    return sa.Column(name, _COUNTER, primary_key=True, autoincrement=True)


def upgrade() -> None:
    _places()
    _devices()
    _reservations()
    _access()
    _money()
    _advice()


def _places() -> None:
    op.create_table("lots", _key("id"), _column("document", _BLOB))
    op.create_table(
        "tariffs", _key("id"), _key("version", _NUMBER), _column("document", _BLOB), _column("ledger_transaction")
    )
    op.create_table("signing_keys", _key("kid"), _column("public_key", _BLOB), _column("ledger_transaction"))
    op.create_table(
        "permits",
        _key("id"),
        _column("subject"),
        _column("lots"),
        _column("from_time", _NUMBER),
        _column("to_time", _NUMBER),
        _column("price_basis_points", _SMALL),
    )
    op.create_index("ix_permits_subject", "permits", ["subject"])
    op.create_table(
        "city_events",
        _key("id"),
        _column("name"),
        _column("latitude_e7", _NUMBER),
        _column("longitude_e7", _NUMBER),
        _column("from_time", _NUMBER),
        _column("to_time", _NUMBER),
        _column("cars", _SMALL),
    )


def _devices() -> None:
    op.create_table("devices", _key("device"), _column("from_time", _NUMBER), sa.Column("last_sequence", _NUMBER))
    op.create_table(
        "device_keys",
        _key("device"),
        _key("from_sequence", _NUMBER),
        _column("public_key", _BLOB),
        *(_column(name) for name in ("algorithm", "ledger_transaction")),
    )
    op.create_table(
        "packages",
        _key("device"),
        _key("sequence", _NUMBER),
        _column("hash", _BLOB),
        _column("previous", _BLOB),
        _column("content", _BLOB),
        _column("salt", _BLOB),
    )
    op.create_table(
        "heads", _key("device"), _column("sequence", _NUMBER), _column("hash", _BLOB), _column("last_time", _NUMBER)
    )
    op.create_table(
        "counts",
        *(_key(name) for name in ("lot", "device")),
        _column("time", _NUMBER),
        _column("occupied", _SMALL),
        _column("since", _NUMBER),
        _column("stuck", _SMALL),
    )
    op.create_table(
        "half_hours",
        _key("lot"),
        *(_key("slot", _NUMBER), _column("time", _NUMBER)),
        *(_column(name, _SMALL) for name in ("occupied", "capacity")),
        sqlite_with_rowid=False,
    )


def _reservations() -> None:
    op.create_table(
        "reservations",
        _key("id"),
        *(_column(name) for name in ("subject", "lot", "bay")),
        *(_column(name, _NUMBER) for name in ("from_time", "to_time", "hold_until", "quote_minor")),
        *(_column(name) for name in ("currency", "tariff")),
        _column("tariff_version", _NUMBER),
        _column("permit_basis_points", _SMALL),
        *(_column(name) for name in ("plate", "state")),
        _column("version", _SMALL),
        _column("mandate"),
        *(_column(name, _NUMBER) for name in ("entry_time", "exit_time", "access_number")),
        _column("access_device"),
        _column("access_sequence", _NUMBER),
        sa.Column("price_minor", _NUMBER),
        _column("made_at", _NUMBER),
        _column("provable", _SMALL),
    )
    op.create_index("ix_reservations_state", "reservations", ["state"])
    op.create_index("ix_reservations_subject", "reservations", ["subject", "made_at"])
    op.create_index("ix_reservations_bay", "reservations", ["lot", "bay", "from_time"])
    op.create_table("promises", _key("lot"), _key("bay"), _key("slot", _NUMBER), _column("reservation"))
    op.create_index("ix_promises_reservation", "promises", ["reservation"])
    op.create_table(
        "documents", _key("reservation"), _key("version", _SMALL), _column("document", _BLOB), _column("salt", _BLOB)
    )


def _access() -> None:
    op.create_table(
        "access_documents",
        _counter("number"),
        *(_column(name) for name in ("reservation", "lock", "act", "document")),
        *(_column(name, _NUMBER) for name in ("not_before", "expires")),
        _column("used_device"),
        _column("used_sequence", _NUMBER),
        _column("used_time", _NUMBER),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_access_documents_reservation", "access_documents", ["reservation"])
    op.create_table(
        "instructions", _key("lock"), _key("sequence", _NUMBER), _column("hash", _BLOB), _column("content", _BLOB)
    )


def _money() -> None:
    op.create_table(
        "duties",
        _counter("number"),
        *(_column(name) for name in ("reservation", "reference", "kind")),
        _column("amount_minor", _NUMBER),
        *(_column(name) for name in ("reason", "state")),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_duties_reservation", "duties", ["reservation"])
    op.create_index("ix_duties_state", "duties", ["state"])
    op.create_table(
        "payments",
        _key("reference"),
        _column("reservation"),
        _column("number", _SMALL),
        _column("payment"),
        *(_column(name, _NUMBER) for name in ("wanted_minor", "to_time", "quote_minor")),
        _column("state"),
    )
    op.create_index("ix_payments_reservation", "payments", ["reservation"])


def _advice() -> None:
    op.create_table(
        "said_probabilities",
        _counter("number"),
        _column("lot"),
        _column("arrival", _NUMBER),
        _column("probability_milli", _SMALL),
        _column("times", _SMALL),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_said_probabilities_arrival", "said_probabilities", ["arrival"])
    op.create_table(
        "calibration",
        _key("bin", _SMALL),
        *(_column(name, _NUMBER) for name in ("advices", "said_milli", "came", "square_micro")),
    )
    op.create_table("calibration_days", _key("day"), *(_column(name, _BLOB) for name in ("document", "salt")))
