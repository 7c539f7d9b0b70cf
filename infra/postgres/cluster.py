"""A PostgreSQL cluster in a folder: made with initdb, configured, started as a native program. Called by `make up`, `city db` and the tests."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import psycopg

from citykit.errors import EnvironmentFault
from infra.native import Program
from infra.postgres.binaries import server_tool
from infra.postgres.roles import ADMIN, Admin, password, provision

_INITDB_S = 120
_ROOT = 0


@dataclass(frozen=True)
class Tls:
    """PEM files of the server: its certificate chain, its key, and the issuer's certificate clients check it with."""

    certificate: Path
    key: Path
    root: Path


@dataclass(frozen=True)
class Archive:
    """Where finished write-ahead log segments are copied to; a segment is finished after `timeout_s` at the latest."""

    folder: Path
    timeout_s: int = 60


def programs(
    cache: Path,
    state: Path,
    port: int,
    *,
    services: Sequence[str],
    tls: Tls | None = None,
    archive: Archive | None = None,
    more: Sequence[str] = (),
) -> list[Program]:
    """The server on `state` (made where there is none), ready once each service's role and schema are there.

    Args:
        cache: where `install` was told to install to.
        state: holds `data/` and `passwords/`.
        services: who gets a schema and a role.
        more: lines of configuration that come after the city's own.

    Raises:
        EnvironmentFault: the cluster cannot be made.
    """
    admin = Admin(port, state / "passwords", root=tls.root if tls else None)
    make_cluster(cache, state)
    configure(state / "data", port, tls, archive, more)
    argv = [*as_server(), str(server_tool(cache, "postgres")), "-D", str(state / "data")]
    ready = partial(_ready, admin, tuple(services))
    # SIGINT ends sessions; on SIGTERM PostgreSQL would wait for them.
    return [Program("postgres", argv, ready, cwd=state, stop_signal=signal.SIGINT)]


def make_cluster(cache: Path, state: Path) -> None:
    """Runs initdb in `state/data` unless a cluster is there: UTF-8, order by code point, checksums, scram for everybody."""
    data = state / "data"
    if (data / "PG_VERSION").exists():
        return
    secret = state / "passwords" / ADMIN
    password(state / "passwords", ADMIN)
    shutil.rmtree(data, ignore_errors=True)
    locale = ["-E", "UTF8", "--locale-provider=builtin", "--locale=C.UTF-8"]
    initdb = [str(server_tool(cache, "initdb")), "-D", str(data), "-U", ADMIN, "-A", "scram-sha-256", *locale]
    argv = [*as_server(), *initdb, f"--pwfile={secret}"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=_INITDB_S, check=False)  # noqa: S603 - our own command line
    if done.returncode:
        raise EnvironmentFault(f"PostgreSQL's cluster could not be made in {data}: {done.stderr.strip()[-600:]}")


def as_server() -> list[str]:
    """PostgreSQL refuses to run as root: there it runs in a user namespace of its own."""
    if os.geteuid() != _ROOT:
        return []
    found = shutil.which("unshare")
    if found is None:
        raise EnvironmentFault(
            "PostgreSQL does not run as root, and `unshare` is not there; install util-linux or be another user"
        )
    return [found, "--user", "--map-user=1000", "--map-group=1000", "--"]


def configure(data: Path, port: int, tls: Tls | None, archive: Archive | None, more: Sequence[str] = ()) -> None:
    """Writes the settings anew: they belong to the start, not to the data."""
    lines = [*_SETTINGS, f"port = {port}", *_tls(data, tls), *_archive(archive), *more]
    (data / "city.conf").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (data / "pg_hba.conf").write_text(_hba(tls), encoding="utf-8")
    main = data / "postgresql.conf"
    include = "include = 'city.conf'\n"
    if include not in main.read_text(encoding="utf-8"):
        with main.open("a", encoding="utf-8") as file:
            file.write(include)


# Statements and key values stay out of the log: they hold personal data.
_SETTINGS = (
    "listen_addresses = '127.0.0.1'",
    "unix_socket_directories = ''",
    "max_connections = 120",
    "shared_buffers = '128MB'",
    "wal_level = replica",
    "max_wal_size = '1GB'",
    "idle_in_transaction_session_timeout = '120s'",
    "tcp_keepalives_idle = 30",
    "tcp_keepalives_interval = 5",
    "tcp_keepalives_count = 3",
    "log_min_error_statement = panic",
    "log_error_verbosity = terse",
    "timezone = 'UTC'",
)


def _tls(data: Path, tls: Tls | None) -> list[str]:
    if tls is None:
        return ["ssl = off"]
    for source, name in ((tls.certificate, "server.crt"), (tls.key, "server.key")):
        target = data / name
        target.unlink(missing_ok=True)
        with os.fdopen(os.open(target, os.O_WRONLY | os.O_CREAT, 0o600), "wb") as file:
            file.write(source.read_bytes())
    return ["ssl = on", "ssl_min_protocol_version = 'TLSv1.3'"]


def _archive(archive: Archive | None) -> list[str]:
    if archive is None:
        return ["archive_mode = off"]
    archive.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    place = archive.folder.resolve()
    # An existing segment is never overwritten, and a half copied one never has a segment's name.
    command = f"test ! -f {place}/%f && cp %p {place}/%f.part && sync {place}/%f.part && mv {place}/%f.part {place}/%f"
    return ["archive_mode = on", f"archive_command = '{command}'", f"archive_timeout = {archive.timeout_s}"]


def _hba(tls: Tls | None) -> str:
    kind = "hostssl" if tls else "host"
    rows = [f"{kind} {database} all 127.0.0.1/32 scram-sha-256" for database in ("all", "replication")]
    return "\n".join(rows) + "\n"


def _ready(admin: Admin, services: Sequence[str]) -> bool:
    try:
        provision(admin, services)
    except (psycopg.OperationalError, psycopg.errors.ReadOnlySqlTransaction):
        return False  # not up yet, or still replaying an archive
    return True
