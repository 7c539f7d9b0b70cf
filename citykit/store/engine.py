"""Connections to a SQLite file as the city wants them: WAL, `synchronous=FULL`, explicit transactions. For store and bus."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.pool import QueuePool

_SHARED = ("foreign_keys=ON", "cache_size=-16384", "mmap_size=268435456", "secure_delete=ON")
_WRITER = (*_SHARED, "journal_mode=WAL", "synchronous=FULL")
_READER = (*_SHARED, "query_only=ON")


def sqlite_engine(path: Path, *, readers: int = 0) -> Engine:
    """A pool of `readers` reading connections; of one writing connection where `readers` is 0."""
    engine = create_engine(
        f"sqlite:///{path}",
        poolclass=QueuePool,
        pool_size=readers or 1,
        max_overflow=0,
        connect_args={"check_same_thread": False, "timeout": 10.0, "cached_statements": 256},
    )
    begin = "BEGIN" if readers else "BEGIN IMMEDIATE"

    @event.listens_for(engine, "connect")
    def _prepare(connection: sqlite3.Connection, _record: Any) -> None:
        connection.isolation_level = None
        for pragma in _READER if readers else _WRITER:
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        connection.exec_driver_sql(begin)

    return engine
