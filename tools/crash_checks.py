"""What must hold in a stopped city's files. Called by `tools.crash` after each kill and at the end."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import Connection

from citykit.bus.events import COMMITMENT
from citykit.bus.headers import decode_headers
from citykit.bus.topics import BY_NAME
from citykit.ledger.local import check_ledger
from citykit.merkle_log import MerkleLog
from citykit.package import commitment
from citykit.store.places import place_of, reading, sqlite_file
from services.notary.check import check_logs
from services.payments.domain.posting import set_salt
from tools.crash_money import Database, money_violations, reservation_violations
from tools.crash_parking import Promises

NOTARY = "notary"
_POLL_S = 0.1


@dataclass(frozen=True)
class Facts:
    """Where a service keeps what has to come into a log.

    Attributes:
        opened: SQL of (salt, content) of each fact; of a set of transfers, the seed its salt is made from.
        all: nothing else may stand in the log.
        salt: from what the SQL gives.
    """

    log: str
    service: str
    opened: str
    all: bool = True
    salt: Callable[[bytes], bytes] = bytes


FACTS = (
    Facts("metering.readings", "metering", "SELECT salt, content FROM packages WHERE length(salt) > 0"),
    Facts("metering.events", "metering", "SELECT salt, document FROM facts WHERE length(salt) > 0", all=False),
    Facts("parking.states", "parking", "SELECT salt, content FROM packages"),
    Facts("parking.events", "parking", "SELECT salt, document FROM documents", all=False),
    Facts("payments.transfers", "payments", "SELECT seed, root FROM sets", salt=set_salt),
    Facts("payments.events", "payments", "SELECT salt, document FROM receipts"),
)


@dataclass
class Acknowledged:
    """What the city said it had.

    Attributes:
        packages: device -> sequence -> hash, of metering's packages.
    """

    packages: dict[str, dict[int, bytes]] = field(default_factory=dict)
    promises: Promises = field(default_factory=Promises)


def violations(
    state: Path, acknowledged: Acknowledged, *, proven: bool, blocks: Sequence[Any] | None = None
) -> Iterator[str]:
    """What does not hold in a stopped city.

    Args:
        proven: `settled` was waited for after the last acknowledgement, so all of it is in the logs and anchored.
        blocks: of the ledger, where it is not in the state directory.
    """
    if (state / "ledger" / "blocks").exists():
        yield from (str(finding) for finding in check_ledger(state / "ledger"))
    yield from kept_violations(state, acknowledged)
    if _there(state, NOTARY):
        yield from (str(finding) for finding in check_logs(state, blocks).findings)
        yield from _repeated(state)
        for facts in FACTS:
            if _there(state, facts.service):
                yield from log_violations(state, facts)
    if proven:
        yield from unproven(state, acknowledged.packages)


def kept_violations(state: Path, acknowledged: Acknowledged) -> Iterator[str]:
    """What of the acknowledged is lost, another or doubled. Each service's state is looked at by itself, so the city may run."""
    if _there(state, "metering"):
        with opened(state, "metering") as database:
            yield from _package_violations(database, acknowledged.packages)
            yield from _bill_violations(database)
    if _there(state, "parking"):
        with opened(state, "parking") as database:
            yield from reservation_violations(database, acknowledged.promises)
    if _there(state, "payments"):
        with opened(state, "payments") as database:
            yield from money_violations(database, acknowledged.promises)


def _package_violations(database: Database, packages: Mapping[str, Mapping[int, bytes]]) -> Iterator[str]:
    stored = {
        (device, sequence): bytes(digest)
        for device, sequence, digest in database.execute("SELECT device, sequence, hash FROM packages")
    }
    for device, sent in packages.items():
        for sequence, digest in sent.items():
            if stored.get((device, sequence)) != digest:
                yield f"{device}: the acknowledged package {sequence} is lost or another"
    readings = database.execute("SELECT COUNT(*), COUNT(DISTINCT meter_point || '/' || slot) FROM readings").fetchone()
    if readings[0] != readings[1]:
        yield "a slot was counted twice"


def _bill_violations(database: Database) -> Iterator[str]:
    twice = database.execute(
        "SELECT contract, period, COUNT(*) FROM (SELECT contract, from_date || '/' || to_date AS period FROM bills WHERE corrects = '') p"
        " GROUP BY contract, period HAVING COUNT(*) > 1"
    ).fetchall()
    yield from (f"contract {contract} has {count} bills for {period}" for contract, period, count in twice)


def log_violations(state: Path, facts: Facts) -> Iterator[str]:
    """Every stored fact is in its log or on the way there; the log holds nothing that is not stored."""
    logged = set(_entries(state, facts.log)[0])
    with opened(state, facts.service) as database:
        known = {commitment(facts.salt(salt), content) for salt, content in database.execute(facts.opened)}
    if facts.all and logged - known:
        yield f"the log {facts.log} holds {len(logged - known)} entries of nothing stored"
    lost = known - logged - on_the_way(state, facts)
    if lost:
        yield f"{facts.log}: {len(lost)} stored facts are neither in the log nor on the way to it"


def _repeated(state: Path) -> Iterator[str]:
    with opened(state, NOTARY) as notary:
        logs = list(log_sizes(notary))
    for log in logs:
        entries, _ = _entries(state, log)
        if len(entries) != len(set(entries)):
            yield f"the log {log} holds an entry twice"


def _entries(state: Path, name: str) -> tuple[list[bytes], int]:
    """The entries of a log, and how many of them are anchored."""
    with opened(state, NOTARY) as notary:
        size, anchored = log_sizes(notary).get(name, (0, 0))
    log = MerkleLog(state / NOTARY / "logs" / name, size)
    try:
        return log.entries(0, log.size), anchored
    finally:
        log.close()


def unproven(state: Path, packages: Mapping[str, Mapping[int, bytes]]) -> Iterator[str]:
    """Acknowledged packages that no anchor covers."""
    entries, anchored = _entries(state, "metering.readings")
    proven = set(entries[:anchored])
    with opened(state, "metering") as database:
        rows = database.execute("SELECT device, sequence, salt, content FROM packages").fetchall()
    mine = [row for row in rows if row[1] in packages.get(row[0], ())]
    missing = sum(commitment(salt, content) not in proven for _, _, salt, content in mine)
    if missing:
        yield f"{missing} acknowledged packages are not in the log's anchored part, though the city had settled"


def on_the_way(state: Path, facts: Facts) -> set[bytes]:
    """Commitments that wait in the service's outbox, or on the bus for the notary: they come into the log at the next start."""
    topics = [topic.name for topic in BY_NAME.values() if topic.log == facts.log]
    waiting: list[bytes] = []
    with opened(state, facts.service) as database:
        waiting += [row[1] for row in database.execute("SELECT topic, headers FROM outbox") if row[0] in topics]
    if _there(state, "bus"):  # elsewhere the notary has read everything before this is asked
        with opened(state, "bus") as bus:
            waiting += [headers for topic in topics for (headers,) in bus.execute(_UNREAD.format(topic=topic))]
    return {decode_headers(bytes(headers)).get(COMMITMENT, b"") for headers in waiting}


_UNREAD = """
SELECT m.headers FROM messages m
LEFT JOIN commits c ON c.consumer_group = 'notary' AND c.topic = m.topic AND c.partition = m.partition
WHERE m.topic = '{topic}' AND m.position >= COALESCE(c.position, 0)
"""


# --- while the city runs ------------------------------------------------------------------------------


async def settled(state: Path, limit_s: float) -> bool:
    """True once everything that is stored at the call has left its outbox, is in a log, and that log's size is anchored.

    The city goes on storing meanwhile, so each stage waits for what was there when the stage before it was passed.
    """
    end = time.monotonic() + limit_s
    for stage in (_left_the_outboxes, _integrated, _anchored):
        passed = stage(state)
        while not passed():
            if time.monotonic() > end:
                return False
            await asyncio.sleep(_POLL_S)
    return True


def _left_the_outboxes(state: Path) -> Callable[[], bool]:
    marks = {service: _last_number(state, service) for service in _services(state)}

    def passed() -> bool:
        firsts = {service: _one(state, service, "SELECT MIN(number) FROM outbox") for service in marks}
        return all(first is None or first > marks[service] for service, first in firsts.items())

    return passed


def _integrated(state: Path) -> Callable[[], bool]:
    logged = [topic.name for topic in BY_NAME.values() if topic.log]
    with opened(state, "bus") as bus:
        marks = {(t, p): n for t, p, n in bus.execute("SELECT topic, partition, position FROM ends") if t in logged}

    def passed() -> bool:
        with opened(state, "bus") as bus:
            query = f"SELECT topic, partition, position FROM commits WHERE consumer_group = '{NOTARY}'"  # noqa: S608 - ours
            done = {(t, p): n for t, p, n in bus.execute(query)}
        return all(done.get(place, 0) >= position for place, position in marks.items())

    return passed


def _anchored(state: Path) -> Callable[[], bool]:
    with opened(state, NOTARY) as notary:
        marks = {log: size for log, (size, _) in log_sizes(notary).items()}

    def passed() -> bool:
        with opened(state, NOTARY) as notary:
            sizes = log_sizes(notary)
        return all(sizes[log][1] >= size for log, size in marks.items())

    return passed


def _services(state: Path) -> list[str]:
    return sorted({facts.service for facts in FACTS if _there(state, facts.service)})


def _last_number(state: Path, service: str) -> int:
    return _one(state, service, "SELECT MAX(seq) FROM sqlite_sequence WHERE name = 'outbox'") or 0


def _one(state: Path, service: str, query: str) -> int | None:
    with opened(state, service) as database:
        found = database.execute(query).fetchone()[0]
    return None if found is None else int(found)


def log_sizes(notary: Database) -> dict[str, tuple[int, int]]:
    """log -> (size, anchored size)."""
    rows = notary.execute(
        "SELECT l.log, l.size, COALESCE(MAX(a.size), 0) FROM logs l LEFT JOIN anchors a ON a.log = l.log GROUP BY l.log, l.size"
    )
    return {log: (size, anchored) for log, size, anchored in rows}


@contextlib.contextmanager
def opened(state: Path, service: str) -> Iterator[Database]:
    """The service's state at a moment, wherever it is kept."""
    with reading(state, service) as connection:
        yield _Reader(connection)


class _Reader:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def execute(self, query: str, /) -> Any:
        return self._connection.exec_driver_sql(query)


def _there(state: Path, service: str) -> bool:
    return place_of(state, service) is not None or sqlite_file(state, service).exists()
