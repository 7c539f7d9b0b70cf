"""Blocks and state on disk: one SQLite file, each block one transaction with `synchronous=FULL`. Used by the peer alone.

What `append` returned from survives SIGKILL. Private data lies in rows of their own for each organisation; it is one operator's file all
the same.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from citykit.errors import FailedPrecondition
from citykit.ledger.devpeer.state import Change, Place, Version
from citykit.ledger.port import LedgerDamaged

_FORMAT = 1
_SCHEMA = """
CREATE TABLE IF NOT EXISTS blocks (number INTEGER PRIMARY KEY, hash BLOB NOT NULL, bytes BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS transactions (
  id TEXT PRIMARY KEY, block INTEGER NOT NULL, place INTEGER NOT NULL, code INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS state (
  kind TEXT NOT NULL, chaincode TEXT NOT NULL, collection TEXT NOT NULL, organisation TEXT NOT NULL, key BLOB NOT NULL,
  value BLOB NOT NULL, block INTEGER NOT NULL, place INTEGER NOT NULL, metadata BLOB NOT NULL,
  PRIMARY KEY (kind, chaincode, collection, organisation, key)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS history (
  chaincode TEXT NOT NULL, key BLOB NOT NULL, block INTEGER NOT NULL, place INTEGER NOT NULL, id TEXT NOT NULL,
  value BLOB, seconds INTEGER NOT NULL, nanos INTEGER NOT NULL, PRIMARY KEY (chaincode, key, block, place)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS private_sets (
  block INTEGER NOT NULL, place INTEGER NOT NULL, bytes BLOB NOT NULL, PRIMARY KEY (block, place)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS blocks_by_hash ON blocks (hash);
"""


@dataclass(frozen=True, slots=True)
class Found:
    """Where a transaction stands, and its validation code."""

    block: int
    place: int
    code: int


@dataclass(frozen=True, slots=True)
class Past:
    """An earlier value of a key; without a value: deleted. `time`: (seconds, nanoseconds) of the proposal."""

    transaction: str
    value: bytes | None
    time: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Outcome:
    """A transaction of a block: what it wrote, if it is valid. `private`: its `rwset.TxPvtReadWriteSet`, empty without."""

    transaction: str
    code: int
    time: tuple[int, int]
    version: Version
    changes: tuple[Change, ...]
    private: bytes = b""


@dataclass(frozen=True, slots=True)
class NewBlock:
    """A block and what its transactions do."""

    number: int
    hash: bytes
    bytes: bytes
    outcomes: Sequence[Outcome]


class Storage:
    """The file. `append` runs in one thread; the readers in the thread that opened it."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._writer = self._connect()
        self._writer.executescript(_SCHEMA)
        version = self._writer.execute("PRAGMA user_version").fetchone()[0]
        if version not in (0, _FORMAT):
            raise FailedPrecondition(
                f"{path} is of format {version}, this peer writes {_FORMAT}; run the release that made it, or delete it"
            )
        self._writer.execute(f"PRAGMA user_version = {_FORMAT}")
        self._reader = self._connect()

    def append(self, block: NewBlock) -> None:
        """Writes a block with its outcomes; all of it or nothing.

        Raises:
            sqlite3.Error, OSError: nothing was written; it may be tried again.
        """
        connection = self._writer
        connection.execute("BEGIN IMMEDIATE")
        try:
            connection.execute("INSERT INTO blocks VALUES (?, ?, ?)", (block.number, block.hash, block.bytes))
            connection.executemany("INSERT OR IGNORE INTO transactions VALUES (?, ?, ?, ?)", _transactions(block))
            private = [(*one.version, one.private) for one in block.outcomes if one.private]
            connection.executemany("INSERT INTO private_sets VALUES (?, ?, ?)", private)
            for outcome in block.outcomes:
                self._write_changes(outcome)
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise

    def height(self) -> int:
        return int(self._reader.execute("SELECT coalesce(max(number) + 1, 0) FROM blocks").fetchone()[0])

    def block(self, number: int) -> bytes:
        """The bytes of a stored block.

        Raises:
            LedgerDamaged: it is not there.
        """
        row = self._reader.execute("SELECT bytes FROM blocks WHERE number = ?", (number,)).fetchone()
        if row is None:
            raise LedgerDamaged(f"block {number} is missing in {self._path}; restore it from a backup")
        return bytes(row[0])

    def number_of(self, block_hash: bytes) -> int | None:
        row = self._reader.execute("SELECT number FROM blocks WHERE hash = ?", (block_hash,)).fetchone()
        return None if row is None else int(row[0])

    def transaction(self, identifier: str) -> Found | None:
        """Where a transaction first was committed, valid or not."""
        query = "SELECT block, place, code FROM transactions WHERE id = ?"
        row = self._reader.execute(query, (identifier,)).fetchone()
        return None if row is None else Found(*row)

    def private_sets(self, block: int) -> dict[int, bytes]:
        """Place in the block -> `rwset.TxPvtReadWriteSet`, of the transactions that wrote private data."""
        query = "SELECT place, bytes FROM private_sets WHERE block = ?"
        return {int(place): bytes(data) for place, data in self._reader.execute(query, (block,))}

    def history(self, chaincode: str, key: str, below: int, limit: int) -> list[Past]:
        """Values of a key before block `below`, newest first, at most `limit`."""
        rows = self._reader.execute(
            "SELECT id, value, seconds, nanos FROM history WHERE chaincode = ? AND key = ? AND block < ?"
            " ORDER BY block DESC, place DESC LIMIT ?",
            (chaincode, key.encode(), below, limit),
        )
        return [Past(row[0], row[1], (row[2], row[3])) for row in rows]

    def state(self) -> Iterator[Change]:
        """Every present entry, for the world state at open."""
        for kind, chaincode, collection, organisation, key, value, block, place, metadata in self._reader.execute(
            "SELECT * FROM state ORDER BY kind, chaincode, collection, organisation, key"
        ):
            where = Place(kind, chaincode, collection, organisation)
            yield Change(where, key.decode(), value, (block, place), metadata)

    def close(self) -> None:
        self._reader.close()
        self._writer.close()

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False, timeout=5.0)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        return connection

    def _write_changes(self, outcome: Outcome) -> None:
        for change in outcome.changes:
            place = change.place
            key = (place.kind, place.chaincode, place.collection, place.organisation, change.key.encode())
            if change.value is None:
                self._writer.execute(
                    "DELETE FROM state WHERE kind = ? AND chaincode = ? AND collection = ? AND organisation = ? AND key = ?",
                    key,
                )
            else:
                self._writer.execute(
                    "INSERT OR REPLACE INTO state VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                    (*key, change.value, *change.version, change.metadata),
                )
            if place.kind == "public":
                self._writer.execute(
                    "INSERT INTO history VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                    (place.chaincode, key[-1], *change.version, outcome.transaction, change.value, *outcome.time),
                )


def _transactions(block: NewBlock) -> list[tuple[str, int, int, int]]:
    return [(one.transaction, *one.version, one.code) for one in block.outcomes if one.transaction]
