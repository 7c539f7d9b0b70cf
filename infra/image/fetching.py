"""Brings the packages of `inputs.lock` into the cache with the client of each kind, checked by hash. Called by `build` and `lock`."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from citykit.errors import EnvironmentFault
from infra.image.lockfile import Input
from infra.image.store import Store

_FETCH_S = 900
_TOLD = 400
_COPY = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies"
_PLATFORMS = (*(f"manylinux_2_{minor}_x86_64" for minor in (28, 27, 26, 24, 17, 12, 5)), "manylinux2014_x86_64")
PIP_TARGET = (
    *("--only-binary", ":all:", "--no-deps", "--require-hashes"),
    *("--python-version", "3.11", "--implementation", "cp", "--abi", "cp311", "--abi", "abi3", "--abi", "none"),
    *(word for platform in _PLATFORMS for word in ("--platform", platform)),
)
"""pip's arguments for what runs on Debian's Python 3.11 on x86-64."""
_COMPLAINTS = ("E: ", "ERROR: ", "[ERROR] ")
_OTHER_HASH = "Expected sha256"  # pip's words
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
_SEPARATORS = re.compile(r"[-_.:]+")
_REFRESH = "refresh the list with `make image-lock` and commit it"


def fetch(
    store: Store, inputs: Sequence[Input], *, offline: bool = False, clients: Mapping[str, Client] | None = None
) -> None:
    """Brings what the cache lacks.

    Args:
        offline: nothing is fetched; what is missing is an error.
        clients: of each kind; None is the real ones.

    Raises:
        EnvironmentFault: a package is no longer served, is another than the pinned one, or its client is absent.
    """
    for kind, client in (CLIENTS if clients is None else clients).items():
        missing = [one for one in inputs if one.kind == kind and not store.input(one).exists()]
        if not missing:
            continue
        if offline:
            raise EnvironmentFault(f"{_named(missing)} not in the cache {store.folder}; build once without --offline")
        with store.room() as room:
            told = client(missing, room)
            kept = {store.keep(file): file.name for file in sorted(room.iterdir())}
        _require(missing, kept, told)


Client = Callable[[Sequence[Input], Path], str]
"""Brings packages into a folder, and returns what it said where it could not bring them all."""


def _require(wanted: Sequence[Input], kept: Mapping[str, str], told: str) -> None:
    """Every wanted package came, and is the one that was pinned."""
    lacking = [one for one in wanted if one.sha256 not in kept]
    if not lacking:
        return
    named = [one for one in lacking if _short(one) in told]
    other = [one for one in lacking if any(_is_of(name, one) for name in kept.values())]
    if not other and _OTHER_HASH in told:
        other = named or lacking
    if other:
        raise EnvironmentFault(
            f"{_named(other)} served with another content than the pinned one;"
            f" do not use it before you know why, then {_REFRESH}"
        )
    raise EnvironmentFault(f"{_named(named or lacking)} not served: {_reason(told)}. If it stays so, {_REFRESH}")


def _short(one: Input) -> str:
    return one.name.rpartition(":")[2]


def _is_of(file: str, one: Input) -> bool:
    """Whether a file's name is that of a package in this version."""
    found, wanted = (
        _SEPARATORS.sub("-", text.lower().replace("%3a", ":")) for text in (file, f"{_short(one)}-{one.version}")
    )
    return found.startswith(wanted)


def _reason(told: str) -> str:
    """The first line of a client's complaint: the last ones are advice."""
    lines = (line.strip() for line in told.splitlines())
    return next(
        (line[:_TOLD] for line in lines if line.startswith(_COMPLAINTS)), told[-_TOLD:] or "no reason was given"
    )


def _named(inputs: Sequence[Input]) -> str:
    first, rest = inputs[0], len(inputs) - 1
    more = f" and {rest} more are" if rest else " is"
    return f"{first.kind} {first.name} {first.version}{more}"


def run(argv: Sequence[str], folder: Path) -> str:
    """Runs a package client; returns what it said where it failed, else nothing.

    Raises:
        EnvironmentFault: it is not installed, or does not end.
    """
    program = argv[0] if Path(argv[0]).is_absolute() else shutil.which(argv[0])
    if program is None:
        raise EnvironmentFault(f"images are made with `{argv[0]}` and it is not on the PATH; install it")
    try:
        done = subprocess.run(  # noqa: S603 - package clients with our own arguments
            [program, *argv[1:]], cwd=folder, capture_output=True, text=True, timeout=_FETCH_S, check=False
        )
    except subprocess.TimeoutExpired:
        raise EnvironmentFault(f"`{argv[0]}` brought no packages within {_FETCH_S} s; try again") from None
    return _COLOURS.sub("", done.stdout + done.stderr).strip() if done.returncode else ""


def apt(folder: Path) -> list[str]:
    """`apt-get` with lists of its own, so that nothing of the machine changes and no root is needed."""
    for part in ("lists/partial", "cache/archives/partial"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    options = {"Dir::State::Lists": folder / "lists", "Dir::Cache": folder / "cache"}
    return ["apt-get", "-q", "-o", "APT::Sandbox::User=", *(f"-o{name}={value}" for name, value in options.items())]


def download_debs(names: Sequence[str], folder: Path) -> str:
    """Brings packages of Debian, each `name` or `name=version`; the archive's signature is checked by apt."""
    lists = folder.with_name(folder.name + "-apt")
    try:
        client = apt(lists)
        stale = run([*client, "update"], folder)  # one dead source among several stops nothing
        return run([*client, "download", *names], folder) or (stale if not any(folder.iterdir()) else "")
    finally:
        shutil.rmtree(lists, ignore_errors=True)


def download_wheels(requirements: Path, folder: Path) -> str:
    """Brings the wheels that a file of requirements with hashes names."""
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    return run([*pip, *PIP_TARGET, "-d", str(folder), "-r", str(requirements)], folder)


def _debs(wanted: Sequence[Input], folder: Path) -> str:
    return download_debs([f"{one.name}={one.version}" for one in wanted], folder)


def _wheels(wanted: Sequence[Input], folder: Path) -> str:
    requirements = folder.with_name(folder.name + "-requirements.txt")
    requirements.write_text("".join(f"{w.name}=={w.version} --hash=sha256:{w.sha256}\n" for w in wanted), "ascii")
    try:
        return download_wheels(requirements, folder)
    finally:
        requirements.unlink()


def _jars(wanted: Sequence[Input], folder: Path) -> str:
    project = folder.with_name(folder.name + "-pom.xml")
    project.write_text(_POM.format("".join(_dependency(one) for one in wanted)), "ascii")
    maven = ["mvn", "-B", "-q", "-f", str(project), _COPY, "-DexcludeTransitive=true"]
    try:
        return run([*maven, f"-DoutputDirectory={folder}"], folder.parent)
    finally:
        project.unlink()


def _dependency(one: Input) -> str:
    group, _, artifact = one.name.partition(":")
    return f"<dependency><groupId>{group}</groupId><artifactId>{artifact}</artifactId><version>{one.version}</version></dependency>"


_POM = (
    "<project><modelVersion>4.0.0</modelVersion><groupId>city.provable</groupId><artifactId>image</artifactId>"
    "<version>1</version><packaging>pom</packaging><dependencies>{}</dependencies></project>"
)
CLIENTS: Mapping[str, Client] = MappingProxyType({"deb": _debs, "wheel": _wheels, "jar": _jars})
