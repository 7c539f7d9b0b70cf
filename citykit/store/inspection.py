"""Versions and contents of a service's database, and migrating it, without opening it for work. Called by `city db`."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from alembic.script import ScriptDirectory
from sqlalchemy import Connection, MetaData, inspect
from sqlalchemy.exc import DBAPIError

from citykit.errors import EnvironmentFault, NotFound
from citykit.store.driver import rows
from citykit.store.engine import sqlite_engine
from citykit.store.migrate import KIT_MIGRATIONS, migrate, require_tables
from citykit.store.postgres.connections import Place, refusal
from citykit.store.postgres.opening import migrate_schema, wait_for_server

KIT, OWN = "kit_version", "schema_version"


@dataclass(frozen=True)
class Tables:
    """What a service's database must hold, and the folder of the revisions that make it."""

    name: str
    metadata: MetaData
    migrations: Path


@dataclass(frozen=True)
class Condition:
    """What was found.

    Attributes:
        version: the revision it is at; empty before the first migration.
        pending: revisions this version would add, in order.
        problems: what keeps the service from starting, each with what to do.
        outbox: messages not yet published; -1 where there is no table.
    """

    name: str
    version: str
    pending: tuple[str, ...]
    problems: tuple[str, ...]
    outbox: int


def condition(connection: Connection, wanted: Tables) -> Condition:
    """Looks only."""
    there = set(inspect(connection).get_table_names())
    versions = {name: _version(connection, name) if name in there else "" for name in (KIT, OWN)}
    problems: list[str] = []
    pending: list[str] = []
    for table, folder in ((KIT, KIT_MIGRATIONS), (OWN, wanted.migrations)):
        known = revisions(folder)
        if versions[table] and versions[table] not in known:
            problems.append(
                f"it is at revision {versions[table]}, which this version does not know: it was written by a newer version."
                " Start that version, or restore a backup made before the upgrade"
            )
        else:
            pending += known[known.index(versions[table]) + 1 :] if versions[table] else known
    missing = sorted(set(wanted.metadata.tables) - there)
    if missing and not pending and not problems:
        problems.append(f"the tables {', '.join(missing)} are missing: restore a backup")
    outbox = rows(connection, "SELECT count(*) FROM outbox")[0][0] if "outbox" in there else -1
    return Condition(wanted.name, versions[OWN], tuple(pending), tuple(problems), outbox)


def revisions(folder: Path) -> list[str]:
    """The revisions of a folder, the first first."""
    script = ScriptDirectory(str(folder), version_locations=[str(folder)])
    return [item.revision for item in script.walk_revisions()][::-1]


def _version(connection: Connection, table: str) -> str:
    found = rows(connection, f"SELECT version_num FROM {table}")  # noqa: S608 - one of two names
    return str(found[0][0]) if found else ""


@contextlib.contextmanager
def looking(place: Place | Path) -> Iterator[Connection]:
    """A connection to a schema or a SQLite file that changes nothing.

    Raises:
        EnvironmentFault: not reached, or refused; with what to do.
        NotFound: there is no such file.
    """
    if isinstance(place, Path) and not place.exists():
        raise NotFound(f"there is no database {place}; name the city's state directory with --state")
    engine = place.engine("read", 1) if isinstance(place, Place) else sqlite_engine(place, readers=1)
    try:
        with engine.connect() as connection, connection.begin():
            yield connection
    except DBAPIError as error:
        cause = error.orig
        fault = refusal(place, cause) if isinstance(place, Place) and cause is not None else None  # type: ignore[arg-type]
        raise fault or EnvironmentFault(f"{where(place)} cannot be read ({type(cause).__name__})") from error
    finally:
        engine.dispose()


def bring_up(place: Place | Path, wanted: Tables, *, keep: bool) -> None:
    """Runs the pending revisions in one transaction; without `keep` that is rolled back at its end: a dry run on the real data.

    Raises:
        FailedPrecondition: a database of a newer version.
        EnvironmentFault: a time limit was over, or a table is missing; nothing was changed.
    """
    if isinstance(place, Place):
        wait_for_server(place, 0.0)
        migrate_schema(place, wanted.metadata, wanted.migrations, keep=keep)
        return
    engine = sqlite_engine(place)
    try:
        with engine.connect() as connection, connection.begin() as transaction:
            migrate(connection, KIT_MIGRATIONS, version_table=KIT, name=wanted.name)
            migrate(connection, wanted.migrations, version_table=OWN, name=wanted.name)
            require_tables(connection, wanted.metadata, wanted.name)
            if not keep:
                transaction.rollback()
    finally:
        engine.dispose()


def where(place: Place | Path) -> str:
    if isinstance(place, Path):
        return str(place)
    return f"{place.settings.host}:{place.settings.port}/{place.settings.database}/{place.schema}"


def copy_sqlite(source: Path, target: Path) -> None:
    """A consistent copy of a SQLite file that may be in use; checked, and whole or not there.

    Raises:
        EnvironmentFault: the copy is damaged.
    """
    part = target.with_name(f"{target.name}.part")
    target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    part.unlink(missing_ok=True)
    with (
        contextlib.closing(sqlite3.connect(f"file:{source}?mode=ro", uri=True)) as old,
        contextlib.closing(sqlite3.connect(part)) as new,
    ):
        old.backup(new)
        found = new.execute("PRAGMA integrity_check").fetchone()[0]
    if found != "ok":
        part.unlink()
        raise EnvironmentFault(f"the copy of {source} is damaged ({found}); check the disk")
    part.replace(target)
