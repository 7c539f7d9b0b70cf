"""The one error of identity's rules. The contract refuses with it; the gRPC edge makes it an invalid argument."""

from __future__ import annotations


class IdentityError(ValueError):
    """A rule is broken.

    Attributes:
        reason: machine word, kebab-case.
        field: which part of the request; empty where none is.
    """

    def __init__(self, reason: str, message: str, field: str = "") -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.field = field
