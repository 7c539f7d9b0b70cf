"""The cluster's secrets in memory, with what a cluster does to two writers: the second one's write is refused."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from infra.provision import Change, Found, Wanted
from services.commands.provision import HOLDERS, _specification
from services.registry import SERVICES

NAMESPACE = "trial"


def wanted(**changes: object) -> Wanted:
    """What a trial's city wants, changed in some fields."""
    plain = replace(Wanted(NAMESPACE, SERVICES, HOLDERS), **changes)  # type: ignore[arg-type]  # fields by name
    return replace(plain, specification=_specification(plain.hosts_of("ledger")))


class MemorySecrets:
    """A `SecretStore`.

    Args:
        before_write: called before each write, to let another writer in.
    """

    def __init__(self, before_write: Callable[[MemorySecrets], None] = lambda store: None) -> None:
        self.kept: dict[str, Found] = {}
        self.namespace = NAMESPACE
        self.kinds: dict[str, str] = {}
        self.writes = 0
        self._before_write = before_write
        self._version = 0

    def read(self, names: Sequence[str]) -> Mapping[str, Found]:
        return {name: self.kept[name] for name in names if name in self.kept}

    def write(self, change: Change) -> bool:
        before, self._before_write = self._before_write, lambda store: None
        before(self)
        self._before_write = before
        kept = self.kept.get(change.name)
        if (kept.version if kept else "") != (change.replaces.version if change.replaces else ""):
            return False
        self.put(change.name, change.data, ours=True)
        self.kinds[change.name] = change.kind
        self.writes += 1
        return True

    def delete(self, name: str, found: Found) -> None:
        self.kept.pop(name, None)

    def put(self, name: str, data: Mapping[str, bytes], *, ours: bool = False) -> None:
        """As somebody with kubectl does, or provisioning itself."""
        self._version += 1
        self.kept[name] = Found(dict(data), ours, str(self._version))

    def data(self, name: str) -> dict[str, bytes]:
        return dict(self.kept[name].data)


def mount(store: MemorySecrets, secret: str, folder: Path, items: Mapping[str, str] | None = None) -> Path:
    """A secret as a pod sees it: files that nobody may write; `items` names key -> path."""
    for key, value in store.data(secret).items():
        if items is not None and key not in items:
            continue
        path = folder / (items[key] if items else key)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(value)
        path.chmod(0o440 if os.geteuid() == 0 else 0o400)  # a group may read what is root's
    return folder
