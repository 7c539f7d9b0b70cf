"""Tiny packages for the builder's tests: made on the spot, so no test needs the network or today's Debian."""

from __future__ import annotations

import base64
import hashlib
import io
import subprocess
import tarfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from infra.image.lockfile import Input
from infra.image.store import Store, sha256

CONTROL = "Package: {name}\nVersion: {version}\nArchitecture: all\nMaintainer: Nobody <nobody@city.test>\nDescription: a test\n"


def deb(
    folder: Path, name: str, files: Mapping[str, bytes], *, version: str = "1.0", links: Mapping[str, str] | None = None
) -> Path:
    """A package of Debian, made with `dpkg-deb`."""
    root = folder / f"{name}.root"
    for path, content in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(content)
    for path, target in (links or {}).items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).symlink_to(target)
    (root / "DEBIAN").mkdir(parents=True)
    (root / "DEBIAN" / "control").write_text(CONTROL.format(name=name, version=version))
    (root / "DEBIAN" / "postinst").write_text("#!/bin/sh\ntouch /nobody-runs-this\n")
    (root / "DEBIAN" / "postinst").chmod(0o755)
    return packed(root, folder / f"{name}_{version}_all.deb")


def packed(root: Path, target: Path) -> Path:
    subprocess.run(
        ["dpkg-deb", "--root-owner-group", "--build", str(root), str(target)], check=True, capture_output=True
    )
    return target


def raw_deb(folder: Path, members: Sequence[tarfile.TarInfo]) -> Path:
    """A package whose archive holds just these members: what dpkg-deb itself would never pack."""
    parts = {"debian-binary": b"2.0\n", "control.tar": _tar([tarfile.TarInfo("./control")]), "data.tar": _tar(members)}
    target = folder / "raw.deb"
    with target.open("wb") as file:
        file.write(b"!<arch>\n")
        for name, content in parts.items():
            file.write(f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(content):<10}`\n".encode())
            file.write(content + b"\n" * (len(content) % 2))
    return target


def member(name: str, kind: bytes = tarfile.REGTYPE, *, mode: int = 0o644, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.mode, info.linkname = kind, mode, target
    return info


def wheel(
    folder: Path,
    name: str,
    files: Mapping[str, bytes],
    *,
    version: str = "1.0",
    record: Mapping[str, bytes] | None = None,
) -> Path:
    """A wheel; `record` replaces what RECORD says of a file."""
    info = f"{name}-{version}.dist-info"
    about = f"Metadata-Version: 2.4\nName: {name}\nVersion: {version}\nLicense-Expression: MIT\n".encode()
    everything = {**files, f"{info}/METADATA": about, f"{info}/WHEEL": b"Wheel-Version: 1.0\n"}
    rows = [
        f"{path},sha256={_digest((record or {}).get(path, content))},{len(content)}"
        for path, content in everything.items()
    ]
    target = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(target, "w") as packed_files:
        for path, content in {**everything, f"{info}/RECORD": "\n".join([*rows, f"{info}/RECORD,,"]).encode()}.items():
            packed_files.writestr(path, content)
    return target


def stored(store: Store, kind: str, file: Path, name: str, version: str = "1.0") -> Input:
    """A package put into the cache, with its line of the list."""
    store.keep(file)
    return Input(kind, name, version, sha256(file))


def _digest(content: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).decode().rstrip("=")


def _tar(members: Sequence[tarfile.TarInfo]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for one in members:
            tar.addfile(one)
    return buffer.getvalue()
