"""Who calls: a service is a payee by its name, a resident by the subject. Called by the other use cases."""

from __future__ import annotations

from citykit.access import Principal
from citykit.errors import NotFound
from services.payments.domain.payment import Payment

_SERVICE = "service:"
BILLING = "billing"


def service_name(who: Principal) -> str:
    """`parking` for the service parking, else empty."""
    return who.subject.removeprefix(_SERVICE) if who.subject.startswith(_SERVICE) else ""


def require_visible(who: Principal, payment: Payment | None, id_: str) -> Payment:
    """A resident sees own payments, a service those it is paid by, billing all.

    Raises:
        NotFound: not there, or not the caller's; which is not told.
    """
    if payment is not None and (_owns(who, payment) or BILLING in who.roles):
        return payment
    raise NotFound(f"no payment {id_!r} of yours; ListPayments names a resident's", field="payment")


def _owns(who: Principal, payment: Payment) -> bool:
    name = service_name(who)
    return payment.payee == name if name else bool(payment.subject) and payment.subject == who.subject
