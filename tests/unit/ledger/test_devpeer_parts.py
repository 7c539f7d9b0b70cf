"""The parts of the development peer alone: policies, snapshots, storage that refuses, block hashes, certificates."""

from __future__ import annotations

import asyncio
import datetime
import hashlib
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from fabric_protos.common import common_pb2

from citykit.errors import Damaged, FailedPrecondition, InvalidArgument
from citykit.ledger.devpeer.blocks import data_hash, header_bytes, header_hash
from citykit.ledger.devpeer.certificates import ATTRIBUTES, Subject, issue, open_authority
from citykit.ledger.devpeer.policy import (
    OutOf,
    Principal,
    chosen,
    from_envelope,
    majority,
    parse,
    satisfied,
    to_envelope,
)
from citykit.ledger.devpeer.simulation import Forbidden, Simulation
from citykit.ledger.devpeer.state import Change, Place, WorldState
from citykit.ledger.devpeer.storage import NewBlock, Outcome, Storage
from citykit.ledger.fabric import system
from citykit.ledger.fabric.errors import OutcomeUnknown, SubmitError
from tests.unit.ledger.devpeer_network import Network, network

NOTES = Place("public", "notes")
A, B, C = Principal("A", "peer"), Principal("B", "peer"), Principal("C", "client")


# --- policies ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("expression", "enough", "too_little"),
    [
        ("'A.peer'", [A], [B]),
        ("AND('A.peer','B.peer')", [A, B], [A, A]),
        ("OR('A.peer', 'B.peer')", [B], [C]),
        ("OutOf(2, 'A.member', 'B.member', 'C.member')", [A, C], [C]),
        ("AND('A.peer', OR('B.peer','C.client'))", [C, A], [C, B]),
        ("or('C.admin','C.client')", [C], [A]),
    ],
)
def test_a_policy_is_satisfied_by_these_and_not_by_those(
    expression: str, enough: list[Principal], too_little: list[Principal]
) -> None:
    rule = parse(expression)
    assert satisfied(rule, enough)
    assert not satisfied(rule, too_little)
    assert from_envelope(to_envelope(rule)) == rule


@pytest.mark.parametrize(
    "expression",
    [
        "",
        "A.peer",
        "AND()",
        "AND('A.peer'",
        "NOT('A.peer')",
        "'A.king'",
        "OutOf('A.peer')",
        "OR('A.peer') x",
        "'A.peer')",
        "§",
    ],
)
def test_what_is_no_policy_is_refused(expression: str) -> None:
    with pytest.raises(InvalidArgument, match="is no endorsement policy"):
        parse(expression)


def test_a_policy_nested_too_deep_is_refused() -> None:
    with pytest.raises(InvalidArgument):
        parse("AND(" * 20 + "'A.peer'" + ")" * 20)


def test_a_signature_counts_once() -> None:
    twice = OutOf(2, (A, A))
    assert not satisfied(twice, [A])
    assert satisfied(twice, [A, A])


def test_the_fewest_organisations_are_chosen_and_the_caller_s_first() -> None:
    assert chosen([parse("OR('A.peer','B.peer')")], "B", ("A", "B")) == ("B",)
    assert chosen([parse("AND('A.peer','B.peer')")], "B", ("A", "B", "C")) == ("A", "B")
    assert chosen([majority(["A", "B", "C"])], "C", ("A", "B", "C")) == ("A", "C")
    assert chosen([parse("'D.peer'")], "A", ("A", "B")) is None


def test_bytes_that_are_no_policy_are_told_apart() -> None:
    assert from_envelope(b"\xff\xff\xff") is None
    assert from_envelope(b"") is None


# --- state -------------------------------------------------------------------------------------------


def changes(block: int, **values: str | None) -> list[Change]:
    return [
        Change(NOTES, key, None if value is None else value.encode(), (block, place))
        for place, (key, value) in enumerate(values.items())
    ]


def keys(world: WorldState, height: int, start: str = "", end: str = "", **more: Any) -> list[str]:
    return [key for key, _ in world.range(NOTES, start, end, height, **more)]


def test_a_snapshot_sees_its_height_whatever_is_applied_since() -> None:
    world = WorldState()
    world.apply(0, changes(0, a="1", b="1"))
    held = world.open_snapshot()
    world.apply(1, changes(1, a="2", b=None, c="1"))
    world.apply(2, changes(2, a=None, b="3"))
    old = world.get(NOTES, "a", held)
    assert old is not None
    assert (old.value, old.version) == (b"1", (0, 0))
    assert keys(world, held) == ["a", "b"]
    assert keys(world, world.height) == ["b", "c"]
    world.close_snapshot(held)
    world.apply(3, [])
    assert world.get(NOTES, "a", world.height) is None
    assert keys(world, world.height) == ["b", "c"]


def test_what_nobody_can_see_any_more_is_forgotten() -> None:
    world = WorldState()
    for block in range(50):
        held = world.open_snapshot()
        world.apply(block, changes(block, a=str(block), **{f"k{block % 2}": str(block) if block % 4 < 2 else None}))
        world.close_snapshot(held)
    world.apply(50, [])
    table = world._tables[NOTES]
    assert all(entry.before is None for entry in table.entries.values())
    assert table.keys == sorted(table.entries)
    assert not world._stale


def test_ranges_are_half_open_or_inclusive_and_in_byte_order() -> None:
    world = WorldState()
    world.apply(0, changes(0, **{"a": "1", "b": "1", "\u00e9": "1", "\U0001f4a1": "1", "\uffee": "1"}))
    assert keys(world, 1) == ["a", "b", "\u00e9", "\uffee", "\U0001f4a1"]
    assert keys(world, 1, "a", "b") == ["a"]
    assert keys(world, 1, "a", "b", inclusive=True) == ["a", "b"]


def test_after_a_query_that_cannot_be_checked_again_nothing_is_written() -> None:
    world = WorldState()
    world.apply(0, changes(0, a="1"))
    run = Simulation(world, "CityMSP")
    list(run.range("notes", "", "", paged=True))
    with pytest.raises(Forbidden, match="paginated query"):
        run.put("notes", "b", b"1")
    run.close()
    other = Simulation(world, "CityMSP")
    other.put("notes", "b", b"1")
    with pytest.raises(Forbidden, match="after a write"):
        list(other.range_private("notes", "both", "", ""))
    other.close()


# --- blocks and certificates -------------------------------------------------------------------------


def test_a_header_is_hashed_as_asn_1() -> None:
    header = common_pb2.BlockHeader(number=200, previous_hash=b"\x01" * 32, data_hash=b"\x02" * 32)
    expected = (
        bytes([0x30, 0x48, 0x02, 0x02, 0x00, 0xC8, 0x04, 0x20]) + b"\x01" * 32 + bytes([0x04, 0x20]) + b"\x02" * 32
    )
    assert header_bytes(header) == expected
    assert header_hash(header) == hashlib.sha256(expected).digest()
    assert data_hash([b"ab", b"c"]) == hashlib.sha256(b"abc").digest()
    assert header_bytes(common_pb2.BlockHeader()) == bytes([0x30, 0x07, 0x02, 0x01, 0x00, 0x04, 0x00, 0x04, 0x00])


def test_a_client_s_attributes_stand_in_its_certificate(tmp_path: Path) -> None:
    now = datetime.datetime.now(datetime.UTC)
    authority = open_authority(tmp_path, "CityMSP", now, 1)
    issued = issue(authority, Subject("m", "CityMSP", "client", attributes={"city.service": "m"}), now, 1)
    extension: Any = x509.load_pem_x509_certificate(issued.certificate).extensions.get_extension_for_oid(ATTRIBUTES)
    assert extension.value.value == b'{"attrs":{"city.service":"m"}}'
    assert (tmp_path / "ca.key").stat().st_mode & 0o077 == 0
    (tmp_path / "ca.pem").unlink()
    with pytest.raises(Damaged, match="only one of"):
        open_authority(tmp_path, "CityMSP", now, 1)


# --- storage -----------------------------------------------------------------------------------------


def test_a_block_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    storage = Storage(tmp_path / "ledger.db")
    outcome = Outcome("t", 0, (1, 0), (0, 0), tuple(changes(0, a="1")))
    broken = Outcome("u", 0, (1, 0), (0, 1), (Change(NOTES, "b", object(), (0, 1)),))  # type: ignore[arg-type]
    with pytest.raises(sqlite3.Error):
        storage.append(NewBlock(0, b"h", b"b", (outcome, broken)))
    assert (storage.height(), list(storage.state()), storage.transaction("t")) == (0, [], None)
    storage.append(NewBlock(0, b"h", b"b", (outcome,)))
    assert [change.value for change in storage.state()] == [b"1"]
    storage.close()


def test_a_file_of_another_format_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 9")
    connection.close()
    with pytest.raises(FailedPrecondition, match="is of format 9"):
        Storage(path)


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[Network]:
    async with network(tmp_path) as made:
        yield made


async def test_a_full_disk_refuses_and_goes_on_by_itself(running: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    gateway, storage = running.gateway(), running.peer._storage
    writes, refused = storage.append, asyncio.Event()
    loop = asyncio.get_running_loop()

    def full(block: NewBlock) -> None:
        loop.call_soon_threadsafe(refused.set)
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(storage, "append", full)
    waiting = asyncio.ensure_future(gateway.submit("notes", "put", [b"a", b"1"]))
    await refused.wait()
    prepared = await gateway.endorse(gateway.propose("notes", "put", [b"b", b"1"]))
    gateway.connection.retry = type(gateway.connection.retry)(tries=1)
    with pytest.raises((SubmitError, OutcomeUnknown), match="database or disk is full"):
        await gateway.send(prepared)
    assert await system.height(gateway) == 1
    monkeypatch.setattr(storage, "append", writes)
    assert (await waiting).block == 1
    assert (await gateway.finish(prepared)).block == 2
