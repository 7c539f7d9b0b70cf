"""Where a reader of events stands, kept so that a restart neither misses nor repeats what was handled. Used with `events`.

A file is replaced whole, after it was synced, so a crash leaves the old position or the new one.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from citykit.ledger.fabric.blocks import Block, ChaincodeEvent
from citykit.ledger.fabric.errors import CheckpointError

_VERSION = 1


@dataclass(frozen=True, slots=True)
class Place:
    """The block to read next and, inside it, the last transaction that was handled; empty: none of it was."""

    block: int
    transaction_id: str = ""


class Checkpointer(Protocol):
    """Keeps a place. `save` is called once an event, or a whole block, is handled."""

    def place(self) -> Place | None: ...

    def save(self, handled: ChaincodeEvent | Block) -> None: ...


class MemoryCheckpointer:
    """Keeps the place as long as the process lives."""

    def __init__(self, place: Place | None = None) -> None:
        self._place = place

    def place(self) -> Place | None:
        return self._place

    def save(self, handled: ChaincodeEvent | Block) -> None:
        self._place = place_after(handled)


class FileCheckpointer:
    """Keeps the place in a file.

    Args:
        reader: what the place is of, such as channel and chaincode; a file of another reader is refused.

    Raises:
        CheckpointError: the file cannot be read, was changed, or is of another reader.
    """

    def __init__(self, path: Path, reader: str) -> None:
        self._path = path
        self._reader = reader
        self._place = self._read()

    def place(self) -> Place | None:
        return self._place

    def save(self, handled: ChaincodeEvent | Block) -> None:
        """Raises CheckpointError where the file cannot be written; the old place then stays."""
        place = place_after(handled)
        document = {
            "version": _VERSION,
            "reader": self._reader,
            "block": place.block,
            "transaction_id": place.transaction_id,
        }
        try:
            _replace(self._path, json.dumps(document).encode())
        except OSError as error:
            raise CheckpointError(f"{self._path} cannot be written: {error.strerror}") from None
        self._place = place

    def _read(self) -> Place | None:
        try:
            document = json.loads(self._path.read_bytes())
            place = Place(int(document["block"]), str(document["transaction_id"]))
            version, reader = document["version"], document["reader"]
        except FileNotFoundError:
            return None
        except OSError as error:
            raise CheckpointError(f"{self._path} cannot be read: {error.strerror}") from None
        except (ValueError, KeyError, TypeError):
            raise CheckpointError(f"{self._path} is no checkpoint; remove it to read from the start") from None
        if (version, reader) != (_VERSION, self._reader):
            raise CheckpointError(f"{self._path} is the checkpoint of {reader!r}, not of {self._reader!r}")
        return place


def place_after(handled: ChaincodeEvent | Block) -> Place:
    """Where to go on after an event, or after a whole block."""
    if isinstance(handled, Block):
        return Place(handled.number + 1)
    return Place(handled.block, handled.transaction_id)


def _replace(path: Path, content: bytes) -> None:
    unfinished = path.with_name(f"{path.name}.part")
    with unfinished.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
