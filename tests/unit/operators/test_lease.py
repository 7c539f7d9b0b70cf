"""Two operators: at no moment do both act, whoever is slow, cut off or killed."""

from __future__ import annotations

import asyncio

import pytest

from citykit.errors import Conflict, Unavailable
from operators.city.kube import MANAGER
from operators.city.lease import ACT_S, LEASE_S, Lease, NotLeading
from tests.unit.operators.fake_api import FakeApi


class Watch:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def watch() -> Watch:
    return Watch()


@pytest.fixture
def api() -> FakeApi:
    return FakeApi()


async def test_the_first_leads_and_the_second_waits(api: FakeApi, watch: Watch) -> None:
    first, second = Lease(api, "a", watch), Lease(api, "b", watch)
    await first.once()
    await second.once()
    assert first.held
    assert not second.held
    with pytest.raises(NotLeading, match="operator a holds the Lease"):
        second.require()
    first.require()


async def test_the_one_that_is_cut_off_stops_before_the_other_begins(api: FakeApi, watch: Watch) -> None:
    first, second = Lease(api, "a", watch), Lease(api, "b", watch)
    await first.once()
    stopped = took = None
    for _ in range(40):
        watch.now += 0.5
        api.failing = Unavailable("cut off")
        assert not await first.once()
        api.failing = None
        await second.once()
        stopped = stopped or (watch.now if not first.held else None)
        took = took or (watch.now if second.held else None)
        assert not (first.held and second.held)
    assert stopped is not None
    assert took is not None
    assert took - stopped >= LEASE_S - ACT_S - 0.5


async def test_a_renewing_holder_is_never_overtaken(api: FakeApi, watch: Watch) -> None:
    first, second = Lease(api, "a", watch), Lease(api, "b", watch)
    for _ in range(20):
        await first.once()
        await second.once()
        assert first.held
        assert not second.held
        watch.now += 5.0
    assert api.objects["Lease", MANAGER]["spec"]["leaseTransitions"] == 1


async def test_given_back_it_is_taken_at_once(api: FakeApi, watch: Watch) -> None:
    first, second = Lease(api, "a", watch), Lease(api, "b", watch)
    await first.once()
    await first.release()
    await first.release()
    await second.once()
    assert second.held
    assert not first.held
    assert api.objects["Lease", MANAGER]["spec"]["leaseTransitions"] == 2


async def test_a_restart_in_the_same_pod_waits_for_nobody(api: FakeApi, watch: Watch) -> None:
    await Lease(api, "pod-1", watch).once()
    again = Lease(api, "pod-1", watch)
    await again.once()
    assert again.held
    assert api.objects["Lease", MANAGER]["spec"]["leaseTransitions"] == 1


async def test_what_runs_out_is_told_and_silence_is_told_once(
    api: FakeApi, watch: Watch, caplog: pytest.LogCaptureFixture
) -> None:
    lease = Lease(api, "a", watch)
    await lease.once()
    assert lease.changed.is_set()
    lease.changed.clear()
    api.failing = Unavailable("away")
    caplog.clear()  # another test may have made the logger tell of good news too
    with caplog.at_level("INFO"):
        for _ in range(10):
            watch.now += 2.0
            await lease.once()
    assert lease.changed.is_set()
    assert [one.message for one in caplog.records] == ["lease-unanswered", "not-leading"]


async def test_of_two_that_take_it_at_once_one_gets_it(api: FakeApi, watch: Watch) -> None:
    first, second = Lease(api, "a", watch), Lease(api, "b", watch)
    await first.once()
    await first.release()

    def overtaken(verb: str, kind: str, name: str) -> None:
        raise Conflict("changed")

    api.before = overtaken
    assert await second.once()
    assert not second.held, "the write was refused"
    api.before = lambda verb, kind, name: None
    await second.once()
    assert second.held


async def test_the_loop_takes_it_and_gives_it_back(api: FakeApi) -> None:
    lease = Lease(api, "a")
    task = asyncio.create_task(lease.run())
    async with asyncio.timeout(5):
        await lease.changed.wait()
    assert lease.held
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert api.objects["Lease", MANAGER]["spec"]["holderIdentity"] == ""
