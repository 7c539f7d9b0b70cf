"""`python -m infra.image lock`: asks each package client for what is served now, and writes `inputs.lock`. Needs Debian bookworm and Python 3.11."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from citykit.errors import EnvironmentFault
from infra.image import fetching
from infra.image.debian import dpkg_deb
from infra.image.lockfile import FILE, Input, text
from infra.image.recipes import DEBS, LEFT_OUT, ROOT
from infra.image.store import Store
from infra.postgres.binaries import SERVER, SERVER_VERSION

_LIST = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:list"
_REQUIREMENTS = (ROOT / "requirements.lock", ROOT / "infra" / "postgres" / "requirements.txt")
_PYTHON = (3, 11)


def lock(store: Store, target: Path = FILE) -> tuple[Input, ...]:
    """Writes the list; every package is in the cache afterwards.

    Raises:
        EnvironmentFault: a client is absent, or does not find a package.
    """
    if sys.version_info[:2] != _PYTHON:
        raise EnvironmentFault("make image-lock needs Python 3.11, which is the image's: wheels depend on the version")
    inputs = [*_debs(store), *_wheels(store), *_jars(store)]
    target.write_text(text(inputs), encoding="utf-8")
    return tuple(inputs)


def _debs(store: Store) -> list[Input]:
    with store.room() as room:
        told = fetching.download_debs(DEBS, room)
        found = [_deb(store, file) for file in sorted(room.glob("*.deb"))]
    _require(set(DEBS), {one.name for one in found}, "Debian's packages", told)
    return found


def _deb(store: Store, file: Path) -> Input:
    argv = [dpkg_deb(), "--show", "--showformat=${Package} ${Version}", str(file)]
    name, version = subprocess.run(argv, capture_output=True, text=True, check=True).stdout.split()  # noqa: S603
    return Input("deb", name, version, store.keep(file))


def _wheels(store: Store) -> list[Input]:
    found = []
    for requirements in _REQUIREMENTS:
        with store.room() as room:
            told = fetching.download_wheels(requirements, room)
            if told:
                raise EnvironmentFault(f"pip could not bring the wheels of {requirements.name}: {told[-600:]}")
            found += [_wheel(store, file) for file in sorted(room.glob("*.whl"))]
    return [one for one in found if one.name not in LEFT_OUT]


def _wheel(store: Store, file: Path) -> Input:
    name, version, *_ = file.name.split("-")  # a wheel's name has no other hyphens
    return Input("wheel", re.sub(r"[-_.]+", "-", name).lower(), version, store.keep(file))


def _jars(store: Store) -> list[Input]:
    with store.room() as room:
        listing = room / "jars.txt"
        pom = str(ROOT / "infra" / "kafka" / "pom.xml")
        told = fetching.run(
            ["mvn", "-B", "-q", "-f", pom, _LIST, "-DincludeScope=runtime", f"-DoutputFile={listing}"], room
        )
        if told or not listing.exists():
            raise EnvironmentFault(f"Maven could not list Kafka's jars: {told[-600:]}")
        wanted = [Input("jar", name, version, "") for name, version in _listed(listing.read_text("utf-8"))]
    wanted.append(Input("jar", SERVER, SERVER_VERSION, ""))
    with store.room() as room:
        told = fetching.CLIENTS["jar"](wanted, room)
        names = {f"{one.name.rpartition(':')[2]}-{one.version}.jar": one for one in wanted}
        found = [
            Input("jar", names[f.name].name, names[f.name].version, store.keep(f)) for f in sorted(room.glob("*.jar"))
        ]
    _require({one.name for one in wanted}, {one.name for one in found}, "jars", told)
    return found


def _listed(told: str) -> list[tuple[str, str]]:
    """`group:artifact` and version of each line `group:artifact:jar:version:scope`."""
    rows = re.findall(r"^\s+([\w.-]+):([\w.-]+):jar:([\w.-]+):(?:compile|runtime)", told, re.MULTILINE)
    return [(f"{group}:{artifact}", version) for group, artifact, version in rows]


def _require(wanted: set[str], found: set[str], what: str, told: str) -> None:
    if missing := sorted(wanted - found):
        raise EnvironmentFault(f"of {what} {', '.join(missing)} did not come: {told[-600:]}")
