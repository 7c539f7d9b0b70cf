"""The anchors contract: heads only grow, and every head continues the one before."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from citykit.ids import seeded_randomness
from citykit.ledger.local import LocalLedger
from citykit.ledger.port import ContractRefused
from citykit.merkle import consistency_proof, in_memory, leaf_hash, root_of
from citykit.settings import LedgerSettings
from services.notary.contract import CONTRACTS

ORIGIN = "provable.city/test/log"
LEAVES = [leaf_hash(bytes([n])) for n in range(40)]
FORKED = [leaf_hash(bytes([n, 1])) for n in range(40)]


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


def head(first: int, size: int, leaves: list[bytes] = LEAVES) -> dict[str, object]:
    proof = consistency_proof(in_memory(leaves[:size]), first, size)
    return {
        "origin": ORIGIN,
        "size": size,
        "root": root_of(leaves[:size]).hex(),
        "proof": [item.hex() for item in proof],
    }


async def record(ledger: LocalLedger, *heads: object, submitter: str = "notary") -> None:
    request_id = f"r{await ledger.height()}"
    await ledger.submit("anchors", "record", {"heads": list(heads)}, submitter=submitter, request_id=request_id)


async def test_a_log_grows(ledger: LocalLedger) -> None:
    await record(ledger, head(0, 5))
    await record(ledger, head(5, 5))
    await record(ledger, head(5, 40))
    found = await ledger.evaluate("anchors", "head", {"origin": ORIGIN})
    assert (found["size"], found["root"]) == (40, root_of(LEAVES).hex())


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (head(0, 4), "rollback"),
        (head(0, 5, FORKED), "fork"),
        (head(5, 9, FORKED), "fork"),
        ({**head(5, 9), "proof": []}, "fork"),
        ({**head(5, 9), "proof": [*head(5, 9)["proof"], "00" * 32]}, "fork"),  # type: ignore[misc]
        ({**head(5, 9), "root": "zz" * 32}, "bad-heads"),
        ({**head(5, 9), "root": root_of(LEAVES[:9]).hex().upper()}, "bad-heads"),
        ({**head(5, 9), "size": True}, "bad-heads"),
        ({**head(5, 9), "size": 0}, "bad-heads"),
        ({**head(5, 9), "origin": 1}, "bad-heads"),
        ({**head(5, 9), "proof": "x"}, "bad-heads"),
        ({"origin": ORIGIN}, "bad-heads"),
        ({**head(5, 9), "root": "00"}, "bad-heads"),
    ],
)
async def test_rollback_fork_and_malformed_heads_are_refused(ledger: LocalLedger, bad: object, reason: str) -> None:
    await record(ledger, head(0, 5))
    with pytest.raises(ContractRefused) as refused:
        await record(ledger, bad)
    assert refused.value.reason == reason
    assert (await ledger.evaluate("anchors", "head", {"origin": ORIGIN}))["size"] == 5


async def test_only_the_notary_records(ledger: LocalLedger) -> None:
    with pytest.raises(ContractRefused, match="only notary"):
        await record(ledger, head(0, 5), submitter="metering")


async def test_the_number_of_heads_is_limited(ledger: LocalLedger) -> None:
    for heads in ([], [head(0, 5)] * 1_001):
        with pytest.raises(ContractRefused, match="1 to 1000"):
            await record(ledger, *heads)
