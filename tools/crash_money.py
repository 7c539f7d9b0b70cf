"""What must hold of reservations and of money in a stopped city's files. Called by `tools.crash_checks`."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any, Protocol

from tools.crash_parking import Promises


class Database(Protocol):
    """A connection to a service's state, whichever database holds it."""

    def execute(self, query: str, /) -> Any: ...


_OVER = frozenset({"ended", "cancelled", "no-show", "expired", "declined"})
_LATER = {
    "held": _OVER | {"held", "confirming", "confirmed", "active"},
    "confirming": _OVER | {"confirming", "confirmed", "active"},
    "confirmed": frozenset({"confirmed", "active", "ended", "cancelled", "no-show"}),
    "active": frozenset({"active", "ended"}),
}
"""State that was told -> states it may be in by now. What is over stays as it is."""
_KEPT = frozenset({"held", "confirming", "confirmed", "active", "ended", "no-show"})
"""States in which the bay was somebody's for the time of the reservation."""

_USED = """
SELECT lot, bay, from_time,
  CASE WHEN exit_time > 0 AND (exit_time + 899) / 900 * 900 < to_time THEN (exit_time + 899) / 900 * 900 ELSE to_time END, id, state
FROM reservations ORDER BY lot, bay, from_time
"""


def reservation_violations(database: Database, promises: Promises) -> Iterator[str]:
    """Reservations that were told and are lost or another; bays that were promised twice."""
    stored = {
        row[0]: (row[1:6], row[6])
        for row in database.execute("SELECT id, lot, bay, from_time, to_time, quote_minor, state FROM reservations")
    }
    for id_, told in promises.held.items():
        if id_ not in stored:
            yield f"the acknowledged reservation {id_} is lost"
        elif stored[id_][0] != told:
            yield f"the acknowledged reservation {id_} is another: {stored[id_][0]} instead of {told}"
        elif stored[id_][1] not in _LATER.get(promises.reached[id_], {promises.reached[id_]}):
            yield f"the reservation {id_} was told to be {promises.reached[id_]} and is {stored[id_][1]}"
    yield from _twice(database)


def _twice(database: Database) -> Iterator[str]:
    """From the reservations themselves, not from the table of promises: two on one bay whose times meet."""
    rows = [row[:5] for row in database.execute(_USED) if row[5] in _KEPT and row[2] < row[3]]  # left at once: not used
    for (lot, bay, _, until, one), (next_lot, next_bay, begins, _, other) in pairwise(rows):
        if (lot, bay) == (next_lot, next_bay) and begins < until:
            yield f"bay {bay} of {lot} was promised twice: {one} and {other}"


def money_violations(database: Database, promises: Promises) -> Iterator[str]:
    """Transfers that were told and are lost, another or doubled; sums that are not zero; balances the transfers do not make."""
    stored: dict[str, list[tuple[str, str, str, int]]] = {}
    query = "SELECT t.id, s.request, t.debit, t.credit, t.amount_minor FROM transfers t JOIN sets s ON s.number = t.set_number"
    for id_, *content in database.execute(query):
        stored.setdefault(id_, []).append(tuple(content))
    for id_, told in promises.transfers.items():
        if stored.get(id_) != [told]:
            yield f"the acknowledged transfer {id_} is {stored.get(id_, 'lost')} instead of {told}"
    yield from (f"the transfer {id_} stands {len(rows)} times" for id_, rows in stored.items() if len(rows) > 1)
    for kind in ("posted", "pending"):
        debits, credits = database.execute(
            f"SELECT COALESCE(SUM(debits_{kind}_minor), 0), COALESCE(SUM(credits_{kind}_minor), 0) FROM accounts"  # noqa: S608 - two words of ours
        ).fetchone()
        if debits != credits:
            yield f"the {kind} debits of all accounts are {debits}, the credits {credits}"
    yield from _balances(database)


def _balances(database: Database) -> Iterator[str]:
    """Each account's posted sums against its transfers."""
    rows = database.execute(
        "SELECT a.id, a.debits_posted_minor, a.credits_posted_minor,"
        " (SELECT COALESCE(SUM(amount_minor), 0) FROM transfers WHERE debit = a.id AND kind IN ('posted', 'post-pending')),"
        " (SELECT COALESCE(SUM(amount_minor), 0) FROM transfers WHERE credit = a.id AND kind IN ('posted', 'post-pending'))"
        " FROM accounts a"
    )
    for account, debits, credits, made_debits, made_credits in rows:
        if (debits, credits) != (made_debits, made_credits):
            yield f"the account {account} says {debits} and {credits}, its transfers make {made_debits} and {made_credits}"
