"""The crash run's checks find what they are for: each kind of loss, in files made for it."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import pytest
from sqlalchemy import MetaData
from sqlalchemy.dialects import sqlite
from sqlalchemy.schema import CreateTable

from citykit.bus.events import COMMITMENT
from citykit.bus.headers import encode_headers
from citykit.merkle_log import MerkleLog
from citykit.package import commitment
from citykit.store.tables import KIT_METADATA
from services.parking.store.tables import METADATA as PARKING
from services.payments.store.tables import METADATA as PAYMENTS
from tools.crash_checks import FACTS, log_violations
from tools.crash_money import money_violations, reservation_violations
from tools.crash_parking import Acts, Promises

TOLD = ("lot", "b1", 900, 4_500, 120)


def database(path: Path | str, *tables: MetaData) -> sqlite3.Connection:
    """With the tables a service has, the kit's among them."""
    connection = sqlite3.connect(path)
    for metadata in (*tables, KIT_METADATA):
        for table in metadata.sorted_tables:
            connection.execute(str(CreateTable(table).compile(dialect=sqlite.dialect())))
    return connection


@pytest.fixture
def parking() -> Iterator[sqlite3.Connection]:
    with closing(database(":memory:", PARKING)) as connection:
        yield connection


@pytest.fixture
def payments() -> Iterator[sqlite3.Connection]:
    with closing(database(":memory:", PAYMENTS)) as connection:
        yield connection


def insert(connection: sqlite3.Connection, table: str, **given: object) -> None:
    """A row; columns that are not given are empty or 0."""
    columns = connection.execute(f"PRAGMA table_info({table})").fetchall()
    row = {name: given.get(name, "" if "CHAR" in kind else 0) for _, name, kind, *_ in columns}
    marks = ", ".join(f":{name}" for name in row)
    connection.execute(f"INSERT INTO {table} ({', '.join(row)}) VALUES ({marks})", row)


def reserve(connection: sqlite3.Connection, id_: str, state: str, **given: object) -> None:
    lot, bay, begins, ends, quote = TOLD
    row = {"lot": lot, "bay": bay, "from_time": begins, "to_time": ends, "quote_minor": quote, **given}
    insert(connection, "reservations", id=id_, state=state, **row)


@pytest.mark.parametrize(
    ("state", "told", "found"),
    [
        ("confirmed", "held", ""), ("expired", "held", ""), ("ended", "confirmed", ""), ("no-show", "confirmed", ""),
        ("ended", "active", ""), ("cancelled", "cancelled", ""),
        ("held", "confirmed", "was told to be confirmed and is held"),
        ("expired", "confirmed", "was told to be confirmed and is expired"),
        ("confirmed", "active", "was told to be active"), ("confirmed", "cancelled", "was told to be cancelled"),
    ],
)  # fmt: skip
def test_a_reservation_never_falls_behind_what_was_told(
    parking: sqlite3.Connection, state: str, told: str, found: str
) -> None:
    reserve(parking, "r1", state)
    said = list(reservation_violations(parking, Promises(held={"r1": TOLD}, reached={"r1": told})))
    assert len(said) == bool(found)
    assert found in "".join(said)


def test_a_lost_and_a_changed_reservation_are_named(parking: sqlite3.Connection) -> None:
    reserve(parking, "r1", "held", bay="b2")
    promises = Promises(held={"r1": TOLD, "r2": TOLD}, reached={"r1": "held", "r2": "held"})
    assert [text.split(" ", 4)[3:] for text in reservation_violations(parking, promises)] == [
        ["r1", "is another: ('lot', 'b2', 900, 4500, 120) instead of ('lot', 'b1', 900, 4500, 120)"],
        ["r2", "is lost"],
    ]


@pytest.mark.parametrize(
    ("first", "second", "twice"),
    [
        ({}, {"from_time": 3_600, "to_time": 7_200}, True),
        ({}, {"from_time": 4_500, "to_time": 7_200}, False),
        ({"state": "ended", "exit_time": 1_750}, {"from_time": 1_800}, False),
        ({"state": "ended", "exit_time": 1_801}, {"from_time": 1_800}, True),
        ({}, {"state": "ended", "exit_time": 900}, False),
        ({"state": "cancelled"}, {}, False),
        ({}, {"bay": "b2"}, False),
        ({}, {"lot": "other"}, False),
    ],
)
def test_a_bay_that_was_promised_twice_is_named(
    parking: sqlite3.Connection, first: dict[str, object], second: dict[str, object], twice: bool
) -> None:
    reserve(parking, "r1", str(first.pop("state", "confirmed")), **first)
    reserve(parking, "r2", str(second.pop("state", "held")), **second)
    assert any("promised twice" in text for text in reservation_violations(parking, Promises())) is twice


def transfer(connection: sqlite3.Connection, number: int, amount: int, *, booked: int | None = None) -> None:
    """A set of one transfer, and the balances it makes (or others)."""
    insert(connection, "sets", number=number, request=f"req-{number}", seed=b"", root=b"")
    row = {"set_number": number, "id": f"t-{number}", "debit": "a", "credit": "b", "amount_minor": amount}
    insert(connection, "transfers", kind="posted", **row)
    total = amount if booked is None else booked
    connection.execute("UPDATE accounts SET debits_posted_minor = debits_posted_minor + ? WHERE id = 'a'", (total,))
    connection.execute("UPDATE accounts SET credits_posted_minor = credits_posted_minor + ? WHERE id = 'b'", (amount,))


def test_money_that_is_lost_changed_doubled_or_made_is_named(payments: sqlite3.Connection) -> None:
    for account in ("a", "b"):
        insert(payments, "accounts", id=account)
    transfer(payments, 1, 5)
    told = {"t-1": ("req-1", "a", "b", 5)}
    assert list(money_violations(payments, Promises(transfers=told))) == []
    told["t-1"] = ("req-1", "a", "b", 6)
    told["t-9"] = ("req-9", "a", "b", 1)
    said = list(money_violations(payments, Promises(transfers=told)))
    assert [text.split(" ")[3] for text in said] == ["t-1", "t-9"]
    assert "lost" in said[1]
    insert(payments, "transfers", set_number=1, place=1, id="t-1", kind="pending")
    assert list(money_violations(payments, Promises())) == ["the transfer t-1 stands 2 times"]
    transfer(payments, 2, 7, booked=8)
    said = list(money_violations(payments, Promises()))
    assert said[1:] == [
        "the posted debits of all accounts are 13, the credits 12",
        "the account a says 13 and 0, its transfers make 12 and 0",
    ]


def test_a_stored_fact_is_in_its_log_or_on_the_way_there(tmp_path: Path) -> None:
    facts = next(item for item in FACTS if item.log == "parking.states")
    for service in ("parking", "bus", "notary"):
        (tmp_path / service).mkdir()
    contents = [(bytes([number]) * 32, b"package") for number in range(3)]
    with closing(database(tmp_path / "parking" / "parking.db", PARKING)) as store:
        for number, (salt, content) in enumerate(contents):
            insert(store, "packages", device="d", sequence=number, hash=b"", content=content, salt=salt)
        headers = encode_headers({COMMITMENT: commitment(*contents[1])})
        store.execute("INSERT INTO outbox (topic, key, value, headers) VALUES (?, 'k', x'', ?)", (TOPIC, headers))
        store.commit()
    with closing(database(tmp_path / "bus" / "bus.db")) as bus:
        bus.execute("CREATE TABLE messages (topic, partition, position, headers)")
        bus.execute("CREATE TABLE commits (consumer_group, topic, partition, position)")
        bus.execute("INSERT INTO commits VALUES ('notary', ?, 0, 1)", (TOPIC,))
        bus.execute("INSERT INTO messages VALUES (?, 0, 1, ?)", (TOPIC, encode_headers({COMMITMENT: b"other"})))
        bus.commit()
    with closing(database(tmp_path / "notary" / "notary.db")) as notary:
        notary.execute("CREATE TABLE logs (log, size)")
        notary.execute("CREATE TABLE anchors (log, size)")
        notary.execute("INSERT INTO logs VALUES (?, 1)", (facts.log,))
        notary.commit()
    log = MerkleLog(tmp_path / "notary" / "logs" / facts.log, 0)
    log.commit(log.write([commitment(*contents[0])]))
    log.close()
    assert list(log_violations(tmp_path, facts)) == [
        "parking.states: 1 stored facts are neither in the log nor on the way to it"
    ]
    with closing(sqlite3.connect(tmp_path / "bus" / "bus.db")) as bus:
        bus.execute("UPDATE messages SET headers = ?", (encode_headers({COMMITMENT: commitment(*contents[2])}),))
        bus.commit()
    assert list(log_violations(tmp_path, facts)) == []
    with closing(sqlite3.connect(tmp_path / "parking" / "parking.db")) as store:
        store.execute("DELETE FROM packages WHERE sequence = 0")
        store.commit()
    assert "1 entries of nothing stored" in next(log_violations(tmp_path, facts))


TOPIC = "city.parking.states.v1"


def test_a_resident_asks_the_same_until_it_is_answered_and_goes_on_from_there() -> None:
    acts, seen = Acts("crash-01", random.Random(2)), []
    answer = SimpleNamespace(mandate="m", reservation=SimpleNamespace(id="r", state="confirmed"))
    for _ in range(300):
        service, rpc, request = acts.next(1_478_563_200)
        assert acts.next(1_478_599_999)[2] is request
        seen.append((service, rpc))
        acts.answered(rpc, answer)
    assert seen[:3] == [("payments", "CreateMandate"), ("parking", "Hold"), ("parking", "Confirm")]
    assert {"IssueAccess", "Cancel"} <= {rpc for _, rpc in seen}
    acts.give_up()
    assert acts.next(0)[1] == "CreateMandate"
