"""Looks at topics and groups beside the consumers' own connections, whichever client those use. All of it blocks. Used by `bus` and `topics`."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from time import monotonic, sleep
from typing import Any, TypeVar

from confluent_kafka import (
    Consumer,
    KafkaError,
    KafkaException,
    TopicPartition,
)
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # the library does not say what it exports
    AdminClient,
    ConfigResource,
    OffsetSpec,
    ResourceType,
)

from citykit.bus.kafka.client import ClientFault, Place
from citykit.bus.kafka.confluent_client import record_of
from citykit.bus.kafka.connection import confluent_settings
from citykit.bus.kafka.groups import Groups
from citykit.bus.port import Record
from citykit.settings import KafkaSettings

T = TypeVar("T")
_GROUPS_MAX = 1_000
_READ_MAX = 500
_TRY_S = 1.0
_AGAIN_S = 0.05


@dataclass(frozen=True)
class TopicFacts:
    """A topic as the brokers have it.

    Attributes:
        copies: the fewest of any partition.
        config: settings in the brokers' words, defaults included; empty where this user may not read them.
    """

    partitions: int
    copies: int
    config: Mapping[str, str]


class _Passing(ClientFault):
    """Ends by itself within moments."""


class _Stale(_Passing):
    """This client takes a partition's leader for the one before, and goes on doing so: it is asked through a new one."""


class Inspector:
    """Every call raises ClientFault where the brokers are away or refuse."""

    def __init__(self, settings: KafkaSettings) -> None:
        self._settings = settings
        self._wait_s = settings.request_s
        self._refusal = ""
        self._groups = Groups(settings)
        self._admin = self._connected()

    def _connected(self) -> AdminClient:
        return AdminClient(confluent_settings(self._settings) | {"error_cb": self._told})

    def _told(self, error: KafkaError) -> None:
        if error.code() in _REFUSALS:
            self._refusal = error.str()

    def brokers(self, timeout_s: float) -> int:
        """How many brokers there are; waits until one answers.

        Raises:
            PermissionError: a broker refused these credentials.
            ClientFault: none answered in time.
        """
        left = timeout_s
        while True:
            try:
                return len(self._admin.list_topics(timeout=min(_TRY_S, left)).brokers)
            except KafkaException as error:
                self._admin.poll(0)
                left -= _TRY_S
                if self._refusal:
                    raise PermissionError(self._refusal) from error
                if left <= 0:
                    raise _fault(error) from error

    def topics(self, names: Sequence[str]) -> Mapping[str, TopicFacts]:
        """Those of `names` that are there and may be seen."""
        try:
            found = self._admin.list_topics(timeout=self._wait_s).topics
        except KafkaException as error:
            raise _fault(error) from error
        there = [name for name in names if name in found and found[name].error is None]
        configs = self._settled(lambda: self._configs(there))  # not every broker may know a new topic yet
        facts = {}
        for name in there:
            partitions = found[name].partitions.values()
            copies = min((len(partition.replicas) for partition in partitions), default=0)
            facts[name] = TopicFacts(len(partitions), copies, configs[name])
        return facts

    def _configs(self, names: Sequence[str]) -> dict[str, Mapping[str, str]]:
        if not names:
            return {}
        resources = [ConfigResource(ResourceType.TOPIC, name) for name in names]
        asked = self._admin.describe_configs(resources, request_timeout=self._wait_s)
        return {resource.name: self._config(future) for resource, future in asked.items()}

    def _config(self, future: Future[Any]) -> Mapping[str, str]:
        try:
            return {name: str(entry.value) for name, entry in self._result(future).items()}
        except PermissionError:
            return {}

    def ends(self, places: Iterable[Place]) -> dict[Place, int]:
        """The offset after the last record of each partition."""
        return self._offsets(places, OffsetSpec.latest())  # type: ignore[no-untyped-call]

    def begins(self, places: Iterable[Place]) -> dict[Place, int]:
        """The offset of the first record each partition still holds."""
        return self._offsets(places, OffsetSpec.earliest())  # type: ignore[no-untyped-call]

    def _offsets(self, places: Iterable[Place], which: OffsetSpec) -> dict[Place, int]:
        wanted = {TopicPartition(*place): which for place in places}

        def ask() -> dict[Place, int]:
            asked = self._admin.list_offsets(wanted, request_timeout=self._wait_s)
            return {(item.topic, item.partition): self._result(future).offset for item, future in asked.items()}

        return self._settled(ask) if wanted else {}

    def groups(self) -> list[str]:
        """The groups this user may see, at most 1,000."""
        return self._groups.names()[:_GROUPS_MAX]

    def committed(self, groups: Sequence[str]) -> dict[str, dict[Place, int]]:
        """Each group's offsets; nothing for a group this user may not see or that never committed."""
        return self._groups.committed(groups)

    def commit(self, group: str, offsets: Mapping[Place, int]) -> None:
        """For a group nobody is a member of."""
        self._groups.commit(group, offsets)

    def close(self) -> None:
        self._groups.close()

    def read(self, place: Place, start: int, end: int) -> Generator[list[Record], None, None]:
        """The records of a partition from `start` to before `end`, without any group."""
        reader = Consumer(
            confluent_settings(self._settings)
            | {"group.id": "none", "enable.auto.commit": False, "auto.offset.reset": "earliest"}
        )
        try:
            reader.assign([TopicPartition(*place, start)])
            position = start
            while position < end:
                found = reader.consume(1, self._wait_s) + reader.consume(_READ_MAX, 0)
                if not found:
                    raise ClientFault(f"{place[0]} could not be read up to {end}: nothing came")
                if failed := next((item.error() for item in found if item.error()), None):
                    raise ClientFault(failed.str())
                records = [record_of(item) for item in found]
                position = records[-1].offset + 1
                yield [record for record in records if record.offset < end]
        except KafkaException as error:
            raise _fault(error) from error
        finally:
            reader.close()

    def _settled(self, ask: Callable[[], T]) -> T:
        """Asks again while leaders and coordinators are being chosen, which is for a moment after every start and creation."""
        end = monotonic() + self._wait_s
        while True:
            try:
                return ask()
            except _Passing as passing:
                if monotonic() > end:
                    raise
                sleep(_AGAIN_S)
                if isinstance(passing, _Stale):
                    self._admin = self._connected()

    def _result(self, future: Future[Any]) -> Any:
        try:
            return future.result(timeout=self._wait_s + _TRY_S)
        except TimeoutError as error:
            raise ClientFault("the brokers did not answer in time") from error
        except KafkaException as error:
            if error.args[0].code() in _NOT_ALLOWED:
                raise PermissionError(error.args[0].str()) from error
            raise _fault(error) from error


def _fault(error: KafkaException) -> ClientFault:
    found = error.args[0]
    if not isinstance(found, KafkaError):
        return ClientFault(str(found))
    if found.code() in _STALE:
        return _Stale(found.str())
    return (_Passing if found.code() in _PASSING else ClientFault)(found.str())


_REFUSALS = frozenset({KafkaError._AUTHENTICATION, KafkaError.SASL_AUTHENTICATION_FAILED})
_NOT_ALLOWED = frozenset(
    {
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.GROUP_AUTHORIZATION_FAILED,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
    }
)
_STALE = frozenset({KafkaError.FENCED_LEADER_EPOCH, KafkaError.UNKNOWN_LEADER_EPOCH})
_PASSING = frozenset(
    {
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
        KafkaError.COORDINATOR_NOT_AVAILABLE,
        KafkaError.NOT_COORDINATOR,
        KafkaError._TRANSPORT,
    }
)
