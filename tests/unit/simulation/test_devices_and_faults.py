"""Simulated devices: the same seed gives the same packages, a restart goes on, faults act on their own devices only."""

from __future__ import annotations

import pytest

from citykit.package import parse_package, verify_package
from simulation.calendar import SLOT_S
from simulation.device import Device
from simulation.faults import METER_FAULTS, Faults, devices_of
from simulation.neighbourhood import Neighbourhood

CITY = Neighbourhood(7, None, meters=40)
NAMES = [meter.device_id for meter in CITY.meters]
DAY = 48 * SLOT_S


def packages(device: Device, until: int) -> list[bytes]:
    return [device.sign(readings) for readings in device.due(until)]


def test_the_same_seed_gives_the_same_stream_and_another_seed_another() -> None:
    meter = CITY.meters[4]
    first, second = (packages(CITY.device(meter), CITY.live_from + DAY) for _ in range(2))
    assert first == second
    assert len(first) == 36 + 48  # 35 days, one of them of 25 hours, in packages of 48 slots; then one slot each
    other = Neighbourhood(8, None, meters=40)
    assert packages(other.device(other.meters[4]), CITY.start + DAY) != first[:1]


@pytest.mark.parametrize("number", [4, 9])
def test_packages_verify_and_are_chained(number: int) -> None:
    device = CITY.device(CITY.meters[number])
    previous = bytes(32)
    for sequence, data in enumerate(packages(device, CITY.start + 5 * DAY), start=1):
        package = parse_package(data)
        assert (package.sequence, package.previous, package.device) == (sequence, previous, device.id)
        assert verify_package(package, device.signer.public_key, device.signer.algorithm)
        previous = package.hash


def test_a_device_goes_on_after_what_the_city_holds() -> None:
    meter, until = CITY.meters[4], CITY.live_from + DAY
    whole = packages(CITY.device(meter), until)
    for kept in (0, 1, 35, 36, 37, 50):
        device = CITY.device(meter)
        device.resume(kept, parse_package(whole[kept - 1]).hash if kept else b"")
        assert packages(device, until) == whole[kept:]


def test_slots_without_a_value_are_passed_over_in_the_same_way_at_every_start() -> None:
    meter = CITY.meters[4]

    def gappy(slot: int) -> int | None:
        return None if slot // SLOT_S % 5 < 2 or CITY.start + DAY <= slot < CITY.start + 3 * DAY else 100

    def device() -> Device:
        return Device(meter.device_id, CITY.device(meter).signer, gappy, CITY.start, CITY.live_from)

    whole = packages(device(), CITY.live_from + DAY)
    assert all(gappy(reading.time) == reading.value for data in whole for reading in parse_package(data).readings)
    again = device()
    again.resume(40, parse_package(whole[39]).hash)
    assert packages(again, CITY.live_from + DAY) == whole[40:]


def faulty(fault: str, device_name: str, slots: int = 24) -> list[bytes]:
    """What the city gets of one device while a fault is on."""
    device = CITY.device(CITY.meters[NAMES.index(device_name)])
    device.resume(36, b"\x01" * 32)
    faults = Faults(NAMES, [fault])
    groups = list(device.due(CITY.live_from + slots * SLOT_S))
    return [package for readings in groups for package in faults.packages(device, readings)]


def clean(device_name: str, slots: int = 24) -> list[bytes]:
    device = CITY.device(CITY.meters[NAMES.index(device_name)])
    device.resume(36, b"\x01" * 32)
    return packages(device, CITY.live_from + slots * SLOT_S)


@pytest.mark.parametrize("fault", METER_FAULTS)
def test_a_fault_acts_on_its_two_devices_and_on_no_other(fault: str) -> None:
    acting = devices_of(fault, NAMES)
    assert len(acting) == 2
    assert not set(acting) & set(NAMES[:4])
    assert faulty(fault, acting[0]) != clean(acting[0])
    assert faulty(fault, NAMES[5]) == clean(NAMES[5])


def test_no_two_faults_share_a_device() -> None:
    acting = [device for fault in METER_FAULTS for device in devices_of(fault, NAMES)]
    assert len(acting) == len(set(acting)) == 2 * len(METER_FAULTS)


def test_each_fault_is_what_its_name_says() -> None:
    def of(fault: str) -> tuple[list[bytes], list[bytes]]:
        name = devices_of(fault, NAMES)[0]
        return faulty(fault, name), clean(name)

    forged, true = of("forged")
    assert forged[1::2] == true
    key = CITY.device(CITY.meters[NAMES.index(devices_of("forged", NAMES)[0])]).signer.public_key
    assert not any(verify_package(parse_package(data), key, "EdDSA") for data in forged[0::2])
    replayed, true = of("replayed")
    assert replayed[0::2] == replayed[1::2] == true
    reordered, true = of("reordered")
    assert sorted(reordered) == sorted(true) and reordered != true
    missing, true = of("missing")
    assert set(missing) < set(true) and len(missing) == 18
    stuck, _ = of("stuck")
    assert len({parse_package(data).values for data in stuck}) == 1
    flood, true = of("flood")
    assert set(flood) == set(true) and len(flood) == 400 * len(true)
    skew, true = of("skew")
    assert [parse_package(a).times[0] - parse_package(b).times[0] for a, b in zip(skew, true, strict=True)] == [
        6 * 3600
    ] * 24
    for fault in ("drift", "spike"):
        changed, true = of(fault)
        assert sum(sum(parse_package(data).values) for data in changed) > sum(
            sum(parse_package(data).values) for data in true
        )


def test_faults_can_be_switched_while_running() -> None:
    faults = Faults(NAMES)
    assert not faults.active
    faults.switch(["spike", "forged"])
    assert faults.active == ("forged", "spike")
    assert len(faults.acting()) == 4
    faults.switch([])
    assert faults.acting() == []


def test_what_is_held_back_comes_when_the_fault_is_switched_off() -> None:
    name = devices_of("reordered", NAMES)[0]
    device = CITY.device(CITY.meters[NAMES.index(name)])
    faults = Faults(NAMES, ["reordered"])
    first, second = list(device.due(CITY.start + 2 * DAY))
    assert faults.packages(device, first) == []
    faults.switch([])
    sent = faults.packages(device, second)
    assert [parse_package(data).sequence for data in sent] == [2, 1]
