"""What an asynchronous chaincode handler sees of the ledger: `Stub`. `shim_sync.SyncStub` is the same for plain functions.

Reads see the committed state, never the transaction's own writes (Fabric's rule); writes are kept and sent when the handler is done, in
batches where the peer takes them (Fabric 3.1). A handler that fails sends none.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from typing import Any, Generic, Protocol, TypeVar

from fabric_protos.peer import chaincode_shim_pb2 as wire

from citykit.ledger.fabric import shim_wire
from citykit.ledger.fabric.shim_errors import LimitExceeded
from citykit.ledger.fabric.shim_keys import partial_range, simple_key, simple_range
from citykit.ledger.fabric.shim_proposal import Creator, ProposalFacts
from citykit.ledger.fabric.shim_types import KeyValue, Limits, Modification, Page, Response
from citykit.ledger.fabric.shim_wire import Kind, PeerOffer

_VALIDATION = "VALIDATION_PARAMETER"
"""Metadata name of a key's own endorsement policy."""
Entry = TypeVar("Entry")


class Peer(Protocol):
    """The way to the peer for one transaction."""

    @property
    def offer(self) -> PeerOffer: ...

    async def ask(self, kind: int, payload: bytes) -> bytes:
        """Sends a state request and returns the payload of the answer.

        Raises:
            PeerError, LimitExceeded.
        """


class Results(Generic[Entry]):
    """Entries of a query, fetched from the peer as they are read: `async for`, or `await take(n)`. Close it if not read to its end."""

    def __init__(self, peer: Peer, kind: int, request: bytes, read: Callable[[bytes], Entry]) -> None:
        self._peer = peer
        self._next: tuple[int, bytes] | None = (kind, request)
        self._read = read
        self._open = ""

    async def __aiter__(self) -> AsyncIterator[Entry]:
        while self._next is not None:
            for item in await self._fetch(*self._next):
                yield self._read(item.resultBytes)

    async def take(self, limit: int) -> list[Entry]:
        """The first `limit` entries; the rest is let go."""
        found: list[Entry] = []
        while self._next is not None and len(found) < limit:
            found.extend(self._read(item.resultBytes) for item in await self._fetch(*self._next))
        await self.close()
        return found[:limit]

    async def close(self) -> None:
        """Lets the peer forget the query. Nothing happens where it was read to its end."""
        if self._open:
            await self._peer.ask(Kind.QUERY_STATE_CLOSE, wire.QueryStateClose(id=self._open).SerializeToString())
        self._open, self._next = "", None

    async def _fetch(self, kind: int, request: bytes) -> Sequence[Any]:
        answer = wire.QueryResponse.FromString(await self._peer.ask(kind, request))
        self._open = str(answer.id) if answer.has_more else ""
        following = wire.QueryStateNext(id=answer.id).SerializeToString()
        self._next = (Kind.QUERY_STATE_NEXT, following) if answer.has_more else None
        found: Sequence[Any] = answer.results
        return found


class Stub:
    """One transaction. Requests of one transaction go to the peer one after another, as it demands; many transactions run at once.

    Attributes:
        channel, txid: where it runs and what it is called.
        args: the chaincode arguments, the first usually the function's name.
        decorations: what the peer's decorators added.
        proposal: creator, time, transient data.
    """

    def __init__(self, peer: Peer, limits: Limits, channel: str, txid: str, invoked: Any, signed: Any) -> None:
        self._peer = peer
        self._limits = limits
        self.channel = channel
        self.txid = txid
        self.args: tuple[bytes, ...] = tuple(invoked.args)
        self.decorations: Mapping[str, bytes] = dict(invoked.decorations)
        self.proposal = ProposalFacts(signed)
        self.event: tuple[str, bytes] | None = None
        self._transient: Mapping[str, bytes] | None = None
        self._writes: list[Any] = []

    # --- the proposal ------------------------------------------------------------------------------

    @property
    def creator(self) -> Creator:
        """Who signed the proposal."""
        return self.proposal.creator

    @property
    def time_ns(self) -> int:
        """The proposal's time, nanoseconds since 1970."""
        return self.proposal.time_ns

    @property
    def transient(self) -> Mapping[str, bytes]:
        """Data that reaches the chaincode and never the ledger."""
        if self._transient is None:
            self._transient = self.proposal.transient()
        return self._transient

    # --- state -------------------------------------------------------------------------------------

    async def get(self, key: str, *, collection: str = "") -> bytes | None:
        """The committed value, or None. With a collection: private data, where this peer's organisation holds it."""
        request = wire.GetState(key=simple_key(key), collection=collection)
        return await self._peer.ask(Kind.GET_STATE, request.SerializeToString()) or None

    async def get_many(self, keys: Sequence[str], *, collection: str = "") -> list[bytes | None]:
        """The committed values in the order of `keys`, in few messages where the peer takes that."""
        size = self._peer.offer.reads
        if size == 0:
            return [await self.get(key, collection=collection) for key in keys]
        found: list[bytes | None] = []
        for start in range(0, len(keys), size):
            asked = [simple_key(key) for key in keys[start : start + size]]
            request = wire.GetStateMultiple(keys=asked, collection=collection).SerializeToString()
            answer = wire.GetStateMultipleResult.FromString(await self._peer.ask(Kind.GET_STATE_MULTIPLE, request))
            found.extend(bytes(value) or None for value in answer.values)
        return found

    def put(self, key: str, value: bytes, *, collection: str = "") -> None:
        """Writes a value, which is not empty (Fabric takes an empty one for a deletion)."""
        if not value:
            raise ValueError("a value is not empty; delete the key instead")
        self._write(shim_wire.put(simple_key(key), value, collection))

    def delete(self, key: str, *, collection: str = "") -> None:
        self._write(shim_wire.delete(simple_key(key), collection))

    def purge(self, key: str, *, collection: str) -> None:
        """Deletes private data with its history."""
        self._write(shim_wire.purge(simple_key(key), collection))

    async def private_hash(self, key: str, *, collection: str) -> bytes | None:
        """SHA-256 of private data, which every organisation can read; or None."""
        request = wire.GetState(key=simple_key(key), collection=collection).SerializeToString()
        return await self._peer.ask(Kind.GET_PRIVATE_DATA_HASH, request) or None

    async def validation_parameter(self, key: str, *, collection: str = "") -> bytes | None:
        """The key's own endorsement policy (serialised), or None."""
        request = wire.GetStateMetadata(key=simple_key(key), collection=collection).SerializeToString()
        answer = wire.StateMetadataResult.FromString(await self._peer.ask(Kind.GET_STATE_METADATA, request))
        return next((bytes(entry.value) for entry in answer.entries if entry.metakey == _VALIDATION), None)

    def set_validation_parameter(self, key: str, policy: bytes, *, collection: str = "") -> None:
        """Gives a key an endorsement policy of its own."""
        self._write(shim_wire.put_metadata(simple_key(key), _VALIDATION, policy, collection))

    # --- queries -----------------------------------------------------------------------------------

    def range(self, start: str = "", end: str = "", *, collection: str = "") -> Results[KeyValue]:
        """Committed entries with start <= key < end in key order; an empty bound is open. What was read is checked at commit (phantoms)."""
        return self._between(*simple_range(start, end), collection)

    def by_partial_key(
        self, object_type: str, attributes: Sequence[str] = (), *, collection: str = ""
    ) -> Results[KeyValue]:
        """Committed entries whose composite key begins with these parts."""
        return self._between(*partial_range(object_type, attributes), collection)

    async def range_page(self, start: str = "", end: str = "", *, page_size: int, bookmark: str = "") -> Page:
        """One page of a range. Only for transactions that write nothing: the peer refuses writes after it."""
        first, last = simple_range(start, end)
        request = wire.GetStateByRange(
            startKey=first, endKey=last, metadata=shim_wire.metadata(_page(page_size), bookmark)
        )
        return await self._page(Kind.GET_STATE_BY_RANGE, request)

    def query(self, selector: str, *, collection: str = "") -> Results[KeyValue]:
        """Entries a query of the state database selects (CouchDB only; not checked again at commit)."""
        request = wire.GetQueryResult(query=selector, collection=collection).SerializeToString()
        return Results(self._peer, Kind.GET_QUERY_RESULT, request, shim_wire.key_value)

    async def query_page(self, selector: str, *, page_size: int, bookmark: str = "") -> Page:
        """One page of `query`."""
        request = wire.GetQueryResult(query=selector, metadata=shim_wire.metadata(_page(page_size), bookmark))
        return await self._page(Kind.GET_QUERY_RESULT, request)

    def history(self, key: str) -> Results[Modification]:
        """Every committed change of a key, newest first (peers with the history database on)."""
        request = wire.GetHistoryForKey(key=simple_key(key)).SerializeToString()
        return Results(self._peer, Kind.GET_HISTORY_FOR_KEY, request, shim_wire.modification)

    def _between(self, start: str, end: str, collection: str) -> Results[KeyValue]:
        request = wire.GetStateByRange(startKey=start, endKey=end, collection=collection).SerializeToString()
        return Results(self._peer, Kind.GET_STATE_BY_RANGE, request, shim_wire.key_value)

    async def _page(self, kind: int, request: Any) -> Page:
        answer = wire.QueryResponse.FromString(await self._peer.ask(kind, request.SerializeToString()))
        entries = tuple(shim_wire.key_value(item.resultBytes) for item in answer.results)
        return Page(entries, shim_wire.read_bookmark(answer.metadata))

    # --- others ------------------------------------------------------------------------------------

    async def invoke(self, chaincode: str, args: Iterable[bytes], *, channel: str = "") -> Response:
        """Calls another chaincode in this transaction; on another channel it can only read. It cannot call itself.

        Raises:
            PeerError: it is not there, or did not complete.
        """
        target = f"{chaincode}/{channel}" if channel else chaincode
        return shim_wire.read_invoked(await self._peer.ask(Kind.INVOKE_CHAINCODE, shim_wire.invoke(target, args)))

    def set_event(self, name: str, payload: bytes) -> None:
        """The transaction's one event; a second takes the place of the first."""
        if not name:
            raise ValueError("an event needs a name")
        self.event = (name, payload)

    async def flush(self) -> None:
        """Sends the writes. The server calls it when the handler is done."""
        writes, self._writes = self._writes, []
        for kind, payload in shim_wire.write_requests(writes, self._peer.offer, self._limits):
            await self._peer.ask(kind, payload)

    def _write(self, record: Any) -> None:
        if len(self._writes) >= self._limits.writes:
            raise LimitExceeded(f"a transaction writes at most {self._limits.writes} times")
        self._writes.append(record)


def _page(size: int) -> int:
    if size < 1:
        raise ValueError(f"a page has at least one entry, not {size}")
    return size
