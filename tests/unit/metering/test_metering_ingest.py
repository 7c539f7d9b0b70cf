"""The on-ramp: what is taken, what is refused and why, and that nothing valid is disturbed."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select

from city.identity.v1 import events_pb2 as identity_events
from citykit.bus.port import Record
from citykit.errors import InvalidArgument, ResourceExhausted, Unavailable
from citykit.onramp.chain import Refusal
from citykit.onramp.devices import DeviceRow, Key
from citykit.package import Ed25519Signer, Reading, commitment, sign_package
from citykit.settings import MeteringSettings
from services.metering.store.devices import MeterPointRow, put_meter_points
from services.metering.store.packages import Accepted
from services.metering.store.tables import FACTS, GAPS, HEADS, PACKAGES, QUARANTINE, READINGS
from tests.unit.metering.onramp import SLOT_S, START, FakeRegistry, OnRamp, device, on_ramp, point


async def rows(ramp: OnRamp, table: Any) -> list[Any]:
    return list(await ramp.store.read(lambda c: c.execute(select(table)).all()))


async def count(ramp: OnRamp, table: Any) -> int:
    return int(await ramp.store.read(lambda c: c.execute(select(func.count()).select_from(table)).scalar_one()))


def reasons(answers: Sequence[Any]) -> list[str]:
    return [
        item.reason if isinstance(item, Refusal) else type(item).__name__ if isinstance(item, Accepted) else str(item)
        for item in answers
    ]


def kept(answer: object) -> list[str]:
    assert isinstance(answer, Accepted)
    return list(answer.held)


def refused(answer: object) -> Refusal:
    assert isinstance(answer, Refusal)
    return answer


async def test_packages_are_durable_with_readings_head_and_outbox(tmp_path: Path) -> None:
    async with on_ramp(tmp_path) as ramp:
        meter = device()
        await ramp.register(meter)
        raws = [meter.package(range(n * 10, n * 10 + 10), list(range(200, 210))) for n in range(3)]
        assert reasons(await ramp.ingest.handle(raws)) == ["Accepted"] * 3
        assert await count(ramp, READINGS) == 30
        stored = await rows(ramp, PACKAGES)
        assert [row.content for row in stored] == raws
        messages = [message for _, message in await ramp.store.outbox(10)]
        assert [m.headers["commitment"] for m in messages] == [commitment(row.salt, row.content) for row in stored]
        assert {m.key for m in messages} == {"mp-0001"}
        assert await ramp.ingest.heads(["meter-0001", "nobody"]) == [("meter-0001", 3, meter.previous)]


async def test_the_same_package_again_is_a_duplicate_and_changes_nothing(tmp_path: Path) -> None:
    async with on_ramp(tmp_path) as ramp:
        meter = device()
        await ramp.register(meter)
        raws = [meter.package([0]), meter.package([1])]
        await ramp.ingest.handle(raws)
        assert reasons(await ramp.ingest.handle([raws[1], raws[0], raws[0]])) == ["duplicate"] * 3
        assert await count(ramp, PACKAGES) == 2
        assert await ramp.store.outbox_size() == 2


async def test_a_sequence_used_twice_is_refused(tmp_path: Path) -> None:
    async with on_ramp(tmp_path) as ramp:
        meter = device()
        await ramp.register(meter)
        await ramp.ingest.handle([meter.package([0])])
        other = sign_package(meter.signer, meter.name, 1, bytes(32), [Reading(START + SLOT_S, 5)])
        answers = await ramp.ingest.handle([other])
        assert reasons(answers) == ["sequence-replayed"]
        assert "ListChainHeads" in refused(answers[0]).message


async def test_a_gap_is_recorded_and_a_late_package_closes_it(tmp_path: Path) -> None:
    async with on_ramp(tmp_path) as ramp:
        meter = device()
        await ramp.register(meter)
        raws = [meter.package([n]) for n in range(5)]
        assert reasons(await ramp.ingest.handle([raws[0], raws[4]])) == ["Accepted", "Accepted"]
        assert [(g.after_sequence, g.before_sequence) for g in await rows(ramp, GAPS)] == [(1, 5)]
        assert await count(ramp, FACTS) == 1
        assert reasons(await ramp.ingest.handle([raws[2]])) == ["Accepted"]
        assert [(g.after_sequence, g.before_sequence) for g in await rows(ramp, GAPS)] == [(1, 3), (3, 5)]
        assert reasons(await ramp.ingest.handle([raws[3], raws[1]])) == ["Accepted", "Accepted"]
        assert await count(ramp, GAPS) == 0
        assert await count(ramp, READINGS) == 5
        assert [row.sequence for row in await rows(ramp, HEADS)] == [5]


async def test_a_package_that_does_not_link_is_refused(tmp_path: Path) -> None:
    async with on_ramp(tmp_path) as ramp:
        meter = device()
        await ramp.register(meter)
        await ramp.ingest.handle([meter.package([0])])
        stray = sign_package(meter.signer, meter.name, 2, b"x" * 32, [Reading(START + SLOT_S, 5)])
        assert reasons(await ramp.ingest.handle([stray, meter.package([1])])) == ["chain-broken", "Accepted"]


async def test_bad_packages_are_named_and_disturb_no_neighbour(tmp_path: Path) -> None:
    async with on_ramp(tmp_path, days=2) as ramp:
        meter, stranger, young, gone = device(1), device(2), device(3), device(4)
        await ramp.register(meter)
        await ramp.register(young, from_time=START + 10 * SLOT_S)
        await ramp.register(gone, last_sequence=0)
        forged = bytearray(device(1).package([0]))
        forged[-1] ^= 1
        thief = sign_package(Ed25519Signer.from_seed(b"t" * 32), meter.name, 1, bytes(32), [Reading(START, 1)])
        bad = [
            (bytes(forged), "bad-signature"),
            (thief, "bad-signature"),
            (device(1).package([0])[:-9], "truncated"),
            (b"\x00" * 1_048_577, "oversized"),
            (stranger.package([0]), "unknown-device"),
            (device(1).package([100]), "from-the-future"),
            (young.package([9]), "before-device"),
            (gone.package([0]), "device-revoked"),
            (b"not a package", "not-cose"),
            (b"", "truncated"),
        ]
        answers = await ramp.ingest.handle([meter.package([0]), *(raw for raw, _ in bad), meter.package([1])])
        assert reasons(answers)[0] == reasons(answers)[-1] == "Accepted"
        found = reasons(answers)[1:-1]
        expected = [reason for _, reason in bad]
        assert found[:8] == expected[:8]
        assert all(isinstance(item, Refusal) and item.message for item in answers[1:-1])
        assert await count(ramp, READINGS) == 2
        await ramp.refusals.flush()
        newest = await ramp.refusals.newest(100)
        assert {row.reason: row.count for row in newest}["bad-signature"] == 2
        assert sum(row.count for row in newest) == len(bad)


async def test_a_device_without_meter_point_is_told_so(tmp_path: Path) -> None:
    async with on_ramp(tmp_path) as ramp:
        meter = device()
        ramp.registry.put(DeviceRow(meter.name, START, None, (meter.key(),)))
        assert reasons(await ramp.ingest.handle([meter.package([0])])) == ["no-meter-point"]


async def test_an_unheard_device_is_asked_for_once_at_identity(tmp_path: Path) -> None:
    async with on_ramp(tmp_path) as ramp:
        meter, absent = device(1), device(2)
        await ramp.register(device(3))
        ramp.registry.elsewhere[meter.name] = DeviceRow(meter.name, START, None, (meter.key(),))
        raws = [meter.package([0]), absent.package([0]), absent.package([1])]
        assert reasons(await ramp.ingest.handle(raws)) == ["no-meter-point", "unknown-device", "unknown-device"]
        await ramp.ingest.handle(raws)
        assert sorted(ramp.registry.asked) == [meter.name, absent.name]


async def test_while_identity_is_away_an_unheard_device_waits(tmp_path: Path) -> None:
    async with on_ramp(tmp_path) as ramp:
        known = device(1)
        await ramp.register(known)
        ramp.registry.away = True
        answers = await ramp.ingest.handle([device(2).package([0]), known.package([0])])
        assert reasons(answers) == ["identity-away", "Accepted"]
        assert refused(answers[0]).retry_after_ms == 2_000


async def test_more_unheard_devices_than_are_looked_up_at_once_wait(tmp_path: Path) -> None:
    async with on_ramp(tmp_path) as ramp:
        meters = [device(n) for n in range(1, 101)]
        for meter in meters:
            ramp.registry.elsewhere[meter.name] = DeviceRow(meter.name, START, None, (meter.key(),))
        raws = [meter.package([0]) for meter in meters]
        found = reasons(await ramp.ingest.handle(raws))
        assert (found.count("no-meter-point"), found.count("device-lookup")) == (64, 36)
        assert set(reasons(await ramp.ingest.handle(raws))) == {"no-meter-point"}


async def test_a_flood_from_one_device_is_deferred_and_harms_no_other(tmp_path: Path) -> None:
    async with on_ramp(tmp_path, MeteringSettings(device_rate_per_s=1, device_burst=10)) as ramp:
        loud, calm = device(1), device(2)
        await ramp.register(loud, calm)
        flood = [loud.package(range(n * 5, n * 5 + 5)) for n in range(4)]
        answers = await ramp.ingest.handle([*flood, calm.package(range(5))])
        assert reasons(answers) == ["Accepted", "Accepted", "device-rate", "device-rate", "Accepted"]
        assert all(refused(item).retry_after_ms > 0 for item in answers[2:4])


async def test_forgeries_do_not_drain_the_bucket_of_the_device_they_name(tmp_path: Path) -> None:
    async with on_ramp(tmp_path, MeteringSettings(device_rate_per_s=1, device_burst=10)) as ramp:
        meter = device()
        await ramp.register(meter)
        forged = sign_package(Ed25519Signer.from_seed(b"f" * 32), meter.name, 1, bytes(32), [Reading(START, 1)])
        await ramp.ingest.handle([forged] * 50)
        assert reasons(await ramp.ingest.handle([meter.package(range(10))])) == ["Accepted"]


async def test_a_reading_beyond_its_range_is_held_with_an_explanation(tmp_path: Path) -> None:
    async with on_ramp(tmp_path) as ramp:
        meter = device()
        await ramp.register(meter)
        answers = await ramp.ingest.handle([meter.package([0, 1, 2, 3], [300, -5, 99_999, 310])])
        assert kept(answers[0]) == ["", "out-of-range", "out-of-range", ""]
        entry = (await rows(ramp, QUARANTINE))[0]
        assert (entry.reason, entry.readings, entry.open) == ("out-of-range", 2, 0)
        assert "-5 Wh" in entry.explanation
        await ramp.ingest.handle([meter.package([4], [-1])])
        assert [row.readings for row in await rows(ramp, QUARANTINE)] == [3]
        assert [m.headers["ce_type"] for _, m in await ramp.store.outbox(10)].count(
            b"city.metering.v1.DeviceQuarantined"
        ) == 1


async def test_a_package_that_contradicts_an_earlier_one_does_not_count(tmp_path: Path) -> None:
    async with on_ramp(tmp_path) as ramp:
        meter = device()
        await ramp.register(meter)
        await ramp.ingest.handle([meter.package([0, 1], [100, 110])])
        answers = await ramp.ingest.handle([meter.package([1, 2], [999, 120]), meter.package([2, 3], [120, 130])])
        assert [kept(item) for item in answers] == [["slot-already-measured"] * 2, ["", ""]]
        values = {row.slot: (row.energy_wh, row.held) for row in await rows(ramp, READINGS)}
        assert [values[START + n * SLOT_S] for n in range(4)] == [
            (100, ""), (110, ""), (120, "slot-already-measured"), (130, ""),
        ]  # fmt: skip


async def test_the_same_value_again_is_no_contradiction(tmp_path: Path) -> None:
    async with on_ramp(tmp_path) as ramp:
        meter = device()
        await ramp.register(meter)
        answers = await ramp.ingest.handle([meter.package([0, 1], [100, 110]), meter.package([1, 2], [110, 120])])
        assert [kept(item) for item in answers] == [["", ""], ["", ""]]
        assert await count(ramp, READINGS) == 3
        assert await count(ramp, QUARANTINE) == 0


async def test_a_stuck_meter_is_found_and_its_profile_survives_a_restart(tmp_path: Path) -> None:
    def usual(slot: int) -> int:
        return 200 + 37 * (slot % 48) + slot % 7

    async with on_ramp(tmp_path) as ramp:
        meter = device()
        await ramp.register(meter)
        for day in range(14):
            slots = range(day * 48, day * 48 + 48)
            answer = (await ramp.ingest.handle([meter.package(slots, [usual(s) for s in slots])]))[0]
            assert not any(kept(answer))
    async with on_ramp(tmp_path) as ramp:
        slots = range(14 * 48, 15 * 48)
        answer = (await ramp.ingest.handle([meter.package(slots, 421)]))[0]
        held = list(kept(answer))
        assert held[:11] == [""] * 11
        assert set(held[12:]) == {"stuck"}


async def test_concurrent_requests_each_get_their_answers(tmp_path: Path) -> None:
    async with on_ramp(tmp_path) as ramp:
        meters = [device(n) for n in range(1, 21)]
        await ramp.register(*meters)
        requests = [[meter.package([slot]) for meter in meters] for slot in range(5)]
        answers = [await asyncio.gather(*(ramp.ingest.handle([raw]) for raw in request)) for request in requests]
        assert all(reasons(one) == ["Accepted"] for group in answers for one in group)
        assert await count(ramp, READINGS) == 100


async def test_too_many_packages_and_a_full_outbox_are_refused_whole(tmp_path: Path) -> None:
    async with on_ramp(tmp_path) as ramp:
        meter = device()
        await ramp.register(meter)
        with pytest.raises(InvalidArgument, match="256"):
            await ramp.ingest.handle([b""] * 257)
        ramp.store._outbox_size = 1_000_000
        raw = meter.package([0])
        with pytest.raises(ResourceExhausted, match="outbox"):
            await ramp.ingest.handle([raw])
        ramp.store._outbox_size = 0
        assert reasons(await ramp.ingest.handle([raw])) == ["Accepted"]
        assert point(meter.name) == "mp-0001"


async def test_identity_s_events_renew_what_is_known_of_a_device(tmp_path: Path) -> None:
    async with on_ramp(tmp_path) as ramp:
        meter = device()
        await ramp.register(meter)
        renewed = Ed25519Signer.from_seed(b"n" * 32)
        keys = (meter.key(), Key(2, renewed.public_key, "EdDSA", "11" * 32))
        ramp.registry.elsewhere[meter.name] = DeviceRow(meter.name, START, None, keys)
        first = meter.package([0])
        meter.signer = renewed
        second, third = meter.package([1]), meter.package([2])
        assert reasons(await ramp.ingest.handle([first, second])) == ["Accepted", "bad-signature"]
        event = identity_events.DeviceKeyRotated(device=meter.name)
        headers = {"ce_type": event.DESCRIPTOR.full_name.encode()}
        records = [Record("city.identity.events.v1", 0, n, "k", event.SerializeToString(), headers) for n in range(2)]
        other = Record("city.identity.events.v1", 0, 9, "k", b"", {"ce_type": b"city.identity.v1.ConsentRecorded"})
        for _ in range(2):
            await ramp.registry.handle([*records, other])
        assert reasons(await ramp.ingest.handle([second, third])) == ["Accepted", "Accepted"]
        again = FakeRegistry(ramp.store)
        await again.load()
        found = again.get(meter.name)
        assert found is not None
        assert [found.key_for(sequence) for sequence in (0, 1, 2, 9)] == [None, keys[0], keys[1], keys[1]]
        assert len(again) == 1


async def test_a_meter_point_can_get_another_device(tmp_path: Path) -> None:
    async with on_ramp(tmp_path) as ramp:
        old, new = device(1), device(2)
        await ramp.register(old)
        ramp.registry.put(DeviceRow(new.name, START, None, (new.key(),)))
        await ramp.ingest.handle([old.package([0])])
        moved = [MeterPointRow("mp-0001", new.name, 11_500, "Europe/London")]
        assert await ramp.store.write(lambda unit: put_meter_points(unit, moved)) == 0
        ramp.fleet.put_points(moved)
        assert reasons(await ramp.ingest.handle([old.package([1]), new.package([1])])) == ["no-meter-point", "Accepted"]


async def test_the_table_of_refusals_is_bounded(tmp_path: Path) -> None:
    async with on_ramp(tmp_path) as ramp:
        for number in range(1_200):
            ramp.refusals.add(Refusal("bad-signature", "m"), f"device-{number}", number)
        await ramp.refusals.flush()
        for number in range(1_200, 1_300):
            ramp.refusals.add(Refusal("bad-signature", "m"), f"device-{number}", number)
        await ramp.refusals.flush()
        newest = await ramp.refusals.newest(2_000)
        assert len(newest) <= 1_000
        assert newest[0].last_at == 1_299


async def test_refusals_wait_while_the_store_is_away(tmp_path: Path) -> None:
    async with on_ramp(tmp_path) as ramp:
        ramp.refusals.add(Refusal("bad-signature", "m"), "", 1)
    with pytest.raises(Unavailable):
        await ramp.refusals.flush()
    async with on_ramp(tmp_path) as again:
        again.refusals._waiting = ramp.refusals._waiting
        await again.refusals.flush()
        assert [row.count for row in await again.refusals.newest(5)] == [1]
