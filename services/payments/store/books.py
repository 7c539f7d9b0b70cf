"""Accounts, sets, transfers and holds. Hot: statements go to the driver, many rows at once. Called by `app.posting`, `app.books`, bundles."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from sqlalchemy import Connection, func, select

from citykit.store.driver import change_many, one_of, rows
from citykit.store.port import Unit
from services.payments.domain.books import OPEN, PENDING, Account, Balance, Books, Hold, Movement, Transfer
from services.payments.store.tables import ACCOUNTS, BALANCE, HOLDS, SETS, TRANSFERS

_ACCOUNT = ("id", "currency", "rule", "number", *BALANCE)
_TRANSFER = tuple(column.name for column in TRANSFERS.columns)
_HOLD = tuple(column.name for column in HOLDS.columns)
_IN_MAX = 500
_UPDATE_ACCOUNT = (
    "UPDATE accounts SET number = ?, debits_pending_minor = ?, debits_posted_minor = ?, credits_pending_minor = ?,"
    " credits_posted_minor = ? WHERE id = ?"
)


class SetRow(NamedTuple):
    """The transfers of one request."""

    number: int
    request: str
    seed: bytes
    root: bytes
    time: int
    transfers: int
    total: int


def add_accounts(unit: Unit, accounts: Sequence[Account]) -> None:
    unit.insert_many(ACCOUNTS, _ACCOUNT, [(a.id, a.currency, a.rule, a.number, *a.balance()) for a in accounts])


def accounts(connection: Connection, ids: Iterable[str]) -> dict[str, Account]:
    """Those of the accounts that are there."""
    return {row[0]: Account(*row) for row in _named(connection, "accounts", _ACCOUNT, "id", ids)}


def holds(connection: Connection, ids: Iterable[str]) -> dict[str, Hold]:
    return {row[0]: Hold(*row) for row in _named(connection, "holds", _HOLD, "transfer", ids)}


def posted(connection: Connection, ids: Iterable[str]) -> dict[str, Movement]:
    """Those of the transfers that are there, by id."""
    return {row[2]: _movement(row) for row in _named(connection, "transfers", _TRANSFER, "id", ids)}


def books_for(connection: Connection, transfers: Sequence[Transfer]) -> Books:
    """The accounts and holds the transfers name."""
    named = {t.pending for t in transfers if t.pending}
    there = holds(connection, named) if named else {}
    wanted = {t.debit for t in transfers} | {t.credit for t in transfers}
    for hold in there.values():
        wanted |= {hold.debit, hold.credit}
    wanted.discard("")
    return Books(accounts(connection, wanted), there)


class Newest(NamedTuple):
    """The end of the books; zeros where they are empty."""

    number: int = 0
    time: int = 0
    total: int = 0


def newest_set(connection: Connection) -> Newest:
    """The newest set."""
    found = rows(connection, "SELECT number, time, total FROM sets ORDER BY number DESC LIMIT 1")
    return Newest(*found[0]) if found else Newest()


def set_time(connection: Connection, transfer: str) -> int:
    """When a transfer was posted."""
    query = select(SETS.c.time).join(TRANSFERS, TRANSFERS.c.set_number == SETS.c.number)
    return int(connection.execute(query.where(TRANSFERS.c.id == transfer)).scalar_one())


def save(unit: Unit, one: SetRow, movements: Sequence[Movement], books: Books) -> None:
    """Keeps a set with all it changed."""
    unit.insert_many(SETS, SetRow._fields, [one])
    posted = [
        (one.number, place, *m[:10], m.debit_number, *m.debit_balance, m.credit_number, *m.credit_balance)
        for place, m in enumerate(movements)
    ]
    unit.insert_many(TRANSFERS, _TRANSFER, posted)
    changed = {m.debit for m in movements} | {m.credit for m in movements}
    values = [(a.number, *a.balance(), a.id) for name in sorted(changed) if (a := books.accounts[name])]
    change_many(unit.connection, _UPDATE_ACCOUNT, values)
    _save_holds(unit, movements, books)


def _save_holds(unit: Unit, movements: Sequence[Movement], books: Books) -> None:
    begun = [books.holds[m.id] for m in movements if m.kind == PENDING]
    unit.insert_many(
        HOLDS,
        _HOLD,
        [(h.transfer, h.debit, h.credit, h.amount_minor, h.currency, h.expires_at, h.state) for h in begun],
    )
    ended = [(books.holds[m.pending].state, m.pending) for m in movements if m.pending]
    change_many(unit.connection, "UPDATE holds SET state = ? WHERE transfer = ?", ended)


def expired(connection: Connection, now: int, limit: int) -> list[str]:
    """Open holds whose time is over, the first to expire first."""
    query = select(HOLDS.c.transfer).where(HOLDS.c.state == OPEN, HOLDS.c.expires_at > 0, HOLDS.c.expires_at <= now)
    return list(connection.execute(query.order_by(HOLDS.c.expires_at, HOLDS.c.transfer).limit(limit)).scalars())


def sets(connection: Connection, numbers: Iterable[int]) -> list[tuple[SetRow, list[Movement]]]:
    """Sets with all their transfers, in order."""
    found: list[tuple[SetRow, list[Movement]]] = []
    for number in sorted(numbers):
        row = connection.execute(select(SETS).where(SETS.c.number == number)).one()
        query = select(TRANSFERS).where(TRANSFERS.c.set_number == number).order_by(TRANSFERS.c.place)
        found.append((SetRow(*row), [_movement(item) for item in connection.execute(query)]))
    return found


def sets_of(connection: Connection, account: str, from_time: int, to_time: int, limit: int) -> list[int]:
    """Numbers of the sets that touch the account with from_time <= time < to_time, in order."""
    inside = (SETS.c.time >= from_time, SETS.c.time < to_time)
    return _touching(connection, account, inside, SETS.c.number.asc(), limit)


def set_before(connection: Connection, account: str, time: int) -> int | None:
    """Number of the account's last set before a time."""
    found = _touching(connection, account, (SETS.c.time < time,), SETS.c.number.desc(), 1)
    return found[0] if found else None


def _touching(connection: Connection, account: str, where: tuple[Any, ...], order: Any, limit: int) -> list[int]:
    sides = [
        select(TRANSFERS.c.set_number).where(column == account) for column in (TRANSFERS.c.debit, TRANSFERS.c.credit)
    ]
    touched = sides[0].union(sides[1]).subquery()
    query = select(SETS.c.number).where(SETS.c.number.in_(select(touched.c.set_number)), *where)
    return list(connection.execute(query.order_by(order).limit(limit)).scalars())


def sets_until(connection: Connection, time: int) -> int:
    """How many sets there were before a time."""
    query = select(func.coalesce(func.max(SETS.c.number), 0)).where(SETS.c.time < time)
    return int(connection.execute(query).scalar_one())


def totals(connection: Connection) -> tuple[int, int, dict[str, int]]:
    """Accounts, transfers, and debits less credits by currency."""
    c = ACCOUNTS.c
    left = c.debits_pending_minor + c.debits_posted_minor - c.credits_pending_minor - c.credits_posted_minor
    sums = connection.execute(select(c.currency, func.count(), func.sum(left)).group_by(c.currency)).all()
    return sum(row[1] for row in sums), newest_set(connection).total, {row[0]: int(row[2]) for row in sums}


def _movement(row: Any) -> Movement:
    return Movement._make([*row[2:13], Balance(*row[13:17]), row[17], Balance(*row[18:22])])


def _named(connection: Connection, table: str, columns: tuple[str, ...], key: str, ids: Iterable[str]) -> Iterator[Any]:
    wanted = list(ids)
    for at in range(0, len(wanted), _IN_MAX):
        some = tuple(wanted[at : at + _IN_MAX])
        yield from rows(connection, _select(table, columns, key, len(some)), some)


@lru_cache(maxsize=2_048)
def _select(table: str, columns: tuple[str, ...], key: str, count: int) -> str:
    return f"SELECT {', '.join(columns)} FROM {table} WHERE {one_of(key, count)}"  # noqa: S608 - names of our tables
