"""The library's examples do what they say, each as the program it is, on the development peer."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from citykit.ledger.devpeer.peer import development_peer
from citykit.ledger.devpeer.specification import Chaincode, Client, Specification
from infra.native import free_port

_LIMIT_S = 40


@pytest.fixture
async def member(tmp_path: Path) -> AsyncIterator[Path]:
    """A peer with the example's chaincode in a process of its own; the file of a member."""
    port, state = free_port(), tmp_path / "peer"
    specification = Specification(
        channel="notes",
        organisations=("Org1MSP",),
        chaincodes=(Chaincode("notes", f"127.0.0.1:{port}"),),
        clients=(Client("alice", "Org1MSP"),),
    )
    async with development_peer(state, specification) as peer:
        files = [state / "tls" / name for name in ("chaincode-notes.pem", "chaincode-notes.key", "ca.pem")]
        chaincode = await started("notes_chaincode", "notes", f"127.0.0.1:{port}", *map(str, files))
        assert chaincode.stdout is not None
        async with asyncio.timeout(_LIMIT_S):
            await chaincode.stdout.readline()
        said = {
            "address": peer.address, "channel": "notes", "msp_id": "Org1MSP",
            "certificate": "peer/organisations/Org1MSP/members/alice.pem",
            "key": "peer/organisations/Org1MSP/members/alice.key",
            "tls_roots": "peer/tls/ca.pem", "tls_certificate": "peer/tls/Org1MSP-alice.pem", "tls_key": "peer/tls/Org1MSP-alice.key",
        }  # fmt: skip
        (tmp_path / "member.json").write_text(json.dumps(said))
        yield tmp_path / "member.json"
        chaincode.terminate()
        await chaincode.communicate()


async def started(example: str, *arguments: str) -> asyncio.subprocess.Process:
    module = f"citykit.ledger.fabric.examples.{example}"
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", module, *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )


async def run(example: str, *arguments: str) -> tuple[int | None, str, str]:
    process = await started(example, *arguments)
    async with asyncio.timeout(_LIMIT_S):
        out, err = await process.communicate()
    return process.returncode, out.decode().strip(), err.decode().strip()


async def test_notes_are_written_read_and_followed(member: Path, tmp_path: Path) -> None:
    code, said, _ = await run("notes_client", str(member), "put", "a", "first")
    assert (code, "in block 1" in said) == (0, True)
    assert await run("sign_elsewhere", str(member), "b", "second") == (0, "VALID", "")
    code, said, _ = await run("notes_client", str(member), "get", "b")
    assert (code, json.loads(said)["text"]) == (0, "second")
    assert (await run("notes_client", str(member), "list", ""))[1] == '["a", "b"]'
    assert await run("notes_client", str(member), "get", "c") == (1, "", "no note c")
    place = str(tmp_path / "place.json")
    assert (await run("follow_notes", str(member), place, "1"))[1] == "1 note-put a"
    assert (await run("follow_notes", str(member), place, "1"))[1] == "2 note-put b"
