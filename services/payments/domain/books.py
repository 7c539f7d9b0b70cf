"""The books: accounts with balance rules, and transfers that change them, all of a request or none (docs/PROOFS.md, "Payments").

A request works on copies of the accounts and holds it names; the caller keeps them if nothing was raised. The model is TigerBeetle's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from services.payments.domain.errors import Missing, Refused, Reused, Unbalanced

FREE, DEBITS_WITHIN_CREDITS, CREDITS_WITHIN_DEBITS = "free", "debits-within-credits", "credits-within-debits"
POSTED, PENDING, POST_PENDING, VOID_PENDING = "posted", "pending", "post-pending", "void-pending"
OPEN, ENDED = "open", "ended"
BALANCE_MAX = 2**53 - 1


class Balance(NamedTuple):
    """What stands on each side of an account."""

    debits_pending_minor: int = 0
    debits_posted_minor: int = 0
    credits_pending_minor: int = 0
    credits_posted_minor: int = 0


@dataclass(slots=True)
class Account:
    """A working copy; `number` counts its postings."""

    id: str
    currency: str
    rule: str
    number: int = 0
    debits_pending: int = 0
    debits_posted: int = 0
    credits_pending: int = 0
    credits_posted: int = 0

    def balance(self) -> Balance:
        return Balance(self.debits_pending, self.debits_posted, self.credits_pending, self.credits_posted)


class Transfer(NamedTuple):
    """As asked; of the second half of a hold the accounts, the amount and the currency may be left out."""

    id: str
    kind: str
    debit: str = ""
    credit: str = ""
    amount_minor: int = 0
    currency: str = ""
    pending: str = ""
    timeout_s: int = 0
    reference: str = ""


@dataclass(slots=True)
class Hold:
    """A pending transfer, named as it. `expires_at` is unix seconds, 0 for never."""

    transfer: str
    debit: str
    credit: str
    amount_minor: int
    currency: str
    expires_at: int = 0
    state: str = OPEN


class Movement(NamedTuple):
    """A transfer as it was posted, with each account's number and balance after it."""

    id: str
    kind: str
    debit: str
    credit: str
    amount_minor: int
    held_minor: int
    currency: str
    pending: str
    timeout_s: int
    reference: str
    debit_number: int
    debit_balance: Balance
    credit_number: int
    credit_balance: Balance


@dataclass(slots=True)
class Books:
    """The part of the books a request names."""

    accounts: dict[str, Account] = field(default_factory=dict)
    holds: dict[str, Hold] = field(default_factory=dict)


def post(books: Books, transfers: Sequence[Transfer], time: int) -> list[Movement]:
    """Posts linked transfers in order; a later one sees what an earlier one did.

    Raises:
        Missing, Refused: the first transfer the books do not allow; `books` are then not to be kept.
        Unbalanced: a fault of this program.
    """
    before = sums(books.accounts.values())
    movements = [_ended(books, t, time) if t.pending else _begun(books, t, time) for t in transfers]
    require_same(before, sums(books.accounts.values()))
    return movements


def sums(accounts: Iterable[Account]) -> dict[str, int]:
    """All debits less all credits, posted and pending, by currency. Zero over whole books."""
    found: dict[str, int] = {}
    for item in accounts:
        left = item.debits_pending + item.debits_posted - item.credits_pending - item.credits_posted
        found[item.currency] = found.get(item.currency, 0) + left
    return found


def require_same(before: Mapping[str, int], after: Mapping[str, int]) -> None:
    """Raises: Unbalanced, where a step changed a sum."""
    if before != after:
        raise Unbalanced(f"debits less credits were {dict(before)} and would be {dict(after)}")


def same_again(asked: Transfer, posted: Movement) -> None:
    """Accepts a transfer that was posted before with the same content.

    Raises:
        Reused: the content differs.
    """
    whole = not asked.amount_minor and asked.kind == POST_PENDING
    amount = posted.held_minor if whole else asked.amount_minor
    resolved = asked._replace(
        debit=asked.debit or posted.debit,
        credit=asked.credit or posted.credit,
        currency=asked.currency or posted.currency,
        amount_minor=amount,
    )
    if resolved != Transfer(*posted[:5], *posted[6:10]):
        raise Reused(
            f"the transfer {asked.id!r} was posted before with other content; take a new id for a new transfer",
            field="transfers.id",
            reason="transfer-id-reused",
        )


def _begun(books: Books, asked: Transfer, time: int) -> Movement:
    debit, credit = _account(books, asked.debit, "debit"), _account(books, asked.credit, "credit")
    _require_currency(asked, debit, credit)
    amount = asked.amount_minor
    if asked.kind == PENDING:
        expires_at = time + asked.timeout_s if asked.timeout_s else 0
        books.holds[asked.id] = Hold(asked.id, debit.id, credit.id, amount, asked.currency, expires_at)
        _change(asked, debit, credit, amount, 0)
    else:
        _change(asked, debit, credit, 0, amount)
    return _moved(asked, debit, credit, amount, 0)


def _ended(books: Books, asked: Transfer, time: int) -> Movement:
    hold = _hold(books, asked, time)
    debit, credit = books.accounts[hold.debit], books.accounts[hold.credit]
    held = hold.amount_minor
    amount = 0 if asked.kind == VOID_PENDING else asked.amount_minor or held
    if amount > held:
        raise Refused(
            f"the hold {hold.transfer!r} is over {held}, not {amount}; take at most what is held",
            field="transfers.amount_minor",
            reason="over-hold",
        )
    hold.state = ENDED
    _change(asked, debit, credit, -held, amount)
    return _moved(asked._replace(currency=hold.currency), debit, credit, amount, held)


def _hold(books: Books, asked: Transfer, time: int) -> Hold:
    hold = books.holds.get(asked.pending)
    if hold is None:
        raise Missing(f"no hold {asked.pending!r}; name a pending transfer", field="transfers.pending")
    if hold.state != OPEN:
        raise Refused(
            f"the hold {asked.pending!r} is posted or voided already; it ends once",
            field="transfers.pending",
            reason="hold-ended",
        )
    if hold.expires_at and hold.expires_at <= time and asked.kind != VOID_PENDING:
        raise Refused(
            f"the hold {asked.pending!r} expired at {hold.expires_at}; hold again",
            field="transfers.pending",
            reason="hold-expired",
        )
    told = (asked.debit or hold.debit, asked.credit or hold.credit, asked.currency or hold.currency)
    if told != (hold.debit, hold.credit, hold.currency):
        raise Refused(
            f"the hold {asked.pending!r} is {hold.currency} from {hold.debit} to {hold.credit}; leave these out or give the same",
            field="transfers.pending",
            reason="hold-differs",
        )
    return hold


def _account(books: Books, id_: str, side: str) -> Account:
    found = books.accounts.get(id_)
    if found is None:
        raise Missing(f"no account {id_!r}; CreateAccounts opens it", field=f"transfers.{side}_account")
    return found


def _require_currency(asked: Transfer, debit: Account, credit: Account) -> None:
    for account in (debit, credit):
        if account.currency != asked.currency:
            raise Refused(
                f"{account.id} is in {account.currency}, the transfer {asked.id!r} in {asked.currency}; currencies never mix",
                field="transfers.currency",
                reason="currency-mix",
            )


def _change(asked: Transfer, debit: Account, credit: Account, pending: int, posted: int) -> None:
    debit.debits_pending += pending
    debit.debits_posted += posted
    debit.number += 1
    credit.credits_pending += pending
    credit.credits_posted += posted
    credit.number += 1
    _require_rule(asked, debit)
    _require_rule(asked, credit)


def _require_rule(asked: Transfer, account: Account) -> None:
    debits = account.debits_pending + account.debits_posted
    credits_ = account.credits_pending + account.credits_posted
    if debits > BALANCE_MAX or credits_ > BALANCE_MAX:
        raise Refused(
            f"the transfer {asked.id!r} would take {account.id} beyond 2^53-1; use another account",
            field="transfers.amount_minor",
            reason="overflow",
        )
    if account.rule == DEBITS_WITHIN_CREDITS and debits > account.credits_posted:
        raise Refused(
            f"{account.id} has {account.credits_posted} in posted credits and the transfer {asked.id!r} would make its debits {debits};"
            " its debits stay within its credits",
            field="transfers.amount_minor",
            reason="debits-exceed-credits",
        )
    if account.rule == CREDITS_WITHIN_DEBITS and credits_ > account.debits_posted:
        raise Refused(
            f"{account.id} has {account.debits_posted} in posted debits and the transfer {asked.id!r} would make its credits {credits_};"
            " its credits stay within its debits",
            field="transfers.amount_minor",
            reason="credits-exceed-debits",
        )


def _moved(asked: Transfer, debit: Account, credit: Account, amount: int, held: int) -> Movement:
    return Movement(
        asked.id, asked.kind, debit.id, credit.id, amount, held, asked.currency, asked.pending, asked.timeout_s, asked.reference,
        debit.number, debit.balance(), credit.number, credit.balance(),
    )  # fmt: skip
