"""A schema and a role for each service, its password in a file only its owner reads, or in files a pod was given.

Called when the server is ready, by `city db`, and by `city provision database`.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from citykit.errors import EnvironmentFault

ADMIN = "postgres"
DATABASE = "city"
_TEMPLATE = "template1"
_CONNECT_S = 3
CONNECTIONS = 20
_POLL_S = 0.5
_REFUSED = ("28P01", "28000")
"""SQLSTATE of a wrong password and of a role that may not come in."""


@dataclass(frozen=True)
class Admin:
    """How the administrator reaches a server.

    Attributes:
        passwords: the folder with one file a role, made where missing.
        password_file: the administrator's password in a file that others made, as a pod has it; then `passwords` holds a file
            SERVICE/password for each service, and nothing is written.
        root: certificate of the server's issuer; None: without TLS.
    """

    port: int
    passwords: Path
    host: str = "127.0.0.1"
    root: Path | None = None
    database: str = DATABASE
    user: str = ADMIN
    password_file: Path | None = None

    def connect(self, database: str = "") -> psycopg.Connection[Any]:
        """A connection in autocommit.

        Raises:
            psycopg.OperationalError: not reached, or refused.
        """
        made = make_conninfo(**{**self.options, "dbname": database or self.database})
        return psycopg.connect(made, autocommit=True)

    @property
    def options(self) -> dict[str, Any]:
        """How it connects, in the words of libpq."""
        tls = {"sslmode": "verify-full", "sslrootcert": str(self.root)} if self.root else {"sslmode": "disable"}
        who = {"user": self.user, "password": self.password(ADMIN)}
        return {"host": self.host, "port": self.port, **who, "connect_timeout": _CONNECT_S, **tls}

    def password(self, role: str) -> str:
        """A role's password.

        Raises:
            EnvironmentFault: a file that others should have made cannot be read or is empty.
        """
        if self.password_file is None:
            return password(self.passwords, role)
        return _mounted(
            self.password_file if role == ADMIN else self.passwords / role.removeprefix(role_of("")) / "password"
        )


def role_of(service: str) -> str:
    """The service's role; its schema has the service's own name."""
    return f"city_{service}"


def _mounted(path: Path) -> str:
    try:
        found = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no text"
        raise EnvironmentFault(
            f"the password file {path} cannot be read ({reason}); mount the secret that holds it"
        ) from error
    if not found:
        raise EnvironmentFault(f"the password file {path} is empty; put the password there")
    return found


def password(folder: Path, role: str) -> str:
    """The role's password; made at the first call, in a file readable by its owner only."""
    path = folder / role
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        part = path.with_name(f".{role}.new")
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(secrets.token_urlsafe(32))
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    return path.read_text(encoding="ascii").strip()


def until_ready(admin: Admin, services: Sequence[str], limit_s: float) -> None:
    """Returns once the administrator gets in; every password file was read by then.

    Raises:
        EnvironmentFault: a password file is missing; the server refuses the administrator; it does not answer in time.
    """
    for role in (ADMIN, *map(role_of, services)):
        admin.password(role)
    end = time.monotonic() + limit_s
    while True:
        try:
            admin.connect(ADMIN).close()
        except psycopg.OperationalError as error:
            if error.sqlstate in _REFUSED or "password authentication failed" in str(error):
                raise EnvironmentFault(
                    f"the database at {admin.host}:{admin.port} refuses {admin.user}: see that the administrator's password is the server's"
                ) from None
            if time.monotonic() > end:
                raise EnvironmentFault(
                    f"the database at {admin.host}:{admin.port} does not answer within {limit_s:g} s ({_reason(error)});"
                    " see that it runs, and that CITY_POSTGRES_TLS_ROOT is its authority"
                ) from None
        else:
            return
        time.sleep(_POLL_S)


def _reason(error: psycopg.OperationalError) -> str:
    """The last line of what the client says; it holds addresses and no password."""
    return (str(error).strip().splitlines() or ["no reason given"])[-1][-200:]


def provision(admin: Admin, services: Sequence[str], *, template: str = "", connections: int = CONNECTIONS) -> None:
    """Makes the database, and a role and schema for each service, where they are missing; sets the roles' passwords.

    Args:
        template: a database nobody is connected to, which a new one is a copy of.
        connections: how many one role may have at once, in all databases.
    """
    with admin.connect(ADMIN) as server:
        if not server.execute("SELECT 1 FROM pg_database WHERE datname = %s", (admin.database,)).fetchone():
            make = sql.SQL("CREATE DATABASE {} TEMPLATE {}")
            server.execute(make.format(sql.Identifier(admin.database), sql.Identifier(template or _TEMPLATE)))
    with admin.connect() as city:
        city.execute("REVOKE ALL ON SCHEMA public FROM PUBLIC")
        names = {"database": sql.Identifier(admin.database)}
        city.execute(sql.SQL("REVOKE ALL ON DATABASE {database} FROM PUBLIC").format(**names))
        for service in services:
            _provision(city, service, admin.password(role_of(service)), names, connections)


def _provision(
    city: psycopg.Connection[Any], service: str, secret: str, names: dict[str, sql.Identifier], connections: int
) -> None:
    names = {**names, "role": sql.Identifier(role_of(service)), "schema": sql.Identifier(service)}
    if not city.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (role_of(service),)).fetchone():
        city.execute(sql.SQL("CREATE ROLE {role} LOGIN").format(**names))
    settings = sql.SQL("ALTER ROLE {role} PASSWORD {secret} CONNECTION LIMIT {most}")
    city.execute(settings.format(**names, secret=sql.Literal(secret), most=sql.Literal(connections)))
    city.execute(sql.SQL("ALTER ROLE {role} SET search_path = {schema}").format(**names))
    city.execute(sql.SQL("GRANT CONNECT ON DATABASE {database} TO {role}").format(**names))
    if not city.execute("SELECT rolsuper FROM pg_roles WHERE rolname = current_user").fetchone()[0]:  # type: ignore[index]  # it is itself there
        city.execute(sql.SQL("GRANT {role} TO CURRENT_USER").format(**names))  # only so may it make what another owns
    city.execute(sql.SQL("CREATE SCHEMA IF NOT EXISTS {schema} AUTHORIZATION {role}").format(**names))
