"""The peer's identities made before the peer: packed into one file, renewed there, and taken over at a start.

`city provision secrets` makes and renews the file, `city serve ledger --identity FILE` takes it over. In it are the folders `organisations` and
`tls` as `citykit.ledger.devpeer.enrolment` lays them out, in a tar that is the same for the same content.
"""

from __future__ import annotations

import datetime
import io
import re
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from cryptography import x509

from citykit.errors import FailedPrecondition, InvalidArgument
from citykit.ledger.devpeer.certificates import write_private
from citykit.ledger.devpeer.enrolment import enrol
from citykit.ledger.devpeer.specification import Specification
from citykit.state import locked

_FOLDERS = ("organisations", "tls")
_NAME = re.compile(r"(organisations|tls)(/[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}){1,4}\.(pem|key)")
_FILES_MAX, _FILE_MAX = 2_000, 65_536
_AUTHORITY = "ca.pem"
Files = dict[str, bytes]
"""Path below the state folder -> content."""


def pack(files: Mapping[str, bytes]) -> bytes:
    """One tar, the same for the same files whenever and by whomever it is made."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name in sorted(files):
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(files[name]), 0o600
            tar.addfile(entry, io.BytesIO(files[name]))
    return packed.getvalue()


def unpack(packed: bytes) -> Files:
    """The files in a tar.

    Raises:
        InvalidArgument: no tar, or one that holds anything but the peer's certificates and keys.
    """
    files: Files = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(packed), mode="r:") as tar:
            for entry in tar:
                files[entry.name] = _content(tar, entry, len(files))
    except tarfile.TarError:
        raise InvalidArgument("the ledger's identities are no tar; `city provision secrets` makes one") from None
    if not any(name.endswith(f"/{_AUTHORITY}") for name in files):
        raise InvalidArgument("the ledger's identities hold no authority; `city provision secrets` makes them")
    return files


def _content(tar: tarfile.TarFile, entry: tarfile.TarInfo, before: int) -> bytes:
    fits = entry.isreg() and entry.size <= _FILE_MAX and before < _FILES_MAX and ".." not in entry.name
    file = tar.extractfile(entry) if fits and _NAME.fullmatch(entry.name) else None
    if file is None:
        raise InvalidArgument(
            f"the ledger's identities hold {entry.name[:100]!r}: only files NAME.pem and NAME.key of at most {_FILE_MAX} bytes below"
            f" {' and '.join(_FOLDERS)} are allowed"
        )
    return file.read()


def made(specification: Specification, now: datetime.datetime, before: Mapping[str, bytes] | None = None) -> Files:
    """The identities of a specification.

    Args:
        before: those there are already: authorities stay, what has used up half its life or lacks a host is issued again.

    Raises:
        FailedPrecondition: a certificate there cannot be read, or an authority has run out.
    """
    with tempfile.TemporaryDirectory(prefix="city-identities-") as name:
        folder = Path(name)
        for path, content in (before or {}).items():
            write_private(folder / path, content)
        for certificate in _certificates(folder):
            if certificate.name != _AUTHORITY and _due(certificate, now, specification.hosts):
                certificate.unlink()
        enrol(folder, specification, now)
        found = [path for one in _FOLDERS for path in (folder / one).rglob("*") if path.is_file()]
        return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


def _certificates(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*.pem"))


def _due(path: Path, now: datetime.datetime, hosts: Sequence[str]) -> bool:
    certificate = _read(path.read_bytes(), path.name)
    begins, ends = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return now >= begins + (ends - begins) / 2
    known = {*names.get_values_for_type(x509.DNSName), *map(str, names.get_values_for_type(x509.IPAddress))}
    return now >= begins + (ends - begins) / 2 or not known.issuperset(hosts)


def _read(pem: bytes, name: str) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(pem)
    except ValueError:
        raise FailedPrecondition(f"{name} among the ledger's identities is no certificate") from None


def adopt(state: Path, packed: bytes) -> list[str]:
    """Takes over what the peer's state folder lacks, and certificates newer than its own. A start that was interrupted is repeated.

    Returns:
        The paths that were written.

    Raises:
        InvalidArgument: see `unpack`.
        FailedPrecondition: the folder belongs to other authorities.
        EnvironmentFault: a peer runs on it.
    """
    files = unpack(packed)
    with locked(state):
        for name, content in files.items():
            if name.endswith(f"/{_AUTHORITY}"):
                _require_same(state / name, content)
        changed = [name for name, content in files.items() if name.endswith(".pem") and _newer(state / name, content)]
        keys = [f"{name.removesuffix('.pem')}.key" for name in changed]
        written = [name for name in (*keys, *changed) if name in files]  # each key before its certificate
        for name in written:
            _write(state, name, files[name])
    return written


def _require_same(kept: Path, content: bytes) -> None:
    if kept.exists() and kept.read_bytes() != content:
        raise FailedPrecondition(
            f"{kept} is another authority than the identities given, and the ledger there was signed under it: give the identities"
            " this ledger began with, or an empty state folder for a new ledger"
        )


def _newer(kept: Path, content: bytes) -> bool:
    if not kept.exists() or not kept.with_suffix(".key").exists():
        return True
    before = kept.read_bytes()
    if before == content:
        return False
    return _read(content, kept.name).not_valid_before_utc > _read(before, kept.name).not_valid_before_utc


def _write(state: Path, name: str, content: bytes) -> None:
    folder = state
    for part in Path(name).parent.parts:
        folder /= part
        folder.mkdir(mode=0o700, exist_ok=True)
    unfinished = state / "identity.part"
    write_private(unfinished, content)
    unfinished.replace(state / name)
