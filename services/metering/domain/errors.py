"""What the rules of metering refuse. `app` and `contract` translate these words at their edge."""

from __future__ import annotations


class RuleBroken(ValueError):
    """A value the rules do not allow.

    Attributes:
        field: where in the document, e.g. `bands[0].windows[1].to_minute`.
        reason: machine word, kebab-case.
    """

    def __init__(self, message: str, *, field: str = "", reason: str = "invalid-argument") -> None:
        super().__init__(f"{field}: {message}" if field else message)
        self.field = field
        self.reason = reason


class TariffInvalid(RuleBroken):
    """The tariff document breaks docs/PROOFS.md, "Tariff"."""


class NotBillable(RuleBroken):
    """A contract that cannot be billed yet; the message says why."""
