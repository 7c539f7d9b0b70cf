"""An executable example of docs/PROOFS.md: makes an account's statement from a seed.

`Books` are told movement by movement; `bundle_of` signs whatever they hold, so that a test can also sign lies as a cheating city could.
Written from the specification alone: it shares code neither with the servers nor with the verifier. Used by the verifier's tests.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from tests.unit.verifier.bundlebytes import CITY, canonical, commit, log_part, mixed, proof, root, secret

ACCOUNT, PARKING, CLEARING = "payer/3f9a", "payee/parking", "provider/clearing"
NOTHING = {"debits_pending_minor": 0, "debits_posted_minor": 0, "credits_pending_minor": 0, "credits_posted_minor": 0}
DAY = 86_400
FROM_TIME, TO_TIME = 1_477_440_000, 1_477_440_000 + 5 * DAY
"""26 to 31 October 2016."""


@dataclass
class Books:
    """One account's postings, each set a list of (place in the set, document)."""

    seed: int = 1
    rule: str = "debits-within-credits"
    from_time: int = FROM_TIME
    to_time: int = TO_TIME
    sets: list[list[tuple[int, dict[str, Any]]]] = field(default_factory=list)
    balance: dict[str, int] = field(default_factory=lambda: dict(NOTHING))
    number: int = 0

    def move(self, time: int, *movements: tuple[str, str, int, int, str]) -> Books:
        """A set of linked transfers at one time: (kind, side, amount, held, other account) each."""
        self.sets.append([])
        for place, movement in enumerate(movements):
            self.sets[-1].append((2 * place + (movement[1] == "credit"), self._posting(time, *movement)))
        return self

    def _posting(self, time: int, kind: str, side: str, amount: int, held: int, counter: str) -> dict[str, Any]:
        self.number += 1
        pending = {"pending": amount, "post-pending": -held, "void-pending": -held}.get(kind, 0)
        self.balance = dict(self.balance)
        self.balance[f"{side}s_pending_minor"] += pending
        self.balance[f"{side}s_posted_minor"] += 0 if kind == "pending" else amount
        return {
            "format": "city.posting.v1", "account": ACCOUNT, "number": self.number, "transfer": f"t-{self.number:03}", "kind": kind,
            "side": side, "amount_minor": amount, "held_minor": held, "currency": "GBP", "counter": counter, "reference": "reservation/res-7",
            "rule": self.rule, "time": datetime.fromtimestamp(time, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"), "balance": self.balance,
        }  # fmt: skip

    def within(self) -> list[list[tuple[int, dict[str, Any]]]]:
        return [one for one in self.sets if self.from_time <= time_of(one) < self.to_time]

    def before(self) -> list[tuple[int, dict[str, Any]]] | None:
        earlier = [one for one in self.sets if time_of(one) < self.from_time]
        return earlier[-1][-1:] if earlier else None


def time_of(one: list[tuple[int, dict[str, Any]]]) -> int:
    return int(datetime.strptime(one[0][1]["time"], "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC).timestamp())


def _set(seed: int, postings: list[tuple[int, dict[str, Any]]], name: str) -> tuple[dict[str, Any], bytes]:
    """A set of a bundle, without its index yet, and its root; the other places hold other accounts' postings."""
    size = 2 * (max(place for place, _ in postings) // 2 + 1)
    entries = [secret(seed, f"{name} of another {place}") for place in range(size)]
    items = []
    for place, document in postings:
        salt = secret(seed, f"salt {name} {place}")
        entries[place] = commit(salt, canonical(document))
        items.append({"salt": salt.hex(), "document": document})
    places = [place for place, _ in postings]
    return {"salt": secret(seed, f"salt {name}").hex(), "proof": proof(entries, places), "postings": items}, root(
        entries
    )


def bundle_of(
    books: Books,
    *,
    before: list[tuple[int, dict[str, Any]]] | None,
    sets: list[list[tuple[int, dict[str, Any]]]],
    log: str = "payments.transfers",
) -> dict[str, Any]:
    """These sets, logged and anchored, whether true or not."""
    shown = copy.deepcopy([*([] if before is None else [before]), *sets])
    documents = [document for one in shown for _, document in one]
    number, balance = (documents[-1]["number"], documents[-1]["balance"]) if documents else (0, NOTHING)
    made = [_set(books.seed, one, f"set {number}") for number, one in enumerate(shown)]
    commitments = [commit(bytes.fromhex(item["salt"]), found) for item, found in made]
    entries, places = mixed(books.seed, commitments, log)
    items = [{**item, "index": place} for (item, _), place in zip(made, places, strict=True)]
    return {
        "format": "city.bundle.v1", "kind": "statement", "city": CITY, "earlier": None, "account": ACCOUNT, "currency": "GBP",
        "from_time": books.from_time, "to_time": books.to_time, "before": items.pop(0) if before is not None else None, "sets": items,
        "closing": {"number": number, "balance": dict(balance)},
        "log": log_part(books.seed, entries, places, f"{CITY}/{log}"),
    }  # fmt: skip


def statement(books: Books) -> dict[str, Any]:
    """The honest statement of the books' range."""
    return bundle_of(books, before=books.before(), sets=books.within())


def busy(seed: int = 1) -> Books:
    """Credit, holds, captures in part, a void, a refund; the first movements before the range, the last after it."""
    books = Books(seed)
    books.move(FROM_TIME - 9_000, ("posted", "credit", 1_000, 0, CLEARING))
    books.move(FROM_TIME - 5_000, ("pending", "debit", 300, 0, PARKING))
    books.move(FROM_TIME, ("post-pending", "debit", 260, 300, PARKING))
    books.move(FROM_TIME + 500, ("posted", "credit", 500, 0, CLEARING), ("pending", "debit", 420, 0, PARKING))
    books.move(FROM_TIME + 600, ("pending", "debit", 360, 0, PARKING))
    books.move(FROM_TIME + DAY, ("void-pending", "debit", 0, 420, PARKING))
    books.move(FROM_TIME + DAY, ("post-pending", "debit", 360, 360, PARKING))
    books.move(FROM_TIME + 2 * DAY, ("posted", "credit", 100, 0, PARKING))
    books.move(TO_TIME - 1, ("posted", "debit", 45, 0, "payee/metering"))
    return books.move(TO_TIME, ("posted", "debit", 1, 0, "payee/metering"))


def from_the_first(seed: int = 1) -> Books:
    """The range begins before the account does."""
    books = busy(seed)
    books.from_time -= DAY
    return books


def quiet(seed: int = 1) -> Books:
    """Nothing happened in the range; what was before it is shown."""
    books = busy(seed)
    books.from_time, books.to_time = TO_TIME + 2 * DAY, TO_TIME + 3 * DAY
    return books


BOOKS = {"busy": busy, "from the first": from_the_first, "quiet": quiet}
