"""Errors of the chaincode shim. A handler may raise `ChaincodeError`; the others tell it what the peer or the shim would not do."""

from __future__ import annotations

ERROR_THRESHOLD = 400
"""A response of this status or higher is not endorsed and writes nothing."""
ERROR = 500


class ShimError(Exception):
    """Root of the shim's errors."""


class ChaincodeError(ShimError):
    """Raised by a handler: the transaction ends with this error response and writes nothing.

    Args:
        status: 400 or higher.
    """

    def __init__(self, message: str, *, status: int = ERROR) -> None:
        super().__init__(message)
        if status < ERROR_THRESHOLD:
            raise ValueError(f"an error response has a status from {ERROR_THRESHOLD} up, not {status}")
        self.status = status
        self.message = message


class PeerError(ShimError):
    """The peer answered a state request with ERROR; the message is the peer's."""


class LimitExceeded(ShimError):
    """More writes, bytes or entries than the shim's limits allow; the message says which limit."""


class BadKey(ShimError, ValueError):
    """A key or part of a composite key that Fabric does not take."""
