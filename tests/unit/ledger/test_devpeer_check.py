"""Whatever is changed in a development peer's file is found by its check."""

from __future__ import annotations

import base64
import shutil
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest
import pytest_asyncio

from citykit.errors import NotFound
from citykit.ledger.devpeer.__main__ import main
from citykit.ledger.devpeer.check import check_peer
from citykit.ledger.devpeer.policy import parse, to_envelope
from citykit.ledger.fabric.errors import CommitInvalid
from tests.unit.ledger.devpeer_network import network

TAMPERED = {
    "a value": "UPDATE state SET value = x'32' WHERE kind = 'public' AND key = CAST('a' AS BLOB)",
    "a version": "UPDATE state SET place = 7 WHERE kind = 'public' AND key = CAST('a' AS BLOB)",
    "a key's policy": "UPDATE state SET metadata = x'00' WHERE length(metadata) > 0",
    "a key taken away": "DELETE FROM state WHERE kind = 'public' AND key = CAST('a' AS BLOB)",
    "a key added": "INSERT INTO state SELECT kind, chaincode, collection, organisation, x'7a', value, block, place, metadata"
    " FROM state WHERE kind = 'public' AND key = CAST('a' AS BLOB)",
    "private data": "UPDATE state SET value = x'32' WHERE kind = 'private' AND organisation = 'UtilityMSP'",
    "a hash of private data": "UPDATE state SET value = x'32' WHERE kind = 'hashed'",
    "history": "UPDATE history SET value = x'32' WHERE key = CAST('a' AS BLOB) AND block = 1",
    "a code in the index": "UPDATE transactions SET code = 0 WHERE code <> 0",
    "an index entry taken away": "DELETE FROM transactions WHERE block = 1",
    "a block's bytes": "UPDATE blocks SET bytes = substr(bytes, 1, 80) || x'00' || substr(bytes, 82) WHERE number = 1",
    "a block's hash": "UPDATE blocks SET hash = x'00' WHERE number = 2",
    "a block taken away": "DELETE FROM blocks WHERE number = 1",
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stored(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Path]:
    """A peer's folder with some of everything, one invalid transaction included."""
    folder = tmp_path_factory.mktemp("peer")
    async with network(folder) as running:
        gateway = running.gateway()
        await gateway.submit("notes", "put", [b"a", b"1"])
        prepared = [await gateway.endorse(gateway.propose("notes", "add", [b"n", b"1"])) for _ in range(2)]
        await gateway.finish(prepared[0])
        with pytest.raises(CommitInvalid):
            await gateway.finish(prepared[1])
        policy = base64.b64encode(to_envelope(parse("'CityMSP.peer'")))
        await gateway.submit("notes", "setPolicy", [b"a"], transient={"policy": policy})
        await gateway.submit("notes", "putPrivate", [b"both", b"k"], transient={"value": b"1"})
        await gateway.submit("other", "call", [b"notes", b"delete", b"n"])
    yield folder


@pytest.mark.asyncio(loop_scope="module")
async def test_what_was_stored_verifies(stored: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check_peer(stored) == []
    assert main(["--state", str(stored), "--check"]) == 0
    assert "every block verifies" in capsys.readouterr().out


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("what", TAMPERED)
async def test_what_was_changed_is_found(
    stored: Path, tmp_path: Path, what: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "peer"
    shutil.copytree(stored, folder)
    with closing(sqlite3.connect(folder / "ledger.db", isolation_level=None)) as database:
        assert database.execute(TAMPERED[what]).rowcount > 0
    assert check_peer(folder)
    assert main(["--state", str(folder), "--check"]) == 1
    assert "DAMAGED" in capsys.readouterr().out


def test_a_folder_without_a_ledger_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no development peer's ledger"):
        check_peer(tmp_path)
