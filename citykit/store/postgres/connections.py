"""Connections to PostgreSQL as the city wants them: scram over TLS, time limits, integers. And what their errors mean."""

from __future__ import annotations

import os
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

import psycopg
from psycopg import IsolationLevel, pq
from psycopg.adapt import Loader
from sqlalchemy import Connection, Engine, create_engine
from sqlalchemy.pool import QueuePool

from citykit.errors import CityError, EnvironmentFault, Unavailable
from citykit.settings import PostgresSettings

Purpose = Literal["read", "write", "relay", "migrate"]
VERSION_MIN = 180_000
_ROOT = 0
_TLS_MIN = "TLSv1.3"


@dataclass(frozen=True)
class Place:
    """A service's schema and how it is reached; `schema` is the service's name."""

    schema: str
    settings: PostgresSettings

    def connect(self, purpose: Purpose) -> psycopg.Connection[Any]:
        """A connection for one purpose: readers see one snapshot a transaction and cannot write.

        Raises:
            psycopg.OperationalError: not reached or refused; `refusal` says what to do.
            EnvironmentFault: a file the settings name cannot be read.
        """
        connection = psycopg.connect(**self._parameters(purpose))
        connection.adapters.register_loader("numeric", _Numeric)
        if purpose == "read":
            connection.isolation_level = IsolationLevel.REPEATABLE_READ
            connection.read_only = True
        return connection

    def engine(self, purpose: Purpose, size: int) -> Engine:
        """A pool of at most `size` connections."""
        return create_engine(
            "postgresql+psycopg://",
            creator=lambda: self.connect(purpose),
            poolclass=QueuePool,
            pool_size=size,
            max_overflow=0,
            hide_parameters=True,
            use_native_hstore=False,
        )

    def _parameters(self, purpose: Purpose) -> dict[str, Any]:
        chosen = self.settings
        return {
            "host": chosen.host,
            "port": chosen.port,
            "dbname": chosen.database,
            "user": self._named(chosen.role),
            "password": self._password(),
            "connect_timeout": chosen.connect_s,
            "application_name": f"city {self.schema} {purpose}",
            "options": _options(chosen, self.schema, purpose),
            "keepalives_idle": 30,
            "keepalives_interval": 5,
            "keepalives_count": 3,
            "tcp_user_timeout": 20_000,
            "client_encoding": "UTF8",
            **self._tls(),
        }

    def _tls(self) -> dict[str, str]:
        chosen = self.settings
        if not chosen.tls_root:
            return {"sslmode": "disable"}
        tls = {
            "sslmode": "verify-full",
            "sslrootcert": self._named(chosen.tls_root),
            "ssl_min_protocol_version": _TLS_MIN,
        }
        if chosen.tls_certificate:
            tls |= {"sslcert": self._named(chosen.tls_certificate), "sslkey": self._named(chosen.tls_key)}
        return tls

    def _password(self) -> str:
        if not self.settings.password_file:
            return ""
        path = Path(self._named(self.settings.password_file))
        try:
            if not is_private(path.stat()):
                raise EnvironmentFault(
                    f"the password file {path} can be read by others; chmod 600 it (a mounted secret: defaultMode 0440)"
                )
            return path.read_text(encoding="utf-8").strip()
        except OSError as error:
            raise EnvironmentFault(
                f"the password file {path} cannot be read ({error.strerror}); set CITY_POSTGRES_PASSWORD_FILE to the right one"
            ) from error

    def _named(self, text: str) -> str:
        return text.replace("{service}", self.schema)


def is_private(found: os.stat_result) -> bool:
    """Whether a file may hold a secret: for its owner alone; where root owns it, its group may read it too, as a mounted secret's files are.

    The rule of libpq for the keys of client certificates.
    """
    return not found.st_mode & (0o037 if found.st_uid == _ROOT else 0o077)


def _options(chosen: PostgresSettings, schema: str, purpose: Purpose) -> str:
    migrating = purpose == "migrate"
    limits = {
        "search_path": schema,
        "statement_timeout": int(1_000 * (chosen.migration_statement_s if migrating else chosen.statement_s)),
        "lock_timeout": int(1_000 * (chosen.migration_lock_s if migrating else chosen.lock_s)),
        "timezone": "UTC",
        # A receipt that is lost only publishes twice.
        **({"synchronous_commit": "off"} if purpose == "relay" else {}),
    }
    return " ".join(f"-c {name}={value}" for name, value in limits.items())


class _Numeric(Loader):
    """Sums of integers are `numeric` in PostgreSQL; they stay integers here."""

    def load(self, data: Any) -> Any:
        number = Decimal(bytes(data).decode("ascii"))
        return int(number) if number == number.to_integral_value() else number


# Each: a mark in the server's or the client library's message, and what to do about it.
_REFUSALS = (
    ("password authentication failed", "the password is wrong: set CITY_POSTGRES_PASSWORD_FILE to the role's own file"),
    ("no password supplied", "it asks for a password: set CITY_POSTGRES_PASSWORD_FILE"),
    ("no encryption", "it takes TLS only: set CITY_POSTGRES_TLS_ROOT to the certificate of its issuer"),
    ("does not support SSL", "it does not speak TLS: give it a certificate, or leave CITY_POSTGRES_TLS_ROOT empty on loopback"),
    ("certificate verify failed", "its certificate does not hold: check CITY_POSTGRES_TLS_ROOT and the certificate's dates"),
    ("signature failure", "its certificate does not hold: check CITY_POSTGRES_TLS_ROOT and the certificate's dates"),
    ("does not match host name", "its certificate is for another name: check CITY_POSTGRES_HOST"),
    ("root certificate file", "CITY_POSTGRES_TLS_ROOT names no readable certificate"),
    ("certificate has expired", "a certificate has expired: issue a new one"),
    ("certificate expired", "a certificate has expired: issue a new one"),
    ("requires a valid client certificate", "it asks for a client certificate: set CITY_POSTGRES_TLS_CERTIFICATE and _TLS_KEY"),
    ("does not exist", "make the database, schema and role first: make up, or city db migrate as the administrator"),
    ("no pg_hba.conf entry", "it does not let this role in from here: see its pg_hba.conf"),
    ("received invalid response", "that port is not PostgreSQL's: check CITY_POSTGRES_PORT"),
    ("not currently accepting connections", "the database is closed to connections"),
)  # fmt: skip


def refusal(place: Place, error: psycopg.Error) -> EnvironmentFault | None:
    """The fault behind a failed connection if trying again is no use, with what to do; None while the server is only away."""
    text = str(error)
    todo = next((what for mark, what in _REFUSALS if mark in text), None)
    if todo is None:
        return None
    chosen = place.settings
    return EnvironmentFault(f"PostgreSQL at {chosen.host}:{chosen.port} refuses {place.schema}; {todo}")


# SQLSTATE classes and codes after which the same unit may succeed later: https://www.postgresql.org/docs/18/errcodes-appendix.html
_LATER = {
    "53": "it has no disk space or memory left",
    "57014": "a statement took longer than CITY_POSTGRES_STATEMENT_S",
    "57": "it is going down or coming up",
    "58": "its disk fails",
    "55P03": "a lock was not had within CITY_POSTGRES_LOCK_S",
    "40": "it ended the transaction for another's sake",
    "25P": "it ended a transaction that idled",
    "08": "the connection broke",
    "XX": "it found something damaged",
}


def unavailable(name: str, error: BaseException) -> CityError | None:
    """The word for an error after which the same unit may succeed later; None for an error of the unit's own."""
    cause = getattr(error, "orig", None) or error
    if not isinstance(cause, psycopg.Error):
        return None
    state = cause.sqlstate or ("08" if isinstance(cause, psycopg.OperationalError) else "")
    why = _LATER.get(state) or _LATER.get(state[:3]) or _LATER.get(state[:2])
    if why is None:
        return None
    return away(name, f"{why} ({state})")


def away(name: str, why: str) -> Unavailable:
    return Unavailable(
        f"the database of {name} could not be used: {why}; nothing was changed. Try again",
        reason="store-unavailable",
        retry_after_s=2.0,
    )


def is_broken(connection: psycopg.Connection[Any]) -> bool:
    """Whether a connection is no use any more."""
    return connection.closed or connection.pgconn.status != pq.ConnStatus.OK


def is_broken_connection(connection: Connection) -> bool:
    """The same of a pooled one. A pool that noticed first has thrown its driver's connection away."""
    if connection.invalidated or connection.closed:
        return True
    driver: Any = connection.connection.driver_connection
    return is_broken(driver)
