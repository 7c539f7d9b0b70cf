"""A bus that doubles, delays and reorders a fifth of everything changes nothing of what the city comes to."""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sqlalchemy import MetaData, literal, select, text

from city.identity.v1 import identity_service_pb2 as identity
from city.identity.v1.identity_service_pb2_grpc import IdentityServiceStub
from city.metering.v1 import metering_service_pb2 as metering
from city.payments.v1 import payments_service_pb2 as payments
from citykit.bus.port import Bus
from citykit.settings import MeteringSettings
from citykit.store.places import reading
from citykit.testing.polling import until
from citykit.testing.unruly_bus import UnrulyBus
from services.testing import START
from tests.system.identity_city import voucher
from tests.system.metering_city import NOVEMBER, MeteringCity, Registry, device
from tests.system.parking_city import HOUR, NINE, ParkingCity
from tests.system.test_parking_paid import mandate, paid_city, purse
from tests.unit.metering.onramp import Device
from tools.crash_checks import Acknowledged, violations

SERVICES = ("identity", "metering", "parking", "payments", "notary")
HOMES = (1, 2, 3)
PATIENT = MeteringSettings(estimate_after_h=34 * 24)
"""A slot of the first day is estimated at nine on the eighth of November, no other."""
OF_THE_RUN = {
    "salt", "seed", "root", "commitment", "ledger_transaction", "fingerprint", "number", "set_number", "at", "made_at", "created_at",
    "prefix", "topic", "partition", "position", "receipt_json", "public_key", "kid", "tries",
}  # fmt: skip
"""Columns whose content is random, of the wall clock, or a matter of order or of how often one had to ask."""
NOT_COMPARED = {"kit_version", "schema_version", "outbox", "request_ids", "processed_events", "kit_writer", "anchors"}
RANDOM = re.compile(rb"[0-9a-f]{16,}|eyJ[\w.-]+")
"""Identifiers, hashes and tokens in what is written out."""


async def lived(state: Path, bus: Callable[[Bus], Bus] | None = None) -> dict[str, str]:
    """A month and a morning in the city: what each table of each service comes to, as a hash."""
    state.mkdir()
    async with paid_city(state, ("metering",), start=START, bus=bus, metering=PATIENT) as town:
        await town.city.settle()
        await _month(town)
        before = _hashes(state)
        await _morning(town)
        await town.erase("home-3")
        await town.erase("bob")
        await town.city.settle()
        found = _hashes(state)
    assert {name for name in found if found[name] != before[name]} > {"parking.reservations", "payments.transfers"}
    assert list(violations(state, Acknowledged(), proven=False)) == []
    return found


async def moved_in(town: ParkingCity) -> tuple[MeteringCity, list[Device]]:
    """Homes with meters and contracts; it becomes November."""
    homes = MeteringCity(town.city, Registry())  # type: ignore[abstract]  # identity itself answers
    meters = [device(number) for number in HOMES]
    vouchers = [voucher(meter.name, key=meter.signer.public_key.hex()) for meter in meters]
    registering = identity.RegisterDevicesRequest(request_id="meters", vouchers=vouchers)
    await IdentityServiceStub(town.city.dial("identity")).RegisterDevices(registering)
    town.city.clock.advance_to(NOVEMBER)
    await homes.publish()
    await homes.register(*meters)
    for number, meter in zip(HOMES, meters, strict=True):
        await homes.contract(meter, f"home-{number}")
    return homes, meters


async def _month(town: ParkingCity) -> None:
    """Three homes send a month, bills are issued, and one is paid."""
    homes, meters = await moved_in(town)
    await asyncio.gather(*(homes.month(meter, (10,) * (meter is meters[1])) for meter in meters))
    town.city.clock.advance_to(NINE)
    await until(lambda: _count(town.folder, "metering", "estimates") == 1, "the missing slot is estimated")
    await homes.bill()
    owner = homes.stub("resident", "home-1")
    [bill] = (await owner.ListBills(metering.ListBillsRequest())).bills
    await purse(town, "ada").PayBill(payments.PayBillRequest(request_id="pay", bill=bill.id, payment_method="pm_1"))

    async def shown() -> bool:
        return bool((await owner.GetBill(metering.GetBillRequest(bill=bill.id))).bill.paid)

    await until(shown, "the bill is shown as paid")
    for channel in homes.channels:
        await channel.close(None)


async def _morning(town: ParkingCity) -> None:
    """One parks, overstays and pays; another gives the bay back."""
    await town.open_lot(bays=2)
    barrier = await town.lock()
    held = await town.hold("ada", NINE, NINE + HOUR)
    await town.confirm("ada", held.id, await mandate(town, "ada"))
    other = await town.hold("bob", NINE, NINE + 2 * HOUR)
    await town.confirm("bob", other.id, await mandate(town, "bob"))
    for who, one in (("ada", held), ("bob", other)):
        await town.until_state(who, one.id, "confirmed")
    await town.pass_(barrier, "ada", held.id)
    await town.cancel("bob", other.id)
    await town.until_paid("bob", other.id, "captured")
    town.advance(3 * HOUR)
    await town.pass_(barrier, "ada", held.id)
    await town.until_paid("ada", held.id, "captured")

    async def provable() -> bool:
        return all([(await town.get(who, id_)).provable for who, id_ in (("ada", held.id), ("bob", other.id))])

    await until(provable, "both are provable")


def _hashes(state: Path) -> dict[str, str]:
    """Of every table's rows, as a set."""
    found: dict[str, str] = {}
    for service in SERVICES:
        tables = MetaData()
        with reading(state, service) as connection:
            tables.reflect(connection)
            for name, table in tables.tables.items():
                columns = [column for column in table.columns if column.name not in OF_THE_RUN]
                rows = sorted(map(_row, connection.execute(select(literal(name), *columns))))
                found[f"{service}.{name}"] = hashlib.sha256(b"\n".join(rows)).hexdigest()
    return {name: digest for name, digest in found.items() if name.partition(".")[2] not in NOT_COMPARED}


def _count(state: Path, service: str, table: str) -> int:
    with reading(state, service) as connection:
        return int(connection.execute(text(f"SELECT COUNT(*) FROM {table}")).scalar_one())


def _row(row: Any) -> bytes:
    """What is written out of a row, without what is random in it."""
    return b"|".join(RANDOM.sub(b"*", value if isinstance(value, bytes) else str(value).encode()) for value in row)


async def test_twice_late_and_reordered_it_comes_to_the_same(tmp_path: Path) -> None:
    unruly: list[UnrulyBus] = []

    def worst(bus: Bus) -> Bus:
        unruly.append(UnrulyBus(bus, seed=5))
        return unruly[0]

    clean = await lived(tmp_path / "clean")
    assert await lived(tmp_path / "unruly", worst) == clean
    assert all(unruly[0].troubles[kind] for kind in ("twice", "late", "overtaken", "again")), unruly[0].troubles
