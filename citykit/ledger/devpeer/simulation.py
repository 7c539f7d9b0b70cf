"""One simulated run: what it read and would write, as Fabric's read-write set. Made for each proposal by the endorser.

Reads see the state of one height and never the run's own writes. Several chaincodes share a run when one calls another.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import sha256

from fabric_protos.ledger.rwset import rwset_pb2
from fabric_protos.ledger.rwset.kvrwset import kv_rwset_pb2
from fabric_protos.peer import chaincode_shim_pb2

from citykit.ledger.devpeer.state import Entry, Place, Version, WorldState

KeyMetadata = dict[str, bytes]


class Forbidden(Exception):
    """The chaincode asked for what Fabric does not allow in this run; the message goes back to it."""


@dataclass(frozen=True)
class ReadWriteSets:
    """The outcome of a run: `public` is endorsed, `private` stays with the organisations of its collections."""

    public: bytes
    private: rwset_pb2.TxPvtReadWriteSet
    written: frozenset[str]
    """Chaincodes whose public data or private hashes it would change."""
    collections: frozenset[tuple[str, str]]
    """(chaincode, collection) of private writes."""


@dataclass
class _Collection:
    reads: dict[str, Version | None] = field(default_factory=dict)
    writes: dict[str, bytes | None] = field(default_factory=dict)
    purged: set[str] = field(default_factory=set)


@dataclass
class _Namespace:
    reads: dict[str, Version | None] = field(default_factory=dict)
    ranges: list[kv_rwset_pb2.RangeQueryInfo] = field(default_factory=list)
    writes: dict[str, bytes | None] = field(default_factory=dict)
    metadata: dict[str, KeyMetadata] = field(default_factory=dict)
    collections: dict[str, _Collection] = field(default_factory=dict)


class Simulation:
    """A run on the present height, in the memory of one organisation. Call `close` when it is over."""

    def __init__(self, world: WorldState, organisation: str) -> None:
        self._world = world
        self.organisation = organisation
        self._height = world.open_snapshot()
        self._open = True
        self._namespaces: dict[str, _Namespace] = {}
        self._no_writes = ""
        self._wrote = False

    def close(self) -> None:
        if self._open:
            self._open = False
            self._world.close_snapshot(self._height)

    # --- public data -------------------------------------------------------------------------------

    def get(self, chaincode: str, key: str) -> bytes:
        """The committed value; empty where there is none."""
        entry = self._world.get(Place("public", chaincode), key, self._height)
        self._namespace(chaincode).reads.setdefault(key, entry.version if entry else None)
        return entry.value or b"" if entry else b""

    def metadata(self, chaincode: str, key: str) -> KeyMetadata:
        entry = self._world.get(Place("public", chaincode), key, self._height)
        self._namespace(chaincode).reads.setdefault(key, entry.version if entry else None)
        return read_metadata(entry.metadata) if entry else {}

    def put(self, chaincode: str, key: str, value: bytes) -> None:
        """An empty value deletes, as in Fabric."""
        self._check_write(key)
        self._namespace(chaincode).writes[key] = value or None

    def put_metadata(self, chaincode: str, key: str, name: str, value: bytes) -> None:
        self._check_write(key)
        held = self._namespace(chaincode).metadata
        held[key] = {**held.get(key, self._committed_metadata(chaincode, key)), name: value}

    def range(self, chaincode: str, start: str, end: str, *, paged: bool = False) -> Iterator[tuple[str, Entry]]:
        """Committed entries in [start, end); what was taken is checked again at commit, so that a phantom shows."""
        if paged:
            self._forbid_writes("a paginated query was made in this transaction; writes are not allowed")
        info = kv_rwset_pb2.RangeQueryInfo(start_key=start, end_key=end)
        info.raw_reads.SetInParent()
        self._namespace(chaincode).ranges.append(info)
        for key, entry in self._world.range(Place("public", chaincode), start, end, self._height):
            read = info.raw_reads.kv_reads.add(key=key)
            _set_version(read, entry.version)
            info.end_key = key
            yield key, entry
        info.end_key, info.itr_exhausted = end, True

    # --- private data ------------------------------------------------------------------------------

    def get_private(self, chaincode: str, collection: str, key: str) -> bytes:
        """The value in this organisation's memory; empty where there is none.

        Raises:
            Forbidden: the ledger holds its hash, but this organisation's memory lacks it.
        """
        version = self._read_hash(chaincode, collection, key)[1]
        place = Place("private", chaincode, collection, self.organisation)
        entry = self._world.get(place, key, self._height)
        if version != (entry.version if entry else None):
            raise Forbidden(
                f"private data matching public hash version is not available in {chaincode}/{collection}"
                f" at {self.organisation}"
            )
        return entry.value or b"" if entry else b""

    def private_hash(self, chaincode: str, collection: str, key: str) -> bytes:
        """SHA-256 of the value, which every organisation knows."""
        return self._read_hash(chaincode, collection, key)[0]

    def put_private(self, chaincode: str, collection: str, key: str, value: bytes, *, purge: bool = False) -> None:
        self._check_write(key)
        held = self._collection(chaincode, collection)
        held.writes[key] = value or None
        (held.purged.add if purge else held.purged.discard)(key)

    def range_private(self, chaincode: str, collection: str, start: str, end: str) -> Iterator[tuple[str, Entry]]:
        """Entries of this organisation's memory. Phantoms cannot be checked by others, so the run may not write."""
        self._forbid_writes("private data was queried in this transaction; writes are not allowed")
        place = Place("private", chaincode, collection, self.organisation)
        yield from self._world.range(place, start, end, self._height)

    # --- the outcome -------------------------------------------------------------------------------

    def outcome(self) -> ReadWriteSets:
        """The read-write sets, names and keys in order."""
        public, private = rwset_pb2.TxReadWriteSet(), rwset_pb2.TxPvtReadWriteSet()
        collections: set[tuple[str, str]] = set()
        for name in sorted(self._namespaces):
            one = self._namespaces[name]
            target = public.ns_rwset.add(namespace=name, rwset=_public_set(one).SerializeToString())
            written = {collection for collection, held in one.collections.items() if held.writes}
            values = private.ns_pvt_rwset.add(namespace=name) if written else None
            for collection in sorted(one.collections):
                held, hashed = one.collections[collection], target.collection_hashed_rwset.add()
                hashed.collection_name, hashed.hashed_rwset = collection, _hashed_set(held).SerializeToString()
                if values is not None and held.writes:
                    content = _private_set(held).SerializeToString()
                    hashed.pvt_rwset_hash = sha256(content).digest()
                    values.collection_pvt_rwset.add(collection_name=collection, rwset=content)
            collections |= {(name, collection) for collection in written}
        changed = {name for name, one in self._namespaces.items() if one.writes or one.metadata}
        changed |= {name for name, _ in collections}
        return ReadWriteSets(public.SerializeToString(), private, frozenset(changed), frozenset(collections))

    def _namespace(self, chaincode: str) -> _Namespace:
        return self._namespaces.setdefault(chaincode, _Namespace())

    def _collection(self, chaincode: str, collection: str) -> _Collection:
        return self._namespace(chaincode).collections.setdefault(collection, _Collection())

    def _committed_metadata(self, chaincode: str, key: str) -> KeyMetadata:
        return self.metadata(chaincode, key)

    def _read_hash(self, chaincode: str, collection: str, key: str) -> tuple[bytes, Version | None]:
        entry = self._world.get(Place("hashed", chaincode, collection), key_hash(key), self._height)
        version = entry.version if entry else None
        self._collection(chaincode, collection).reads.setdefault(key_hash(key), version)
        return (entry.value or b"" if entry else b""), version

    def _check_write(self, key: str) -> None:
        if self._no_writes:
            raise Forbidden(self._no_writes)
        if not key:
            raise Forbidden("a key must not be empty")
        self._wrote = True

    def _forbid_writes(self, why: str) -> None:
        if self._wrote:
            raise Forbidden(why.replace("; writes", " after a write; writes"))
        self._no_writes = why


def key_hash(key: str) -> str:
    """How a private key is known to all: hex SHA-256."""
    return sha256(key.encode()).hexdigest()


def read_metadata(data: bytes) -> KeyMetadata:
    """Metadata of a key as the state keeps it."""
    return {one.metakey: one.value for one in chaincode_shim_pb2.StateMetadataResult.FromString(data).entries}


def write_metadata(metadata: KeyMetadata) -> bytes:
    """The reverse of `read_metadata`; empty where there is none."""
    message = chaincode_shim_pb2.StateMetadataResult()
    for name in sorted(metadata):
        message.entries.add(metakey=name, value=metadata[name])
    return bytes(message.SerializeToString())


def version_of(read: kv_rwset_pb2.KVRead | kv_rwset_pb2.KVReadHash) -> Version | None:
    """The version a read saw."""
    return (read.version.block_num, read.version.tx_num) if read.HasField("version") else None


def _set_version(read: kv_rwset_pb2.KVRead | kv_rwset_pb2.KVReadHash, version: Version | None) -> None:
    if version is not None:
        read.version.SetInParent()
        read.version.block_num, read.version.tx_num = version


def _public_set(one: _Namespace) -> kv_rwset_pb2.KVRWSet:
    message = kv_rwset_pb2.KVRWSet(range_queries_info=one.ranges)
    for key in sorted(one.reads):
        _set_version(message.reads.add(key=key), one.reads[key])
    for key in sorted(one.writes):
        value = one.writes[key]
        message.writes.add(key=key, value=value or b"", is_delete=value is None)
    for key in sorted(one.metadata):
        target = message.metadata_writes.add(key=key)
        for name in sorted(one.metadata[key]):
            target.entries.add(name=name, value=one.metadata[key][name])
    return message


def _hashed_set(held: _Collection) -> kv_rwset_pb2.HashedRWSet:
    message = kv_rwset_pb2.HashedRWSet()
    for hashed in sorted(held.reads):
        _set_version(message.hashed_reads.add(key_hash=bytes.fromhex(hashed)), held.reads[hashed])
    for key in sorted(held.writes):
        value = held.writes[key]
        target = message.hashed_writes.add(key_hash=sha256(key.encode()).digest(), is_delete=value is None)
        target.is_purge = key in held.purged
        if value is not None:
            target.value_hash = sha256(value).digest()
    return message


def _private_set(held: _Collection) -> kv_rwset_pb2.KVRWSet:
    message = kv_rwset_pb2.KVRWSet()
    for key in sorted(held.writes):
        value = held.writes[key]
        message.writes.add(key=key, value=value or b"", is_delete=value is None)
    return message
