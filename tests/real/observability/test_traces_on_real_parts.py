"""One reading's trace over Kafka and a channel of the development peer: the same links as in one process, and on into the chaincode."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from citykit import telemetry
from citykit.bus.kafka import open_kafka_bus
from citykit.bus.kafka.preflight import preflight
from citykit.bus.kafka.topics import apply, plans
from citykit.bus.topics import TOPICS
from citykit.ledger.chaincode.convention import chaincode_name
from citykit.ledger.chaincode.serving import Place, serve
from citykit.ledger.channel import open_channel_ledger
from citykit.ledger.devpeer.peer import development_peer
from citykit.ledger.devpeer.specification import Chaincode, Client, Specification
from citykit.ledger.port import Ledger
from citykit.run import World
from citykit.settings import FabricSettings, KafkaSettings
from infra.native import free_port
from services import testing
from services.registry import contracts
from tests.real.bus.brokers import Brokers
from tests.system.metering_city import device, metering_city, usual

MSP = "CityMSP"
SERVICES = ("metering", "notary")


@pytest.fixture
def kafka(tmp_path: Path) -> Iterator[KafkaSettings]:
    brokers = Brokers(tmp_path / "kafka", 1)
    try:
        brokers.start()
        settings = brokers.settings("kafka-python")
        apply(plans(TOPICS, settings), settings, preflight(settings))
        yield settings
    finally:
        brokers.stop()


@contextlib.asynccontextmanager
async def channel(state: Path) -> AsyncIterator[Ledger]:
    """The contracts of the services as chaincode on a development peer, and a client of it."""
    objects = contracts(SERVICES)
    addresses = {chaincode_name(one): f"127.0.0.1:{free_port()}" for one in objects}
    specification = Specification(
        organisations=(MSP,),
        chaincodes=tuple(Chaincode(name, address, tls=False) for name, address in addresses.items()),
        clients=tuple(Client(name, MSP, {"city.service": name}) for name in SERVICES),
        block_wait_ms=10,
    )
    places = {name: Place(name, address) for name, address in addresses.items()}
    async with development_peer(state, specification) as peer, serve(objects, places):
        settings = FabricSettings(
            peer=peer.address,
            msp=MSP,
            members=str(state / "organisations" / MSP / "members"),
            tls_ca=str(state / "tls" / "ca.pem"),
            tls_cert=str(state / "tls" / f"{MSP}-notary.pem"),
            tls_key=str(state / "tls" / f"{MSP}-notary.key"),
        )
        ledger = await open_channel_ledger(settings)
        try:
            yield ledger
        finally:
            await ledger.close()


def ids(span: ReadableSpan) -> tuple[int, int]:
    context = span.get_span_context()
    assert context is not None
    return context.trace_id, context.span_id


def linked(span: ReadableSpan) -> set[tuple[int, int]]:
    return {(link.context.trace_id, link.context.span_id) for link in span.links}


async def test_a_reading_can_be_followed_over_kafka_to_the_chaincode(
    tmp_path: Path, kafka: KafkaSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(telemetry, "tracer", provider.get_tracer("city"))
    home, bus = device(), await open_kafka_bus(TOPICS, kafka)
    try:
        async with channel(tmp_path / "peer") as ledger:

            def here(world: World, _: object) -> World:
                return replace(world, bus=bus, ledger=ledger)

            monkeypatch.setattr(testing, testing.placed.__name__, here)
            async with metering_city(tmp_path / "city") as there:
                await there.register(home)
                await there.send(home.package([0], [usual(0)]))
                await there.city.settle()
    finally:
        await bus.close()
    found = exporter.get_finished_spans()
    (ingest,) = [span for span in found if span.name == "metering.ingest"]
    (batch,) = [span for span in found if span.name == "bus.handle" and ids(ingest) in linked(span)]
    integrate = next(
        span for span in found if span.parent and ids(batch) == (span.parent.trace_id, span.parent.span_id)
    )
    assert integrate.name == "notary.integrate"
    anchor = next(span for span in found if span.name == "notary.anchor" and ids(ingest) in linked(span))
    submit = next(
        span for span in found if span.name == "ledger.submit" and span.parent and span.parent.span_id == ids(anchor)[1]
    )
    chaincode = next(
        span for span in found if span.name == "chaincode/anchors.record" and ids(span)[0] == ids(submit)[0]
    )
    assert chaincode.parent is not None and chaincode.parent.span_id == ids(submit)[1]
    assert chaincode.attributes is not None and submit.attributes is not None
    assert chaincode.attributes["transaction"] == submit.attributes["transaction"]
