"""Blocks of the embedded ledger: their bytes, signatures and the file that holds them (docs/PROOFS.md, "Ledger").

The file is the truth: one framed line per block, `<8 hex digits: length> <canonical JSON>\\n`, appended and synced. `height.json` is
written after each block, so that a missing acknowledged block shows; what stands after that height unfinished is a torn write.
"""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, BinaryIO

from nacl.exceptions import BadSignatureError
from nacl.signing import SigningKey, VerifyKey

from citykit.canonical import CanonicalError, decode, encode, tagged
from citykit.ledger.contract import JsonObject
from citykit.ledger.port import LedgerDamaged
from citykit.merkle import leaf_hash, root_of

GENESIS = "0" * 64
_FRAME = 9
BLOCK_MAX_BYTES = 64 * 1024 * 1024


class Signer:
    """An Ed25519 key of the ledger: an organisation's endorser, or the orderer."""

    def __init__(self, seed: bytes) -> None:
        self._key = SigningKey(seed)
        self.public_key = bytes(self._key.verify_key)
        self.key_id = sha256(self.public_key).hexdigest()[:16]

    def sign(self, message: bytes) -> str:
        return base64.b64encode(self._key.sign(message).signature).decode()


def verified(public_key: bytes, message: bytes, signature: str) -> bool:
    """True if `signature` (base64, strict) holds."""
    try:
        raw = base64.b64decode(signature, validate=True)
        if base64.b64encode(raw).decode() != signature:
            return False
        VerifyKey(public_key).verify(message, raw)
    except (BadSignatureError, ValueError, TypeError, binascii.Error):
        return False
    return True


def block_hash(header: JsonObject) -> str:
    return sha256(tagged("block", header)).hexdigest()


def envelope_leaves(envelopes: Sequence[JsonObject]) -> list[bytes]:
    return [leaf_hash(encode(envelope)) for envelope in envelopes]


def make_block(
    orderer: Signer, channel: str, number: int, previous: str, time: str, envelopes: list[JsonObject], values: list[Any]
) -> JsonObject:
    """A signed block. `values` holds, for each envelope, the values behind its writes' hashes, in their order."""
    header = {
        "channel": channel,
        "number": number,
        "previous": previous,
        "data": root_of(envelope_leaves(envelopes)).hex(),
        "time": time,
        "count": len(envelopes),
    }
    signature = {"key": orderer.key_id, "signature": orderer.sign(tagged("block", header))}
    return {"header": header, "signature": signature, "envelopes": envelopes, "values": values}


@dataclass(frozen=True)
class Keys:
    """The ledger's own keys, made at the first start."""

    endorser: Signer
    orderer: Signer


class BlockFile:
    """The append-only file of blocks and the height beside it."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "blocks"
        self._height_path = directory / "height.json"
        self._places: list[tuple[int, int]] = []
        self._file: BinaryIO | None = None

    def load(self) -> Iterator[JsonObject]:
        """Yields each stored block, in order, and truncates a torn tail that was never acknowledged.

        Raises:
            LedgerDamaged: naming the block.
        """
        self._places = []
        self.path.touch(exist_ok=True)
        acknowledged = acknowledged_height(self._height_path)
        data = self.path.read_bytes()
        at = 0
        while at < len(data):
            found = read_frame(data, at, len(self._places))
            if found is None:
                break
            block, end = found
            self._places.append((at + _FRAME, end - at - _FRAME - 1))
            yield block
            at = end
        if len(self._places) < acknowledged:
            raise LedgerDamaged(
                f"the ledger file {self.path} ends in block {len(self._places)}, but {acknowledged} blocks were acknowledged;"
                " restore it from a backup"
            )
        self._file = self.path.open("r+b")
        self._file.truncate(at)
        self._file.seek(at)

    def append(self, block: JsonObject) -> None:
        """Writes and syncs a block, then the height. After an OSError the file is as before."""
        if self._file is None:
            raise LedgerDamaged("the ledger file is not open")
        body = encode(block)
        start = self._file.tell()
        try:
            self._file.write(b"%08x " % len(body) + body + b"\n")
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError:
            self._reopen(start)
            raise
        self._places.append((start + _FRAME, len(body)))
        self._save_height(len(self._places))

    def read(self, number: int) -> JsonObject:
        """The stored block, canonical or refused."""
        at, length = self._places[number]
        with self.path.open("rb") as file:
            file.seek(at)
            return parse_block(file.read(length), number)

    def __len__(self) -> int:
        return len(self._places)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _reopen(self, at: int) -> None:
        """A buffered write that failed may come back at close, so the handle is dropped, and the file cut."""
        descriptor = os.open(self.path, os.O_RDWR)
        broken, self._file = self._file, os.fdopen(descriptor, "r+b")
        os.ftruncate(descriptor, at)
        self._file.seek(at)
        try:
            if broken is not None:
                broken.close()
        except OSError:
            os.ftruncate(descriptor, at)

    def _save_height(self, height: int) -> None:
        unfinished = self._height_path.with_suffix(".part")
        with unfinished.open("wb") as file:
            file.write(encode({"height": height, "check": _height_check(height)}))
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(self._height_path)


def read_blocks(directory: Path) -> Iterator[JsonObject]:
    """The blocks of a ledger directory, read only: changes nothing, also while a city runs on it; a torn tail is passed over.

    Raises:
        LedgerDamaged: naming the block.
    """
    data = (directory / "blocks").read_bytes()
    at = number = 0
    while at < len(data) and (found := read_frame(data, at, number)) is not None:
        block, at = found
        number += 1
        yield block


def acknowledged_height(path: Path) -> int:
    """The number of acknowledged blocks that `height.json` states; 0 where there is none.

    Raises:
        LedgerDamaged: the file was changed.
    """
    if not path.exists():
        return 0
    try:
        document = decode(path.read_bytes())
        height, check = document["height"], document["check"]
    except (CanonicalError, KeyError, TypeError):
        height, check = -1, ""
    if check != _height_check(height):
        raise LedgerDamaged(f"{path} was changed; restore it from a backup")
    return int(height)


def read_frame(data: bytes, at: int, number: int) -> tuple[JsonObject, int] | None:
    """The block framed at `at` and where the next begins; None for a torn tail.

    Raises:
        LedgerDamaged: a whole frame whose content is no block.
    """
    head = data[at : at + _FRAME]
    try:
        length = int(head[:8], 16) if len(head) == _FRAME and head == head.lower() and head[8:] == b" " else -1
    except ValueError:
        length = -1
    end = at + _FRAME + length + 1
    if len(head) < _FRAME or (length >= 0 and end > len(data)):
        return None
    if not 0 <= length <= BLOCK_MAX_BYTES or data[end - 1 : end] != b"\n":
        raise LedgerDamaged(f"block {number} at byte {at} of the ledger file is damaged: its frame is broken")
    return parse_block(data[at + _FRAME : end - 1], number), end


def parse_block(body: bytes, number: int) -> JsonObject:
    """The block in `body`.

    Raises:
        LedgerDamaged: not canonical JSON, or without a block's fields.
    """
    try:
        block = decode(body)
    except CanonicalError as error:
        raise LedgerDamaged(f"block {number} of the ledger file is damaged: {error}") from None
    if not isinstance(block, dict) or set(block) != {"header", "signature", "envelopes", "values"}:
        raise LedgerDamaged(f"block {number} of the ledger file is damaged: it lacks a block's fields")
    return block


def _height_check(height: int) -> str:
    return sha256(f"city.height.v1\n{height}".encode()).hexdigest()
