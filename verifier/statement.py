"""A statement of an account, recomputed: whose postings, in what order, what each did to the balance (docs/PROOFS.md, "Payments" and "Bundle").

Called by the step runner.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from verifier.canonical import Failure, encode, fields, unhex
from verifier.found import SALT, Check, Found, commit
from verifier.log_steps import entry_steps
from verifier.merkle import batch_root, leaf
from verifier.times import TIME_MAX, seconds_of, text_of

TRANSFERS_LOG = "payments.transfers"
_HASH, _DAY_S = 32, 86_400
_POSTING = {
    "format": str, "account": str, "number": int, "transfer": str, "kind": str, "side": str, "amount_minor": int, "held_minor": int,
    "currency": str, "counter": str, "reference": str, "rule": str, "time": str, "balance": dict,
}  # fmt: skip
_BALANCE = {
    "debits_pending_minor": int,
    "debits_posted_minor": int,
    "credits_pending_minor": int,
    "credits_posted_minor": int,
}
_SIDES = ("debit", "credit")
_KINDS = ("posted", "pending", "post-pending", "void-pending")
_ENDS = ("post-pending", "void-pending")
_RULES = {
    "free": ("", ""),
    "debits-within-credits": ("debits", "credits"),
    "credits-within-debits": ("credits", "debits"),
}
"""Rule -> the side that is limited, and the side whose posted sum limits it."""


# --- opening the sets ---------------------------------------------------------------------------------


def _sets(found: Found) -> Iterator[tuple[str, Any]]:
    if found.bundle["before"] is not None:
        yield "before", found.bundle["before"]
    for number, item in enumerate(found.bundle["sets"]):
        yield f"sets[{number}]", item


def _commitments(found: Found) -> str:
    """Each set's postings lead to its root, which with its salt is an entry of the log."""
    count = sets = 0
    for where, item in _sets(found):
        fields(item, where, index=int, salt=str, proof=dict, postings=list)
        found.logs[0].open(item["index"], item["salt"], _root(item, where), where)
        count, sets = count + len(item["postings"]), sets + 1
    if not sets:
        raise Failure("the statement shows no posting, so there is nothing to check; ask for a range that holds one")
    return f"{count} postings opened in {sets} sets"


def _root(item: Any, where: str) -> bytes:
    proof = fields(item["proof"], f"{where}.proof", size=int, indexes=list, hashes=list)
    indexes = proof["indexes"]
    if not all(type(index) is int for index in indexes) or indexes != sorted(set(indexes)) or proof["size"] % 2:
        raise Failure(f"{where}.proof: the places are not in order, or the set is not of two postings a transfer")
    if len(indexes) != len(item["postings"]):
        raise Failure(f"{where} holds {len(item['postings'])} postings and a proof for {len(indexes)}")
    leaves = {}
    for number, (index, posting) in enumerate(zip(indexes, item["postings"], strict=True)):
        at = f"{where}.postings[{number}]"
        fields(posting, at, salt=str, document=dict)
        leaves[index] = leaf(commit(unhex(posting["salt"], SALT, f"{at}.salt"), encode(posting["document"])))
    return batch_root(
        leaves, proof["size"], [unhex(one, _HASH, f"{where}.proof.hashes") for one in proof["hashes"]], where
    )


# --- one posting --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Posting:
    """A posting of the statement, its time, and where it stands in its set."""

    where: str
    place: int
    document: Any
    time: int


def _postings(item: Any, where: str) -> list[Posting]:
    return [
        _posting(posting["document"], index, f"{where}.postings[{number}]")
        for number, (index, posting) in enumerate(zip(item["proof"]["indexes"], item["postings"], strict=True))
    ]


def _posting(document: Any, place: int, at: str) -> Posting:
    fields(document, at, **_POSTING)
    _require_balance(document["balance"], f"{at}.balance")
    where = f"posting {document['number']} ({document['transfer']})"
    for name, value, allowed in (
        ("format", document["format"], ("city.posting.v1",)),
        ("kind", document["kind"], _KINDS),
        ("side", document["side"], _SIDES),
        ("rule", document["rule"], tuple(_RULES)),
    ):
        if value not in allowed:
            raise Failure(f"{where}: {name} is {value!r}, not {' or '.join(allowed)}")
    _require_amounts(document, where)
    if _SIDES[place % 2] != document["side"]:
        raise Failure(f"{where} is a {document['side']}, but stands at the place of a {_SIDES[place % 2]} in its set")
    if document["counter"] == document["account"]:
        raise Failure(f"{where} is from the account to itself")
    return Posting(where, place, document, seconds_of(document["time"], f"{where}: time"))


def _require_balance(balance: Any, where: str) -> None:
    fields(balance, where, **_BALANCE)
    for name, amount in balance.items():
        if amount < 0:
            raise Failure(f"{where}.{name} is negative ({amount})")


def _require_amounts(document: Any, where: str) -> None:
    kind, amount, held = document["kind"], document["amount_minor"], document["held_minor"]
    ended = held > 0 and (amount == 0 if kind == "void-pending" else 0 <= amount <= held)
    begun = held == 0 and amount > 0
    if not (ended if kind in _ENDS else begun):
        raise Failure(f"{where}: a {kind} cannot be of {amount} with {held} held")


def after(balance: dict[str, int], document: Any) -> dict[str, int]:
    """The balance with a posting's effect on its side."""
    side, kind, amount, held = (document[name] for name in ("side", "kind", "amount_minor", "held_minor"))
    pending, posted = f"{side}s_pending_minor", f"{side}s_posted_minor"
    if kind == "posted":
        return {**balance, posted: balance[posted] + amount}
    if kind == "pending":
        return {**balance, pending: balance[pending] + amount}
    return {**balance, pending: balance[pending] - held, posted: balance[posted] + amount}


def require_rule(document: Any, where: str) -> None:
    """Raises Failure where the balance is beyond what the account's rule allows."""
    limited, limiting = _RULES[document["rule"]]
    if not limited:
        return
    balance = document["balance"]
    used = balance[f"{limited}_pending_minor"] + balance[f"{limited}_posted_minor"]
    limit = balance[f"{limiting}_posted_minor"]
    if used > limit:
        raise Failure(
            f"{where}: {limited} of {used} exceed posted {limiting} of {limit}; the rule is {document['rule']}"
        )


# --- the whole ----------------------------------------------------------------------------------------


@dataclass
class _Course:
    """What is known of the account while its postings are gone through.

    Attributes:
        holds: (side, counter account, amount) -> holds of this kind that were seen to begin and not to end.
        unseen: side -> what was pending before the first posting shown, not yet ended.
    """

    number: int = 0
    balance: dict[str, int] = field(default_factory=lambda: dict.fromkeys(_BALANCE, 0))
    time: int = 0
    rule: str = ""
    transfers: set[str] = field(default_factory=set)
    holds: Counter[tuple[str, str, int]] = field(default_factory=Counter)
    unseen: dict[str, int] = field(default_factory=lambda: dict.fromkeys(_SIDES, 0))

    def begin(self, posting: Posting) -> None:
        """Starts after the posting before the range."""
        document = posting.document
        if document["number"] < 1:
            raise Failure(f"{posting.where}: postings are counted from 1")
        require_rule(document, posting.where)
        self._take(posting)
        self.unseen = {side: document["balance"][f"{side}s_pending_minor"] for side in _SIDES}

    def go_on(self, posting: Posting) -> None:
        """Takes the next posting.

        Raises:
            Failure: it does not follow from those before.
        """
        document, where = posting.document, posting.where
        if document["number"] != self.number + 1:
            raise Failure(f"{where} follows posting {self.number}: postings are left out, twice or in another order")
        if document["transfer"] in self.transfers:
            raise Failure(f"{where}: the transfer {document['transfer']} was posted to the account before")
        if posting.time < self.time:
            raise Failure(f"{where} is of {document['time']}, before posting {self.number} ({text_of(self.time)})")
        if self.rule and document["rule"] != self.rule:
            raise Failure(f"{where}: the account's rule was {self.rule}, and is {document['rule']} here")
        self._hold(document, where)
        self._require_effect(document, where)
        require_rule(document, where)
        self._take(posting)

    def _require_effect(self, document: Any, where: str) -> None:
        right = after(self.balance, document)
        for name, amount in document["balance"].items():
            if amount != right[name]:
                raise Failure(f"{where}: {name} is {amount}; the balance before and the posting make {right[name]}")

    def _hold(self, document: Any, where: str) -> None:
        """A hold that ends was begun before, with the same other account and amount, and did not end yet."""
        side, counter, kind = document["side"], document["counter"], document["kind"]
        if kind == "pending":
            self.holds[side, counter, document["amount_minor"]] += 1
        if kind not in _ENDS:
            return
        held = document["held_minor"]
        if self.holds[side, counter, held]:
            self.holds[side, counter, held] -= 1
        elif held <= self.unseen[side]:
            self.unseen[side] -= held
        else:
            raise Failure(
                f"{where} ends a hold of {held} with {counter} that is not open: it never began, or ended before"
            )

    def _take(self, posting: Posting) -> None:
        document = posting.document
        self.number, self.balance, self.time = document["number"], document["balance"], posting.time
        self.rule = document["rule"]
        self.transfers.add(document["transfer"])


def _statement(found: Found) -> str:
    bundle = found.bundle
    found.log(TRANSFERS_LOG)
    _require_range(bundle)
    course = _Course()
    _begin(course, bundle)
    first = course.number + 1
    for number, item in enumerate(bundle["sets"]):
        for posting in _postings(item, f"sets[{number}]"):
            _require_here(posting, bundle)
            course.go_on(posting)
    _require_closing(bundle["closing"], course)
    found.report.notes += _notes(course, bundle)
    return _words(bundle, first, course)


def _require_range(bundle: Any) -> None:
    start, end = bundle["from_time"], bundle["to_time"]
    if start % _DAY_S or end % _DAY_S or not 0 <= start < end <= TIME_MAX:
        raise Failure(f"the range {start} to {end} is not of whole days of UTC (multiples of {_DAY_S} s)")


def _begin(course: _Course, bundle: Any) -> None:
    """Starts from `before`; without it the account begins with number 1 and nothing."""
    if bundle["before"] is None:
        return
    postings = _postings(bundle["before"], "before")
    if len(postings) != 1:
        raise Failure(f"before holds {len(postings)} postings, not the one before the range")
    _require_account(postings[0], bundle)
    if postings[0].time >= bundle["from_time"]:
        raise Failure(f"{postings[0].where} is of {postings[0].document['time']}, not before the range")
    course.begin(postings[0])


def _require_account(posting: Posting, bundle: Any) -> None:
    for name in ("account", "currency"):
        if posting.document[name] != bundle[name]:
            raise Failure(f"{posting.where} has {name} {posting.document[name]}; the statement is of {bundle[name]}")


def _require_here(posting: Posting, bundle: Any) -> None:
    _require_account(posting, bundle)
    if not bundle["from_time"] <= posting.time < bundle["to_time"]:
        raise Failure(f"{posting.where} is of {posting.document['time']}, outside the range")


def _require_closing(closing: Any, course: _Course) -> None:
    fields(closing, "closing", number=int, balance=dict)
    _require_balance(closing["balance"], "closing.balance")
    if closing["number"] != course.number:
        raise Failure(f"closing is after posting {closing['number']}; the last is {course.number}")
    for name, amount in course.balance.items():
        if closing["balance"][name] != amount:
            raise Failure(
                f"closing: {name} is {closing['balance'][name]}; after posting {course.number} it is {amount}"
            )


def _notes(course: _Course, bundle: Any) -> list[str]:
    open_minor = sum(course.balance[f"{side}s_pending_minor"] for side in _SIDES)
    held = [f"{bundle['currency']} {open_minor} in minor units is held and not yet decided"] if open_minor else []
    return [
        *held,
        f"the last posting shown is number {course.number}; whether more were posted in the range, the next statement's first number tells",
    ]


def _words(bundle: Any, first: int, course: _Course) -> str:
    span = f"{text_of(bundle['from_time'])} to {text_of(bundle['to_time'])}"
    postings = f"postings {first} to {course.number}" if course.number >= first else "no posting"
    balance = course.balance
    return (
        f"{bundle['account']}, {span}: {postings}; posted in minor units {bundle['currency']} {balance['debits_posted_minor']} debit, "
        f"{balance['credits_posted_minor']} credit; rule {course.rule}"
    )


STATEMENT_STEPS: list[tuple[str, Check]] = [*entry_steps(_commitments), ("statement", _statement)]
