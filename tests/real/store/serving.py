"""A PostgreSQL server of the tests' own, and a fresh database on it for whoever asks."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from citykit.settings import PostgresSettings
from infra.native import Native
from infra.postgres import Admin, provision


@dataclass
class Server:
    """A started server. Each database has the schemas of its services; the roles are the same in all of them."""

    native: Native
    admin: Admin
    state: Path
    _numbers: Any = field(default_factory=lambda: itertools.count(1))

    def database(self, services: Sequence[str], **settings: Any) -> PostgresSettings:
        """Settings of a new database."""
        name = f"test_{next(self._numbers)}"
        provision(replace(self.admin, database=name), services, connections=200)
        return PostgresSettings(
            port=self.admin.port,
            database=name,
            password_file=str(self.admin.passwords / "city_{service}"),
            **{"start_s": 10.0, **settings},
        )

    def sessions(self) -> list[str]:
        """Who of the city is connected."""
        query = "SELECT application_name FROM pg_stat_activity WHERE application_name LIKE 'city %'"
        with self.admin.connect("postgres") as connection:
            return [row[0] for row in connection.execute(query)]

    def restart(self, *, kill: bool) -> None:
        """Ends the server (SIGKILL or SIGTERM) and starts it again."""
        self.native.kill() if kill else self.native.stop()
        self.native.start()
        self.native.wait()
