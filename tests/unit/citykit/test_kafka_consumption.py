"""A subscription on Kafka against a client of our own making: what the real ones do rarely, this one does at once."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from time import sleep
from typing import Any

import pytest

from citykit.bus.kafka.client import Client, ClientFault, Owner, Place
from citykit.bus.kafka.consumption import Consumption, Standing
from citykit.bus.kafka.names import Names
from citykit.bus.port import Message, Record, Subscription
from citykit.settings import KafkaSettings
from citykit.testing.bus_suite import Collector
from citykit.testing.polling import until

PLACE: Place = ("p.suite.two", 0)
RETRY: Place = ("p.suite.two.retry", 0)
SETTINGS = KafkaSettings(prefix="p.", stalled_s=0.05, revoke_s=0.2)
Script = Callable[["FakeConsumer"], Mapping[Place, Sequence[Record]]]


def records(
    count: int, start: int = 0, place: Place = PLACE, headers: Mapping[str, bytes] | None = None
) -> list[Record]:
    return [Record(*place, n, "k", n.to_bytes(4, "big"), headers or {}) for n in range(start, start + count)]


class FakeConsumer:
    """Does at each poll what the script says."""

    made: list[FakeConsumer]

    def __init__(self, script: Script, owner: Owner) -> None:
        self.script = script
        self.owner = owner
        self.polls = 0
        self.paused: set[Place] = set()
        self.commits: list[dict[Place, int]] = []
        self.closed = False
        self.asked = threading.Event()

    def poll(self, limit: int, timeout_s: float) -> Mapping[Place, Sequence[Record]]:
        self.polls += 1
        if self.polls == 1:
            self.owner.assigned([PLACE, RETRY])
            return {}
        sleep(0.001)
        return self.script(self)

    def pause(self, places: Iterable[Place]) -> None:
        self.paused |= {*places}

    def resume(self, places: Iterable[Place]) -> None:
        self.paused -= {*places}

    def commit(self, offsets: Mapping[Place, int]) -> bool:
        self.commits.append(dict(offsets))
        return True

    def close(self) -> None:
        self.closed = True


class Scripted:
    """Consumers with one script after the other; the last goes on."""

    def __init__(self, *scripts: Script) -> None:
        self._scripts = list(scripts)
        self.made: list[FakeConsumer] = []

    def consumer(self, _settings: KafkaSettings, _group: str, _topics: Sequence[str], owner: Owner) -> FakeConsumer:
        script = self._scripts.pop(0) if len(self._scripts) > 1 else self._scripts[0]
        self.made.append(FakeConsumer(script, owner))
        return self.made[-1]


def once(found: Mapping[Place, Sequence[Record]]) -> Script:
    """Gives the records at the second poll and nothing later."""
    return lambda consumer: found if consumer.polls == 2 else {}


def nothing(_consumer: FakeConsumer) -> Mapping[Place, Sequence[Record]]:
    return {}


async def no_letters(_messages: Sequence[Message]) -> None:
    raise AssertionError("no dead letter is wanted here")


def calm(_group: str, _places: Sequence[Place]) -> Standing:
    return Standing(False, {})


@asynccontextmanager
async def consuming(scripted: Scripted, handler: Any, look: Any = calm, batch_max: int = 10) -> Any:
    subscription = Subscription("g", ("suite.two",), handler, batch_max=batch_max)
    client = Client(lambda _settings: pytest.fail("no producer is wanted here"), scripted.consumer)
    consumption = Consumption(subscription, Names("p."), client, SETTINGS, no_letters, look)
    consumption.start()
    try:
        yield consumption
    finally:
        await consumption.stop()


async def test_a_consumer_that_gets_nothing_while_records_wait_is_replaced() -> None:
    collector = Collector()
    scripted = Scripted(nothing, once({PLACE: records(5)}))
    async with consuming(scripted, collector, lambda _group, _places: Standing(True, {PLACE: 0})):
        await until(lambda: len(collector.records) == 5, "the records by another consumer")
    assert scripted.made[0].closed
    assert len(scripted.made) >= 2


async def test_one_that_gets_nothing_because_nothing_waits_or_others_work_is_kept() -> None:
    looks = 0

    def others_work(_group: str, _places: Sequence[Place]) -> Standing:
        nonlocal looks
        looks += 1
        return Standing(looks % 2 == 0, {PLACE: looks})

    scripted = Scripted(nothing)
    async with consuming(scripted, Collector(), others_work):
        await until(lambda: looks > 4, "some looks")
    assert len(scripted.made) == 1


async def test_a_client_that_fails_is_opened_again_and_what_was_not_committed_comes_again() -> None:
    def fails(consumer: FakeConsumer) -> Mapping[Place, Sequence[Record]]:
        raise ClientFault("on purpose")

    collector = Collector()
    scripted = Scripted(fails, once({PLACE: records(5)}))
    async with consuming(scripted, collector):
        await until(lambda: len(collector.records) == 5, "the records")
    assert scripted.made[0].closed
    assert scripted.made[-1].commits[-1] == {PLACE: 5}


async def test_neither_a_surprise_of_the_client_nor_a_cancelled_handler_ends_the_consumer_in_silence() -> None:
    def surprises(_consumer: FakeConsumer) -> Mapping[Place, Sequence[Record]]:
        raise KeyError("on purpose")

    collector = Collector()
    cancelled = False

    async def cancels_once(batch: Sequence[Record]) -> None:
        nonlocal cancelled
        if not cancelled:
            cancelled = True
            raise asyncio.CancelledError
        await collector(batch)

    given = once({PLACE: records(5)})
    scripted = Scripted(surprises, given, given, nothing)
    async with consuming(scripted, cancels_once):
        await until(lambda: collector.numbers == [*range(5)], "the records, by the third consumer")
    assert [consumer.closed for consumer in scripted.made[:3]] == [True, True, True]


async def test_only_what_is_handled_is_committed_and_a_full_lane_is_paused_and_resumed() -> None:
    gate, collector = asyncio.Event(), Collector()

    async def waits(batch: Sequence[Record]) -> None:
        await gate.wait()
        await collector(batch)

    scripted = Scripted(once({PLACE: records(50)}))
    async with consuming(scripted, waits):
        await until(lambda: bool(scripted.made) and PLACE in scripted.made[0].paused, "the partition to be paused")
        await until(lambda: scripted.made[0].polls > 20, "polling to go on")
        assert scripted.made[0].commits == []
        gate.set()
        await until(lambda: len(collector.records) == 50, "all")
        await until(lambda: PLACE not in scripted.made[0].paused, "the partition to be resumed")
    assert scripted.made[0].commits[-1] == {PLACE: 50}


async def test_a_partition_given_up_mid_batch_is_committed_as_far_as_it_was_handled_and_read_again_from_there() -> None:
    gate, handled = asyncio.Event(), Collector()
    given: list[Any] = []

    async def waits(batch: Sequence[Record]) -> None:
        await handled(batch)
        await gate.wait()

    def gives_up(consumer: FakeConsumer) -> Mapping[Place, Sequence[Record]]:
        if consumer.polls == 2:
            return {PLACE: records(25)}
        if handled.records and not given:
            ready = consumer.owner.giving_up([PLACE])
            asyncio.run_coroutine_threadsafe(_set(gate), loop).result(timeout=5)
            while not ready():
                sleep(0.001)
            given.append(consumer.owner.given_up([PLACE]))
        return {}

    loop = asyncio.get_running_loop()
    async with consuming(Scripted(gives_up), waits):
        await until(lambda: bool(given), "the partition to be given up")
    assert given[0].commit == {PLACE: 10}
    assert given[0].read_again == {PLACE: 10}
    assert handled.numbers == [*range(10)]


async def test_what_a_lost_partition_finishes_late_is_not_committed() -> None:
    gate, begun = asyncio.Event(), threading.Event()

    async def hangs(_batch: Sequence[Record]) -> None:
        begun.set()
        await gate.wait()

    def loses(consumer: FakeConsumer) -> Mapping[Place, Sequence[Record]]:
        if consumer.polls == 2:
            return {PLACE: records(5)}
        if begun.is_set() and not consumer.asked.is_set():
            consumer.owner.lost([PLACE])
            consumer.asked.set()
        return {}

    scripted = Scripted(loses)
    async with consuming(scripted, hangs):
        await until(lambda: bool(scripted.made) and scripted.made[0].asked.is_set(), "the partition to be lost")
        gate.set()
        polls = scripted.made[0].polls
        await until(lambda: scripted.made[0].polls > polls + 10, "polling to go on")
    assert scripted.made[0].commits == []


async def test_letters_put_back_for_another_group_are_passed_over_and_ours_keep_their_identity() -> None:
    collector = Collector()
    letter = {"dl_place": b"3:77", "dl_topic": b"suite.one"}
    found = [
        *records(2, place=RETRY, headers={**letter, "dl_group": b"other"}),
        *records(1, 2, place=RETRY, headers={**letter, "dl_group": b"g"}),
        *records(1, 3, place=RETRY, headers={**letter, "dl_group": b"other"}),
    ]
    scripted = Scripted(once({RETRY: found}))
    async with consuming(scripted, collector):
        await until(lambda: bool(scripted.made) and bool(scripted.made[0].commits), "a commit")
    assert [(one.topic, one.partition, one.offset) for one in collector.records] == [("suite.one", 3, 77)]
    assert scripted.made[0].commits[-1] == {RETRY: 4}


async def _set(event: asyncio.Event) -> None:
    event.set()
