"""`city db migrate | check | backup | restore`: the services' databases, in SQLite files or in PostgreSQL.

PostgreSQL is meant where the settings name a password file (`make up` writes such settings), else the files of the state directory.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from citykit.errors import CityError, EnvironmentFault, InvalidArgument, NotFound
from citykit.settings import CitySettings
from citykit.state import locked
from citykit.store.inspection import Condition, Tables, bring_up, condition, copy_sqlite, looking
from citykit.store.places import sqlite_file
from citykit.store.postgres.connections import Place
from infra.postgres import Admin
from infra.postgres.backup import base_backup, restore
from services.commands.serve import settings_of
from services.registry import SERVICES, tables

_BASE = "base"


def add(subparsers: Any) -> None:
    parser = subparsers.add_parser("db", help="the services' databases: versions, migration, backup, restore")
    acts = parser.add_subparsers(metavar="ACT", required=True)
    migrate = acts.add_parser("migrate", help="bring every database to this version")
    migrate.add_argument("--dry-run", action="store_true", help="run it on the real data, then roll back")
    migrate.set_defaults(run=_migrate)
    acts.add_parser("check", help="versions, tables, outboxes; exit code 1 where something is wrong").set_defaults(
        run=_check
    )
    backup = acts.add_parser("backup", help="a consistent copy beside the running city")
    backup.add_argument("target", type=Path, metavar="FOLDER", help="a new folder")
    backup.set_defaults(run=_backup)
    back = acts.add_parser("restore", help="make databases from a backup; the city is stopped")
    back.add_argument("source", type=Path, metavar="FOLDER", help="what `city db backup` made")
    back.add_argument("--data", type=Path, help="PostgreSQL: the data folder to make, for instance STATE/postgres/data")
    back.add_argument("--archive", type=Path, help="PostgreSQL: archived log to replay onto the backup")
    back.add_argument("--until", metavar="TIME", help="PostgreSQL: replay up to this moment, ISO 8601 with its zone")
    back.set_defaults(run=_restore)
    for one in acts.choices.values():
        one.add_argument("--state", type=Path, default=Path(".city"), help="state directory of the city")
        one.add_argument("--settings", type=Path, metavar="FILE", help="CITY_* variables, below the environment's")
        one.add_argument("--service", action="append", choices=SERVICES, help="only this one; may come again")
        one.add_argument("--json", action="store_true", help="one JSON document")


def _migrate(arguments: argparse.Namespace) -> int:
    settings = settings_of(arguments.settings)
    rows = []
    for one in _wanted(arguments):
        place = _place(settings, arguments.state, one.name)
        found = _condition(place, one)
        bring_up(place, one, keep=not arguments.dry_run)
        rows.append({"service": one.name, "from": found.version, "revisions": list(found.pending)})
    return _say(arguments, rows, [_migrated(row, arguments.dry_run) for row in rows])


def _migrated(row: dict[str, Any], dry: bool) -> str:
    if not row["revisions"]:
        return f"{row['service']}: up to date at {row['from']}"
    done = "would run (it did, and was rolled back)" if dry else "ran"
    return f"{row['service']}: {done} {', '.join(row['revisions'])}"


def _check(arguments: argparse.Namespace) -> int:
    settings = settings_of(arguments.settings)
    rows = [_checked(_place(settings, arguments.state, one.name), one) for one in _wanted(arguments)]
    _say(arguments, rows, [_line(row) for row in rows])
    return 1 if any(row["problems"] for row in rows) else 0


def _checked(place: Place | Path, one: Tables) -> dict[str, Any]:
    try:
        found = _condition(place, one)
    except CityError as error:
        return {"service": one.name, "version": "", "pending": [], "outbox": -1, "problems": [error.message]}
    problems = list(found.problems)
    if one.name == "metering" and not (problems or found.pending):
        problems += _archive_damage(place)
    return {
        "service": one.name,
        "version": found.version,
        "pending": list(found.pending),
        "outbox": found.outbox,
        "problems": problems,
    }


def _archive_damage(place: Place | Path) -> list[str]:
    from services.metering.store.archive import damage  # noqa: PLC0415 - loads DuckDB

    with looking(place) as connection:
        return damage(connection)


def _line(row: dict[str, Any]) -> str:
    if row["problems"]:
        return f"{row['service']}: WRONG: {'; '.join(row['problems'])}"
    waits = f"; pending: {', '.join(row['pending'])} (they run at the next start, or with city db migrate)"
    return f"{row['service']}: {row['version'] or 'empty'}; outbox {row['outbox']}{waits if row['pending'] else ''}"


def _backup(arguments: argparse.Namespace) -> int:
    settings = settings_of(arguments.settings)
    target: Path = arguments.target
    if target.exists():
        raise InvalidArgument(f"{target} is there already; name a new folder", field="FOLDER")
    if settings.postgres.password_file:
        base_backup(_admin(settings), target / _BASE)
        kept = ["all of PostgreSQL"]
    else:
        there = [one.name for one in _wanted(arguments) if sqlite_file(arguments.state, one.name).exists()]
        if not there:
            raise NotFound(f"no databases in {arguments.state}; name the city's state directory with --state")
        for name in there:
            copy_sqlite(sqlite_file(arguments.state, name), target / f"{name}.db")
        kept = there
    return _say(
        arguments, {"folder": str(target), "holds": kept}, [f"{target}: {', '.join(kept)}; copied and verified"]
    )


def _restore(arguments: argparse.Namespace) -> int:
    source: Path = arguments.source
    if (source / _BASE).exists():
        if arguments.data is None:
            raise InvalidArgument("name the data folder to make with --data", field="--data")
        restore(source / _BASE, arguments.data, arguments.archive, _moment(arguments))
        done = f"{arguments.data}: made; start the server, and it replays the archive up to the moment and goes on from there"
        return _say(arguments, {"data": str(arguments.data)}, [done])
    names = [one.name for one in _wanted(arguments) if (source / f"{one.name}.db").exists()]
    if not names:
        raise NotFound(f"{source} holds no backup; name the folder `city db backup` made")
    with locked(arguments.state):
        for name in names:
            _put_back(source / f"{name}.db", sqlite_file(arguments.state, name))
    return _say(arguments, {"restored": names}, [f"{arguments.state}: {', '.join(names)} as in {source}"])


def _put_back(source: Path, target: Path) -> None:
    if target.exists():
        raise EnvironmentFault(f"{target} is there: move it and its -wal and -shm away first; it is never overwritten")
    for rest in ("-wal", "-shm"):
        target.with_name(target.name + rest).unlink(missing_ok=True)
    copy_sqlite(source, target)


def _moment(arguments: argparse.Namespace) -> datetime | None:
    if arguments.until is None:
        return None
    if arguments.archive is None:
        raise InvalidArgument(
            "a moment is reached with the archived log only: name it with --archive", field="--archive"
        )
    try:
        moment = datetime.fromisoformat(arguments.until)
    except ValueError:
        moment = datetime.min
    if moment.tzinfo is None:
        raise InvalidArgument(
            f"--until must be a moment with its zone, such as 2026-01-31T12:00:00+00:00, not {arguments.until!r}",
            field="--until",
        )
    return moment.astimezone(UTC)


def _wanted(arguments: argparse.Namespace) -> list[Tables]:
    return tables(arguments.service or SERVICES)


def _place(settings: CitySettings, state: Path, name: str) -> Place | Path:
    return Place(name, settings.postgres) if settings.postgres.password_file else sqlite_file(state, name)


def _condition(place: Place | Path, one: Tables) -> Condition:
    with looking(place) as connection:
        return condition(connection, one)


def _admin(settings: CitySettings) -> Admin:
    chosen = settings.postgres
    root = Path(chosen.tls_root) if chosen.tls_root else None
    return Admin(chosen.port, Path(chosen.password_file).parent, chosen.host, root, chosen.database)


def _say(arguments: argparse.Namespace, document: Any, lines: Sequence[str]) -> int:
    if arguments.json:
        json.dump(document, sys.stdout)
        print()
    else:
        print("\n".join(lines))
    return 0
