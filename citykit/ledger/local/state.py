"""The world state of the embedded ledger: values with versions, in memory, rebuilt from the blocks at open."""

from __future__ import annotations

import bisect
from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any

from citykit.canonical import encode
from citykit.ledger.contract import Json, JsonObject
from citykit.ledger.local.check import value_hash
from citykit.ledger.port import TransactionStatus
from citykit.ledger.rules import checked_key, checked_limit, checked_value


class WorldState:
    """Committed values. Versions are "<block>.<index>"."""

    def __init__(self) -> None:
        self._values: dict[str, tuple[Json, str]] = {}
        self._keys: list[str] = []

    def get(self, key: str) -> tuple[Json, str | None]:
        return self._values.get(key, (None, None))

    def range(self, prefix: str, limit: int) -> list[tuple[str, Json, str]]:
        start = bisect.bisect_left(self._keys, prefix)
        found = []
        for key in self._keys[start : start + limit]:
            if not key.startswith(prefix):
                break
            value, version = self._values[key]
            found.append((key, value, version))
        return found

    def apply(self, writes: Sequence[Sequence[Any]], values: Sequence[Any], version: str) -> None:
        for (key, _), value in zip(writes, values, strict=True):
            known = key in self._values
            if value is None and known:
                del self._values[key]
                self._keys.pop(bisect.bisect_left(self._keys, key))
            elif value is not None:
                self._values[key] = (value, version)
                if not known:
                    bisect.insort(self._keys, key)

    def validate(self, reads: Sequence[Sequence[Any]], changed: Mapping[str, str]) -> TransactionStatus:
        """MVCC: every read must still be what it was, also against earlier transactions of the same block (`changed`)."""
        for key, version in reads:
            if isinstance(version, str) and version.startswith("range:"):
                prefix, limit = key.removesuffix("*"), int(version.split(":")[1])
                now = range_version(self.range(prefix, limit), limit)
                conflict = now != version or any(name.startswith(prefix) for name in changed)
            else:
                conflict = self.get(key)[1] != version or key in changed
            if conflict:
                return TransactionStatus.MVCC_READ_CONFLICT
        return TransactionStatus.VALID


def range_version(found: Sequence[tuple[str, Json, str]], limit: int) -> str:
    """What a range read saw, so that a phantom shows: "range:<limit>:<hash of keys and versions>"."""
    seen = encode([[key, version] for key, _, version in found])
    return f"range:{limit}:{sha256(seen).hexdigest()}"


class Simulation:
    """One simulated transaction; see `citykit.ledger.contract.Transaction`. Keys are kept apart by contract."""

    def __init__(self, state: WorldState, contract: str, transaction: str, time: int, submitter: str) -> None:
        self._state = state
        self._prefix = f"{contract}/"
        self.id = transaction
        self.time = time
        self.submitter = submitter
        self.reads: dict[str, str | None] = {}
        self.writes: dict[str, Json] = {}
        self.events: list[JsonObject] = []

    def get(self, key: str) -> Json:
        value, version = self._state.get(self._prefix + key)
        self.reads[self._prefix + key] = version
        return value

    def put(self, key: str, value: Json) -> None:
        checked_value(key, value)
        self.writes[self._prefix + checked_key(key)] = value

    def delete(self, key: str) -> None:
        self.writes[self._prefix + checked_key(key)] = None

    def range(self, prefix: str, *, limit: int) -> list[tuple[str, Json]]:
        checked_limit(limit)
        full = self._prefix + prefix
        found = self._state.range(full, limit)
        self.reads[full + "*"] = range_version(found, limit)
        return [(key.removeprefix(self._prefix), value) for key, value, _ in found]

    def emit(self, name: str, payload: JsonObject) -> None:
        self.events.append({"name": name, "payload": payload})

    def document(self, channel: str, function: str, args: JsonObject, time: str, result: Json) -> JsonObject:
        """The transaction as it is endorsed (docs/PROOFS.md)."""
        return {
            "args": args,
            "channel": channel,
            "contract": self._prefix.removesuffix("/"),
            "events": self.events,
            "function": function,
            "id": self.id,
            "reads": [[key, version] for key, version in sorted(self.reads.items())],
            "result": result,
            "submitter": self.submitter,
            "time": time,
            "writes": [[key, value_hash(value)] for key, value in sorted(self.writes.items())],
        }

    def values(self) -> list[Json]:
        """The values behind the document's write hashes, in their order."""
        return [value for _, value in sorted(self.writes.items())]
