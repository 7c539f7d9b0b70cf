"""The embedded bus passes the suite; and what is its own: retention."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from citykit.bus.local import LocalBus, open_local_bus
from citykit.bus.port import Subscription
from citykit.errors import EnvironmentFault
from citykit.settings import BusSettings
from citykit.testing.bus_suite import SUITE_TOPICS, BusSuite, Collector, Reopen, messages
from citykit.testing.polling import until


class TestLocalBus(BusSuite):
    @pytest.fixture
    async def reopen(self, tmp_path: Path) -> AsyncIterator[Reopen]:
        buses: list[LocalBus] = []

        async def again() -> LocalBus:
            for bus in buses:
                await bus.close()
            buses[:] = [open_local_bus(tmp_path / "bus.db", SUITE_TOPICS, BusSettings())]
            return buses[0]

        yield again
        for bus in buses:
            await bus.close()


async def test_only_what_every_group_has_handled_is_pruned(tmp_path: Path) -> None:
    bus = open_local_bus(tmp_path / "bus.db", SUITE_TOPICS, BusSettings(retention_hours=-1))
    collector = Collector()
    await bus.publish(messages(10, topic="suite.two"))
    assert await bus.prune() == 0
    async with bus.consume(Subscription("g", ("suite.two",), collector)):
        await until(lambda: len(collector.records) == 10, "10 records")
    assert await bus.prune() == 10
    assert await bus.prune() == 0
    await bus.close()


def test_a_file_that_cannot_be_opened_is_refused(tmp_path: Path) -> None:
    (tmp_path / "bus.db").mkdir()
    with pytest.raises(EnvironmentFault, match="bus file"):
        open_local_bus(tmp_path / "bus.db", SUITE_TOPICS, BusSettings())
