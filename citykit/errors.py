"""The one tree of errors. Services raise these words; each edge translates them once (gRPC in citykit.service, HTTP in the gateway).

A message says what was wrong, what is allowed and what to do next. It never holds secrets or personal data.
"""

from __future__ import annotations

from typing import ClassVar

import grpc


class CityError(Exception):
    """Root of the tree.

    Attributes:
        code: gRPC status (https://grpc.github.io/grpc/core/md_doc_statuscodes.html).
        reason: machine word, kebab-case, stable.
        field: the request's field at fault, if one is.
        retry_after_s: when trying again can help, else None.
    """

    code: ClassVar[grpc.StatusCode] = grpc.StatusCode.INTERNAL
    default_reason: ClassVar[str] = "internal"

    def __init__(
        self, message: str, *, reason: str | None = None, field: str | None = None, retry_after_s: float | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason or self.default_reason
        self.field = field
        self.retry_after_s = retry_after_s


class InvalidArgument(CityError):
    """The request is wrong whatever the state of the city."""

    code = grpc.StatusCode.INVALID_ARGUMENT
    default_reason = "invalid-argument"


class RequestReused(InvalidArgument):
    """A request id came again with other content."""

    default_reason = "request-id-reused"


class Unauthenticated(CityError):
    """No token, or one that does not hold."""

    code = grpc.StatusCode.UNAUTHENTICATED
    default_reason = "unauthenticated"


class PermissionDenied(CityError):
    """The caller is known and may not do this."""

    code = grpc.StatusCode.PERMISSION_DENIED
    default_reason = "permission-denied"


class NotFound(CityError):
    """No such thing, or not visible to the caller."""

    code = grpc.StatusCode.NOT_FOUND
    default_reason = "not-found"


class AlreadyExists(CityError):
    """It is there already, with other content."""

    code = grpc.StatusCode.ALREADY_EXISTS
    default_reason = "already-exists"


class FailedPrecondition(CityError):
    """Right in form, but not in the present state."""

    code = grpc.StatusCode.FAILED_PRECONDITION
    default_reason = "failed-precondition"


class Conflict(CityError):
    """Somebody else changed the same thing at once; try again."""

    code = grpc.StatusCode.ABORTED
    default_reason = "conflict"


class ResourceExhausted(CityError):
    """A stated limit is reached."""

    code = grpc.StatusCode.RESOURCE_EXHAUSTED
    default_reason = "resource-exhausted"


class Unavailable(CityError):
    """A part is away for now; nothing was done."""

    code = grpc.StatusCode.UNAVAILABLE
    default_reason = "unavailable"


class OutcomeUnknown(CityError):
    """The call may have acted. Ask again with the same request id."""

    code = grpc.StatusCode.UNKNOWN
    default_reason = "outcome-unknown"


class Damaged(CityError):
    """Stored data does not verify; the message names the record."""

    code = grpc.StatusCode.DATA_LOSS
    default_reason = "data-damaged"


class SettingsError(CityError):
    """A setting or environment variable is unknown or out of range."""

    code = grpc.StatusCode.INVALID_ARGUMENT
    default_reason = "settings"


class EnvironmentFault(CityError):
    """The machine lacks something: a port, disk space, a part. Exit code 3."""

    code = grpc.StatusCode.UNAVAILABLE
    default_reason = "environment"
