"""The tables parking owns. Times are unix seconds, money minor units; documents are canonical JSON bytes."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Index, Integer, LargeBinary, MetaData, String, Table

from citykit.onramp.devices import device_tables
from citykit.onramp.heads import ChainTables

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
DEVICES = device_tables(METADATA)
PACKAGES = Table(
    "packages",
    METADATA,
    Column("device", String, primary_key=True),
    Column("sequence", BigInteger, primary_key=True),
    Column("hash", LargeBinary, nullable=False),
    Column("previous", LargeBinary, nullable=False),
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
CHAINS = ChainTables(HEADS, PACKAGES)
COUNTS = Table(
    "counts",
    METADATA,
    Column("lot", String, primary_key=True),
    Column("device", String, primary_key=True),
    Column("time", BigInteger, nullable=False),
    Column("occupied", Integer, nullable=False),
    Column("since", BigInteger, nullable=False),
    Column("stuck", Integer, nullable=False),
)
"""What each sensor said last, and since when without a break it says so."""
HALF_HOURS = Table(
    "half_hours",
    METADATA,
    Column("lot", String, primary_key=True),
    Column("slot", BigInteger, primary_key=True),
    Column("time", BigInteger, nullable=False),
    Column("occupied", Integer, nullable=False),
    Column("capacity", Integer, nullable=False),
    sqlite_with_rowid=False,
)
"""The last count of each half hour; `slot` is its start."""
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
    Column("access_number", BigInteger, nullable=False),
    Column("access_device", String, nullable=False),
    Column("access_sequence", BigInteger, nullable=False),
    Column("price_minor", BigInteger),
    Column("made_at", BigInteger, nullable=False),
    Column("provable", Integer, nullable=False),
)
Index("ix_reservations_subject", RESERVATIONS.c.subject, RESERVATIONS.c.made_at)
Index("ix_reservations_bay", RESERVATIONS.c.lot, RESERVATIONS.c.bay, RESERVATIONS.c.from_time)
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
    Column("used_time", BigInteger, nullable=False),
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
    Column("number", _COUNTER, primary_key=True, autoincrement=True),
    Column("reservation", String, nullable=False, index=True),
    Column("reference", String, nullable=False),
    Column("kind", String, nullable=False),
    Column("amount_minor", BigInteger, nullable=False),
    Column("reason", String, nullable=False),
    Column("state", String, nullable=False, index=True),
    sqlite_autoincrement=True,
)
PAYMENTS = Table(
    "payments",
    METADATA,
    Column("reference", String, primary_key=True),
    Column("reservation", String, nullable=False, index=True),
    Column("number", Integer, nullable=False),
    Column("payment", String, nullable=False),
    Column("wanted_minor", BigInteger, nullable=False),
    Column("to_time", BigInteger, nullable=False),
    Column("quote_minor", BigInteger, nullable=False),
    Column("state", String, nullable=False),
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
CALIBRATION_DAYS = Table(
    "calibration_days",
    METADATA,
    Column("day", String, primary_key=True),
    Column("document", LargeBinary, nullable=False),
    Column("salt", LargeBinary, nullable=False),
)
"""Openings of the days' calibrations in the log parking.events."""
