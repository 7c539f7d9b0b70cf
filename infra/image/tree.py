"""Files of an image, in memory and checked: what leaves the image or is set-uid is refused. Merged into trees, written as reproducible tars."""

from __future__ import annotations

import hashlib
import io
import posixpath
import stat
import tarfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from citykit.errors import InvalidArgument

FILE, FOLDER, LINK = "file", "folder", "link"
_PROGRAM, _PLAIN, _FOLDER, _LINK = 0o755, 0o644, 0o755, 0o777
_SPECIAL = stat.S_ISUID | stat.S_ISGID | stat.S_ISVTX


@dataclass(frozen=True)
class Entry:
    """One file, folder or symbolic link.

    Attributes:
        path: from the image's root, without a leading slash.
        mode: permission bits; of what comes from packages only whether it may be executed is kept.
        target: of a link.
        owner: user and group id.
    """

    path: str
    kind: str = FILE
    mode: int = _PLAIN
    content: bytes = b""
    target: str = ""
    owner: int = 0


Tree = dict[str, Entry]


def file(path: str, content: bytes | str, mode: int = _PLAIN) -> Entry:
    """A file of ours."""
    return Entry(path, FILE, mode, content.encode() if isinstance(content, str) else content)


def folder(path: str, mode: int = _FOLDER, owner: int = 0) -> Entry:
    return Entry(path, FOLDER, mode, owner=owner)


def link(path: str, target: str) -> Entry:
    return Entry(path, LINK, _LINK, target=target)


def packaged(path: str, kind: str, mode: int, source: str, *, content: bytes = b"", target: str = "") -> Entry:
    """An entry of a package, checked and with modes made plain.

    Raises:
        InvalidArgument: the path or the link leaves the image, or the file is set-uid, set-gid or sticky.
    """
    inside = _inside(path, source)
    if kind == FILE and mode & _SPECIAL:
        raise InvalidArgument(
            f"{source} has the file {inside} with mode {mode:o}; an image holds no set-uid, set-gid or sticky file:"
            " leave it out in infra/image/recipes.py"
        )
    if kind == LINK:
        _require_target_inside(inside, target, source)
    plain = {FILE: _PROGRAM if mode & 0o111 else _PLAIN, FOLDER: _FOLDER, LINK: _LINK}[kind]
    return Entry(inside, kind, plain, content, target)


def merged(parts: Iterable[tuple[str, Iterable[Entry]]]) -> Tree:
    """One tree of what several sources bring.

    Raises:
        InvalidArgument: two bring different things under one path, or a path goes through a link or file.
    """
    tree: Tree = {}
    for source, entries in parts:
        for entry in entries:
            known = tree.get(entry.path)
            if known is not None and known != entry and not known.kind == entry.kind == FOLDER:
                raise InvalidArgument(f"{source} brings another {entry.path} than a package before it; leave one out")
            tree[entry.path] = entry
    return _with_folders(tree)


def kept(entries: Iterable[Entry], keep: Callable[[str], bool]) -> Iterator[Entry]:
    """The entries that an image wants; folders come back where a file needs them."""
    return (entry for entry in entries if entry.kind != FOLDER and keep(entry.path))


def write_tar(tree: Mapping[str, Entry], target: BinaryIO) -> tuple[str, int]:
    """Writes the tree as a layer: sorted, time 0, numeric owners.

    Returns:
        SHA-256 (hexadecimal) and size in bytes.
    """
    counted = _Counted(target)
    with tarfile.open(fileobj=counted, mode="w|", format=tarfile.PAX_FORMAT) as tar:
        for path in sorted(tree):
            entry = tree[path]
            tar.addfile(_info(entry), io.BytesIO(entry.content) if entry.kind == FILE else None)
    return counted.hash.hexdigest(), counted.size


def write_folder(tree: Mapping[str, Entry], target: Path) -> None:
    """Puts the files and links of a tree into a new folder, for a program that must see them."""
    for path in sorted(tree):
        entry, place = tree[path], target / path
        if entry.kind == FOLDER:
            place.mkdir(parents=True, exist_ok=True)
        elif entry.kind == LINK:
            place.symlink_to(entry.target)
        else:
            place.write_bytes(entry.content)
            place.chmod(entry.mode)


class _Counted(io.RawIOBase):
    """A file that knows the hash and the size of what went through it."""

    def __init__(self, target: BinaryIO) -> None:
        self._target, self.hash, self.size = target, hashlib.sha256(), 0

    def writable(self) -> bool:
        return True

    def write(self, data: bytes) -> int:  # type: ignore[override]  # tarfile gives bytes
        self.hash.update(data)
        self.size += len(data)
        return self._target.write(data)


def _info(entry: Entry) -> tarfile.TarInfo:
    info = tarfile.TarInfo(entry.path)
    info.type = {FILE: tarfile.REGTYPE, FOLDER: tarfile.DIRTYPE, LINK: tarfile.SYMTYPE}[entry.kind]
    info.mode, info.size, info.linkname = entry.mode, len(entry.content), entry.target
    info.uid = info.gid = entry.owner
    info.mtime = 0
    return info


def _with_folders(tree: Tree) -> Tree:
    for path in list(tree):
        for parent in _parents(path):
            known = tree.setdefault(parent, folder(parent))
            if known.kind != FOLDER:
                raise InvalidArgument(f"{path} goes through {parent}, which is a {known.kind} and not a folder")
    return tree


def _parents(path: str) -> Iterator[str]:
    while path := posixpath.dirname(path):
        yield path


def _inside(path: str, source: str) -> str:
    plain = posixpath.normpath(path.removeprefix("./"))
    if {"", ".."} & set(path.split("/")) or "\\" in path or "\0" in path or plain == ".":
        raise InvalidArgument(f"{source} has the path {path!r}, which leaves the image; do not use this package")
    return plain


def _require_target_inside(path: str, target: str, source: str) -> None:
    if target.startswith("/"):
        return  # from the image's own root
    if posixpath.normpath(posixpath.join(posixpath.dirname(path), target)).split("/")[0] == "..":
        raise InvalidArgument(f"{source} has the link {path} to {target!r}, which leaves the image; do not use it")
