"""Signed notes and checkpoints (C2SP signed-note and tlog-checkpoint), Ed25519. The notary writes them; anybody may cosign.

A note is a text that ends in a newline, an empty line, and signature lines `— <name> <base64(4-byte key id || signature)>`.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from hashlib import sha256

from nacl.exceptions import BadSignatureError
from nacl.signing import SigningKey, VerifyKey

_ED25519 = b"\x01"
_ID_BYTES = 4
_LINES_MAX = 100


class NoteError(ValueError):
    """A note is not well formed, or its signature does not hold."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A log's head.

    Attributes:
        origin: the log's unique name.
        root: 32 bytes.
    """

    origin: str
    size: int
    root: bytes

    def text(self) -> str:
        return f"{self.origin}\n{self.size}\n{base64.b64encode(self.root).decode()}\n"


def key_id(name: str, public_key: bytes) -> bytes:
    """First 4 bytes of SHA-256(name || newline || 0x01 || public key)."""
    return sha256(name.encode() + b"\n" + _ED25519 + public_key).digest()[:_ID_BYTES]


def sign_note(text: str, name: str, seed: bytes) -> str:
    """`text` with a signature line of the Ed25519 key made from `seed`."""
    key = SigningKey(seed)
    raw = key_id(name, bytes(key.verify_key)) + key.sign(text.encode()).signature
    return f"{text}\n— {name} {base64.b64encode(raw).decode()}\n"


def public_key(seed: bytes) -> bytes:
    """The Ed25519 public key of a seed."""
    return bytes(SigningKey(seed).verify_key)


def verified_text(note: str, name: str, key: bytes) -> str:
    """The text of a note if the named key signed it; lines of other signers are passed over.

    Raises:
        NoteError: malformed, or no valid signature of that key.
    """
    text, empty, signatures = note.rpartition("\n\n")
    if not empty or not signatures.endswith("\n"):
        raise NoteError("a note needs an empty line and signature lines that end in a newline")
    lines = signatures.splitlines()
    if len(lines) > _LINES_MAX:
        raise NoteError(f"a note carries at most {_LINES_MAX} signatures")
    text += "\n"
    for line in lines:
        signer, raw = _signature(line)
        if signer == name and raw[:_ID_BYTES] == key_id(name, key):
            _verify(text, raw[_ID_BYTES:], key)
            return text
    raise NoteError(f"the note carries no signature of {name}")


def parse_checkpoint(text: str) -> Checkpoint:
    """The checkpoint in a note's text; extension lines are passed over.

    Raises:
        NoteError: malformed.
    """
    lines = text.split("\n")
    try:
        origin, size, root = lines[0], lines[1], base64.b64decode(lines[2], validate=True)
    except (IndexError, binascii.Error):
        raise NoteError("a checkpoint has the lines origin, size and root") from None
    if not origin or not size.isascii() or not size.isdigit() or str(int(size)) != size or len(root) != 32:  # noqa: PLR2004 - SHA-256
        raise NoteError("a checkpoint has an origin, a decimal size and a root of 32 bytes in base64")
    return Checkpoint(origin, int(size), root)


def open_checkpoint(note: str, name: str, key: bytes) -> Checkpoint:
    """The checkpoint of a note that `key` signed.

    Raises:
        NoteError: it does not hold.
    """
    return parse_checkpoint(verified_text(note, name, key))


def _signature(line: str) -> tuple[str, bytes]:
    parts = line.split(" ")
    if len(parts) != 3 or parts[0] != "—":  # noqa: PLR2004 - dash, name, signature
        raise NoteError("a signature line has the form `— <name> <base64>`")
    try:
        raw = base64.b64decode(parts[2], validate=True)
    except binascii.Error:
        raise NoteError("a signature line holds no base64") from None
    if base64.b64encode(raw).decode() != parts[2]:
        raise NoteError("a signature line holds base64 that is not in its one form")
    return parts[1], raw


def _verify(text: str, signature: bytes, key: bytes) -> None:
    try:
        VerifyKey(key).verify(text.encode(), signature)
    except (BadSignatureError, ValueError):
        raise NoteError("the note's signature does not hold") from None
