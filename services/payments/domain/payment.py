"""A payment's life at the provider and in the books: authorise, capture or void, refund. Pure: every step returns the next value.

What is asked of the provider is an operation. It is written down before the provider is asked, under an id that is the provider's
idempotency key, and is waited for until its outcome is certain; in the meantime nothing else is asked for this payment.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from services.payments.domain.books import PENDING, POST_PENDING, POSTED, VOID_PENDING, Transfer
from services.payments.domain.errors import Refused
from services.payments.domain.form import CLEARING, PAYEE, SYSTEM, require_amount

UNKNOWN, AUTHORISED, DECLINED, CAPTURED, VOIDED = "unknown", "authorised", "declined", "captured", "voided"
REFUNDED = "refunded"
AUTHORISE, CAPTURE, VOID, REFUND = "authorise", "capture", "void", "refund"
WAITING, DONE, REFUSED = "waiting", "done", "refused"
REASON_MAX = 100


@dataclass(frozen=True, slots=True)
class Payment:
    """Amounts are what is certain. `waiting_for` is what was asked of the provider and has no certain outcome yet.

    Attributes:
        account: the payer's, a pseudonym.
        method: the provider's token; forgotten once the authorisation is certain.
        captures: captured as soon as it is authorised.
    """

    id: str
    payee: str
    reference: str
    subject: str
    account: str
    currency: str
    amount_minor: int
    mandate: str = ""
    method: str = ""
    captures: bool = False
    state: str = UNKNOWN
    authorised_minor: int = 0
    captured_minor: int = 0
    refunded_minor: int = 0
    waiting_for: str = AUTHORISE
    reason: str = ""
    refunds: int = 0
    version: int = 0
    created_at: int = 0

    @property
    def purpose(self) -> str:
        """The reference of its transfers."""
        return f"{self.payee} {self.reference}"


@dataclass(frozen=True, slots=True)
class Operation:
    """Something asked of the provider. `id` is the idempotency key."""

    id: str
    payment: str
    kind: str
    amount_minor: int
    reason: str = ""
    state: str = WAITING
    created_at: int = 0


@dataclass(frozen=True, slots=True)
class Change:
    """What a receipt says of a step."""

    change: str
    amount_minor: int
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Step:
    """The next value of a payment and what belongs to it in the same unit of work."""

    payment: Payment
    operation: Operation | None = None
    transfers: tuple[Transfer, ...] = ()
    change: Change | None = None


def authorise(payment: Payment) -> Step:
    """A new payment asks for its hold."""
    return Step(payment, _operation(payment, AUTHORISE, payment.amount_minor))


def capture(payment: Payment, amount_minor: int) -> Step:
    """Raises: Invalid, Refused."""
    _require_quiet(payment)
    require_amount(amount_minor)
    _require_state(payment, AUTHORISED, "captured")
    if amount_minor > payment.authorised_minor:
        raise Refused(
            f"{payment.authorised_minor} is authorised, not {amount_minor}; capture at most that",
            field="amount_minor",
            reason="over-authorised",
        )
    return Step(replace(payment, waiting_for=CAPTURE), _operation(payment, CAPTURE, amount_minor))


def void(payment: Payment) -> Step:
    """Raises: Refused."""
    _require_quiet(payment)
    _require_state(payment, AUTHORISED, "voided")
    return Step(replace(payment, waiting_for=VOID), _operation(payment, VOID, payment.authorised_minor))


def refund(payment: Payment, amount_minor: int, reason: str) -> Step:
    """Holds the money at the payee first, so that it is there when the provider has given it back.

    Raises: Invalid, Refused.
    """
    _require_quiet(payment)
    require_amount(amount_minor)
    _require_state(payment, CAPTURED, "refunded")
    left = payment.captured_minor - payment.refunded_minor
    if amount_minor > left:
        raise Refused(
            f"{left} of the captured amount is left, not {amount_minor}; refund at most that",
            field="amount_minor",
            reason="over-captured",
        )
    asked = replace(payment, waiting_for=REFUND, refunds=payment.refunds + 1)
    operation = _operation(asked, REFUND, amount_minor, reason)
    held = _transfer(asked, f"{operation.id}/hold", PENDING, PAYEE + payment.payee, payment.account, amount_minor)
    return Step(asked, operation, (held,))


def settled(payment: Payment, operation: Operation, *, done: bool, reason: str) -> Step:
    """The certain outcome of what was asked; `reason` is the provider's word for a refusal."""
    after, transfers, change = _SETTLED[operation.kind](payment, operation, done, reason)
    return Step(after, replace(operation, state=DONE if done else REFUSED), transfers, change)


_Settled = tuple[Payment, tuple[Transfer, ...], Change | None]


def _authorised(payment: Payment, operation: Operation, done: bool, reason: str) -> _Settled:
    amount = operation.amount_minor
    if not done:
        return _changed(payment, reason, method="", state=DECLINED), (), Change(DECLINED, amount, reason)
    held = _transfer(payment, f"{payment.id}/hold", PENDING, CLEARING, payment.account, amount)
    after = _changed(payment, "", method="", state=AUTHORISED, authorised_minor=amount)
    return after, (held,), Change(AUTHORISED, amount)


def _captured(payment: Payment, operation: Operation, done: bool, reason: str) -> _Settled:
    if not done:
        return _voided(payment, operation, done, reason)
    amount = operation.amount_minor
    taken = _end(payment, f"{payment.id}/capture", POST_PENDING, f"{payment.id}/hold", amount)
    paid = _transfer(payment, f"{payment.id}/pay", POSTED, payment.account, PAYEE + payment.payee, amount)
    return _changed(payment, "", state=CAPTURED, captured_minor=amount), (taken, paid), Change(CAPTURED, amount)


def _voided(payment: Payment, operation: Operation, done: bool, reason: str) -> _Settled:
    """Also where the provider refuses a capture or a void: the hold is gone there."""
    let_go = _end(payment, f"{payment.id}/void", VOID_PENDING, f"{payment.id}/hold", 0)
    return _changed(payment, reason, state=VOIDED), (let_go,), Change(VOIDED, payment.authorised_minor, reason)


def _refunded(payment: Payment, operation: Operation, done: bool, reason: str) -> _Settled:
    amount, held = operation.amount_minor, f"{operation.id}/hold"
    if not done:
        kept = _end(payment, f"{operation.id}/keep", VOID_PENDING, held, 0)
        return replace(payment, waiting_for="", reason=reason), (kept,), None
    back = _end(payment, f"{operation.id}/back", POST_PENDING, held, amount)
    out = _transfer(payment, f"{operation.id}/out", POSTED, payment.account, CLEARING, amount)
    after = _changed(payment, "", refunded_minor=payment.refunded_minor + amount)
    return after, (back, out), Change(REFUNDED, amount, operation.reason)


_SETTLED = {AUTHORISE: _authorised, CAPTURE: _captured, VOID: _voided, REFUND: _refunded}


def _changed(payment: Payment, reason: str, **values: Any) -> Payment:
    """The value that a new version of the receipt shows."""
    return replace(payment, waiting_for="", reason=reason, version=payment.version + 1, **values)


def _operation(payment: Payment, kind: str, amount_minor: int, reason: str = "") -> Operation:
    number = f"-{payment.refunds}" if kind == REFUND else ""
    return Operation(f"{payment.id}-{kind}{number}", payment.id, kind, amount_minor, reason)


def _transfer(payment: Payment, id_: str, kind: str, debit: str, credit: str, amount_minor: int) -> Transfer:
    return Transfer(
        SYSTEM + id_, kind, debit, credit, amount_minor, currency=payment.currency, reference=payment.purpose
    )


def _end(payment: Payment, id_: str, kind: str, hold: str, amount_minor: int) -> Transfer:
    return Transfer(SYSTEM + id_, kind, amount_minor=amount_minor, pending=SYSTEM + hold, reference=payment.purpose)


def _require_quiet(payment: Payment) -> None:
    if payment.waiting_for:
        raise Refused(
            f"the outcome of {payment.waiting_for} is not certain yet; try again in a few seconds, GetPayment says when it is",
            field="payment",
            reason="payment-waiting",
        )


def _require_state(payment: Payment, state: str, word: str) -> None:
    if payment.state != state:
        raise Refused(
            f"the payment is {payment.state}; only one that is {state} can be {word}",
            field="payment",
            reason=f"payment-{payment.state}",
        )
