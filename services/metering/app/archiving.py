"""Old months of readings go from the database to Parquet files, oldest first. Run as a job; nothing to do where SQLite keeps them.

A month is written to a file beside the running service, then one unit of work makes the file count, if the month is still as it was
written. Its partition is dropped some time later, when no reader can have begun before that.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection

from citykit.clock import Clock, unix
from citykit.store.port import Store, Unit
from services.metering.store import archive, months
from services.metering.store.archive import Archived
from services.metering.store.months import Month, month_of

_MONTHS_A_RUN = 3
_LINGER_S = 600
"""Longer than any transaction: a reader that began before a month was archived still reads its partition, or the file before."""


@dataclass(frozen=True)
class Archiving:
    """See the module.

    Attributes:
        after_months: whole months after which a month is archived.
        now: machine time.
    """

    store: Store
    clock: Clock
    folder: Path
    after_months: int
    now: Callable[[], float] = time.time

    async def run(self) -> None:
        """Drops what was archived long enough ago, archives what is due, takes out of the files what was erased."""
        await self._drop()
        for month in await self.store.read(self._due):
            await self._archive(month)
        await self._erase()
        await asyncio.to_thread(self._tidy, await self.store.read(archive.archived))

    def _due(self, connection: Connection) -> list[Month]:
        first_kept = month_of(unix(self.clock)).later(-self.after_months)
        known = {item.month for item in archive.archived(connection)}
        due = [one for one in months.months(connection) if one < first_kept and one.name not in known]
        return due[:_MONTHS_A_RUN]

    async def _archive(self, month: Month) -> None:
        at = int(self.now())
        item, there = await self.store.read(lambda c: archive.write_month(c, month, self.folder, at))

        def unit(work: Unit) -> None:
            if archive.content(work.connection, month) == there:
                archive.keep(work, item)

        await self.store.write(unit)

    async def _drop(self) -> None:
        long_ago = int(self.now()) - _LINGER_S

        def unit(work: Unit) -> None:
            there = {one.name: one for one in months.months(work.connection)}
            for item in archive.archived(work.connection):
                if item.month in there and item.archived_at < long_ago:
                    months.drop(work.connection, there[item.month])

        await self.store.write(unit)

    async def _erase(self) -> None:
        spans = await self.store.read(archive.erasures)
        if not spans:
            return
        items = await self.store.read(archive.archived)
        changed = [item for item in items if any(s < item.to_time and e > item.from_time for _, s, e in spans)]
        at = int(self.now())
        written = await asyncio.to_thread(
            lambda: [archive.without(item, month_of(item.from_time), self.folder, spans, at) for item in changed]
        )

        def unit(work: Unit) -> None:
            for item in written:
                archive.keep(work, item)
            archive.erased(work, spans)

        await self.store.write(unit)

    def _tidy(self, items: list[Archived]) -> None:
        """Files that nothing names any more, once no reader can still read them."""
        named = {Path(item.file).name for item in items}
        for path in self.folder.glob("readings-*.*"):
            if path.name not in named and path.stat().st_mtime < time.time() - _LINGER_S:
                path.unlink()
