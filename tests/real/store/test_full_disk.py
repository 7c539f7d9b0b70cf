"""The disk under the database of a whole city is full: it refuses, loses nothing it had acknowledged, and goes on by itself."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import grpc
import pytest

from city.metering.v1 import metering_service_pb2 as metering
from citykit.package import package_hash
from citykit.testing.polling import until
from services.testing import SERVER, START
from tests.real.store.small_disk import on_a_small_disk
from tests.system.metering_city import MeteringCity, usual
from tests.system.test_parking_paid import paid_city
from tests.system.test_unruly_bus import PATIENT, SERVICES, moved_in
from tests.unit.metering.onramp import Device
from tools.crash_checks import Acknowledged, violations

DAYS, BEFORE = 31, 3
TAKEN = (metering.PackageResult.OUTCOME_ACCEPTED, metering.PackageResult.OUTCOME_DUPLICATE)


def packages(meter: Device) -> list[bytes]:
    """A month of a home, a day in each."""
    return [
        meter.package(list(range(day * 48, day * 48 + 48)), [usual(n) for n in range(day * 48, day * 48 + 48)])
        for day in range(DAYS)
    ]


async def taken(homes: MeteringCity, package: bytes) -> bool:
    """Whether a package is acknowledged; a refusal says that the city cannot just now."""
    try:
        [result] = await homes.send(package)
    except grpc.aio.AioRpcError as error:
        assert (error.code(), "no disk space" in (error.details() or "")) == (grpc.StatusCode.UNAVAILABLE, True), error
        return False
    assert result.outcome in TAKEN, result
    return True


async def test_a_city_on_a_full_disk_refuses_and_goes_on_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = tmp_path / "city"
    state.mkdir()
    with on_a_small_disk(tmp_path, SERVICES, megabytes=48) as disk:
        monkeypatch.setenv(SERVER, f"{disk.admin.port}:{disk.admin.passwords}")
        async with paid_city(state, ("metering",), start=START, metering=PATIENT) as town:
            await town.city.settle()
            homes, meters = await moved_in(town)
            sent = {meter.name: packages(meter) for meter in meters}
            for package in sent[meters[0].name][:BEFORE]:
                assert await taken(homes, package)
            disk.fill()
            waiting = [package for meter in meters for package in sent[meter.name]][BEFORE:]
            while await taken(homes, waiting[0]):
                waiting.pop(0)
            assert not await taken(homes, waiting[0])
            disk.ballast.unlink()
            for package in waiting:
                await until(partial(taken, homes, package), "it takes what it refused")
            await town.city.settle()
            assert (await homes.bill()).bills == len(meters)
            await town.city.settle()  # the run of bills is in the logs too
        hashes = {
            name: {number: package_hash(raw) for number, raw in enumerate(all_of, start=1)}
            for name, all_of in sent.items()
        }
        assert list(violations(state, Acknowledged(hashes), proven=True)) == []
