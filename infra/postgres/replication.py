"""Takes a base backup over one connection, by the replication protocol
(https://www.postgresql.org/docs/18/protocol-replication.html#PROTOCOL-REPLICATION-BASE-BACKUP). Called by `infra.postgres.backup`.

The tools of the installed package are built without TLS, and take several connections, which a forwarded port may not outlive.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from pathlib import Path

from psycopg import pq
from psycopg.conninfo import make_conninfo
from psycopg.pq.abc import PGconn

from citykit.errors import EnvironmentFault
from infra.postgres.roles import Admin

MANIFEST = "backup_manifest"
_SLOT = b"CREATE_REPLICATION_SLOT city_backup TEMPORARY PHYSICAL (RESERVE_WAL)"
"""Keeps the log that the copy needs until the connection ends."""
_BACKUP = b"BASE_BACKUP (LABEL 'city', CHECKPOINT 'fast', WAL true, MANIFEST 'yes', MANIFEST_CHECKSUMS 'SHA256')"
_ARCHIVED = b"SELECT pg_switch_wal()"
"""An archive of the log, where there is one, then gets all that the copy needs."""
_ARCHIVE, _MANIFEST, _DATA = b"n", b"m", b"d"


def fetch(admin: Admin, folder: Path) -> None:
    """Writes the server's data folder, the log it needs and the manifest into `folder`, which is new.

    Raises:
        EnvironmentFault: the server is not reached, refuses, or has tablespaces.
    """
    made = make_conninfo(**admin.options, dbname=admin.database, replication="database")
    connection = pq.PGconn.connect(made.encode())
    try:
        if connection.status != pq.ConnStatus.OK:
            raise EnvironmentFault(f"PostgreSQL is not reached: {_said(connection)}")
        _ask(connection, _SLOT)
        connection.send_query(_BACKUP)
        _receive(connection, folder)
        _ask(connection, _ARCHIVED)
    finally:
        connection.finish()


def _receive(connection: PGconn, folder: Path) -> None:
    folder.mkdir(mode=0o700)
    copied = False
    while (result := connection.get_result()) is not None:
        if result.status == pq.ExecStatus.COPY_OUT:
            _write(_messages(connection), folder)
            copied = True
        elif result.status not in (pq.ExecStatus.TUPLES_OK, pq.ExecStatus.COMMAND_OK):
            raise EnvironmentFault(f"PostgreSQL gives no base backup: {_text(result.error_message)}")
    if not copied or not (folder / MANIFEST).exists():
        raise EnvironmentFault("PostgreSQL ended the base backup before its end; try again")


def _write(messages: Iterator[bytes], folder: Path) -> None:
    """One archive, then the manifest."""
    first = next(messages, b"")
    if first[:1] != _ARCHIVE or not first[1:].startswith(b"base.tar\0"):
        raise EnvironmentFault("PostgreSQL sends no archive base.tar: it has tablespaces, which the city does not use")
    stream = _Stream(messages)
    try:
        with tarfile.open(fileobj=stream, mode="r|") as archive:
            archive.extractall(folder, filter="data")
    except tarfile.TarError as error:
        raise EnvironmentFault(f"the base backup broke off: {error}") from None
    stream.read()  # what comes after the archive's end mark
    with (folder / MANIFEST).open("wb") as manifest:
        manifest.writelines(one[1:] for one in messages if one[:1] == _DATA)


class _Stream(io.RawIOBase):
    """What an archive's messages hold, up to the manifest."""

    def __init__(self, messages: Iterator[bytes]) -> None:
        self._messages = messages
        self._held = b""
        self._over = False

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        while not self._over and (size < 0 or len(self._held) < size):
            message = next(self._messages, _MANIFEST)
            self._over = message[:1] == _MANIFEST
            if message[:1] == _DATA:
                self._held += message[1:]
        size = len(self._held) if size < 0 else size
        given, self._held = self._held[:size], self._held[size:]
        return given


def _messages(connection: PGconn) -> Iterator[bytes]:
    while True:
        length, data = connection.get_copy_data(0)
        if length == -1:
            return
        if length < 0:
            raise EnvironmentFault(f"the base backup broke off: {_said(connection)}")
        yield bytes(data)


def _ask(connection: PGconn, command: bytes) -> None:
    result = connection.exec_(command)
    if result.status not in (pq.ExecStatus.TUPLES_OK, pq.ExecStatus.COMMAND_OK):
        raise EnvironmentFault(f"PostgreSQL refuses a base backup: {_text(result.error_message)}")


def _said(connection: PGconn) -> str:
    return _text(connection.error_message)


def _text(message: bytes) -> str:
    return message.decode("utf-8", errors="replace").strip()
