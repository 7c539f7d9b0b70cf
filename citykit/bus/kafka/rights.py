"""Who may do what on the brokers: each service only what it must. Used by `city bus topics` and the tests.

A principal is the common name of a certificate or a SASL user; both are the service's name. Superusers need no rights.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from confluent_kafka import KafkaException
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # the library does not say what it exports
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
)

from citykit.bus.kafka.connection import confluent_settings
from citykit.bus.kafka.declared import Declaration
from citykit.bus.kafka.names import Names
from citykit.errors import EnvironmentFault
from citykit.settings import KafkaSettings

_WAIT_S = 30.0
_TOPIC, _GROUP = "topic", "group"
_BINDING: Any = AclBinding  # its stub says less than it takes
_FILTER: Any = AclBindingFilter


@dataclass(frozen=True, order=True)
class Right:
    """One allowance, from everywhere.

    Attributes:
        kind: topic or group.
        pattern: literal, or prefixed where `name` is how names begin.
        operation: in Kafka's words, lower-case.
    """

    service: str
    kind: str
    name: str
    pattern: str
    operation: str

    def __str__(self) -> str:
        beginning = "beginning with " if self.pattern == "prefixed" else ""
        return f"{self.service} may {self.operation} {self.kind} {beginning}{self.name}"


def wanted_rights(declared: Declaration, settings: KafkaSettings) -> set[Right]:
    """What the declared owners and readers need: content only of their own topics; everybody may see that a topic is there."""
    names = Names(settings.prefix)
    services = {service for topic in declared.topics for service in (topic.owner, *topic.readers)}
    rights: set[Right] = set()
    for topic in declared.topics:
        own, letters, retry = names.topic(topic.name), names.letters(topic.name), names.retry(topic.name)
        for service in services:
            seen = {Right(service, _TOPIC, name, "literal", "describe") for name in (own, letters, retry)}
            rights |= seen | {Right(service, _TOPIC, right.name, "literal", "describe_configs") for right in seen}
        rights.add(Right(topic.owner, _TOPIC, own, "literal", "write"))
        for reader in topic.readers:
            rights |= {Right(reader, _TOPIC, name, "literal", "read") for name in (own, retry)}
            rights.add(Right(reader, _TOPIC, letters, "literal", "write"))
            rights.add(Right(reader, _GROUP, names.group(reader), "prefixed", "read"))
    return rights


def rights_differences(wanted: set[Right], settings: KafkaSettings) -> list[str]:
    """A line per right that is missing or too much; nothing in plain text, where nobody is known to have any."""
    if settings.security == "PLAINTEXT":
        return []
    found = _found(AdminClient(confluent_settings(settings)), wanted)
    missing = [f"missing: {right}" for right in sorted(wanted - found)]
    return missing + [f"too much: {right}" for right in sorted(found - wanted)]


def apply_rights(wanted: set[Right], settings: KafkaSettings) -> list[str]:
    """Gives what is missing and takes what is too much; returns a line per change.

    Raises:
        EnvironmentFault: the brokers refused.
    """
    if settings.security == "PLAINTEXT":
        return []
    admin = AdminClient(confluent_settings(settings))
    found = _found(admin, wanted)
    given, taken = sorted(wanted - found), sorted(found - wanted)
    if given:
        _all(admin.create_acls([_binding(right) for right in given]).values())
    if taken:
        _all(admin.delete_acls([_filter(right) for right in taken]).values())
    return [f"gave: {right}" for right in given] + [f"took: {right}" for right in taken]


def _found(admin: AdminClient, wanted: set[Right]) -> set[Right]:
    """The rights of the services concerned."""
    any_pattern, any_operation, any_permission = ResourcePatternType.ANY, AclOperation.ANY, AclPermissionType.ANY
    every = _FILTER(ResourceType.ANY, None, any_pattern, None, None, any_operation, any_permission)
    services = {right.service for right in wanted}
    try:
        found = admin.describe_acls(every, request_timeout=_WAIT_S).result()
    except KafkaException as error:
        raise _refused(error) from error
    rights = (_right(binding) for binding in found)
    return {right for right in rights if right.service in services}


def _right(found: Any) -> Right:
    return Right(
        found.principal.removeprefix("User:"),
        found.restype.name.lower(),
        found.name,
        found.resource_pattern_type.name.lower(),
        found.operation.name.lower(),
    )


def _words(right: Right) -> tuple[Any, ...]:
    kind = ResourceType.TOPIC if right.kind == _TOPIC else ResourceType.GROUP
    pattern = ResourcePatternType[right.pattern.upper()]
    return kind, right.name, pattern, f"User:{right.service}", "*", AclOperation[right.operation.upper()]


def _binding(right: Right) -> Any:
    return _BINDING(*_words(right), AclPermissionType.ALLOW)


def _filter(right: Right) -> Any:
    return _FILTER(*_words(right), AclPermissionType.ALLOW)


def _all(futures: Iterable[Any]) -> None:
    for future in futures:
        try:
            future.result(timeout=_WAIT_S)
        except KafkaException as error:
            raise _refused(error) from error


def _refused(error: KafkaException) -> EnvironmentFault:
    return EnvironmentFault(
        f"the brokers refused to show or change rights ({error.args[0].str()}); use the certificate of an administrator"
    )
