"""The list of what images are made of, `inputs.lock`: a line is `kind name version sha256`. Read by the builder, written by `lock`."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from citykit.errors import InvalidArgument

FILE = Path(__file__).parent / "inputs.lock"
KINDS = ("deb", "jar", "wheel")
_LINES_MAX = 2_000
_WORDS = 4
# No word may begin with a hyphen: they become arguments of package clients.
_PATTERNS = {
    "kind": re.compile("|".join(KINDS)),
    "name": re.compile(r"[A-Za-z0-9][A-Za-z0-9+._-]*(?::[A-Za-z0-9][A-Za-z0-9+._-]*)?"),
    "version": re.compile(r"[A-Za-z0-9][A-Za-z0-9+.:~_!-]*"),
    "sha256": re.compile(r"[0-9a-f]{64}"),
}
_HEAD = """\
# What the images are made of: kind, name, version, SHA-256 of the file. No addresses: each comes from its kind's package client.
# Made by `make image-lock`. wheel: one that requirements.lock allows; jar: group:artifact, those of infra/kafka/jars.sha256 and PostgreSQL's server.
"""


@dataclass(frozen=True, order=True)
class Input:
    """One package.

    Attributes:
        kind: deb, jar or wheel.
        name: the package's; of a jar `group:artifact`.
        sha256: of the file, 64 hexadecimal digits.
    """

    kind: str
    name: str
    version: str
    sha256: str

    def __str__(self) -> str:
        return f"{self.kind} {self.name} {self.version} {self.sha256}"


def read(path: Path = FILE) -> tuple[Input, ...]:
    """The inputs in a file.

    Raises:
        InvalidArgument: a line is malformed, or a package is listed twice; the message has the line's number.
    """
    return parse(path.read_text(encoding="utf-8"), path.name)


def parse(text: str, where: str = "inputs.lock") -> tuple[Input, ...]:
    """The inputs in a text; empty lines and those that begin with # are skipped."""
    lines = text.splitlines()
    if len(lines) > _LINES_MAX:
        raise InvalidArgument(f"{where} has {len(lines)} lines; {_LINES_MAX} at most are read")
    found: dict[tuple[str, str], Input] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.startswith("#"):
            continue
        one = _input(line, f"{where}, line {number}")
        if (one.kind, one.name) in found:
            raise InvalidArgument(f"{where}, line {number}: {one.kind} {one.name} is listed twice; keep one of them")
        found[one.kind, one.name] = one
    return tuple(found.values())


def text(inputs: Iterable[Input]) -> str:
    """What `lock` writes: the head, then the inputs in one order."""
    return _HEAD + "".join(f"{one}\n" for one in sorted(inputs))


def outdated(inputs: Iterable[Input], requirements: str, left_out: frozenset[str]) -> list[str]:
    """Where the wheels listed are not those that requirements.lock asks for: a line per package.

    Args:
        requirements: text of requirements.lock; a package may be there in several versions, with markers.
        left_out: names that no image has.
    """
    held = {one.name: one for one in inputs if one.kind == "wheel"}
    versions: dict[str, list[str]] = {}
    hashes: dict[str, set[str]] = {}
    optional: set[str] = set()
    for block in re.split(r"\n(?=\S)", requirements):
        if found := re.match(r"([a-z0-9-]+)==([^\s;]+)( ;)?", block):
            versions.setdefault(found[1], []).append(found[2])
            hashes.setdefault(found[1], set()).update(re.findall(r"--hash=sha256:([0-9a-f]{64})", block))
            optional |= {found[1]} if found[3] else set()
    wanted = [name for name in versions if name not in left_out and (name in held or name not in optional)]
    return [
        f"{name} {' or '.join(versions[name])} is locked, and inputs.lock has {held[name].version if name in held else 'none'}"
        for name in wanted
        if name not in held or held[name].version not in versions[name] or held[name].sha256 not in hashes[name]
    ]


def _input(line: str, where: str) -> Input:
    words = line.split()
    if len(words) != _WORDS:
        raise InvalidArgument(f"{where}: `kind name version sha256` is wanted, and there are {len(words)} words")
    for (field, pattern), word in zip(_PATTERNS.items(), words, strict=True):
        if not pattern.fullmatch(word):
            allowed = f"; allowed are {', '.join(KINDS)}" if field == "kind" else ""
            raise InvalidArgument(f"{where}: {word!r} is no {field}{allowed}; refresh the file with `make image-lock`")
    return Input(*words)
