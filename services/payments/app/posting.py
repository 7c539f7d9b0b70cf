"""Posts a set of transfers in a unit of work: balances, rows, root, message. Called by every use case that moves money."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from citykit import merkle
from citykit.clock import Clock, iso, unix
from citykit.errors import AlreadyExists, CityError, Damaged, FailedPrecondition, InvalidArgument, NotFound
from citykit.ids import Randomness
from citykit.package import commitment
from citykit.store.port import Unit
from citykit.telemetry import traceparent
from services.payments import events
from services.payments.domain import books as rules
from services.payments.domain.books import Account, Books, Movement, Transfer
from services.payments.domain.errors import Invalid, Missing, Refused, Reused, RuleBroken, Unbalanced
from services.payments.domain.posting import SEED_BYTES, posting_salts, set_documents, set_salt
from services.payments.store import books as stored
from services.payments.store.books import SetRow

_WORDS: tuple[tuple[type[RuleBroken], type[CityError]], ...] = (
    (Invalid, InvalidArgument),
    (Missing, NotFound),
    (Refused, FailedPrecondition),
    (Reused, AlreadyExists),
)
_WAIT_S = {"payment-waiting": 1.0}
"""Refusals that pass by themselves."""


@dataclass(frozen=True)
class Poster:
    """`clock` is read in the unit, so that times never fall from set to set."""

    clock: Clock
    randomness: Randomness

    def post(self, unit: Unit, request: str, transfers: Sequence[Transfer], trace: str = "") -> int:
        """Posts what is not posted yet; returns the city time of the set (of the earlier one, where all was posted before).

        Raises:
            NotFound, FailedPrecondition, AlreadyExists: and the unit is to be given up.
            Damaged: the books would not balance: a fault of this program.
        """
        connection = unit.connection
        known = stored.posted(connection, [transfer.id for transfer in transfers])
        new = [transfer for transfer in transfers if transfer.id not in known]
        for transfer in transfers:
            if transfer.id in known:
                _same_again(transfer, known[transfer.id])
        if not new:
            return stored.set_time(connection, transfers[0].id)
        newest = stored.newest_set(connection)
        time = max(unix(self.clock), newest.time)
        books = stored.books_for(connection, new)
        movements = posted(books, new, time)
        seed = self.randomness(SEED_BYTES)
        root = merkle.root_of(leaves(movements, rules_of(books), seed, time))
        count = len(movements)
        one = SetRow(newest.number + 1, request, seed, root, time, count, newest.total + count)
        stored.save(unit, one, movements, books)
        committed = commitment(set_salt(seed), root)
        unit.publish(events.transfers_posted(one.number, request, count, root, committed, time, trace))
        return time

    def trace(self) -> str:
        """The present request's trace, for `post`, which runs in the store's thread."""
        return traceparent()


def posted(books: Books, transfers: Sequence[Transfer], time: int) -> list[Movement]:
    """`domain.books.post` in the words of the edge."""
    try:
        return rules.post(books, transfers, time)
    except RuleBroken as error:
        raise edge_error(error) from None
    except Unbalanced as error:
        raise Damaged(f"the books would not balance, so nothing was posted: {error}", reason="unbalanced") from error


def leaves(movements: Sequence[Movement], rules_: dict[str, str], seed: bytes, time: int) -> list[bytes]:
    """Leaf hashes of a set's tree: of the commitments to its postings, in order."""
    documents = set_documents(movements, rules_, iso(time))
    salts = posting_salts(seed, len(documents))
    return [merkle.leaf_hash(commitment(salt, document)) for salt, document in zip(salts, documents, strict=True)]


def rules_of(books: Books) -> dict[str, str]:
    """Account -> balance rule."""
    return {account.id: account.rule for account in books.accounts.values()}


def open_account(unit: Unit, id_: str, currency: str, rule: str) -> Account:
    """One of payments' own accounts; opened where it is not yet.

    Raises:
        FailedPrecondition: it is there in another currency.
    """
    found = stored.accounts(unit.connection, [id_]).get(id_)
    if found is None:
        found = Account(id_, currency, rule)
        stored.add_accounts(unit, [found])
    if found.currency != currency:
        raise FailedPrecondition(
            f"{id_} is in {found.currency}, not {currency}; currencies never mix",
            field="currency",
            reason="currency-mix",
        )
    return found


def edge_error(error: RuleBroken) -> CityError:
    """A rule's word in the city's tree of errors."""
    kind = next(city for rule, city in _WORDS if isinstance(error, rule))
    wait = _WAIT_S.get(error.reason)
    return kind(str(error), reason=error.reason, field=error.field or None, retry_after_s=wait)


def _same_again(transfer: Transfer, before: Movement) -> None:
    try:
        rules.same_again(transfer, before)
    except RuleBroken as error:
        raise edge_error(error) from None
