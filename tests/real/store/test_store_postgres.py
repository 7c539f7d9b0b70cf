"""The PostgreSQL store passes the suite the embedded store passes."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from citykit.settings import StoreSettings
from citykit.store.postgres import open_postgres
from citykit.store.sql_store import SqlStore
from citykit.testing.store_suite import METADATA, MIGRATIONS, Reopen, StoreSuite
from tests.real.store.serving import Server


class TestPostgresStore(StoreSuite):
    @pytest.fixture
    async def reopen(self, server: Server) -> AsyncIterator[Reopen]:
        stores: list[SqlStore] = []
        place = server.database(["suite"])

        async def again() -> SqlStore:
            for store in stores:
                await store.close()
            stores[:] = [open_postgres("suite", METADATA, MIGRATIONS, StoreSettings(outbox_max=100), place)]
            return stores[0]

        yield again
        for store in stores:
            await store.close()
