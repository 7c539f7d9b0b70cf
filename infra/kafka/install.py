"""Brings the broker's jars from Maven into the cache, each checked against `jars.sha256`, and makes the archive of loaded classes."""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
from pathlib import Path

from citykit.errors import EnvironmentFault

VERSION = "4.3.1"
_FOLDER = Path(__file__).parent
_PLUGIN = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies"
_MAVEN_S = 600
_JAVA_MIN = 17


def folder(cache: Path) -> Path:
    """Where this version lives in the cache."""
    return cache / f"kafka-{VERSION}"


def jars(cache: Path) -> Path:
    return folder(cache) / "lib"


def install(cache: Path) -> None:
    """Nothing happens where everything is there and right.

    Raises:
        EnvironmentFault: Java or Maven is absent, Maven cannot reach its repository, or a jar is not the one pinned.
    """
    java()
    wanted = _pinned()
    if _wrong(jars(cache), wanted):
        _copy(jars(cache))
        if wrong := _wrong(jars(cache), wanted):
            raise EnvironmentFault(
                f"{len(wrong)} jars of Kafka {VERSION} are not the pinned ones, first {wrong[0]};"
                f" delete {folder(cache)} and install again, and where it stays so, trust this source no more"
            )


def java() -> str:
    """The path of Java, 17 or newer.

    Raises:
        EnvironmentFault: none, or an older one.
    """
    path = shutil.which("java")
    if path is None:
        raise EnvironmentFault(f"Kafka needs Java {_JAVA_MIN} or newer and there is none on the PATH; install a JRE")
    told = subprocess.run([path, "-version"], capture_output=True, text=True, check=False).stderr  # noqa: S603
    found = re.search(r'version "(\d+)', told)
    if found is None or int(found[1]) < _JAVA_MIN:
        raise EnvironmentFault(
            f"Kafka needs Java {_JAVA_MIN} or newer, and {path} is {found[1] if found else 'another'}"
        )
    return path


def _pinned() -> dict[str, str]:
    lines = (_FOLDER / "jars.sha256").read_text(encoding="ascii").splitlines()
    return {name: digest for digest, name in (line.split() for line in lines)}


def _wrong(lib: Path, wanted: dict[str, str]) -> list[str]:
    """Names of jars that are missing, other than pinned, or not pinned at all."""
    found = {path.name: path for path in lib.glob("*.jar")}
    extra = sorted(set(found) - set(wanted))
    return extra + [name for name, digest in wanted.items() if name not in found or _sha256(found[name]) != digest]


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _copy(lib: Path) -> None:
    maven = shutil.which("mvn")
    if maven is None:
        raise EnvironmentFault("Kafka comes from Maven and there is no `mvn` on the PATH; install Maven")
    shutil.rmtree(lib, ignore_errors=True)
    lib.mkdir(parents=True)
    argv = [maven, "-B", "-q", "-f", str(_FOLDER / "pom.xml"), _PLUGIN, "-DincludeScope=runtime"]
    try:
        done = subprocess.run(  # noqa: S603 - our own arguments
            [*argv, f"-DoutputDirectory={lib}"], capture_output=True, text=True, timeout=_MAVEN_S, check=False
        )
    except subprocess.TimeoutExpired:
        raise EnvironmentFault(f"Maven did not bring Kafka {VERSION} within {_MAVEN_S} s; try again") from None
    if done.returncode:
        told = (done.stdout + done.stderr).strip()[-500:]
        raise EnvironmentFault(f"Maven could not bring Kafka {VERSION}; is its repository reachable? It said: {told}")
