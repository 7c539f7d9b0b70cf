"""Signed notes and checkpoints (C2SP signed-note, tlog-checkpoint)."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256

from verifier.canonical import Failure, unbase64
from verifier.signatures import ed25519_holds

_ID, _ROOT, _WORDS = 4, 32, 3


@dataclass(frozen=True)
class Checkpoint:
    origin: str
    size: int
    root: bytes


def open_checkpoint(note: str, origin: str, key: bytes) -> Checkpoint:
    """The checkpoint of a note that the log's key signed. The key's name is the origin.

    Raises:
        Failure: malformed, not signed, or of another log.
    """
    text, empty, signatures = note.rpartition("\n\n")
    if not empty or not signatures.endswith("\n"):
        raise Failure("the checkpoint is no signed note")
    text += "\n"
    identifier = sha256(origin.encode() + b"\n\x01" + key).digest()[:_ID]
    if not any(_signed(line, text, origin, identifier, key) for line in signatures[:-1].split("\n")):
        raise Failure(f"the checkpoint carries no signature of {origin}")
    return _parse(text, origin)


def _signed(line: str, text: str, origin: str, identifier: bytes, key: bytes) -> bool:
    words = line.split(" ")
    if len(words) != _WORDS or words[0] != "—":
        raise Failure("a signature line of the checkpoint is malformed")
    raw = unbase64(words[2], "a signature of the checkpoint")
    return words[1] == origin and raw[:_ID] == identifier and ed25519_holds(key, text.encode(), raw[_ID:])


def _parse(text: str, origin: str) -> Checkpoint:
    lines = text.split("\n")
    if len(lines) < _WORDS + 1 or lines[0] != origin:
        raise Failure(f"the checkpoint is not of {origin}")
    size = int(lines[1]) if lines[1].isascii() and lines[1].isdigit() else -1
    root = unbase64(lines[2], "the checkpoint's root")
    if str(size) != lines[1] or len(root) != _ROOT:
        raise Failure("the checkpoint's size or root is malformed")
    return Checkpoint(origin, size, root)
