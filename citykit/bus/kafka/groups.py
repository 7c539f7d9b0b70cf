"""The committed offsets of groups, through kafka-python whichever client consumes: librdkafka's admin client crashes the whole process
where a group's coordinator has just changed. All of it blocks. Used by `inspector`.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from time import monotonic, sleep
from typing import Any

from citykit.bus.kafka.client import ClientFault, Place
from citykit.bus.kafka.connection import python_settings
from citykit.bus.kafka.python_client import faults, offsets_of, place_of, quiet_import
from citykit.settings import KafkaSettings

with quiet_import():
    from kafka import KafkaAdminClient
    from kafka.errors import AuthorizationError, KafkaError, NoError, RetriableError

_AGAIN_S = 0.1


class Groups:
    """Connects when it is first asked."""

    def __init__(self, settings: KafkaSettings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._made: Any = None

    def _admin(self) -> Any:
        with self._lock:
            if self._made is None:
                self._made = KafkaAdminClient(**python_settings(self._settings))
            return self._made

    def names(self) -> list[str]:
        """The groups this user may see."""
        with faults():
            return [str(group["group_id"]) for group in self._settled(self._admin().list_groups)]

    def committed(self, groups: Sequence[str]) -> dict[str, dict[Place, int]]:
        """Each group's offsets; nothing for a group that never committed or that this user may not see."""
        if not groups:
            return {}
        with faults():
            try:
                found = self._settled(partial(self._admin().list_group_offsets, list(groups)))
            except AuthorizationError:
                if len(groups) == 1:
                    return {groups[0]: {}}
                return {name: at for group in groups for name, at in self.committed([group]).items()}
        return {
            name: {place_of(place): at.offset for place, at in places.items() if at.offset >= 0}
            for name, places in found.items()
        }

    def commit(self, group: str, offsets: Mapping[Place, int]) -> None:
        """For a group nobody is a member of.

        Raises:
            PermissionError: this user may not.
        """
        with faults():
            told = self._settled(partial(self._admin().alter_group_offsets, group, offsets_of(offsets)))
        for error in told.values():
            if issubclass(error, AuthorizationError):
                raise PermissionError(f"this user may not commit for the group {group}")
            if error is not NoError:
                raise ClientFault(f"the group {group} could not commit: {error.__name__}")

    def _settled(self, ask: Callable[[], Any]) -> Any:
        """Asks again while a coordinator is being chosen."""
        end = monotonic() + self._settings.request_s
        while True:
            try:
                return ask()
            except RetriableError:
                if monotonic() > end:
                    raise
                sleep(_AGAIN_S)

    def close(self) -> None:
        with contextlib.suppress(KafkaError, RuntimeError):
            if self._made is not None:
                self._made.close()
