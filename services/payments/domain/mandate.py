"""Mandates: a resident's permission to one payee to charge one payment method up to a limit, for a time."""

from __future__ import annotations

import re
from dataclasses import dataclass

from services.payments.domain.errors import Invalid, Refused
from services.payments.domain.form import require_amount, require_currency

LIFETIME_MAX_S = 90 * 86_400
PAYEE_MAX, REFERENCE_MAX, METHOD_MAX = 30, 64, 100
_PAYEE = re.compile(r"[a-z][a-z0-9-]{0,29}")
_CARD = re.compile(r"(?:\d[ -]?){12,19}")


@dataclass(frozen=True, slots=True)
class Mandate:
    """`expires_at` is unix seconds."""

    id: str
    subject: str
    payee: str
    limit_minor: int
    currency: str
    method: str
    expires_at: int


def require_mandate(mandate: Mandate, lifetime_s: int) -> None:
    """Raises: Invalid, naming the field."""
    require_payee(mandate.payee)
    require_amount(mandate.limit_minor, "limit_minor")
    require_currency(mandate.currency, "currency")
    require_method(mandate.method)
    if not 1 <= lifetime_s <= LIFETIME_MAX_S:
        raise Invalid(f"a mandate lives 1 to {LIFETIME_MAX_S} s (90 days)", field="lifetime_s")


def require_payee(payee: str) -> None:
    """Raises: Invalid, where it is no name of a service."""
    if not _PAYEE.fullmatch(payee):
        raise Invalid(f"{payee!r} is no payee; name a service, like parking", field="payee")


def require_method(method: str) -> None:
    """Raises: Invalid, where it is no token of the provider's; above all, a card number."""
    if not 1 <= len(method) <= METHOD_MAX or not method.isprintable() or _CARD.fullmatch(method):
        raise Invalid(
            f"payment_method is the provider's token of 1 to {METHOD_MAX} printable characters, never a card number",
            field="payment_method",
        )


def require_reference(reference: str) -> None:
    """Raises: Invalid."""
    if not 1 <= len(reference) <= REFERENCE_MAX or not reference.isprintable():
        raise Invalid(
            f"reference has 1 to {REFERENCE_MAX} printable characters, like reference/...; never personal data",
            field="reference",
        )


def require_charge(mandate: Mandate, payee: str, amount_minor: int, currency: str, used_minor: int, now: int) -> None:
    """Whether the payee may charge this much more.

    Args:
        used_minor: what live payments under the mandate hold or took.

    Raises:
        Refused: and why.
    """
    if mandate.payee != payee:
        raise Refused(f"the mandate is for {mandate.payee}, not {payee}", field="mandate", reason="mandate-payee")
    if now >= mandate.expires_at:
        raise Refused("the mandate has ended; ask the resident for a new one", field="mandate", reason="mandate-ended")
    if currency != mandate.currency:
        raise Refused(
            f"the mandate is in {mandate.currency}, not {currency}; currencies never mix",
            field="currency",
            reason="currency-mix",
        )
    left = mandate.limit_minor - used_minor
    if amount_minor > left:
        raise Refused(
            f"{left} is left of the mandate's limit, not {amount_minor}; ask for less or for a new mandate",
            field="amount_minor",
            reason="mandate-limit",
        )
