"""Opens a service's schema: waits for the server, takes the writing lock, migrates. Called by the composition root and by `city db`."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import psycopg
from sqlalchemy import Connection, MetaData
from sqlalchemy.exc import DBAPIError, OperationalError

from citykit.errors import EnvironmentFault
from citykit.settings import PostgresSettings, StoreSettings
from citykit.store.migrate import KIT_MIGRATIONS, migrate, require_tables
from citykit.store.postgres.connections import VERSION_MIN, Place, refusal
from citykit.store.postgres.database import PostgresDatabase
from citykit.store.postgres.groups import PostgresGroups, lock, take
from citykit.store.sql_store import SqlStore, count_outbox
from citykit.store.writer import GroupWriter

_POLL_S = 0.1
_MIGRATING = "SELECT pg_advisory_xact_lock(hashtextextended('city migration of ' || current_schema(), 0))"


def open_postgres(
    name: str,
    metadata: MetaData,
    migrations: Path,
    settings: StoreSettings,
    postgres: PostgresSettings,
    now: Callable[[], float] = time.time,
) -> SqlStore:
    """Opens and migrates the schema `name`. Blocks: called while the process starts.

    Args:
        metadata: the service's tables; every one must exist after the migration.
        now: machine time, by which request ids and processed events are forgotten.

    Raises:
        FailedPrecondition: a database of a newer version.
        EnvironmentFault: the server is not reached, or refuses; or another process writes to this schema and does not end.
    """
    place = Place(name, postgres)
    end = time.monotonic() + postgres.start_s
    wait_for_server(place, end)
    engine = place.engine("write", 1)
    with ExitStack() as on_failure:
        on_failure.callback(engine.dispose)
        connection = on_failure.enter_context(engine.connect())
        _wait_for_lock(connection, name, end)
        migrate_schema(place, metadata, migrations)
        epoch, groups = take(_driver(connection))
        outbox_size = count_outbox(connection)
        connection.commit()
        on_failure.pop_all()
    committer = PostgresGroups(engine, connection, name, epoch, groups)
    writer = GroupWriter(committer, name, settings.queue_max, settings.group_max)
    committer.closing, committer.refuse = (lambda: writer.closing), writer.refuse
    return SqlStore(PostgresDatabase(place, settings.readers), writer, settings, now, outbox_size)


def wait_for_server(place: Place, end: float) -> None:
    """Returns once the server lets the role in.

    Args:
        end: `time.monotonic` at which it is given up.

    Raises:
        EnvironmentFault: what waiting cannot mend, or the time is over.
    """
    while True:
        try:
            connection = place.connect("read")
        except psycopg.OperationalError as error:
            if fault := refusal(place, error):
                raise fault from None
            if time.monotonic() > end:
                raise _not_reached(place, error) from None
        else:
            with connection:
                return _require_version(connection.info.server_version)
        time.sleep(_POLL_S)


def _not_reached(place: Place, error: psycopg.Error) -> EnvironmentFault:
    chosen = place.settings
    first = str(error).strip().splitlines()[0]
    return EnvironmentFault(
        f"PostgreSQL at {chosen.host}:{chosen.port} was not reached within {chosen.start_s:.0f} s ({first});"
        " start it (make up PARTS=postgres), or set CITY_POSTGRES_HOST and CITY_POSTGRES_PORT"
    )


def _require_version(version: int) -> None:
    if version < VERSION_MIN:
        raise EnvironmentFault(
            f"the server is PostgreSQL {version // 10_000}; the city needs {VERSION_MIN // 10_000} or newer: upgrade it"
        )


def _wait_for_lock(connection: Connection, name: str, end: float) -> None:
    while not lock(_driver(connection)):
        if time.monotonic() > end:
            raise EnvironmentFault(
                f"another process writes to the schema of {name}, and one at a time may; stop it first, then start this one"
            )
        time.sleep(_POLL_S)


def migrate_schema(place: Place, metadata: MetaData, migrations: Path, *, keep: bool = True) -> None:
    """Brings the schema to this version in one transaction, with the time limits of migrations; without `keep` it is rolled back.

    Raises:
        FailedPrecondition: a database of a newer version.
        EnvironmentFault: a lock was not had in time, or a table is missing.
    """
    name = place.schema
    engine = place.engine("migrate", 1)
    try:
        with engine.connect() as connection, connection.begin() as transaction:
            connection.exec_driver_sql(_MIGRATING)
            migrate(connection, KIT_MIGRATIONS, version_table="kit_version", name=name)
            migrate(connection, migrations, version_table="schema_version", name=name)
            require_tables(connection, metadata, name)
            if not keep:
                transaction.rollback()
    except OperationalError as error:
        raise _migration_failed(name, error) from error
    finally:
        engine.dispose()


def _migration_failed(name: str, error: DBAPIError) -> EnvironmentFault:
    return EnvironmentFault(
        f"the schema of {name} could not be migrated ({type(error.orig).__name__}): nothing was changed."
        " A lock or a statement took longer than CITY_POSTGRES_MIGRATION_LOCK_S or _STATEMENT_S; try again when less goes on"
    )


def _driver(connection: Connection) -> psycopg.Connection:
    found = connection.connection.driver_connection
    assert isinstance(found, psycopg.Connection)  # noqa: S101 - for the type checker
    return found
