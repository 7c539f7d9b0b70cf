"""What the commit decides about each transaction of a block: its validation code, and what it changes.

In Fabric's order: creator's signature, transaction id, duplicates, endorsement policies, then reads (MVCC, phantoms) against the state and
the transactions before it in the block.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256

from fabric_protos.ledger.rwset import rwset_pb2
from fabric_protos.ledger.rwset.kvrwset import kv_rwset_pb2
from fabric_protos.peer import transaction_pb2 as tx
from google.protobuf.message import DecodeError

from citykit.ledger.devpeer.members import Members, NotMember
from citykit.ledger.devpeer.messages import Transaction
from citykit.ledger.devpeer.policy import Principal, Rule, from_envelope, satisfied
from citykit.ledger.devpeer.simulation import read_metadata, version_of, write_metadata
from citykit.ledger.devpeer.specification import Chaincode
from citykit.ledger.devpeer.state import Change, Place, Version, WorldState
from citykit.ledger.devpeer.storage import Outcome

KEY_POLICY = "VALIDATION_PARAMETER"
"""Metadata that names a key's own endorsement policy."""


class Invalid(Exception):
    """The transaction is committed as invalid, with this code."""

    def __init__(self, code: int) -> None:
        super().__init__(tx.TxValidationCode.Name(code))
        self.code = code


@dataclass(frozen=True)
class Namespace:
    """What a transaction reads and writes of one chaincode; `hashed` by collection."""

    name: str
    public: kv_rwset_pb2.KVRWSet
    hashed: Mapping[str, kv_rwset_pb2.HashedRWSet]


@dataclass
class _Updates:
    """What the valid transactions of this block changed so far."""

    changes: dict[tuple[Place, str], Change] = field(default_factory=dict)

    def touched(self, place: Place, start: str, end: str, *, inclusive: bool) -> bool:
        return any(
            where == place and key >= start and (not end or (key <= end if inclusive else key < end))
            for where, key in self.changes
        )


class Validator:
    """Validates blocks, one after another.

    Args:
        known: whether a transaction id is committed already.
        private: the private write sets of a transaction, as its endorsement kept them; None where they are lost.
    """

    def __init__(
        self, world: WorldState, members: Members, chaincodes: Mapping[str, Chaincode], policies: Mapping[str, Rule],
        known: Callable[[str], bool], private: Callable[[str], rwset_pb2.TxPvtReadWriteSet | None],
    ) -> None:  # fmt: skip
        self._world = world
        self._members = members
        self._chaincodes = chaincodes
        self._policies = policies
        self._known = known
        self._private = private

    def outcomes(self, number: int, transactions: Sequence[Transaction]) -> list[Outcome]:
        """The outcome of each transaction of block `number`."""
        updates, seen, found = _Updates(), set[str](), []
        for place, transaction in enumerate(transactions):
            found.append(self._outcome(transaction, (number, place), updates, seen))
            seen.add(transaction.headers.transaction)
        return found

    def _outcome(self, transaction: Transaction, version: Version, updates: _Updates, seen: set[str]) -> Outcome:
        identifier, time = transaction.headers.transaction, transaction.headers.time
        try:
            if identifier in seen or self._known(identifier):
                raise Invalid(tx.DUPLICATE_TXID)
            private = _promised(self._private(identifier), transaction.action.results)
            changes = self._changes(transaction, version, updates, private)
        except Invalid as invalid:
            return Outcome(identifier, invalid.code, time, version, ())
        updates.changes.update({(change.place, change.key): change for change in changes})
        return Outcome(identifier, tx.VALID, time, version, tuple(changes), private.SerializeToString())

    def _changes(
        self, transaction: Transaction, version: Version, updates: _Updates, private: rwset_pb2.TxPvtReadWriteSet
    ) -> list[Change]:
        try:
            namespaces = namespaces_of(transaction.action.results)
        except DecodeError:
            raise Invalid(tx.BAD_RWSET) from None
        signers, called = self._signers(transaction), transaction.headers.chaincode
        if called not in {one.name for one in namespaces}:
            namespaces.append(Namespace(called, kv_rwset_pb2.KVRWSet(), {}))
        for one in namespaces:
            self._check_policy(one, signers, called)
        for one in namespaces:
            self._check_reads(one, updates)
        before = partial(self._before, updates)
        changes = [change for one in namespaces for change in public_changes(one, version, before)]
        hashes = [change for one in namespaces for change in hash_changes(one, version)]
        return changes + hashes + self._private_changes(private, version)

    # --- endorsements ------------------------------------------------------------------------------

    def _signers(self, transaction: Transaction) -> list[Principal]:
        signers: dict[bytes, Principal] = {}
        for endorser, signature in transaction.endorsements:
            try:
                member = self._members.signed(endorser, transaction.response_payload + endorser, signature)
            except NotMember:
                continue  # an endorsement that does not hold counts for nothing
            signers[endorser] = member.principal
        return list(signers.values())

    def _check_policy(self, one: Namespace, signers: list[Principal], called: str) -> None:
        if one.name not in self._policies:
            raise Invalid(tx.INVALID_CHAINCODE)
        keys = [write.key for write in (*one.public.writes, *one.public.metadata_writes)]
        rules = [self._key_policy(one.name, key) for key in keys]
        if None in rules or not keys or one.hashed:
            rules.append(None)
        needed = [self._policies[one.name] if rule is None else rule for rule in rules]
        if one.name != called and not keys and not any(held.hashed_writes for held in one.hashed.values()):
            return  # only read from another chaincode
        if not all(satisfied(rule, signers) for rule in needed):
            raise Invalid(tx.ENDORSEMENT_POLICY_FAILURE)

    def _key_policy(self, chaincode: str, key: str) -> Rule | None:
        entry = self._world.get(Place("public", chaincode), key, self._world.height)
        data = read_metadata(entry.metadata).get(KEY_POLICY) if entry and entry.metadata else None
        return from_envelope(data) if data else None

    # --- reads -------------------------------------------------------------------------------------

    def _check_reads(self, one: Namespace, updates: _Updates) -> None:
        public = Place("public", one.name)
        for read in one.public.reads:
            self._check_read(public, read.key, version_of(read), updates)
        for info in one.public.range_queries_info:
            self._check_range(public, info, updates)
        for collection, held in one.hashed.items():
            hashed = Place("hashed", one.name, collection)
            for read in held.hashed_reads:
                self._check_read(hashed, read.key_hash.hex(), version_of(read), updates)

    def _check_read(self, place: Place, key: str, version: Version | None, updates: _Updates) -> None:
        entry = self._world.get(place, key, self._world.height)
        if (place, key) in updates.changes or (entry.version if entry else None) != version:
            raise Invalid(tx.MVCC_READ_CONFLICT)

    def _check_range(self, place: Place, info: kv_rwset_pb2.RangeQueryInfo, updates: _Updates) -> None:
        inclusive = not info.itr_exhausted
        if inclusive and not info.raw_reads.kv_reads:
            return  # opened, nothing taken
        now = self._world.range(place, info.start_key, info.end_key, self._world.height, inclusive=inclusive)
        seen = [(read.key, version_of(read)) for read in info.raw_reads.kv_reads]
        changed = updates.touched(place, info.start_key, info.end_key, inclusive=inclusive)
        if changed or [(key, entry.version) for key, entry in now] != seen:
            raise Invalid(tx.PHANTOM_READ_CONFLICT)

    # --- writes ------------------------------------------------------------------------------------

    def _before(self, updates: _Updates, place: Place, key: str) -> tuple[bytes | None, bytes]:
        change = updates.changes.get((place, key))
        entry = change or self._world.get(place, key, self._world.height)
        return (entry.value, entry.metadata) if entry else (None, b"")

    def _private_changes(self, private: rwset_pb2.TxPvtReadWriteSet, version: Version) -> list[Change]:
        """Each member of a collection keeps the values."""
        return [
            Change(
                Place("private", one.namespace, held.collection_name, member),
                write.key,
                None if write.is_delete else write.value,
                version,
            )
            for one in private.ns_pvt_rwset
            for held in one.collection_pvt_rwset
            for write in kv_rwset_pb2.KVRWSet.FromString(held.rwset).writes
            for member in self._chaincodes[one.namespace].members_of(held.collection_name)
        ]


def public_changes(
    one: Namespace, version: Version, before: Callable[[Place, str], tuple[bytes | None, bytes]]
) -> list[Change]:
    """A valid transaction's changes of public data; `before` gives a key's value and metadata so far."""
    place = Place("public", one.name)
    values = {write.key: None if write.is_delete else write.value or None for write in one.public.writes}
    metadata = {
        write.key: write_metadata({e.name: e.value for e in write.entries}) for write in one.public.metadata_writes
    }
    changes = []
    for key in sorted(values.keys() | metadata.keys()):
        held, kept = before(place, key)
        value = values.get(key, held)
        if value is None and key not in values:
            continue  # metadata of a key that is not there
        changes.append(Change(place, key, value, version, metadata.get(key, kept) if value is not None else b""))
    return changes


def hash_changes(one: Namespace, version: Version) -> list[Change]:
    """A valid transaction's changes of the hashes of private data."""
    return [
        Change(
            Place("hashed", one.name, collection),
            write.key_hash.hex(),
            None if write.is_delete else write.value_hash,
            version,
        )
        for collection, held in one.hashed.items()
        for write in held.hashed_writes
    ]


def namespaces_of(results: bytes) -> list[Namespace]:
    """What a transaction reads and writes, by chaincode. Raises DecodeError."""
    return [
        Namespace(
            one.namespace,
            kv_rwset_pb2.KVRWSet.FromString(one.rwset),
            {
                held.collection_name: kv_rwset_pb2.HashedRWSet.FromString(held.hashed_rwset)
                for held in one.collection_hashed_rwset
            },
        )
        for one in rwset_pb2.TxReadWriteSet.FromString(results).ns_rwset
    ]


def _promised(private: rwset_pb2.TxPvtReadWriteSet | None, results: bytes) -> rwset_pb2.TxPvtReadWriteSet:
    """The private write sets that fit the hashes everybody endorsed; others are dropped, as a peer waits for the right ones."""
    kept = rwset_pb2.TxPvtReadWriteSet()
    if private is None:
        return kept
    try:
        promised = {
            (one.namespace, held.collection_name): held.pvt_rwset_hash
            for one in rwset_pb2.TxReadWriteSet.FromString(results).ns_rwset
            for held in one.collection_hashed_rwset
        }
    except DecodeError:
        raise Invalid(tx.BAD_RWSET) from None
    for one in private.ns_pvt_rwset:
        fitting = [
            held
            for held in one.collection_pvt_rwset
            if sha256(held.rwset).digest() == promised.get((one.namespace, held.collection_name))
        ]
        if fitting:
            kept.ns_pvt_rwset.add(namespace=one.namespace, collection_pvt_rwset=fitting)
    return kept
