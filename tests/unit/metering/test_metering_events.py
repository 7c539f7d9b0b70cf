"""Event bytes as they were: what is on the bus and in the logs stays readable."""

from __future__ import annotations

import json
from pathlib import Path

from citykit.bus.port import Message
from citykit.ids import seeded_randomness
from citykit.package import commitment
from services.metering import events
from services.metering.app.facts import Facts
from services.metering.store.packages import Fact

GOLDEN = Path(__file__).parents[2] / "golden" / "metering" / "events.json"
NOW = 1_478_563_200


def shown(message: Message) -> dict[str, object]:
    headers = {name: value.hex() if name == "commitment" else value.decode() for name, value in message.headers.items()}
    return {"topic": message.topic, "key": message.key, "value": message.value.hex(), "headers": headers}


def facts() -> list[Fact]:
    made = Facts(seeded_randomness(11))
    return [
        made.gap_found("meter-0001", 3, 5, NOW),
        made.device_quarantined("meter-0001", "stuck", NOW),
        made.device_released("meter-0001", "calibrated on site", NOW),
        made.slots_estimated("mp-0001", [NOW, NOW + 1_800], NOW),
    ]


def test_event_bytes_are_as_they_were() -> None:
    readings = [(NOW - 3_600, 120), (NOW - 1_800, -7)]
    package = events.package_accepted(
        "meter-0001",
        7,
        "mp-0001",
        readings,
        ["", "out-of-range"],
        bytes(32),
        NOW,
        "00-" + "1" * 32 + "-" + "2" * 16 + "-01",
    )
    found = [shown(package), *(shown(fact.message) for fact in facts())]
    assert found == json.loads(GOLDEN.read_text(encoding="utf-8"))


def test_an_opening_gives_the_commitment_of_its_event() -> None:
    for fact in facts():
        _, _, document, salt = fact.row
        assert fact.message.headers["commitment"] == commitment(salt, document)
        assert json.loads(document)["format"] == "city.event.v1"
