"""Writes an OCI image layout (https://github.com/opencontainers/image-spec/blob/v1.1.0/image-layout.md) as one tar, which containerd imports."""

from __future__ import annotations

import datetime
import hashlib
import io
import json
import os
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from citykit.errors import InvalidArgument
from infra.image.recipes import Image

_LAYER = "application/vnd.oci.image.layer.v1.tar"
_CONFIG = "application/vnd.oci.image.config.v1+json"
_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_INDEX = "application/vnd.oci.image.index.v1+json"
_PLATFORM = {"architecture": "amd64", "os": "linux"}


@dataclass(frozen=True)
class Blob:
    """A layer that was written: a tar, not compressed, since compressors of different versions differ.

    Attributes:
        digest: SHA-256, hexadecimal.
        size: bytes.
    """

    name: str
    digest: str
    size: int
    path: Path


def write(image: Image, reference: str, layers: Sequence[Blob], archive: Path, created: str) -> str:
    """Writes the archive; the same layers give the same bytes.

    Args:
        reference: `localhost/provable-city:0.1.0`, the name containerd imports it under.
        created: RFC 3339.

    Returns:
        The manifest's digest, `sha256:...`.
    """
    config = _json(_config(image, layers, created))
    manifest = _json(_manifest(layers, config))
    index = _json(_index(manifest, reference))
    small = {f"blobs/sha256/{hashlib.sha256(one).hexdigest()}": one for one in (config, manifest)}
    large = {f"blobs/sha256/{blob.digest}": blob.path for blob in layers}
    top = {"oci-layout": _json({"imageLayoutVersion": "1.0.0"}), "index.json": index}
    with tarfile.open(archive, "w", format=tarfile.PAX_FORMAT) as tar:
        for folder in ("blobs", "blobs/sha256"):
            tar.addfile(_info(folder, tarfile.DIRTYPE, 0))
        for name, content in sorted(top.items()) + sorted(small.items()):
            tar.addfile(_info(name, tarfile.REGTYPE, len(content)), io.BytesIO(content))
        for name, path in sorted(large.items()):
            with path.open("rb") as file:
                tar.addfile(_info(name, tarfile.REGTYPE, path.stat().st_size), file)
    return _digest(manifest)


def created_at(environment: Mapping[str, str] = os.environ) -> str:
    """The moment that images are said to be made: SOURCE_DATE_EPOCH, else the beginning of 1970.

    Raises:
        InvalidArgument: it is no number of seconds.
    """
    seconds = environment.get("SOURCE_DATE_EPOCH", "0")
    if not seconds.isdigit() or len(seconds) > 11:  # noqa: PLR2004 - year 5138
        raise InvalidArgument(f"SOURCE_DATE_EPOCH must be seconds since 1970, not {seconds!r}; unset it or correct it")
    return datetime.datetime.fromtimestamp(int(seconds), datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _config(image: Image, layers: Sequence[Blob], created: str) -> dict[str, Any]:
    return {
        **_PLATFORM,
        "created": created,
        "config": {
            "User": image.user,
            "Env": [f"{name}={value}" for name, value in sorted(image.environment.items())],
            "Entrypoint": list(image.entrypoint),
            "WorkingDir": image.folder,
            "StopSignal": image.stop_signal,
            "Labels": {"org.opencontainers.image.title": image.name, "org.opencontainers.image.version": image.version},
        },
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{blob.digest}" for blob in layers]},
        "history": [{"created": created, "created_by": f"infra.image: {blob.name}"} for blob in layers],
    }


def _manifest(layers: Sequence[Blob], config: bytes) -> dict[str, Any]:
    return {
        "schemaVersion": 2,
        "mediaType": _MANIFEST,
        "config": {"mediaType": _CONFIG, "digest": _digest(config), "size": len(config)},
        "layers": [{"mediaType": _LAYER, "digest": f"sha256:{blob.digest}", "size": blob.size} for blob in layers],
    }


def _index(manifest: bytes, reference: str) -> dict[str, Any]:
    names = {
        "io.containerd.image.name": reference,
        "org.opencontainers.image.ref.name": reference.rpartition(":")[2],
    }
    one = {"mediaType": _MANIFEST, "digest": _digest(manifest), "size": len(manifest)}
    return {
        "schemaVersion": 2,
        "mediaType": _INDEX,
        "manifests": [{**one, "platform": _PLATFORM, "annotations": names}],
    }


def _json(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def _info(name: str, kind: bytes, size: int) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.size, info.mtime = kind, size, 0
    info.mode = 0o755 if kind == tarfile.DIRTYPE else 0o644
    return info
