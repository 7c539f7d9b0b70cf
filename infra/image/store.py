"""What images are made of and the layers made of it, kept by hash in the cache. Called by the fetcher and the builder."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from citykit.errors import EnvironmentFault
from infra.image.lockfile import Input


@dataclass(frozen=True)
class Store:
    """A folder with `inputs/SHA256`, `blobs/SHA256` and `layers/KEY.json`."""

    folder: Path

    def input(self, one: Input) -> Path:
        """Where a package lies, if it was fetched."""
        return self.folder / "inputs" / one.sha256

    def checked(self, one: Input) -> Path:
        """A package that was fetched.

        Raises:
            EnvironmentFault: it is not what it was when it was kept.
        """
        path = self.input(one)
        if sha256(path) != one.sha256:
            raise EnvironmentFault(
                f"{one.kind} {one.name} {one.version} is damaged in the cache; delete {path} and build again"
            )
        return path

    def keep(self, file: Path) -> str:
        """Takes a file over; returns its SHA-256."""
        digest = sha256(file)
        target = self.folder / "inputs" / digest
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.exists():
            with self.part() as part:
                part.write_bytes(file.read_bytes())
                part.replace(target)
        return digest

    def blob(self, digest: str) -> Path:
        return self.folder / "blobs" / digest

    def layer(self, key: str) -> dict[str, Any] | None:
        """What is known of a layer made before; None where it is not there, or not whole."""
        try:
            found = json.loads((self.folder / "layers" / f"{key}.json").read_text(encoding="utf-8"))
            whole = isinstance(found, dict) and sha256(self.blob(found["digest"])) == found["digest"]
        except (OSError, ValueError, KeyError):
            return None
        return found if whole else None

    def keep_layer(self, key: str, about: dict[str, Any], part: Path) -> None:
        """Takes over a layer's tar with what is known of it, `digest` among that."""
        target = self.blob(about["digest"])
        target.parent.mkdir(parents=True, exist_ok=True)
        part.replace(target)
        note = self.folder / "layers" / f"{key}.json"
        note.parent.mkdir(parents=True, exist_ok=True)
        with self.part() as written:
            written.write_text(json.dumps(about, sort_keys=True), encoding="utf-8")
            written.replace(note)

    @contextmanager
    def part(self) -> Iterator[Path]:
        """A place for a file that gets its name once it is whole; two builds at once do not meet there."""
        self.folder.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(prefix="part-", dir=self.folder)
        os.close(descriptor)
        try:
            yield Path(name)
        finally:
            Path(name).unlink(missing_ok=True)

    @contextmanager
    def room(self) -> Iterator[Path]:
        """A folder that is gone afterwards."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="room-", dir=self.folder) as name:
            yield Path(name)


def sha256(path: Path) -> str:
    """Of a file, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
