"""The embedded ledger's keys: made at the first start, readable by the owner only; public halves beside them for checks."""

from __future__ import annotations

import os
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

from citykit.canonical import CanonicalError, decode, encode
from citykit.ledger.local.blocks import Keys, Signer
from citykit.ledger.port import LedgerDamaged

_SEED_BYTES = 32
_PUBLIC = "public.json"


def open_keys(directory: Path, randomness: Callable[[int], bytes]) -> Keys:
    """The keys of a ledger directory; made where there are none and no blocks either.

    Raises:
        LedgerDamaged: there are blocks but a key is missing or was changed.
    """
    folder = directory / "keys"
    if not folder.exists():
        _make_keys(directory, folder, randomness)
    try:
        keys = Keys(Signer((folder / "endorser").read_bytes()), Signer((folder / "orderer").read_bytes()))
    except (OSError, ValueError) as error:
        raise LedgerDamaged(f"a key in {folder} is missing or damaged; restore the folder from a backup") from error
    if public_keys(directory) != {k.key_id: k.public_key for k in (keys.endorser, keys.orderer)}:
        raise LedgerDamaged(f"the keys in {folder} do not match {_PUBLIC}; restore the folder from a backup")
    return keys


def public_keys(directory: Path) -> dict[str, bytes]:
    """Key id -> public key, from the public file alone.

    Raises:
        LedgerDamaged: missing or changed.
    """
    path = directory / "keys" / _PUBLIC
    try:
        document = decode(path.read_bytes())
        found = {key: bytes.fromhex(public) for key, public in document.items()}
    except (OSError, CanonicalError, AttributeError, TypeError, ValueError) as error:
        raise LedgerDamaged(f"{path} is missing or damaged; restore it from a backup") from error
    for key, public in found.items():
        if sha256(public).hexdigest()[:16] != key or document[key] != public.hex():
            raise LedgerDamaged(f"{path} was changed: {key} does not name its key; restore it from a backup")
    return found


def _make_keys(directory: Path, folder: Path, randomness: Callable[[int], bytes]) -> None:
    if (directory / "blocks").exists() and (directory / "blocks").stat().st_size:
        raise LedgerDamaged(f"{folder} is missing although blocks exist; restore the folder from a backup")
    unfinished = folder.with_name("keys.part")
    unfinished.mkdir(parents=True, exist_ok=True, mode=0o700)
    signers = {}
    for name in ("endorser", "orderer"):
        seed = randomness(_SEED_BYTES)
        _write_private(unfinished / name, seed)
        signers[name] = Signer(seed)
    (unfinished / _PUBLIC).write_bytes(encode({s.key_id: s.public_key.hex() for s in signers.values()}))
    unfinished.replace(folder)


def _write_private(path: Path, data: bytes) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
