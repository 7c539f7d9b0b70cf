"""What a chaincode asks while it runs: state, ranges, history, private data, metadata, batches. The peer's half of the shim's protocol.

`handle` answers one request of a run. Only chaincode-to-chaincode calls are answered elsewhere (`chaincodes`), for they take time.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from fabric_protos.ledger.queryresult import kv_query_result_pb2
from fabric_protos.peer import chaincode_shim_pb2 as shim
from fabric_protos.peer import proposal_pb2

from citykit.ledger.devpeer.simulation import Forbidden, Simulation
from citykit.ledger.devpeer.specification import Chaincode, Collection
from citykit.ledger.devpeer.state import Entry
from citykit.ledger.devpeer.storage import Past

BATCH = 100
"""Results sent to a chaincode at once."""
QUERY_MAX = 100_000
"""Results of one query, Fabric's totalQueryLimit."""
ITERATORS_MAX = 1_000
Message: TypeAlias = shim.ChaincodeMessage
Results = Iterator[bytes]
History = Callable[[str, str, int, int], list[Past]]


@dataclass
class Query:
    """An open iterator of a run."""

    results: Results
    left: int


@dataclass
class Run:
    """A chaincode's part of a simulated transaction.

    Attributes:
        member: MSP id of the creator.
        history: (chaincode, key, below block, limit) -> its values, newest first.
    """

    chaincode: Chaincode
    simulation: Simulation
    signed: proposal_pb2.SignedProposal
    channel: str
    transaction: str
    member: str
    height: int
    history: History
    queries: dict[str, Query] = field(default_factory=dict)
    numbers: Iterator[int] = field(default_factory=itertools.count)


def handle(run: Run, message: Message) -> bytes:
    """The payload of the answer to one request.

    Raises:
        Forbidden: the chaincode may not do this.
        DecodeError: the request is malformed.
    """
    handler = _HANDLERS.get(message.type)
    if handler is None:
        why = "rich queries need a document database" if message.type == Message.GET_QUERY_RESULT else "no such request"
        raise Forbidden(f"{kind_name(message.type)} is not served here: {why}")
    return handler(run, message.payload)


def kind_name(kind: int) -> str:
    """The name of a message's type; its number where it has none."""
    return str(Message.Type.Name(kind)) if kind in Message.Type.values() else str(kind)


def _get(run: Run, payload: bytes) -> bytes:
    request = shim.GetState.FromString(payload)
    return _value(run, request.collection, request.key)


def _get_many(run: Run, payload: bytes) -> bytes:
    request = shim.GetStateMultiple.FromString(payload)
    values = [_value(run, request.collection, key) for key in request.keys]
    return bytes(shim.GetStateMultipleResult(values=values).SerializeToString())


def _value(run: Run, collection: str, key: str) -> bytes:
    if not collection:
        return run.simulation.get(run.chaincode.name, key)
    _require(run, collection, writes=False)
    return run.simulation.get_private(run.chaincode.name, collection, key)


def _private_hash(run: Run, payload: bytes) -> bytes:
    request = shim.GetState.FromString(payload)
    _collection(run, request.collection)
    return run.simulation.private_hash(run.chaincode.name, request.collection, request.key)


def _put(run: Run, payload: bytes) -> bytes:
    request = shim.PutState.FromString(payload)
    _write(run, request.collection, request.key, request.value)
    return b""


def _delete(run: Run, payload: bytes) -> bytes:
    request = shim.DelState.FromString(payload)
    _write(run, request.collection, request.key, b"")
    return b""


def _purge(run: Run, payload: bytes) -> bytes:
    request = shim.PurgePrivateState.FromString(payload)
    _purge_key(run, request.collection, request.key)
    return b""


def _batch(run: Run, payload: bytes) -> bytes:
    for record in shim.WriteBatchState.FromString(payload).rec:
        match record.type:
            case shim.WriteRecord.PUT_STATE:
                _write(run, record.collection, record.key, record.value)
            case shim.WriteRecord.DEL_STATE:
                _write(run, record.collection, record.key, b"")
            case shim.WriteRecord.PURGE_PRIVATE_DATA:
                _purge_key(run, record.collection, record.key)
            case shim.WriteRecord.PUT_STATE_METADATA:
                _write_metadata(run, record.collection, record.key, record.metadata)
            case _:
                raise Forbidden("unknown operation type in a batch")
    return b""


def _write(run: Run, collection: str, key: str, value: bytes) -> None:
    if not collection:
        run.simulation.put(run.chaincode.name, key, value)
        return
    _require(run, collection, writes=True)
    run.simulation.put_private(run.chaincode.name, collection, key, value)


def _purge_key(run: Run, collection: str, key: str) -> None:
    _require(run, collection, writes=True)
    run.simulation.put_private(run.chaincode.name, collection, key, b"", purge=True)


def _metadata(run: Run, payload: bytes) -> bytes:
    request = shim.GetStateMetadata.FromString(payload)
    if request.collection:
        raise Forbidden("metadata of private data is not kept by the development peer")
    result = shim.StateMetadataResult()
    for name, value in sorted(run.simulation.metadata(run.chaincode.name, request.key).items()):
        result.entries.add(metakey=name, value=value)
    return bytes(result.SerializeToString())


def _put_metadata(run: Run, payload: bytes) -> bytes:
    request = shim.PutStateMetadata.FromString(payload)
    _write_metadata(run, request.collection, request.key, request.metadata)
    return b""


def _write_metadata(run: Run, collection: str, key: str, metadata: shim.StateMetadata) -> None:
    if collection:
        raise Forbidden("metadata of private data is not kept by the development peer")
    run.simulation.put_metadata(run.chaincode.name, key, metadata.metakey, metadata.value)


# --- queries -----------------------------------------------------------------------------------------


def _range(run: Run, payload: bytes) -> bytes:
    request = shim.GetStateByRange.FromString(payload)
    paging = shim.QueryMetadata.FromString(request.metadata)
    name = run.chaincode.name
    if request.collection:
        _require(run, request.collection, writes=False)
        private = run.simulation.range_private(name, request.collection, request.startKey, request.endKey)
        return _open(run, _entries(name, private))
    if paging.pageSize or paging.bookmark:
        return _page(run, request, paging)
    return _open(run, _entries(name, run.simulation.range(name, request.startKey, request.endKey)))


def _page(run: Run, request: shim.GetStateByRange, paging: shim.QueryMetadata) -> bytes:
    """One page. The bookmark is the key the next one begins with, empty after the last."""
    name = run.chaincode.name
    found = run.simulation.range(name, paging.bookmark or request.startKey, request.endKey, paged=True)
    size = min(paging.pageSize if paging.pageSize > 0 else QUERY_MAX, QUERY_MAX)
    taken = list(itertools.islice(found, size))
    following = next(found, None) if len(taken) == size else None
    about = shim.QueryResponseMetadata(fetched_records_count=len(taken), bookmark=following[0] if following else "")
    response = shim.QueryResponse(id=str(next(run.numbers)), metadata=about.SerializeToString())
    for result in _entries(name, iter(taken)):
        response.results.add(resultBytes=result)
    return bytes(response.SerializeToString())


def _history(run: Run, payload: bytes) -> bytes:
    request = shim.GetHistoryForKey.FromString(payload)
    found = run.history(run.chaincode.name, request.key, run.height, QUERY_MAX)
    return _open(run, _modifications(found))


def _next(run: Run, payload: bytes) -> bytes:
    request = shim.QueryStateNext.FromString(payload)
    query = run.queries.get(request.id)
    if query is None:
        raise Forbidden("query iterator not found; it is closed, or its last result was sent")
    return _more(run, request.id, query)


def _close(run: Run, payload: bytes) -> bytes:
    request = shim.QueryStateClose.FromString(payload)
    run.queries.pop(request.id, None)
    return bytes(shim.QueryResponse(id=request.id).SerializeToString())


def _open(run: Run, results: Results) -> bytes:
    if len(run.queries) >= ITERATORS_MAX:
        raise Forbidden(f"at most {ITERATORS_MAX} iterators are open in one transaction; close those that are done")
    number = str(next(run.numbers))
    return _more(run, number, Query(results, QUERY_MAX))


def _more(run: Run, number: str, query: Query) -> bytes:
    """The next batch. One result more than sent is read, so that `has_more` is true only where there is one."""
    results = list(itertools.islice(query.results, min(BATCH, query.left)))
    query.left -= len(results)
    following = next(query.results, None) if query.left else None
    response = shim.QueryResponse(id=number, has_more=following is not None)
    for result in results:
        response.results.add(resultBytes=result)
    if following is None:
        run.queries.pop(number, None)
    else:
        query.results = itertools.chain([following], query.results)
        run.queries[number] = query
    return bytes(response.SerializeToString())


def _entries(chaincode: str, found: Iterator[tuple[str, Entry]]) -> Results:
    for key, entry in found:
        result = kv_query_result_pb2.KV(namespace=chaincode, key=key, value=entry.value)
        yield bytes(result.SerializeToString())


def _modifications(found: list[Past]) -> Results:
    for past in found:
        result = kv_query_result_pb2.KeyModification(tx_id=past.transaction, value=past.value or b"")
        result.is_delete = past.value is None
        result.timestamp.seconds, result.timestamp.nanos = past.time
        yield bytes(result.SerializeToString())


# --- collections -------------------------------------------------------------------------------------


def _collection(run: Run, name: str) -> Collection:
    found = run.chaincode.collection(name)
    if found is None:
        raise Forbidden(f"collection {run.chaincode.name}/{name} could not be found")
    return found


def _require(run: Run, name: str, *, writes: bool) -> None:
    """That the creator may, and, for reading, that this organisation keeps the collection."""
    found = _collection(run, name)
    restricted = found.member_only_write if writes else found.member_only_read
    if restricted and run.member not in found.members:
        raise Forbidden(
            f"tx creator does not have {'write' if writes else 'read'} access permission on privatedata in"
            f" chaincodeName:{run.chaincode.name} collectionName: {name}"
        )
    if not writes and run.simulation.organisation not in found.members:
        raise Forbidden(f"{run.simulation.organisation} does not keep {run.chaincode.name}/{name}; ask a member's peer")


_HANDLERS: Mapping[int, Callable[[Run, bytes], bytes]] = {
    Message.GET_STATE: _get,
    Message.GET_STATE_MULTIPLE: _get_many,
    Message.PUT_STATE: _put,
    Message.DEL_STATE: _delete,
    Message.WRITE_BATCH_STATE: _batch,
    Message.GET_STATE_BY_RANGE: _range,
    Message.QUERY_STATE_NEXT: _next,
    Message.QUERY_STATE_CLOSE: _close,
    Message.GET_HISTORY_FOR_KEY: _history,
    Message.GET_PRIVATE_DATA_HASH: _private_hash,
    Message.PURGE_PRIVATE_DATA: _purge,
    Message.GET_STATE_METADATA: _metadata,
    Message.PUT_STATE_METADATA: _put_metadata,
}
