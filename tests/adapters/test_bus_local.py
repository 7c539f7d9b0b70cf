"""The embedded bus passes the suite; and what is its own: retention."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from citykit.bus.local import LocalBus, open_local_bus
from citykit.bus.port import Message, Subscription
from citykit.errors import EnvironmentFault, Unavailable
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


async def test_a_letter_that_comes_while_others_go_back_waits_for_the_next_replay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bus = open_local_bus(tmp_path / "bus.db", SUITE_TOPICS, BusSettings())
    publish = bus.publish
    letter = {"dl_topic": b"suite.two", "dl_group": b"g", "dl_place": b"0:0"}

    async def another_comes_first(sent: Sequence[Message]) -> None:
        monkeypatch.undo()
        await publish([Message("suite.two.dead-letters", "late", b"", letter)])
        await publish(sent)

    await publish([Message("suite.two.dead-letters", "early", b"", letter)])
    monkeypatch.setattr(bus, "publish", another_comes_first)
    assert await bus.replay("suite.two") == 1
    assert [record.key async for record in bus.dead_letters()] == ["late"]
    assert await bus.replay("suite.two") == 1
    await bus.close()


def test_a_file_that_cannot_be_opened_is_refused(tmp_path: Path) -> None:
    (tmp_path / "bus.db").mkdir()
    with pytest.raises(EnvironmentFault, match="bus file"):
        open_local_bus(tmp_path / "bus.db", SUITE_TOPICS, BusSettings())


async def test_a_consumer_outlives_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The handler's effect is there, but its commit finds no room: the consumer goes on once there is some."""
    bus = open_local_bus(tmp_path / "bus.db", SUITE_TOPICS, BusSettings())
    collector = Collector()
    submit = bus._writer.submit
    failures: list[int] = []

    async def full(run: Any, then: Any = None) -> Any:
        if not failures and collector.records:
            failures.append(1)
            raise Unavailable("no room on the disk, on purpose")
        return await submit(run, then)

    monkeypatch.setattr(bus._writer, "submit", full)
    subscription = Subscription("g", ("suite.two",), collector)
    async with bus.consume(subscription):
        await bus.publish(messages(1, topic="suite.two"))
        await until(lambda: len(failures) == 1, "the commit fails once")
        await bus.publish(messages(3, topic="suite.two"))

        async def caught_up() -> bool:
            return await bus.caught_up(subscription)

        await until(caught_up, "the consumer goes on", limit_s=10)
    assert len(collector.records) >= 4
    await bus.close()
