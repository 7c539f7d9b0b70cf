"""JSON about mandates, payments and the city's books. As in `models`: names and meanings are those of the protos."""

from __future__ import annotations

from datetime import datetime

from pydantic import Field

from city.payments.v1 import payments_service_pb2 as payments
from services.gateway.api.models import NextPage, Out, view


class Mandate(Out):
    mandate: str


class Payment(Out):
    """One payment. `unknown` is a state and no error: the provider is asked until it says."""

    id: str
    payee: str = Field(description="The service that is paid.")
    reference: str = Field(description="The payee's own.")
    state: str = Field(description="`unknown`, `authorised`, `declined`, `captured` or `voided`.")
    authorised_minor: int
    captured_minor: int
    refunded_minor: int
    currency: str
    create_time: datetime | None = None
    reason: str = Field(description="A word of why, where declined.")
    waiting_for: str = Field(description="What the provider has not answered for certain; empty: nothing.")


class Payments(Out):
    payments: list[Payment] = Field(description="Newest first.")
    next_page_token: NextPage


class PaymentsBooks(Out):
    """What the books add up to."""

    accounts: int
    transfers: int
    sum_minor: int = Field(description="All debits less all credits. Zero.")
    authorised: int
    captured: int
    unknown: int
    declined: int
    captured_minor: int
    refunded_minor: int


class Difference(Out):
    payment: str
    what: str
    ours_minor: int
    theirs_minor: int


class Reconciliation(Out):
    """One city day: our books against the provider's."""

    day: str
    captured_minor: int
    refunded_minor: int
    provider_captured_minor: int
    provider_refunded_minor: int
    differences: list[Difference]
    waiting: list[str] = Field(description="Payments the provider owes a certain answer for.")
    made_at: datetime | None = None


def payment_view(payment: payments.Payment) -> Payment:
    """A payment with its state as a word."""
    return view(Payment, payment, state=_state_word(payment.state))


def _state_word(state: int) -> str:
    """`captured` for PAYMENT_STATE_CAPTURED."""
    values = payments.PaymentState.DESCRIPTOR.values_by_number
    return str(values[state].name).removeprefix("PAYMENT_STATE_").lower() if state in values else str(state)
