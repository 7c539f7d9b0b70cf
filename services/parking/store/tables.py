"""The tables parking owns. Times are unix seconds, money minor units; documents are canonical JSON bytes."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Index, Integer, LargeBinary, MetaData, String, Table

METADATA = MetaData()
_COUNTER = BigInteger().with_variant(Integer, "sqlite")

LOTS = Table(
    "lots",
    METADATA,
    Column("id", String, primary_key=True),
    Column("document", LargeBinary, nullable=False),
)
TARIFFS = Table(
    "tariffs",
    METADATA,
    Column("id", String, primary_key=True),
    Column("version", BigInteger, primary_key=True),
    Column("document", LargeBinary, nullable=False),
    Column("ledger_transaction", String, nullable=False),
)
KEYS = Table(
    "signing_keys",
    METADATA,
    Column("kid", String, primary_key=True),
    Column("public_key", LargeBinary, nullable=False),
    Column("ledger_transaction", String, nullable=False),
)
PERMITS = Table(
    "permits",
    METADATA,
    Column("id", String, primary_key=True),
    Column("subject", String, nullable=False, index=True),
    Column("lots", String, nullable=False),
    Column("from_time", BigInteger, nullable=False),
    Column("to_time", BigInteger, nullable=False),
    Column("price_basis_points", Integer, nullable=False),
)
CITY_EVENTS = Table(
    "city_events",
    METADATA,
    Column("id", String, primary_key=True),
    Column("name", String, nullable=False),
    Column("latitude_e7", BigInteger, nullable=False),
    Column("longitude_e7", BigInteger, nullable=False),
    Column("from_time", BigInteger, nullable=False),
    Column("to_time", BigInteger, nullable=False),
    Column("cars", Integer, nullable=False),
)
PACKAGES = Table(
    "packages",
    METADATA,
    Column("device", String, primary_key=True),
    Column("sequence", BigInteger, primary_key=True),
    Column("hash", LargeBinary, nullable=False),
    Column("content", LargeBinary, nullable=False),
    Column("salt", LargeBinary, nullable=False),
)
HEADS = Table(
    "heads",
    METADATA,
    Column("device", String, primary_key=True),
    Column("sequence", BigInteger, nullable=False),
    Column("hash", LargeBinary, nullable=False),
    Column("last_time", BigInteger, nullable=False),
)
COUNTS = Table(
    "counts",
    METADATA,
    Column("lot", String, primary_key=True),
    Column("device", String, primary_key=True),
    Column("time", BigInteger, nullable=False),
    Column("occupied", Integer, nullable=False),
)
RESERVATIONS = Table(
    "reservations",
    METADATA,
    Column("id", String, primary_key=True),
    Column("subject", String, nullable=False),
    Column("lot", String, nullable=False),
    Column("bay", String, nullable=False),
    Column("from_time", BigInteger, nullable=False),
    Column("to_time", BigInteger, nullable=False),
    Column("hold_until", BigInteger, nullable=False),
    Column("quote_minor", BigInteger, nullable=False),
    Column("currency", String, nullable=False),
    Column("tariff", String, nullable=False),
    Column("tariff_version", BigInteger, nullable=False),
    Column("permit_basis_points", Integer, nullable=False),
    Column("plate", String, nullable=False),
    Column("state", String, nullable=False, index=True),
    Column("version", Integer, nullable=False),
    Column("mandate", String, nullable=False),
    Column("entry_time", BigInteger, nullable=False),
    Column("exit_time", BigInteger, nullable=False),
    Column("price_minor", BigInteger),
    Column("provable", Integer, nullable=False, default=0),
)
Index("ix_reservations_subject", RESERVATIONS.c.subject, RESERVATIONS.c.id)
PROMISES = Table(
    "promises",
    METADATA,
    Column("lot", String, primary_key=True),
    Column("bay", String, primary_key=True),
    Column("slot", BigInteger, primary_key=True),
    Column("reservation", String, nullable=False, index=True),
)
DOCUMENTS = Table(
    "documents",
    METADATA,
    Column("reservation", String, primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("document", LargeBinary, nullable=False),
    Column("salt", LargeBinary, nullable=False),
)
ACCESS = Table(
    "access_documents",
    METADATA,
    Column("number", _COUNTER, primary_key=True, autoincrement=True),
    Column("reservation", String, nullable=False, index=True),
    Column("lock", String, nullable=False),
    Column("act", String, nullable=False),
    Column("document", String, nullable=False),
    Column("not_before", BigInteger, nullable=False),
    Column("expires", BigInteger, nullable=False),
    Column("used_device", String, nullable=False),
    Column("used_sequence", BigInteger, nullable=False),
    sqlite_autoincrement=True,
)
INSTRUCTIONS = Table(
    "instructions",
    METADATA,
    Column("lock", String, primary_key=True),
    Column("sequence", BigInteger, primary_key=True),
    Column("hash", LargeBinary, nullable=False),
    Column("content", LargeBinary, nullable=False),
)
DUTIES = Table(
    "duties",
    METADATA,
    Column("id", String, primary_key=True),
    Column("reservation", String, nullable=False, index=True),
    Column("kind", String, nullable=False),
    Column("amount_minor", BigInteger, nullable=False),
    Column("state", String, nullable=False, index=True),
)
PAYMENTS = Table(
    "payments",
    METADATA,
    Column("id", String, primary_key=True),
    Column("reservation", String, nullable=False, index=True),
    Column("reference", String, nullable=False),
    Column("state", String, nullable=False),
    Column("authorised_minor", BigInteger, nullable=False),
    Column("captured_minor", BigInteger, nullable=False),
    Column("refunded_minor", BigInteger, nullable=False),
)
SAID = Table(
    "said_probabilities",
    METADATA,
    Column("number", _COUNTER, primary_key=True, autoincrement=True),
    Column("lot", String, nullable=False),
    Column("arrival", BigInteger, nullable=False, index=True),
    Column("probability_milli", Integer, nullable=False),
    Column("times", Integer, nullable=False),
    sqlite_autoincrement=True,
)
CALIBRATION = Table(
    "calibration",
    METADATA,
    Column("bin", Integer, primary_key=True),
    Column("advices", BigInteger, nullable=False),
    Column("said_milli", BigInteger, nullable=False),
    Column("came", BigInteger, nullable=False),
    Column("square_micro", BigInteger, nullable=False),
)
