"""What every store adapter must pass. A test module subclasses `StoreSuite` and gives the fixture `opened`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from sqlalchemy import BigInteger, Column, MetaData, String, Table, func, insert, select, update

from citykit.bus.port import Message, Record
from citykit.errors import NotFound, RequestReused, ResourceExhausted
from citykit.store.port import Store, Unit

METADATA = MetaData()
THINGS = Table(
    "things", METADATA, Column("name", String, primary_key=True), Column("amount", BigInteger, nullable=False)
)
MIGRATIONS = Path(__file__).parent / "store_migrations"
Reopen = Callable[[], Awaitable[Store]]


def _count(store: Store) -> Awaitable[int]:
    return store.read(lambda c: c.execute(select(func.count()).select_from(THINGS)).scalar_one())


def _add(name: str, amount: int = 1) -> Callable[[Unit], None]:
    def unit(work: Unit) -> None:
        work.execute(insert(THINGS).values(name=name, amount=amount))

    return unit


def _answered(rpc: str, fingerprint: bytes) -> Callable[[Unit], bytes | None]:
    return lambda work: work.answered("r1", rpc, fingerprint)


def _message(number: int) -> Message:
    return Message("topic", f"key-{number % 3}", number.to_bytes(4, "big"), {"ce_id": str(number).encode()})


class StoreSuite:
    """The suite. Fixture `reopen`: closes the store if open and opens it again on the same data (outbox_max=100)."""

    async def test_a_write_is_read_back_after_reopening(self, reopen: Reopen) -> None:
        store = await reopen()
        await store.write(_add("a"))
        assert await _count(await reopen()) == 1

    async def test_a_failed_unit_leaves_nothing_and_harms_no_neighbour(self, reopen: Reopen) -> None:
        store = await reopen()

        def failing(work: Unit) -> None:
            work.execute(insert(THINGS).values(name="lost", amount=1))
            work.publish(_message(1))
            raise NotFound("on purpose")

        results = await asyncio.gather(
            store.write(_add("a")), store.write(failing), store.write(_add("b")), return_exceptions=True
        )
        assert [type(result) for result in results] == [type(None), NotFound, type(None)]
        assert await _count(store) == 2
        assert await store.outbox_size() == 0

    async def test_many_at_once_all_count(self, reopen: Reopen) -> None:
        store = await reopen()
        await store.write(_add("sum", 0))

        def increment(work: Unit) -> None:
            work.execute(update(THINGS).where(THINGS.c.name == "sum").values(amount=THINGS.c.amount + 1))

        await asyncio.gather(*(store.write(increment) for _ in range(300)))
        assert await store.read(lambda c: c.execute(select(THINGS.c.amount)).scalar_one()) == 300

    async def test_the_bulk_path_inserts_and_a_broken_row_fails_the_unit(self, reopen: Reopen) -> None:
        store = await reopen()
        await store.write(lambda work: work.insert_many(THINGS, ("name", "amount"), [(str(n), n) for n in range(1000)]))
        with pytest.raises(Exception, match=r"(?i)unique|constraint"):
            await store.write(lambda work: work.insert_many(THINGS, ("name", "amount"), [("new", 1), ("7", 7)]))
        assert await _count(store) == 1000

    async def test_state_and_outbox_change_together_and_keep_order(self, reopen: Reopen) -> None:
        store = await reopen()

        def unit(work: Unit) -> None:
            work.execute(insert(THINGS).values(name="a", amount=1))
            work.publish(_message(1))
            work.publish_many([_message(2), _message(3)])

        await store.write(unit)
        store = await reopen()
        waiting = await store.outbox(10)
        assert [message for _, message in waiting] == [_message(1), _message(2), _message(3)]
        await store.published([number for number, _ in waiting[:2]])
        assert [message for _, message in await store.outbox(10)] == [_message(3)]
        assert await store.outbox_size() == 1

    async def test_the_outbox_limit_refuses_and_loses_nothing(self, reopen: Reopen) -> None:
        store = await reopen()
        await store.write(lambda work: work.publish_many([_message(n) for n in range(100)]))
        with pytest.raises(ResourceExhausted, match="outbox"):
            await store.write(lambda work: work.publish(_message(100)))
        waiting = await store.outbox(200)
        await store.published([number for number, _ in waiting[:50]])
        await store.write(lambda work: work.publish(_message(100)))
        assert await store.outbox_size() == 51

    async def test_a_request_id_acts_once(self, reopen: Reopen) -> None:
        store = await reopen()

        def once(work: Unit) -> bytes:
            if (before := work.answered("r1", "Do", b"f")) is not None:
                return before
            work.execute(insert(THINGS).values(name="once", amount=1))
            work.answer("r1", "Do", b"f", b"answer")
            return b"answer"

        assert await store.write(once) == b"answer"
        store = await reopen()
        assert await store.write(once) == b"answer"
        assert await _count(store) == 1

    async def test_a_request_id_with_other_content_is_refused(self, reopen: Reopen) -> None:
        store = await reopen()
        await store.write(lambda work: work.answer("r1", "Do", b"f", b"answer"))
        for rpc, fingerprint in (("Do", b"other"), ("Other", b"f")):
            asked = _answered(rpc, fingerprint)
            with pytest.raises(RequestReused, match="new id"):
                await store.write(asked)

    async def test_an_event_counts_once_per_group(self, reopen: Reopen) -> None:
        store = await reopen()
        record = Record("topic", 0, 7, "key", b"", {})
        assert await store.write(lambda work: work.first_time(record, "g")) is True
        assert await store.write(lambda work: work.first_time(record, "g")) is False
        assert await store.write(lambda work: work.first_time(record, "h")) is True
        event = {"ce_id": b"1", "ce_source": b"/s"}
        assert await store.write(lambda work: work.first_time(Record("topic", 0, 8, "key", b"", event), "g")) is True
        assert await store.write(lambda work: work.first_time(Record("topic", 0, 9, "key", b"", event), "g")) is False

    async def test_reads_go_on_beside_a_write(self, reopen: Reopen) -> None:
        store = await reopen()
        await store.write(_add("a"))
        counts = await asyncio.gather(*(_count(store) for _ in range(20)), store.write(_add("b")), _count(store))
        assert all(count in (1, 2) for count in counts if count is not None)
        assert await _count(store) == 2
