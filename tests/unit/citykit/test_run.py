"""Starting a process: keys, the socket's path, the root key's rights; jobs that fail do not die."""

from __future__ import annotations

import asyncio
import stat
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import MetaData

from citykit import telemetry
from citykit.bus.port import Message, Record, Subscription
from citykit.errors import EnvironmentFault, SettingsError, Unavailable
from citykit.ids import seeded_randomness
from citykit.keys import derive_key, root_key, service_token_seed
from citykit.service import Context, Job, Service
from citykit.settings import CitySettings, GeneralSettings
from citykit.state import locked, socket_path
from citykit.testing.polling import until
from services.testing import embedded_city


def test_the_root_key_is_made_once_and_only_its_owner_reads_it(tmp_path: Path) -> None:
    first = root_key(tmp_path, seeded_randomness(1))
    assert root_key(tmp_path, seeded_randomness(2)) == first
    assert len(first) == 32
    assert stat.S_IMODE((tmp_path / "keys" / "root").stat().st_mode) == 0o600


def test_every_purpose_has_its_own_key() -> None:
    keys = {derive_key(b"\x01" * 32, "a", "x"), derive_key(b"\x01" * 32, "a", "y"), derive_key(b"\x01" * 32, "b", "x")}
    assert len(keys | {service_token_seed(b"\x01" * 32), derive_key(b"\x02" * 32, "a", "x")}) == 5


def test_a_deep_state_directory_gets_a_short_socket_path(tmp_path: Path) -> None:
    assert socket_path(tmp_path / "s").parent == (tmp_path / "s").resolve()
    deep = tmp_path / ("x" * 60) / ("y" * 60)
    assert len(str(socket_path(deep))) < 100
    assert socket_path(deep) != socket_path(deep / "z")


def test_a_state_directory_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(EnvironmentFault, match="--state"), locked(tmp_path / "file" / "state"):
        pass


async def test_a_failing_job_is_counted_and_tried_again(tmp_path: Path) -> None:
    runs: list[int] = []

    async def fails_at_first() -> None:
        runs.append(len(runs))
        if len(runs) < 3:
            raise Unavailable("on purpose") if len(runs) == 1 else ValueError("on purpose")

    def build(ctx: Context) -> Service:
        return Service(ctx.name, jobs=(Job("flaky", fails_at_first, 0.001),))

    async with embedded_city(tmp_path, services=[], more={"jobs": build}):
        await until(lambda: len(runs) >= 4, "four runs")
    failures = telemetry.JOB_FAILURES.labels("jobs", "flaky")._value.get()
    assert failures == 2


async def test_start_and_stop_are_called_once_each(tmp_path: Path) -> None:
    calls: list[str] = []

    async def note(what: str) -> None:
        calls.append(what)

    def build(ctx: Context) -> Service:
        return Service(ctx.name, start=lambda: note("start"), stop=lambda: note("stop"))

    async with embedded_city(tmp_path, services=[], more={"noting": build}):
        assert calls == ["start"]
        await asyncio.sleep(0)
    assert calls == ["start", "stop"]


READINGS = "city.metering.readings.v1"


def slow_consumer(seen: list[int]) -> Callable[[Context], Service]:
    """A service whose consumer takes its time; its store is the outbox."""

    async def handle(records: Sequence[Record]) -> None:
        await asyncio.sleep(0.005)
        seen.extend(record.offset for record in records)

    def build(ctx: Context) -> Service:
        (ctx.directory / "migrations").mkdir(exist_ok=True)
        store = ctx.open_store(MetaData(), ctx.directory / "migrations")
        subscription = Subscription("slow", (READINGS,), handle, batch_max=1)
        return Service(ctx.name, store=store, subscriptions=(subscription,))

    return build


async def stop_with_a_full_outbox(folder: Path, seen: list[int]) -> int:
    """Stops right after a commit of 40 messages; returns what the outbox holds then."""
    messages = [Message(READINGS, str(number), b"x") for number in range(40)]
    async with embedded_city(folder, services=[], more={"slow": slow_consumer(seen)}) as city:
        store = city.process.stores["slow"]
        await store.write(lambda unit: unit.publish_many(messages))
    return await store.outbox_size()


async def test_what_was_stored_before_a_clean_stop_has_gone_through_outbox_and_consumers(tmp_path: Path) -> None:
    seen: list[int] = []
    assert await stop_with_a_full_outbox(tmp_path, seen) == 0
    assert len(seen) == 40


async def test_messages_of_a_caller_who_went_away_reach_the_bus(tmp_path: Path) -> None:
    seen: list[int] = []
    async with embedded_city(tmp_path, services=[], more={"slow": slow_consumer(seen)}) as city:
        store = city.process.stores["slow"]
        unit = asyncio.create_task(store.write(lambda unit: unit.publish(Message(READINGS, "k", b"x"))))
        await asyncio.sleep(0)
        unit.cancel()
        await asyncio.wait({unit})
        assert unit.cancelled()
        await until(lambda: len(seen) == 1, "the message came through")
        await until(city.process.settled, "everything is settled")  # its receipt comes after the message
        assert await store.outbox_size() == 0


async def test_a_stop_ends_where_consumers_never_catch_up_and_the_next_start_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("citykit.run.DRAIN_S", 0.02)
    first: list[int] = []
    await stop_with_a_full_outbox(tmp_path, first)
    assert len(first) < 40
    monkeypatch.undo()
    second: list[int] = []
    await stop_with_a_full_outbox(tmp_path, second)
    assert len(first) + len(second) == 80


async def test_the_embedded_parts_refuse_a_cluster(tmp_path: Path) -> None:
    settings = replace(CitySettings(), general=GeneralSettings(mode="cluster"))
    with pytest.raises(SettingsError, match="refused in mode `cluster`"):
        async with embedded_city(tmp_path, services=[], settings=settings):
            pass
