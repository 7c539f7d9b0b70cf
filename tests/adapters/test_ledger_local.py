"""The embedded ledger passes the suite; and what is its own: evidence by its documented bytes, tampering, torn writes, a full disk."""

from __future__ import annotations

import base64
import random
from collections.abc import AsyncIterator
from hashlib import sha256
from pathlib import Path

import pytest
from nacl.signing import VerifyKey

from citykit.canonical import encode
from citykit.ids import seeded_randomness
from citykit.ledger.local import LocalLedger, check_ledger
from citykit.ledger.port import LedgerDamaged, LedgerUnavailable
from citykit.settings import LedgerSettings
from citykit.testing.counter import Counter
from citykit.testing.ledger_suite import LedgerSuite, Reopen, add, value

NOW = 1_478_563_200


async def opened(path: Path) -> LocalLedger:
    return await LocalLedger.open(
        path,
        contracts=[Counter()],
        clock=lambda: NOW,
        randomness=seeded_randomness(random.SystemRandom().randrange(2**32)),
        settings=LedgerSettings(block_wait_ms=1),
    )


class TestLocalLedger(LedgerSuite):
    @pytest.fixture
    async def reopen(self, tmp_path: Path) -> AsyncIterator[Reopen]:
        ledgers: list[LocalLedger] = []

        async def again() -> LocalLedger:
            for ledger in ledgers:
                await ledger.close()
            ledgers[:] = [await opened(tmp_path / "ledger")]
            return ledgers[0]

        yield again
        for ledger in ledgers:
            await ledger.close()


async def written(path: Path, count: int = 3) -> None:
    ledger = await opened(path)
    for number in range(count):
        await add(ledger, f"k{number}")
    await ledger.close()


async def test_evidence_holds_by_its_documented_bytes(tmp_path: Path) -> None:
    ledger = await opened(tmp_path)
    receipt = await ledger.submit("counter", "add", {"key": "a", "by": 2}, submitter="tester", request_id="r")
    evidence, trust = await ledger.evidence(receipt.transaction), ledger.trust()
    await ledger.close()
    transaction, header = evidence["envelope"]["transaction"], evidence["header"]
    assert (transaction["contract"], transaction["args"], transaction["submitter"]) == (
        "counter",
        {"by": 2, "key": "a"},
        "tester",
    )
    assert (transaction["time"], evidence["envelope"]["code"]) == ("2016-11-08T00:00:00Z", "VALID")
    endorser, orderer = (VerifyKey(bytes.fromhex(trust[kind][0]["key"])) for kind in ("endorsers", "orderers"))
    endorsement = evidence["envelope"]["endorsements"][0]
    assert endorsement["key"] == sha256(bytes(endorser)).hexdigest()[:16]
    endorser.verify(b"city.endorsement.v1\n" + encode(transaction), base64.b64decode(endorsement["signature"]))
    orderer.verify(b"city.block.v1\n" + encode(header), base64.b64decode(evidence["signature"]["signature"]))
    assert evidence["path"] == {"size": 1, "indexes": [0], "hashes": []}
    assert header["data"] == sha256(b"\x00" + encode(evidence["envelope"])).hexdigest()
    assert trust["note"].count("one operator") == 1


async def test_every_changed_byte_is_found_and_refused_at_open(tmp_path: Path) -> None:
    await written(tmp_path)
    source = random.Random(7)
    for name in ("blocks", "height.json", "keys/public.json"):
        path = tmp_path / name
        good = path.read_bytes()
        for _ in range(60):
            at = source.randrange(len(good))
            path.write_bytes(good[:at] + bytes([good[at] ^ source.randrange(1, 256)]) + good[at + 1 :])
            findings = check_ledger(tmp_path)
            assert findings, f"{name} byte {at}"
            assert any(word in str(findings[0]) for word in ("block", "height.json", "public.json"))
            with pytest.raises(LedgerDamaged):
                await opened(tmp_path)
        path.write_bytes(good)
    assert check_ledger(tmp_path) == []


async def test_a_torn_write_is_cut_off_and_a_missing_block_is_damage(tmp_path: Path) -> None:
    await written(tmp_path)
    good = (tmp_path / "blocks").read_bytes()
    (tmp_path / "blocks").write_bytes(good + good[: len(good) // 5])
    ledger = await opened(tmp_path)
    assert await ledger.height() == 3
    await add(ledger, "after")
    await ledger.close()
    assert check_ledger(tmp_path) == []
    (tmp_path / "blocks").write_bytes(good[:-20])
    with pytest.raises(LedgerDamaged, match="acknowledged"):
        await opened(tmp_path)


async def test_a_missing_key_is_refused(tmp_path: Path) -> None:
    await written(tmp_path)
    (tmp_path / "keys" / "endorser").write_bytes(bytes(32))
    with pytest.raises(LedgerDamaged, match="do not match"):
        await opened(tmp_path)
    (tmp_path / "keys" / "orderer").unlink()
    with pytest.raises(LedgerDamaged, match="missing"):
        await opened(tmp_path)


async def test_a_full_disk_refuses_and_recovers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = await opened(tmp_path)
    await add(ledger, "a")

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("citykit.ledger.local.blocks.os.fsync", full)
        with pytest.raises(LedgerUnavailable, match="Free disk space"):
            await add(ledger, "b")
    await add(ledger, "b")
    await ledger.close()
    assert check_ledger(tmp_path) == []
    ledger = await opened(tmp_path)
    assert (await value(ledger, "a"), await value(ledger, "b"), await ledger.height()) == (1, 1, 2)
    await ledger.close()
