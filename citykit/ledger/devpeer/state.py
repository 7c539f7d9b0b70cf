"""World state in memory: values with versions, kept in key order, with snapshots for those who still read an older height.

Three kinds of tables share one form: public data of a chaincode, hashes of its private data, and the private data one organisation keeps.
The storage holds the same rows; here they are looked up without a disk.
"""

from __future__ import annotations

import bisect
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, field

Version = tuple[int, int]
"""(block, transaction in it)"""


@dataclass(frozen=True, order=True, slots=True)
class Place:
    """A table.

    Attributes:
        kind: public, hashed or private.
        organisation: whose memory, of private data.
    """

    kind: str
    chaincode: str
    collection: str = ""
    organisation: str = ""


@dataclass(slots=True)
class Entry:
    """What stands under a key since `version`; without a value: deleted."""

    value: bytes | None
    version: Version
    metadata: bytes = b""
    before: Entry | None = None


@dataclass(frozen=True, slots=True)
class Change:
    """A key's new entry, as a committed transaction made it."""

    place: Place
    key: str
    value: bytes | None
    version: Version
    metadata: bytes = b""


@dataclass(slots=True)
class _Table:
    entries: dict[str, Entry] = field(default_factory=dict)
    keys: list[str] = field(default_factory=list)


class WorldState:
    """Committed state up to `height` blocks. One thread uses it."""

    def __init__(self) -> None:
        self.height = 0
        self._tables: dict[Place, _Table] = {}
        self._readers: Counter[int] = Counter()
        self._stale: deque[tuple[int, Place, str]] = deque()

    def open_snapshot(self) -> int:
        """The present height, kept readable until `close_snapshot`."""
        self._readers[self.height] += 1
        return self.height

    def close_snapshot(self, height: int) -> None:
        self._readers[height] -= 1
        if not self._readers[height]:
            del self._readers[height]

    def get(self, place: Place, key: str, height: int) -> Entry | None:
        """The entry of a key as of `height` blocks, or None where there was none."""
        table = self._tables.get(place)
        entry = table.entries.get(key) if table else None
        while entry is not None and entry.version[0] >= height:
            entry = entry.before
        return entry if entry is not None and entry.value is not None else None

    def range(
        self, place: Place, start: str, end: str, height: int, *, inclusive: bool = False
    ) -> Iterator[tuple[str, Entry]]:
        """Entries from `start` up to `end` (with it if `inclusive`; empty: to the last), in order of keys' UTF-8 bytes.

        Goes on correctly where blocks are applied between two steps.
        """
        table = self._tables.get(place)
        key, first = start, True
        while table is not None:
            at = (bisect.bisect_left if first else bisect.bisect_right)(table.keys, key)
            if at >= len(table.keys):
                return
            key, first = table.keys[at], False
            if end and (key > end if inclusive else key >= end):
                return
            entry = self.get(place, key, height)
            if entry is not None:
                yield key, entry

    def present(self) -> Iterator[tuple[Place, str]]:
        """Every key that has a value now."""
        for place, table in self._tables.items():
            for key, entry in table.entries.items():
                if entry.value is not None:
                    yield place, key

    def load(self, change: Change) -> None:
        """An entry as the storage holds it, at open."""
        self._put(change)

    def apply(self, block: int, changes: list[Change]) -> None:
        """The changes of block number `block`; older snapshots still see what was before."""
        oldest = min(self._readers, default=block + 1)
        self._sweep(oldest)
        for change in changes:
            before = self._put(change)
            if before is not None and oldest <= block:
                self._tables[change.place].entries[change.key].before = before
            if before is not None or change.value is None:
                self._stale.append((block, change.place, change.key))
        self.height = block + 1
        self._sweep(min(self._readers, default=self.height))

    def _put(self, change: Change) -> Entry | None:
        table = self._tables.setdefault(change.place, _Table())
        before = table.entries.get(change.key)
        table.entries[change.key] = Entry(change.value, change.version, change.metadata)
        if before is None:
            bisect.insort(table.keys, change.key)
        return before

    def _sweep(self, oldest: int) -> None:
        """Forgets what no snapshot of `oldest` or later can see."""
        while self._stale and self._stale[0][0] < oldest:
            _, place, key = self._stale.popleft()
            table = self._tables[place]
            entry = table.entries.get(key)
            if entry is not None:
                self._cut(table, key, entry, oldest)

    @staticmethod
    def _cut(table: _Table, key: str, entry: Entry, oldest: int) -> None:
        seen: Entry | None = entry
        while seen is not None and seen.version[0] >= oldest:
            seen = seen.before
        if seen is not None:
            seen.before = None
        if entry.value is None and seen is entry:
            del table.entries[key]
            table.keys.pop(bisect.bisect_left(table.keys, key))
