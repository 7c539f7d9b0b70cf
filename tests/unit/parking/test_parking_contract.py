"""Parking's contracts on the ledger: what they refuse."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from citykit.ids import seeded_randomness
from citykit.ledger.local import LocalLedger
from citykit.ledger.port import ContractRefused
from citykit.settings import LedgerSettings
from services.parking.contract import CONTRACTS
from tests.unit.parking.tariffs import band, tariff

KEY = "04" + "ab" * 64


@pytest.fixture
async def ledger(tmp_path: Path) -> AsyncIterator[LocalLedger]:
    opened = await LocalLedger.open(
        tmp_path,
        contracts=CONTRACTS,
        clock=lambda: 0,
        randomness=seeded_randomness(1),
        settings=LedgerSettings(block_wait_ms=0),
    )
    yield opened
    await opened.close()


async def publish(ledger: LocalLedger, contract: str, submitter: str = "parking", **arguments: object) -> Any:
    request_id = f"r{await ledger.height()}"
    receipt = await ledger.submit(contract, "publish", arguments, submitter=submitter, request_id=request_id)
    return receipt.result


async def test_a_tariff_version_never_changes(ledger: LocalLedger) -> None:
    assert await publish(ledger, "parking-tariffs", tariff=tariff()) == {"id": "bays", "version": 1}
    await publish(ledger, "parking-tariffs", tariff=tariff())
    with pytest.raises(ContractRefused, match="publish the change as a new version") as refused:
        await publish(ledger, "parking-tariffs", tariff=tariff(no_show_minor=1))
    assert refused.value.reason == "tariff-published"
    await publish(ledger, "parking-tariffs", tariff=tariff(no_show_minor=1, version=2))
    found = await ledger.evaluate("parking-tariffs", "get", {"id": "bays", "version": 1})
    assert found == tariff()
    assert await ledger.evaluate("parking-tariffs", "get", {"id": "bays", "version": 3}) is None


async def test_a_tariff_with_a_hole_is_refused(ledger: LocalLedger) -> None:
    with pytest.raises(ContractRefused, match="Monday 00:00 is in no band"):
        await publish(ledger, "parking-tariffs", tariff=tariff(bands=[band("day", 1, 480, 1_440)]))


async def test_a_key_id_never_changes_its_key(ledger: LocalLedger) -> None:
    assert await publish(ledger, "parking-keys", kid="k1", key=KEY) == {"kid": "k1"}
    await publish(ledger, "parking-keys", kid="k1", key=KEY)
    with pytest.raises(ContractRefused, match="take a new id"):
        await publish(ledger, "parking-keys", kid="k1", key="04" + "cd" * 64)
    assert await ledger.evaluate("parking-keys", "get", {"kid": "k1"}) == KEY


@pytest.mark.parametrize(
    ("kid", "key"), [("", KEY), ("k" * 65, KEY), ("k", KEY[:-2]), ("k", KEY.upper()), ("k", "02" + "ab" * 64)]
)
async def test_a_key_that_is_none_is_refused(ledger: LocalLedger, kid: str, key: str) -> None:
    with pytest.raises(ContractRefused, match="uncompressed P-256 point"):
        await publish(ledger, "parking-keys", kid=kid, key=key)


async def test_only_parking_publishes(ledger: LocalLedger) -> None:
    for contract, arguments in (("parking-keys", {"kid": "k", "key": KEY}), ("parking-tariffs", {"tariff": tariff()})):
        with pytest.raises(ContractRefused, match="only parking"):
            await publish(ledger, contract, submitter="metering", **arguments)
