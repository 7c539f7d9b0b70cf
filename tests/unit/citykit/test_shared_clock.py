"""One clock for several processes of a demo: what the keeper does the others see, and city time never goes back."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from citykit.errors import EnvironmentFault
from citykit.shared_clock import LEASE_S, FollowedClock, KeptClock, seen_at_most


class Machine:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_followers_see_what_the_keeper_does(tmp_path: Path) -> None:
    machine = Machine()
    kept = KeptClock(tmp_path / "clock", 1_000, machine)
    followed = FollowedClock(tmp_path / "clock", machine)
    assert followed.now() == 1_000
    kept.advance_to(2_000)
    assert followed.now() == 2_000
    kept.run(900)
    machine.now += 1.5
    assert followed.now() == kept.now() == 2_000 + 1_350
    kept.run(60)
    machine.now += 1
    assert followed.now() == kept.now() == 2_000 + 1_350 + 60


def test_without_its_keeper_the_clock_stands_and_a_new_keeper_begins_no_earlier(tmp_path: Path) -> None:
    machine = Machine()
    KeptClock(tmp_path / "clock", 1_000, machine).run(900)
    followed = FollowedClock(tmp_path / "clock", machine)
    machine.now += 3_600
    stands = 1_000 + LEASE_S * 900
    assert followed.now() == stands == seen_at_most(tmp_path / "clock")
    again = KeptClock(tmp_path / "clock", 1_100, machine)
    assert again.now() == followed.now() == stands


async def test_signs_of_life_let_followers_go_on(tmp_path: Path) -> None:
    kept = KeptClock(tmp_path / "clock", 0)
    kept.run(1_000_000)
    followed = FollowedClock(tmp_path / "clock")
    async with kept.keeping(), asyncio.timeout(30):
        await followed.sleep_until((LEASE_S + 0.5) * 1_000_000)
    assert seen_at_most(tmp_path / "clock") == kept.now(), "after a clean stop it stands where it was"


def test_a_keeper_whose_beat_is_late_tells_no_time_that_is_gone_after_a_kill(tmp_path: Path) -> None:
    machine = Machine()
    kept = KeptClock(tmp_path / "clock", 1_000, machine)
    kept.run(900)
    for _ in range(20):
        machine.now += LEASE_S * 0.7  # no beat all the while
        assert kept.now() <= seen_at_most(tmp_path / "clock")


async def test_waiting_begins_while_the_clock_still_stands(tmp_path: Path) -> None:
    kept = KeptClock(tmp_path / "clock", 0)
    waiting = asyncio.create_task(FollowedClock(tmp_path / "clock").sleep_until(10))
    await asyncio.sleep(0)
    assert not waiting.done()
    kept.advance_to(10)
    async with asyncio.timeout(30):
        await waiting


def test_no_clock_and_a_damaged_one_say_so(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentFault, match="city run --backbone real"):
        FollowedClock(tmp_path / "none")
    assert seen_at_most(tmp_path / "none") == 0.0
    KeptClock(tmp_path / "clock", 0)
    (tmp_path / "clock").write_bytes(b"x" * 28)
    with pytest.raises(EnvironmentFault, match="damaged"):
        FollowedClock(tmp_path / "clock").now()
    assert seen_at_most(tmp_path / "clock") == 0.0
