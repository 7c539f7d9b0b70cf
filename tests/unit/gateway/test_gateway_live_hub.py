"""The live stream: one poll for all, a bounded number of listeners, and a place given back by whoever leaves."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest

from citykit.errors import ResourceExhausted
from citykit.telemetry import logger
from services.gateway.app import live as live_module
from services.gateway.app.live import Live


class Picture:
    """A picture that changes each time; fails where told."""

    def __init__(self) -> None:
        self.taken = 0
        self.fail_at = 0

    async def __call__(self) -> dict[str, Any]:
        self.taken += 1
        if self.taken == self.fail_at:
            raise RuntimeError("the picture failed")
        return {"number": self.taken}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_module, "EVERY_S", 0.001)


async def events_of(live: Live, count: int) -> list[bytes]:
    stream = live.events()
    found = [await anext(stream) for _ in range(count)]
    await stream.aclose()  # type: ignore[attr-defined]  # it is a generator
    return found


async def test_events_are_whole_pictures_with_ids() -> None:
    live = Live(Picture(), 5, logger("gateway"))
    retry, first, second = await events_of(live, 3)
    assert retry == b"retry: 2000\n\n"
    lines = first.decode().split("\n")
    assert lines[1] == "event: city"
    assert json.loads(lines[2].removeprefix("data: ")) == {"number": 1}
    assert first.startswith(b"id: 1\n") and second > first
    await live.close()


async def test_places_are_limited_and_given_back() -> None:
    live = Live(Picture(), 1, logger("gateway"))
    stream = live.events()
    await anext(stream)
    with pytest.raises(ResourceExhausted) as refused:
        await anext(live.events())
    assert refused.value.retry_after_s == 60
    await stream.aclose()  # type: ignore[attr-defined]  # it is a generator
    assert live.listeners == 0
    assert len(await events_of(live, 2)) == 2
    await live.close()


async def test_nobody_listens_nobody_polls() -> None:
    picture = Picture()
    live = Live(picture, 5, logger("gateway"))
    await events_of(live, 3)
    taken = picture.taken
    await events_of(live, 1)
    assert picture.taken <= taken + 1
    await live.close()


async def test_a_failed_picture_is_logged_and_the_stream_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    picture = Picture()
    picture.fail_at = 2
    live = Live(picture, 5, logger("gateway"))
    with caplog.at_level(logging.ERROR):
        found = await events_of(live, 3)
    assert b'"number":3' in found[2]
    assert "live-picture-failed" in caplog.text
    await live.close()


async def test_a_heartbeat_comes_when_nothing_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_module, "EVERY_S", 3_600)
    monkeypatch.setattr(live_module, "HEARTBEAT_S", 0.01)
    live = Live(Picture(), 5, logger("gateway"))
    found = await events_of(live, 3)
    assert found[1].startswith(b"id: 1\n")
    assert found[2].startswith(b":")
    await live.close()


async def test_closing_ends_every_stream() -> None:
    live = Live(Picture(), 5, logger("gateway"))
    stream = live.events()
    await anext(stream)
    await live.close()
    assert [event async for event in stream] == []
    assert live.listeners == 0


async def test_a_stream_ends_after_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_module, "STREAM_MAX_S", 0.0)
    live = Live(Picture(), 5, logger("gateway"))
    assert [event async for event in live.events()] == [b"retry: 2000\n\n"]
    await live.close()
