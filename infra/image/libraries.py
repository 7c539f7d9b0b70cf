"""Which shared libraries programs need (ELF, System V ABI chapter 5): an image that lacks one is refused when it is built, not when a pod starts."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator

from infra.image.tree import FOLDER, Entry

_MAGIC = b"\x7fELF\x02\x01"  # 64 bits, little-endian
_LOAD, _DYNAMIC = 1, 2
_NULL, _NEEDED, _STRTAB = 0, 1, 5
_ENTRIES_MAX = 4_096


def provided(entries: Iterable[Entry]) -> set[str]:
    """Names under which libraries are found: those of files and of links to them."""
    return {name for one in entries if one.kind != FOLDER and ".so" in (name := one.path.rpartition("/")[2])}


def needed(entries: Iterable[Entry]) -> dict[str, str]:
    """Every library that some program names, with the path of one that does."""
    return {name: one.path for one in entries for name in needs(one.content)}


def needs(program: bytes) -> Iterator[str]:
    """DT_NEEDED of a program or library; nothing of what is no ELF file."""
    if not program.startswith(_MAGIC):
        return
    segments = list(_segments(program))
    dynamic = [tag for kind, at, _, size in segments if kind == _DYNAMIC for tag in _tags(program, at, size)]
    strings = next((value for tag, value in dynamic if tag == _STRTAB), None)
    start = None if strings is None else _file_offset(segments, strings)
    if start is None:
        return
    for tag, value in dynamic:
        if tag == _NEEDED:
            yield program[start + value : program.index(b"\0", start + value)].decode()


def _segments(program: bytes) -> Iterator[tuple[int, int, int, int]]:
    """Kind, place in the file, address and size of each."""
    (table,) = struct.unpack_from("<Q", program, 32)
    entry_size, count = struct.unpack_from("<HH", program, 54)
    for number in range(count):
        kind, _, at, address, _, size = struct.unpack_from("<IIQQQQ", program, table + number * entry_size)
        yield kind, at, address, size


def _tags(program: bytes, at: int, size: int) -> Iterator[tuple[int, int]]:
    for number in range(min(size // 16, _ENTRIES_MAX)):
        tag, value = struct.unpack_from("<qQ", program, at + number * 16)
        if tag == _NULL:
            return
        yield tag, value


def _file_offset(segments: Iterable[tuple[int, int, int, int]], address: int) -> int | None:
    for kind, at, start, size in segments:
        if kind == _LOAD and start <= address < start + size:
            return at + address - start
    return None
