"""What must always hold is told to hold in a city that works, and told to be broken once it is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, delete, insert, select, update

from citykit import telemetry
from citykit.operations.invariants import Board
from citykit.service import Service
from citykit.settings import CitySettings, NotarySettings
from citykit.store.port import Unit
from services.metering.store.tables import BILLS, LEAVES, RUNS
from services.parking.store.tables import RESERVATIONS
from services.payments.store.tables import ACCOUNTS
from services.testing import TestCity
from tests.system.metering_city import device, metering_city, usual
from tests.system.parking_city import HOUR, NINE, parking_city
from tests.system.payments_city import payments_city


async def told(city: TestCity) -> dict[str, tuple[bool, str]]:
    """Invariant -> (holds, evidence), looked at now."""
    states = await Board(city.process.services).states()
    return {f"{state.service}/{state.name}": (state.holds, state.evidence) for state in states}


async def change(city: TestCity, service: str, statement: Any) -> None:
    def unit(work: Unit) -> None:
        work.execute(statement)

    await city.process.stores[service].write(unit)


async def row(city: TestCity, service: str, query: Any) -> dict[str, Any]:
    def read(connection: Connection) -> dict[str, Any]:
        return {str(name): value for name, value in connection.execute(query).mappings().one().items()}

    return await city.process.stores[service].read(read)


async def test_bills_without_a_gap_and_whole_runs(tmp_path: Path) -> None:
    home = device()
    async with metering_city(tmp_path) as there:
        await there.publish()
        await there.register(home)
        await there.contract(home, "resident-1")
        await there.month(home)
        await there.bill()
        await there.city.settle()
        city = there.city
        good = await told(city)
        assert {name: holds for name, (holds, _) in good.items()} == dict.fromkeys(
            ("metering/no-gap-in-bills", "metering/runs-are-whole", "notary/logs-verify", "notary/anchors-advance"),
            True,
        )
        assert good["metering/no-gap-in-bills"][1] == "0 gaps or overlaps between the bills of 1 contracts"
        bill = await row(city, "metering", select(BILLS))
        later = {**bill, "id": "bill-later", "from_date": "2016-11-05", "to_date": "2016-12-04", "position": 1}
        await change(city, "metering", insert(BILLS).values(later))
        assert (await told(city))["metering/no-gap-in-bills"] == (
            False, "1 gaps or overlaps between the bills of 1 contracts",
        )  # fmt: skip
        await change(city, "metering", update(BILLS).where(BILLS.c.id == "bill-later").values(from_date="2016-11-04"))
        assert (await told(city))["metering/no-gap-in-bills"][0]
        await change(city, "metering", delete(LEAVES))
        assert (await told(city))["metering/runs-are-whole"] == (False, "1 of 1 runs lack commitments")
        service: Service = city.process.services["metering"]
        assert service.freeze is not None
        assert await service.freeze() is None
        await change(city, "metering", update(RUNS).values(ledger_transaction=""))
        freeze = await service.freeze()
        assert freeze is not None
        assert freeze.reason == "1 billing runs wait for the ledger"


async def test_a_log_that_is_not_as_anchored_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = device()
    async with metering_city(tmp_path) as there:
        await there.register(home)
        await there.send(home.package([0], [usual(0)]))
        await there.city.settle()
        ledger = there.city.world.ledger
        evaluate = ledger.evaluate

        async def other(contract: str, function: str, args: Any) -> Any:
            found = await evaluate(contract, function, args)
            return {**found, "root": "00" * 32} if args["origin"].endswith("metering.readings") else found

        monkeypatch.setattr(ledger, "evaluate", other)
        assert (await told(there.city))["notary/logs-verify"] == (False, "not as anchored: metering.readings")


async def test_entries_that_wait_for_their_anchor_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = replace(CitySettings(), notary=NotarySettings(anchor_interval_s=3_600))
    home = device()
    async with metering_city(tmp_path, settings=settings) as there:
        await there.register(home)
        await there.send(home.package([0], [usual(0)]))
        await there.city.settle(anchored=False)
        assert (await told(there.city))["notary/anchors-advance"][0]
        monkeypatch.setattr("services.notary.app._ANCHOR_LATE_S", -3_600.0)
        assert (await told(there.city))["notary/anchors-advance"] == (
            False, "entries wait: metering.readings for 0 s",
        )  # fmt: skip


async def test_books_that_are_not_equal_are_told(tmp_path: Path) -> None:
    async with payments_city(tmp_path) as there:
        assert (await told(there.city))["payments/sum-is-zero"][0]
        account = {column.name: 0 for column in ACCOUNTS.columns} | {"id": "lost", "currency": "GBP", "rule": ""}
        await change(there.city, "payments", insert(ACCOUNTS).values({**account, "debits_posted_minor": 7}))
        assert (await told(there.city))["payments/sum-is-zero"] == (
            False, "0 transfers on 1 accounts are 7 minor units apart",
        )  # fmt: skip
        job = next(job for job in there.city.process.services["payments"].jobs if job.name == "measure")
        await job.run()
        assert telemetry.PAYMENTS_IMBALANCE._value.get() == 7
        assert telemetry.PAYMENTS_WAITING.labels("again")._value.get() == 0


async def test_a_bay_promised_twice_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.parking.app.books.FRESH_S", 0.0)
    async with parking_city(tmp_path) as town:
        await town.open_lot(bays=1)
        held = await town.hold("ada", NINE + HOUR, NINE + 3 * HOUR)
        await town.confirm("ada", held.id)
        assert (await told(town.city))["parking/no-double-booking"][0]
        again = {**await row(town.city, "parking", select(RESERVATIONS)), "id": "again"}
        await change(town.city, "parking", insert(RESERVATIONS).values(again))
        assert (await told(town.city))["parking/no-double-booking"] == (
            False, "1 of 2 reservations begin while another has the bay",
        )  # fmt: skip
        job = next(job for job in town.city.process.services["parking"].jobs if job.name == "measure")
        await job.run()
        assert telemetry.PARKING_DOUBLE_BOOKINGS._value.get() == 1
        assert telemetry.PARKING_RESERVATIONS.labels("confirmed")._value.get() == 2
