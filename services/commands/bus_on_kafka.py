"""What `city bus` does on Kafka: topics and rights as declared, and looks through the adapter. Imported by it when it is asked for."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from importlib.resources import files
from typing import Any

from citykit.bus.kafka import open_kafka_bus
from citykit.bus.kafka.client import ClientFault
from citykit.bus.kafka.declared import Declaration, read_declaration
from citykit.bus.kafka.preflight import preflight
from citykit.bus.kafka.rights import apply_rights, rights_differences, wanted_rights
from citykit.bus.kafka.topics import apply, declared_plans, differences
from citykit.bus.port import Bus
from citykit.bus.topics import TOPICS
from citykit.errors import EnvironmentFault
from citykit.settings import KafkaSettings


def declaration() -> Declaration:
    """The topics of the city as `infra/kafka/topics.yaml` has them."""
    return read_declaration((files("infra.kafka") / "topics.yaml").read_text(encoding="utf-8"))


def as_declared(change: bool, settings: KafkaSettings) -> int:
    """Says what is not as declared, or makes it so; the exit code."""
    inspector = preflight(settings)
    plans, rights = declared_plans(declaration(), settings), wanted_rights(declaration(), settings)
    try:
        if change:
            lines = apply(plans, settings, inspector) + apply_rights(rights, settings)
        else:
            lines = differences(plans, inspector) + rights_differences(rights, settings)
    except ClientFault as error:
        raise EnvironmentFault(f"the brokers at {settings.bootstrap} stopped answering ({error}); try again") from error
    finally:
        inspector.close()
    print("\n".join(lines) or f"{len(plans)} topics and {len(rights)} rights are as declared")
    return 1 if lines and not change else 0


def ask(settings: KafkaSettings, act: Callable[[Bus], Awaitable[Any]]) -> Any:
    """Opens the bus as a service does, acts, closes it."""

    async def asked() -> Any:
        bus = await open_kafka_bus(TOPICS, settings)
        try:
            return await act(bus)
        finally:
            await bus.close()

    return asyncio.run(asked())
