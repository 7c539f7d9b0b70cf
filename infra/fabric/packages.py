"""Chaincode packages of the kind `ccaas`: they hold no code, only where the chaincode runs as a service. Made by `infra.fabric.lifecycle`."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

_DIAL = "10s"


@dataclass(frozen=True)
class Endpoint:
    """Where an organisation runs a chaincode.

    Attributes:
        roots: CA certificates (PEM) the peer trusts when it connects; empty for plain text, which only a test uses.
        certificate, key: what the peer shows (PEM), where the chaincode asks for it.
    """

    address: str
    roots: str = ""
    certificate: str = ""
    key: str = ""


@dataclass(frozen=True)
class Package:
    """A package as it is installed; the same content has the same id."""

    label: str
    content: bytes

    @property
    def id(self) -> str:
        """How Fabric names it; the chaincode registers under it."""
        return f"{self.label}:{sha256(self.content).hexdigest()}"

    def write(self, folder: Path) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{self.label}.tar.gz"
        path.write_bytes(self.content)
        return path


def make_package(label: str, endpoint: Endpoint) -> Package:
    """The package of a chaincode that runs at `endpoint`. `label`: letters, digits, `_`, `.`, `+`, `-`."""
    code = _archive({"connection.json": _json(_connection(endpoint))})
    return Package(label, _archive({"metadata.json": _json({"type": "ccaas", "label": label}), "code.tar.gz": code}))


def contract_package(contract: str, version: str, endpoint: Endpoint) -> Package:
    """The package of a contract's version at an address; its `id` is what the chaincode registers under.

    Args:
        version: of the code; what stands behind a `+` makes another definition (`Policy.version`), and no other package.
    """
    return make_package(f"{contract}_{version.partition('+')[0]}", endpoint)


def _connection(endpoint: Endpoint) -> dict[str, object]:
    return {
        "address": endpoint.address,
        "dial_timeout": _DIAL,
        "tls_required": bool(endpoint.roots),
        "root_cert": endpoint.roots,
        "client_auth_required": bool(endpoint.certificate),
        "client_cert": endpoint.certificate,
        "client_key": endpoint.key,
    }


def _archive(files: dict[str, bytes]) -> bytes:
    """A tar.gz without times, so that its hash depends on the content alone."""
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(content), 0o644
            archive.addfile(member, io.BytesIO(content))
    return gzip.compress(plain.getvalue(), mtime=0)


def _json(document: dict[str, object]) -> bytes:
    return json.dumps(document, sort_keys=True).encode()
