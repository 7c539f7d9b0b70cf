"""Reads wheels (https://packaging.python.org/en/latest/specifications/binary-distribution-format/): unpacked and checked, nothing of them is run."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import zipfile
from collections.abc import Iterator
from email.message import Message
from email.parser import Parser
from pathlib import Path

from citykit.errors import InvalidArgument
from infra.image import tree
from infra.image.tree import Entry

SITE = "usr/local/lib/python3.11/dist-packages"
"""Where Debian's Python looks for what Debian did not package."""
_INTO_SITE = ("purelib", "platlib")
_LEFT_OUT = ("scripts", "headers", "data")
_UNCHECKED = ("RECORD", "RECORD.jws", "RECORD.p7s")
_BYTES_MAX = 1 << 30


def entries(wheel: Path, source: str) -> list[Entry]:
    """What a wheel puts into the folder of Python's packages; its programs, headers and RECORD are left out.

    Raises:
        InvalidArgument: it is no wheel, is not what its RECORD says, or holds what no image may.
    """
    try:
        with zipfile.ZipFile(wheel) as files:
            if sum(one.file_size for one in files.infolist()) > _BYTES_MAX:
                raise InvalidArgument(f"{source} unpacks to more than {_BYTES_MAX >> 20} MiB; do not use it")
            return list(_entries(files, _info_folder(files, source), source))
    except (zipfile.BadZipFile, UnicodeDecodeError) as error:
        raise InvalidArgument(f"{source} is no wheel: {error}") from None


def metadata(found: list[Entry]) -> Message:
    """The METADATA among a wheel's entries."""
    content = next((one.content for one in found if one.path.endswith(".dist-info/METADATA")), b"")
    return Parser().parsestr(content.decode("utf-8", errors="replace"), headersonly=True)


def licences(about: Message) -> list[str]:
    """Its licence as its authors state it: an SPDX expression, else a short name, else what its classifiers say."""
    for field in ("License-Expression", "License"):
        stated = (about.get(field) or "").strip()
        if stated and "\n" not in stated and stated != "UNKNOWN":
            return [stated]
    rows = about.get_all("Classifier") or []
    return sorted({row.rpartition("::")[2].strip() for row in rows if row.startswith("License ::")})


def _info_folder(files: zipfile.ZipFile, source: str) -> str:
    found = {name.split("/")[0] for name in files.namelist() if name.split("/")[0].endswith(".dist-info")}
    if len(found) != 1:
        raise InvalidArgument(f"{source} has {len(found)} folders .dist-info; a wheel has one")
    return found.pop()


def _entries(files: zipfile.ZipFile, info: str, source: str) -> Iterator[Entry]:
    record = _record(files, info, source)
    for one in files.infolist():
        path = one.filename
        if one.is_dir() or path.startswith(tuple(f"{info}/{name}" for name in _UNCHECKED)):
            continue
        content = files.read(one)
        if record.get(path) != hashlib.sha256(content).digest():
            raise InvalidArgument(f"{source}: {path} is not what its RECORD says; do not use this wheel")
        if (inside := _place(path, info.removesuffix(".dist-info") + ".data/", source)) is not None:
            mode = one.external_attr >> 16
            yield tree.packaged(inside, tree.FILE, mode, source, content=content)


def _record(files: zipfile.ZipFile, info: str, source: str) -> dict[str, bytes]:
    """SHA-256 of each file, by its path in the wheel."""
    try:
        rows = list(csv.reader(io.StringIO(files.read(f"{info}/RECORD").decode("utf-8"))))
    except KeyError:
        raise InvalidArgument(f"{source} has no RECORD; do not use this wheel") from None
    stated = {row[0]: row[1].partition("=") for row in rows if len(row) > 1}
    return {
        path: base64.urlsafe_b64decode(digest + "=" * (-len(digest) % 4))
        for path, (algorithm, _, digest) in stated.items()
        if algorithm == "sha256"
    }


def _place(path: str, data: str, source: str) -> str | None:
    if not path.startswith(data):
        return f"{SITE}/{path}"
    kind, _, rest = path.removeprefix(data).partition("/")
    if kind in _LEFT_OUT:
        return None
    if kind not in _INTO_SITE:
        raise InvalidArgument(f"{source} has {path}; of .data only {', '.join(_INTO_SITE + _LEFT_OUT)} are known")
    return f"{SITE}/{rest}"
