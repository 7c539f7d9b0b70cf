"""Reads packages of Debian. `dpkg-deb` only unpacks: no maintainer script is run."""

from __future__ import annotations

import io
import re
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

from citykit.errors import EnvironmentFault, InvalidArgument
from infra.image import tree
from infra.image.tree import Entry

_UNPACK_S = 120
_LICENCE = re.compile(r"^License: ?(\S.*)$", re.MULTILINE)


def entries(package: Path, source: str) -> list[Entry]:
    """What a package brings, its folders apart.

    Args:
        source: how messages name it.

    Raises:
        InvalidArgument: it is no package, or holds what no image may.
    """
    with tarfile.open(fileobj=io.BytesIO(_tar(package, source))) as files:
        return list(_entries(files, source))


def licences(copyright_text: str) -> list[str]:
    """The short names in a machine-readable copyright file; none where it is prose (Debian policy, DEP 5)."""
    return sorted(set(_LICENCE.findall(copyright_text))) if copyright_text.startswith("Format:") else []


def dpkg_deb() -> str:
    """Raises EnvironmentFault where there is none."""
    found = shutil.which("dpkg-deb")
    if found is None:
        raise EnvironmentFault("images are made of Debian's packages and there is no `dpkg-deb`; install dpkg")
    return found


def _tar(package: Path, source: str) -> bytes:
    argv = [dpkg_deb(), "--fsys-tarfile", str(package)]
    done = subprocess.run(argv, capture_output=True, timeout=_UNPACK_S, check=False)  # noqa: S603 - our own arguments
    if done.returncode:
        told = done.stderr.decode(errors="replace").strip()[-300:]
        raise InvalidArgument(f"{source} cannot be unpacked: {told}")
    return done.stdout


def _entries(files: tarfile.TarFile, source: str) -> Iterator[Entry]:
    for member in files:
        if member.isdir():
            continue
        if member.issym():
            yield tree.packaged(member.name, tree.LINK, member.mode, source, target=member.linkname)
        elif member.isreg() or member.islnk():
            held = files.extractfile(member)  # of a hard link: the file it names in the same package
            content = held.read() if held else b""
            yield tree.packaged(member.name, tree.FILE, member.mode, source, content=content)
        else:
            raise InvalidArgument(f"{source} has {member.name}, which is neither file, folder nor link; leave it out")
