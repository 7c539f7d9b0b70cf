"""The contract `devices` on the embedded ledger: who may call it, and what it refuses."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from citykit.ids import seeded_randomness
from citykit.ledger.local import LocalLedger
from citykit.ledger.port import ContractRefused
from citykit.settings import LedgerSettings
from services.identity.contract import CONTRACTS
from tests.unit.identity.entries import AT, entry, key


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


async def submit(ledger: LocalLedger, function: str, *, submitter: str = "identity", **args: Any) -> Any:
    request_id = f"r{await ledger.height()}"
    receipt = await ledger.submit("devices", function, args, submitter=submitter, request_id=request_id)
    return receipt


async def refused(ledger: LocalLedger, function: str, **args: Any) -> str:
    height = await ledger.height()
    with pytest.raises(ContractRefused) as caught:
        await submit(ledger, function, **args)
    assert await ledger.height() == height
    return caught.value.reason


async def state(ledger: LocalLedger, device: str) -> Any:
    return await ledger.evaluate("devices", "get", {"device": device})


async def test_one_device_is_registered(ledger: LocalLedger) -> None:
    receipt = await submit(ledger, "register", **entry("m-1"))
    assert receipt.result == 1
    assert await state(ledger, "m-1") == {
        "keys": [{"algorithm": "EdDSA", "from_sequence": 1, "key": key("m-1"), "transaction": receipt.transaction}],
        "revoked": None,
        "voucher": "ab" * 32,
    }
    assert await state(ledger, "m-2") is None


async def test_many_are_registered_at_once_or_none(ledger: LocalLedger) -> None:
    assert (await submit(ledger, "register_many", devices=[entry("m-1"), entry("m-2")])).result == 2
    assert await refused(ledger, "register_many", devices=[entry("m-3"), entry("m-2")]) == "already-registered"
    assert await state(ledger, "m-3") is None
    names = [event.name async for event in ledger.events(contract="devices", follow=False)]
    assert names == ["registered", "registered"]


async def test_a_key_belongs_to_one_device_for_ever(ledger: LocalLedger) -> None:
    await submit(ledger, "register", **entry("m-1"))
    await submit(ledger, "register", **entry("m-2"))
    assert await refused(ledger, "register", **entry("m-3", key=key("m-1"))) == "key-reused"
    turn: dict[str, Any] = {"algorithm": "EdDSA", "from_sequence": 5, "from_time": AT}
    assert await refused(ledger, "rotate", device="m-1", key=key("m-2"), **turn) == "key-reused"
    await submit(ledger, "rotate", device="m-1", key=key("m-1 next"), **turn)
    back = {**turn, "from_sequence": 6}
    assert await refused(ledger, "rotate", device="m-1", key=key("m-1"), **back) == "key-reused"


async def test_a_rotation_moves_forward(ledger: LocalLedger) -> None:
    await submit(ledger, "register", **entry("m-1"))
    turn: dict[str, Any] = {"device": "m-1", "key": key("next"), "algorithm": "EdDSA", "from_time": AT}
    assert await refused(ledger, "rotate", from_sequence=1, **turn) == "sequence-not-rising"
    receipt = await submit(ledger, "rotate", from_sequence=2, **turn)
    assert [item["transaction"] for item in (await state(ledger, "m-1"))["keys"]][1] == receipt.transaction
    assert await refused(ledger, "rotate", from_sequence=3, **{**turn, "device": "m-2"}) == "unknown-device"


async def test_a_revoked_device_stays_revoked(ledger: LocalLedger) -> None:
    await submit(ledger, "register", **entry("m-1"))
    end: dict[str, Any] = {"device": "m-1", "at": AT, "last_sequence": 0, "reason": "lost"}
    await submit(ledger, "revoke", **end)
    assert await refused(ledger, "revoke", **end) == "revoked"
    turn: dict[str, Any] = {
        "device": "m-1",
        "key": key("next"),
        "algorithm": "EdDSA",
        "from_time": AT,
        "from_sequence": 9,
    }
    assert await refused(ledger, "rotate", **turn) == "revoked"
    assert await refused(ledger, "register", **entry("m-1", key=key("new"))) == "already-registered"
    assert (await state(ledger, "m-1"))["revoked"]["last_sequence"] == 0


@pytest.mark.parametrize("function", ["register", "register_many", "rotate", "revoke"])
async def test_only_identity_decides_about_devices(ledger: LocalLedger, function: str) -> None:
    assert await refused(ledger, function, submitter="metering") == "submitter-not-allowed"


async def test_a_bad_entry_is_the_contracts_refusal(ledger: LocalLedger) -> None:
    assert await refused(ledger, "register_many", devices=[]) == "bad-count"
    assert await refused(ledger, "register_many", devices=[{"device": "m-1"}]) == "bad-device"
    await submit(ledger, "register", **entry("m-1"))
    assert await refused(ledger, "revoke", device="m-1", at=AT, last_sequence=1, reason=" ") == "bad-reason"
