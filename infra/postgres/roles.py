"""A schema and a role for each service, its password in a file only its owner reads. Called when the server is ready, and by `city db`."""

from __future__ import annotations

import os
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

ADMIN = "postgres"
DATABASE = "city"
_TEMPLATE = "template1"
_CONNECT_S = 3
CONNECTIONS = 20


@dataclass(frozen=True)
class Admin:
    """How the administrator reaches a server.

    Attributes:
        passwords: the folder with one file a role.
        root: certificate of the server's issuer; None: without TLS.
    """

    port: int
    passwords: Path
    host: str = "127.0.0.1"
    root: Path | None = None
    database: str = DATABASE

    def connect(self, database: str = "") -> psycopg.Connection[Any]:
        """A connection in autocommit.

        Raises:
            psycopg.OperationalError: not reached, or refused.
        """
        tls = {"sslmode": "verify-full", "sslrootcert": str(self.root)} if self.root else {"sslmode": "disable"}
        return psycopg.connect(
            host=self.host,
            port=self.port,
            dbname=database or self.database,
            user=ADMIN,
            password=password(self.passwords, ADMIN),
            connect_timeout=_CONNECT_S,
            autocommit=True,
            **tls,  # type: ignore[arg-type]  # psycopg types every keyword as one union
        )


def role_of(service: str) -> str:
    """The service's role; its schema has the service's own name."""
    return f"city_{service}"


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
            _provision(city, service, password(admin.passwords, role_of(service)), names, connections)


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
    city.execute(sql.SQL("CREATE SCHEMA IF NOT EXISTS {schema} AUTHORIZATION {role}").format(**names))
