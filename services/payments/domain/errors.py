"""What the rules of payments refuse. `app` and `contract` translate these words at their edge."""

from __future__ import annotations

from typing import ClassVar


class RuleBroken(ValueError):
    """Root of what the rules refuse.

    Attributes:
        field: the request's field at fault.
        reason: machine word, kebab-case.
    """

    default_reason: ClassVar[str] = "invalid-argument"

    def __init__(self, message: str, *, field: str = "", reason: str = "") -> None:
        super().__init__(message)
        self.field = field
        self.reason = reason or self.default_reason


class Invalid(RuleBroken):
    """Wrong whatever the state of the books."""


class Missing(RuleBroken):
    """Names an account or a hold that is not there."""

    default_reason = "not-found"


class Refused(RuleBroken):
    """Right in form; the books, or the payment's state, do not allow it."""


class Reused(RuleBroken):
    """An id that came before with other content."""


class Unbalanced(RuntimeError):
    """Debits and credits of a step differ: a fault of the program. Nothing of the step is kept."""
