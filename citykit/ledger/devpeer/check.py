"""Re-verifies what a development peer stores: every block, and that state, history and index follow from the blocks.

`python -m citykit.ledger.devpeer --check` calls it, while the peer does not run. The endorsements were checked at commit, under policies
that are not kept here; what counted is what the block's filter says, which the operator alone vouches for.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

from cryptography import x509
from fabric_protos.common import common_pb2
from fabric_protos.peer import transaction_pb2
from google.protobuf.message import DecodeError

from citykit.errors import NotFound
from citykit.ledger.devpeer.blocks import FILTER, check_block, header_hash
from citykit.ledger.devpeer.members import Members
from citykit.ledger.devpeer.messages import Malformed, read_transaction
from citykit.ledger.devpeer.simulation import key_hash
from citykit.ledger.devpeer.state import Change, Place, WorldState
from citykit.ledger.devpeer.storage import Found, Past, Storage
from citykit.ledger.devpeer.validation import hash_changes, namespaces_of, public_changes
from citykit.ledger.local.check import Finding
from citykit.ledger.port import LedgerDamaged
from citykit.state import locked

_HISTORY_MAX = 1_000_000


@dataclass
class _Replayed:
    """What follows from the blocks."""

    world: WorldState = field(default_factory=WorldState)
    index: dict[str, Found] = field(default_factory=dict)
    history: dict[tuple[str, str], list[Past]] = field(default_factory=dict)


def check_peer(folder: Path) -> list[Finding]:
    """What does not verify in a peer's folder; nothing if all does.

    Raises:
        NotFound: there is no peer's ledger in `folder`.
        EnvironmentFault: the peer runs.
    """
    path = folder / "ledger.db"
    if not path.exists():
        raise NotFound(f"no development peer's ledger in {folder}; name the folder it was started with")
    try:
        with locked(folder), closing(Storage(path)) as storage:
            return list(_differences(storage, _replayed(storage, _members(folder))))
    except (LedgerDamaged, sqlite3.DatabaseError, UnicodeDecodeError, DecodeError) as error:
        return [Finding(str(path), str(error))]


def _members(folder: Path) -> Members:
    roots = {
        path.parent.name: x509.load_pem_x509_certificate(path.read_bytes())
        for path in sorted((folder / "organisations").glob("*/ca.pem"))
    }
    return Members(roots, lambda: datetime.now(UTC))


def _replayed(storage: Storage, members: Members) -> _Replayed:
    found, previous = _Replayed(), b""
    for number in range(storage.height()):
        block = common_pb2.Block.FromString(storage.block(number))
        check_block(block, number, previous, members)
        previous = header_hash(block.header)
        if storage.number_of(previous) != number:
            raise LedgerDamaged(f"block {number} is not found by its hash")
        _replay(found, block)
    return found


def _replay(found: _Replayed, block: common_pb2.Block) -> None:
    number, changes = int(block.header.number), dict[tuple[Place, str], Change]()

    def before(place: Place, key: str) -> tuple[bytes | None, bytes]:
        entry = changes.get((place, key)) or found.world.get(place, key, found.world.height)
        return (entry.value, entry.metadata) if entry else (None, b"")

    for place, (data, code) in enumerate(zip(block.data.data, block.metadata.metadata[FILTER], strict=True)):
        if number == 0:
            continue  # the configuration
        try:
            transaction = read_transaction(common_pb2.Envelope.FromString(data))
        except Malformed as error:
            raise LedgerDamaged(f"block {number}, transaction {place}: {error.message}") from None
        identifier = transaction.headers.transaction
        found.index.setdefault(identifier, Found(number, place, code))
        if code != transaction_pb2.VALID:
            continue
        for one in namespaces_of(transaction.action.results):
            for change in public_changes(one, (number, place), before):
                changes[change.place, change.key] = change
                past = Past(identifier, change.value, transaction.headers.time)
                found.history.setdefault((one.name, change.key), []).insert(0, past)
            for change in hash_changes(one, (number, place)):
                changes[change.place, change.key] = change
    found.world.apply(number, list(changes.values()))


def _differences(storage: Storage, replayed: _Replayed) -> Iterator[Finding]:
    present = list(storage.state())
    for change in present:
        wrong = _wrong(change, replayed.world)
        if wrong:
            yield Finding(_where(change.place, change.key), wrong)
    stored = {(change.place, change.key) for change in present}
    for place, key in replayed.world.present():
        if (place, key) not in stored:
            yield Finding(_where(place, key), "the blocks hold it, the state does not")
    for identifier, place_found in replayed.index.items():
        if storage.transaction(identifier) != place_found:
            yield Finding(f"transaction {identifier}", "the index says another place or code than the blocks")
    for (chaincode, key), past in replayed.history.items():
        if storage.history(chaincode, key, storage.height(), _HISTORY_MAX) != past:
            yield Finding(f"history of {chaincode}/{key}", "it is not what the blocks hold")


def _wrong(change: Change, world: WorldState) -> str:
    if change.place.kind == "private":
        hashed = Place("hashed", change.place.chaincode, change.place.collection)
        entry = world.get(hashed, key_hash(change.key), world.height)
        digest = sha256(change.value or b"").digest()
        same = entry is not None and (entry.value, entry.version) == (digest, change.version)
        return "" if same else f"private data at {change.place.organisation} is not what was hashed"
    entry = world.get(change.place, change.key, world.height)
    if entry is None:
        return "the state holds it, the blocks do not"
    same = (entry.value, entry.version, entry.metadata) == (change.value, change.version, change.metadata)
    return "" if same else "value, version or metadata are not those of the blocks"


def _where(place: Place, key: str) -> str:
    parts = [place.kind, place.chaincode, place.collection, place.organisation, key]
    return "state " + "/".join(part for part in parts if part)
