"""Plain (synchronous) chaincode handlers on the event loop: their reads wait for the peer while other transactions run.

A plain handler runs as a greenlet of the event loop's thread: no thread, no lock, a few microseconds each. It must not block (no sleep, no
files, no network), as asynchronous code must not; its deadline is that of every transaction.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Generic, TypeVar

import greenlet  # type: ignore[import-untyped] # it ships no types

from citykit.ledger.fabric.shim_proposal import Creator
from citykit.ledger.fabric.shim_stream import Answered, AsyncHandler
from citykit.ledger.fabric.shim_stub import Entry, Results, Stub
from citykit.ledger.fabric.shim_types import KeyValue, Modification, Page, Response

T = TypeVar("T")


class _Bridge(greenlet.greenlet):  # type: ignore[misc] # untyped base
    """A greenlet that plain code runs in; its parent awaits what it hands over."""


def wait(awaitable: Awaitable[T]) -> T:
    """From plain code run by `run_plain`: awaits on the event loop, and returns or raises what comes.

    Raises:
        RuntimeError: called elsewhere.
    """
    current = greenlet.getcurrent()
    if not isinstance(current, _Bridge):
        raise RuntimeError("wait() works only in code started by run_plain()")
    result: T = current.parent.switch(awaitable)
    return result


async def run_plain(function: Callable[..., T], *arguments: Any) -> T:
    """Runs plain code that may call `wait`. Cancellation and timeouts are raised inside it, where it waits."""
    bridge = _Bridge(function, greenlet.getcurrent())
    bridge.gr_context = greenlet.getcurrent().gr_context
    handed = bridge.switch(*arguments)
    while not bridge.dead:
        try:
            value = await handed
        except BaseException as error:
            handed = bridge.throw(error)
        else:
            handed = bridge.switch(value)
    result: T = handed
    return result


def asynchronous(handler: Callable[[Any], Any]) -> AsyncHandler:
    """The handler itself where it is asynchronous; else one that runs it over a `SyncStub`."""
    if inspect.iscoroutinefunction(handler) or inspect.iscoroutinefunction(getattr(handler, "__call__", None)):  # noqa: B004 - asks what kind it is
        return handler

    async def run(stub: Stub) -> Answered:
        return await run_plain(handler, SyncStub(stub))

    return run


class SyncResults(Generic[Entry]):
    """`Results` for plain code: iterate, or `take(n)`."""

    def __init__(self, results: Results[Entry]) -> None:
        self._results = results

    def __iter__(self) -> Iterator[Entry]:
        entries = self._results.__aiter__()
        while True:
            try:
                yield wait(entries.__anext__())
            except StopAsyncIteration:
                return

    def take(self, limit: int) -> list[Entry]:
        """The first `limit` entries; the rest is let go."""
        return wait(self._results.take(limit))

    def close(self) -> None:
        wait(self._results.close())


class SyncStub:
    """`Stub` for plain functions: the same names, and reads return their values."""

    def __init__(self, stub: Stub) -> None:
        self.asynchronous = stub
        self.channel = stub.channel
        self.txid = stub.txid
        self.args = stub.args
        self.decorations = stub.decorations
        self.proposal = stub.proposal

    @property
    def creator(self) -> Creator:
        return self.asynchronous.creator

    @property
    def time_ns(self) -> int:
        return self.asynchronous.time_ns

    @property
    def transient(self) -> Mapping[str, bytes]:
        return self.asynchronous.transient

    def get(self, key: str, *, collection: str = "") -> bytes | None:
        return wait(self.asynchronous.get(key, collection=collection))

    def get_many(self, keys: Sequence[str], *, collection: str = "") -> list[bytes | None]:
        return wait(self.asynchronous.get_many(keys, collection=collection))

    def put(self, key: str, value: bytes, *, collection: str = "") -> None:
        self.asynchronous.put(key, value, collection=collection)

    def delete(self, key: str, *, collection: str = "") -> None:
        self.asynchronous.delete(key, collection=collection)

    def purge(self, key: str, *, collection: str) -> None:
        self.asynchronous.purge(key, collection=collection)

    def private_hash(self, key: str, *, collection: str) -> bytes | None:
        return wait(self.asynchronous.private_hash(key, collection=collection))

    def validation_parameter(self, key: str, *, collection: str = "") -> bytes | None:
        return wait(self.asynchronous.validation_parameter(key, collection=collection))

    def set_validation_parameter(self, key: str, policy: bytes, *, collection: str = "") -> None:
        self.asynchronous.set_validation_parameter(key, policy, collection=collection)

    def range(self, start: str = "", end: str = "", *, collection: str = "") -> SyncResults[KeyValue]:
        return SyncResults(self.asynchronous.range(start, end, collection=collection))

    def by_partial_key(
        self, object_type: str, attributes: Sequence[str] = (), *, collection: str = ""
    ) -> SyncResults[KeyValue]:
        return SyncResults(self.asynchronous.by_partial_key(object_type, attributes, collection=collection))

    def range_page(self, start: str = "", end: str = "", *, page_size: int, bookmark: str = "") -> Page:
        return wait(self.asynchronous.range_page(start, end, page_size=page_size, bookmark=bookmark))

    def query(self, selector: str, *, collection: str = "") -> SyncResults[KeyValue]:
        return SyncResults(self.asynchronous.query(selector, collection=collection))

    def query_page(self, selector: str, *, page_size: int, bookmark: str = "") -> Page:
        return wait(self.asynchronous.query_page(selector, page_size=page_size, bookmark=bookmark))

    def history(self, key: str) -> SyncResults[Modification]:
        return SyncResults(self.asynchronous.history(key))

    def invoke(self, chaincode: str, args: Iterable[bytes], *, channel: str = "") -> Response:
        return wait(self.asynchronous.invoke(chaincode, args, channel=channel))

    def set_event(self, name: str, payload: bytes) -> None:
        self.asynchronous.set_event(name, payload)
