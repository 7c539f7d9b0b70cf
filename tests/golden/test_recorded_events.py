"""Events recorded from earlier code are read by today's: each decodes to what it said, and every service's consumers take them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from google.protobuf.json_format import MessageToDict
from google.protobuf.unknown_fields import UnknownFieldSet  # type: ignore[import-not-found]  # the stubs lack it

from citykit.bus.topics import BY_NAME
from services.registry import SERVICES
from services.testing import embedded_city
from tests.golden.record_events import Recording, event_types, recorded

RECORDINGS = recorded()
TYPES: dict[str, Any] = {kind.DESCRIPTOR.full_name: kind for kind in event_types()}
READERS = tuple(name for name in SERVICES if name != "gateway")


def kind_of(recording: Recording) -> str:
    return recording.message.headers["ce_type"].decode()


@pytest.mark.parametrize("recording", RECORDINGS, ids=kind_of)
def test_a_recorded_event_still_says_what_it_said(recording: Recording) -> None:
    event = TYPES[kind_of(recording)].FromString(recording.message.value)
    assert MessageToDict(event, preserving_proto_field_name=True) == recording.content
    assert len(UnknownFieldSet(event)) == 0
    assert recording.message.topic in BY_NAME


def test_every_event_type_is_recorded() -> None:
    missing = TYPES.keys() - {kind_of(recording) for recording in RECORDINGS}
    assert not missing, "python -m tests.golden.record_events"


async def test_every_consumer_of_today_takes_what_was_recorded(tmp_path: Path) -> None:
    async with embedded_city(tmp_path, services=READERS) as city:
        await city.bus.publish([recording.message for recording in RECORDINGS])
        await city.settle()
        letters = [letter async for letter in city.bus.dead_letters()]
        said = [letter.headers["dl_error"] for letter in letters]
        lags = {group: lag for state in await city.bus.topics() for group, lag in state.lag.items() if lag}
    assert said == []
    assert lags == {}
