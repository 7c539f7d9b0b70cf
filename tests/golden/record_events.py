"""Records one event of each type as a file in tests/golden/events/, for `test_recorded_events`. A recording is written once and never again.

`python -m tests.golden.record_events` writes those that are missing: run it when an event type is new.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from importlib import import_module
from pathlib import Path
from typing import Any

from google.protobuf.json_format import MessageToDict, ParseDict
from google.protobuf.message import Message as ProtobufMessage

from citykit.bus.events import cloud_event
from citykit.bus.port import Message

FOLDER = Path(__file__).parent / "events"
_TIME = 1_475_535_600
_SAMPLES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "city.forecasting.v1.ModelTrained": (
        "city.forecasting.events.v1", "parking", {"model": "model-0001", "group": "parking"},
    ),
    "city.identity.v1.DeviceRegistered": ("city.identity.events.v1", "meter-0001", {"device": "meter-0001"}),
    "city.identity.v1.DeviceKeyRotated": ("city.identity.events.v1", "meter-0001", {"device": "meter-0001"}),
    "city.identity.v1.DeviceRevoked": ("city.identity.events.v1", "meter-0001", {"device": "meter-0001"}),
    "city.identity.v1.SubjectErased": (
        "city.identity.events.v1", "person-0001", {"subject": "pairwise-0001", "audience": "metering"},
    ),
    "city.metering.v1.PackageAccepted": (
        "city.metering.readings.v1",
        "mp-0001",
        {
            "device": "meter-0001", "sequence": 7, "meter_point": "mp-0001", "slot_times": [_TIME, _TIME + 1_800],
            "energy_wh": [120, 250_000], "quarantined": ["", "out-of-range"],
        },
    ),
    "city.parking.v1.StatesObserved": (
        "city.parking.states.v1",
        "lot-0001",
        {
            "device": "sensor-0001", "sequence": 3, "lot": "lot-0001", "times": [_TIME, _TIME + 60],
            "occupied": [40, 41], "capacity": 120,
        },
    ),
    "city.payments.v1.PaymentChanged": (
        "city.payments.events.v1",
        "payment-0001",
        {
            "payment": "payment-0001", "payee": "parking", "reference": "reservation-0001", "change": "captured",
            "amount_minor": 350, "currency": "GBP",
        },
    ),
}  # fmt: skip
"""Topic, key and content where made-up words would not do."""
_TOPICS = {
    "city.identity.v1": "city.identity.events.v1",
    "city.metering.v1": "city.metering.events.v1",
    "city.parking.v1": "city.parking.events.v1",
    "city.payments.v1": "city.payments.transfers.v1",
}


@dataclass(frozen=True)
class Recording:
    """An event as it went over the bus, and what it says."""

    message: Message
    content: dict[str, Any]


def event_types() -> Iterator[type[ProtobufMessage]]:
    """Every event type of today's protos."""
    protos = Path(__file__).parents[2] / "protos"
    for path in sorted(protos.rglob("events.proto")):
        module = import_module(path.relative_to(protos).with_suffix("").as_posix().replace("/", ".") + "_pb2")
        for name in module.DESCRIPTOR.message_types_by_name:
            yield getattr(module, name)


def recorded() -> list[Recording]:
    """What stands in the folder."""
    return [_read(json.loads(path.read_text(encoding="utf-8"))) for path in sorted(FOLDER.glob("*.json"))]


def _read(document: dict[str, Any]) -> Recording:
    headers = {name: bytes.fromhex(value) for name, value in document["headers"].items()}
    value = bytes.fromhex(document["value"])
    return Recording(Message(document["topic"], document["key"], value, headers), document["content"])


def record(kind: type[ProtobufMessage]) -> dict[str, Any]:
    name = kind.DESCRIPTOR.full_name
    topic, key, content = _SAMPLES.get(name) or (_TOPICS[kind.DESCRIPTOR.file.package], "key-0001", {})
    event = ParseDict({**_filled(kind), **content}, kind())
    message = cloud_event(
        topic=topic, key=key, event=event, source=topic.split(".")[1], id=f"recorded-{name}", time=_TIME,
        commitment=sha256(name.encode()).digest(),
    )  # fmt: skip
    return {
        "topic": message.topic,
        "key": message.key,
        "headers": {header: value.hex() for header, value in message.headers.items()},
        "value": message.value.hex(),
        "content": MessageToDict(event, preserving_proto_field_name=True),
    }


def _filled(kind: type[ProtobufMessage]) -> dict[str, Any]:
    """Something in every field."""
    filled: dict[str, Any] = {}
    for field in kind.DESCRIPTOR.fields:
        words = {field.CPPTYPE_STRING: f"{field.name}-1" if field.type != field.TYPE_BYTES else "AQID"}
        value = words.get(field.cpp_type, field.number)
        filled[field.name] = [value] if field.label == field.LABEL_REPEATED else value
    return filled


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for kind in event_types():
        path = FOLDER / f"{kind.DESCRIPTOR.full_name}.json"
        if not path.exists():
            path.write_text(json.dumps(record(kind), indent=1) + "\n", encoding="utf-8")
            print(f"recorded {path.name}")


if __name__ == "__main__":
    main()
