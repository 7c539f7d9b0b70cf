"""A Merkle log on disk: entries of 32 bytes and the hash tiles over them, each level one flat file of tiles end to end.

Tile N of level L (C2SP tlog-tiles, height 8) is the bytes [N * 8192, (N + 1) * 8192) of `tiles.L`; `entries` holds the entries. Writes go to
fixed offsets, so a write cut short by a crash is written again. The caller keeps the committed size; what lies beyond it does not count.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from functools import lru_cache
from hashlib import sha256
from pathlib import Path

from citykit.merkle import EMPTY_ROOT, SubtreeHash, node_hash, root

HASH = 32
HEIGHT = 8
WIDTH = 1 << HEIGHT
TILE_BYTES = WIDTH * HASH
_LEVELS_MAX = 5
"""2^40 entries."""
_SUBTREES_KEPT = 16_384
_ENTRY_LENGTH = (32).to_bytes(2, "big")


class MerkleLog:
    """One log.

    Args:
        directory: the log's own folder.
        size: the committed number of entries.
    """

    def __init__(self, directory: Path, size: int) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._directory = directory
        self._files: dict[str, int] = {}
        self._large_subtree = lru_cache(_SUBTREES_KEPT)(self._read_subtree)
        self.size = size

    def write(self, entries: Sequence[bytes]) -> int:
        """Writes and syncs entries and their tiles after the committed ones; returns the size to commit.

        The log's size changes only with `commit`.
        """
        size = self.size + len(entries)
        self._put("entries", self.size * HASH, b"".join(entries))
        at, hashes = self.size, [sha256(b"\x00" + entry).digest() for entry in entries]
        for level in range(_LEVELS_MAX):
            if not hashes:
                break
            self._put(f"tiles.{level}", at * HASH, b"".join(hashes))
            at, hashes = self._above(level, at, hashes)
        for descriptor in self._files.values():
            os.fdatasync(descriptor)
        return size

    def commit(self, size: int) -> None:
        """The caller has made `size` durable."""
        self.size = size

    def entries(self, start: int, end: int) -> list[bytes]:
        """Entries [start, end)."""
        data = self._get("entries", start * HASH, (end - start) * HASH)
        return [data[at : at + HASH] for at in range(0, len(data), HASH)]

    def hashes(self) -> SubtreeHash:
        """Reads the hash of any full subtree from the tiles."""
        return self._subtree

    def root(self, size: int | None = None) -> bytes:
        """The root of the first `size` entries (default: all committed)."""
        wanted = self.size if size is None else size
        return root(self._subtree, wanted) if wanted else EMPTY_ROOT

    def tile(self, level: int, number: int, width: int) -> bytes:
        """`width` hashes (1 to 256) of a hash tile."""
        return self._get(f"tiles.{level}", number * TILE_BYTES, width * HASH)

    def entry_bundle(self, number: int, width: int) -> bytes:
        """`width` entries of an entry bundle, each with its length in two bytes."""
        return b"".join(_ENTRY_LENGTH + entry for entry in self.entries(number * WIDTH, number * WIDTH + width))

    def close(self) -> None:
        for descriptor in self._files.values():
            os.close(descriptor)
        self._files.clear()

    def first_damage(self) -> str | None:
        """Recomputes every tile from the entries; names the first record that does not fit, or None."""
        hashes = self._leaf_hashes()
        count = self.size
        for level in range(_LEVELS_MAX):
            if count == 0:
                return None
            above: list[bytes] = []
            for number, tile in enumerate(_tiles(hashes)):
                stored = self.tile(level, number, len(tile) // HASH)
                if stored != tile:
                    at = next((n for n in range(len(tile)) if stored[n : n + 1] != tile[n : n + 1]), 0)
                    return self._blame(level, number * WIDTH + at // HASH)
                if len(tile) == TILE_BYTES:
                    above.append(_reduce([tile[n : n + HASH] for n in range(0, TILE_BYTES, HASH)]))
            hashes, count = iter(above), len(above)
        return None

    def _blame(self, level: int, number: int) -> str:
        where = f"hash {number} of tile level {level} (file tiles.{level}, byte {number * HASH})"
        return f"entry {number} or {where}" if level == 0 else where

    def _leaf_hashes(self) -> Iterator[bytes]:
        for start in range(0, self.size, WIDTH * WIDTH):
            end = min(start + WIDTH * WIDTH, self.size)
            for entry in self.entries(start, end):
                yield sha256(b"\x00" + entry).digest()

    def _above(self, level: int, at: int, hashes: list[bytes]) -> tuple[int, list[bytes]]:
        """The hashes of the tiles that got full, and the position of the first of them in the level above."""
        first = at >> HEIGHT
        full = (at + len(hashes)) >> HEIGHT
        if full == first:
            return first, []
        start = first << HEIGHT
        before = self._get(f"tiles.{level}", start * HASH, (at - start) * HASH)
        row = [before[n : n + HASH] for n in range(0, len(before), HASH)] + hashes
        return first, [_reduce(row[n << HEIGHT : (n + 1) << HEIGHT]) for n in range(full - first)]

    def _subtree(self, level: int, index: int) -> bytes:
        """The hash of a full subtree, which never changes; the large ones, shared by many proofs, are kept."""
        return self._read_subtree(level, index) if level < HEIGHT else self._large_subtree(level, index)

    def _read_subtree(self, level: int, index: int) -> bytes:
        tile_level, height = divmod(level, HEIGHT)
        data = self._get(f"tiles.{tile_level}", (index << height) * HASH, HASH << height)
        return _reduce([data[at : at + HASH] for at in range(0, len(data), HASH)])

    def _descriptor(self, name: str) -> int:
        if name not in self._files:
            self._files[name] = os.open(self._directory / name, os.O_RDWR | os.O_CREAT, 0o644)
        return self._files[name]

    def _put(self, name: str, at: int, data: bytes) -> None:
        view = memoryview(data)
        while view:
            written = os.pwrite(self._descriptor(name), view, at)
            view, at = view[written:], at + written

    def _get(self, name: str, at: int, length: int) -> bytes:
        return os.pread(self._descriptor(name), length, at)


def _reduce(row: list[bytes]) -> bytes:
    """The root over 2^n hashes."""
    while len(row) > 1:
        row = [node_hash(row[n], row[n + 1]) for n in range(0, len(row), 2)]
    return row[0]


def _tiles(hashes: Iterator[bytes]) -> Iterator[bytes]:
    row: list[bytes] = []
    for item in hashes:
        row.append(item)
        if len(row) == WIDTH:
            yield b"".join(row)
            row = []
    if row:
        yield b"".join(row)
