"""Brings a database to this version with Alembic's revisions. Forward only; a database of a newer version is refused."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any

from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, MetaData, inspect

from citykit.errors import EnvironmentFault, FailedPrecondition

KIT_MIGRATIONS = Path(__file__).parent / "migrations"


def migrate(connection: Connection, migrations: Path, *, version_table: str, name: str) -> None:
    """Runs the revisions of the folder `migrations` that `connection`'s database lacks, in the caller's transaction.

    Raises:
        FailedPrecondition: the database holds a revision this version does not know.
    """
    script = ScriptDirectory(str(migrations), version_locations=[str(migrations)])
    known = {revision.revision for revision in script.walk_revisions()}
    current = _context(connection, version_table).get_current_revision()
    if current is not None and current not in known:
        raise FailedPrecondition(
            f"the database of {name} is at revision {current}, which this version does not know: it was written by a newer"
            " version. Start that version, or restore a backup made before the upgrade",
            reason="newer-database",
        )

    def steps(revision: Any, _context: MigrationContext) -> Iterable[Any]:
        return script._upgrade_revs("head", revision)

    context = MigrationContext.configure(
        connection, opts={"version_table": version_table, "fn": steps, "script": script, "transactional_ddl": False}
    )
    with context.bind_operations() if hasattr(context, "bind_operations") else _operations(context):
        context.run_migrations()


def require_current(connection: Connection, migrations: Path | None, name: str) -> None:
    """Whether a database is at the newest revision of this version; a database is asked, so it answers too.

    Args:
        migrations: the service's folder of revisions; None asks for the kit's own tables only.

    Raises:
        FailedPrecondition: it is not.
    """
    folders = {"kit_version": KIT_MIGRATIONS} | ({} if migrations is None else {"schema_version": migrations})
    for table, folder in folders.items():
        current, newest = _context(connection, table).get_current_revision(), _head(folder)
        if current != newest:
            raise FailedPrecondition(
                f"the database of {name} is at revision {current} of {table}, this version needs {newest};"
                " run `city db migrate` or start the version that wrote it",
                reason="not-migrated",
            )


@lru_cache(maxsize=64)
def _head(migrations: Path) -> str | None:
    """The newest revision in a folder; None in an empty one."""
    return ScriptDirectory(str(migrations), version_locations=[str(migrations)]).get_current_head()


def require_tables(connection: Connection, metadata: MetaData, name: str) -> None:
    """Every table of `metadata` must be there after the migrations.

    Raises:
        EnvironmentFault: one is not.
    """
    missing = sorted(set(metadata.tables) - set(inspect(connection).get_table_names()))
    if missing:
        raise EnvironmentFault(f"the migrations of {name} leave out the tables {', '.join(missing)}; add a revision")


def _context(connection: Connection, version_table: str) -> MigrationContext:
    return MigrationContext.configure(connection, opts={"version_table": version_table})


def _operations(context: MigrationContext) -> Any:
    from alembic.operations import Operations  # noqa: PLC0415 - heavy import, only while migrating

    return Operations.context(context)
