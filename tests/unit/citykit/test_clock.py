"""City time."""

from __future__ import annotations

import asyncio

from citykit.clock import RealClock, ReplayClock, iso, unix


class Monotonic:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_replay_clock_stands_still_until_it_runs() -> None:
    machine = Monotonic()
    clock = ReplayClock(1_000_000, machine)
    machine.now += 50
    assert clock.now() == 1_000_000
    clock.run(900)
    machine.now += 2
    assert unix(clock) == 1_001_800


def test_a_replay_clock_goes_forward_only() -> None:
    clock = ReplayClock(1_000, Monotonic())
    clock.advance_to(2_000)
    clock.advance_to(1_500)
    assert clock.now() == 2_000


def test_changing_speed_keeps_the_time() -> None:
    machine = Monotonic()
    clock = ReplayClock(0, machine)
    clock.run(10)
    machine.now += 5
    clock.run(1)
    machine.now += 5
    assert (clock.now(), clock.speed) == (55, 1)


async def test_sleeping_ends_when_city_time_is_reached() -> None:
    clock = ReplayClock(0)
    clock.run(1_000_000)
    await clock.sleep_until(1_000)
    assert clock.now() >= 1_000


async def test_a_sleeper_of_a_standing_clock_wakes_when_it_is_moved() -> None:
    clock = ReplayClock(0)
    sleeper = asyncio.create_task(clock.sleep_until(10))
    await asyncio.sleep(0)
    clock.advance_to(10)
    await sleeper
    assert clock.now() == 10


async def test_the_real_clock_is_already_past_the_past() -> None:
    clock = RealClock()
    await clock.sleep_until(clock.now() - 1)
    assert clock.now() > 1_700_000_000


def test_iso_is_in_whole_seconds_utc() -> None:
    assert iso(1_478_563_200.9) == "2016-11-08T00:00:00Z"
