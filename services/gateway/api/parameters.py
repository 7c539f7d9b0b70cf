"""Parameters that many routes share: the caller's token, Idempotency-Key, page, ids, time range."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import Depends, Header, Path, Query, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from google.protobuf.timestamp_pb2 import Timestamp
from pydantic import AwareDatetime

from citykit.errors import InvalidArgument, Unauthenticated
from services.gateway.api.parts import Parts
from services.gateway.app.tokens import TOKEN_MAX, request_id

_bearer = HTTPBearer(
    auto_error=False,
    scheme_name="city",
    bearerFormat="JWT",
    description="Access token of audience `gateway` from /oidc/token (RFC 6750, RFC 9068).",
)


def parts_of(request: Request) -> Parts:
    """What the application was built with."""
    parts: Parts = request.app.state.parts
    return parts


def _token(credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]) -> str:
    if credentials is None:
        raise Unauthenticated(
            "send an access token: Authorization: Bearer ...; /oidc/authorize gives one", reason="no-token"
        )
    if len(credentials.credentials) > TOKEN_MAX or not credentials.credentials.isascii():
        raise Unauthenticated(f"an access token is ASCII and has at most {TOKEN_MAX} characters")
    return credentials.credentials


def _request_id(
    token: Annotated[str, Depends(_token)],
    idempotency_key: Annotated[
        str,
        Header(
            min_length=1,
            max_length=100,
            pattern=r"^[\x21-\x7e]+$",
            description="New for each act, the same for its retries: the same key gives the same answer and acts once."
            " The same key with other content is refused (422).",
            examples=["1f2e8d1a-6f0a-4c1e-9a58-0a5fdb3e8c11"],
        ),
    ],
) -> str:
    return request_id(token, idempotency_key)


YEAR_9999 = 253_370_764_800
"""Its first second; datetimes end soon after."""


@dataclass(frozen=True)
class Page:
    """Which part of a list is wanted."""

    size: int
    token: str


def _page(
    request: Request,
    page_size: Annotated[
        int, Query(ge=1, le=10_000, description="Rows of this page at most; the city's limit (default 500) is lower.")
    ] = 50,
    page_token: Annotated[
        str, Query(max_length=512, description="`next_page_token` of the page before; empty: from the start.")
    ] = "",
) -> Page:
    return Page(min(page_size, parts_of(request).settings.page_max), page_token)


@dataclass(frozen=True)
class Range:
    """From (inclusive) to (exclusive)."""

    from_time: Timestamp
    to_time: Timestamp


FromTime = Annotated[
    AwareDatetime,
    Query(alias="from", description="Inclusive, RFC 3339 with offset.", examples=["2016-11-07T00:00:00Z"]),
]
ToTime = Annotated[
    AwareDatetime, Query(alias="to", description="Exclusive, RFC 3339 with offset.", examples=["2016-11-08T00:00:00Z"])
]


def _range(from_time: FromTime, to_time: ToTime) -> Range:
    return Range(timestamp(from_time, "from"), timestamp(to_time, "to"))


def timestamp(moment: datetime, field: str) -> Timestamp:
    """As protobuf has it.

    Raises:
        InvalidArgument: outside the years 1970 to 9998.
    """
    try:
        seconds = int(moment.astimezone(UTC).timestamp())
    except (OverflowError, ValueError):
        seconds = -1
    if not 0 <= seconds < YEAR_9999:
        raise InvalidArgument(f"{field} must lie between 1970 and 9998", field=field)
    return Timestamp(seconds=seconds)


def _id(what: str, example: str) -> Any:
    return Path(
        min_length=1, max_length=100, pattern=r"^[A-Za-z0-9][A-Za-z0-9._:-]*$", description=what, examples=[example]
    )


Here = Annotated[Parts, Depends(parts_of)]
Token = Annotated[str, Depends(_token)]
RequestId = Annotated[str, Depends(_request_id)]
Paging = Annotated[Page, Depends(_page)]
TimeRange = Annotated[Range, Depends(_range)]
Purpose = Annotated[
    str,
    Query(
        max_length=200,
        description="Staff: why this is read. Required of staff, shown to the resident.",
        examples=["meter check asked for by phone"],
    ),
]
BillId = Annotated[str, _id("The bill.", "bill-2016-10-04-5f0c2ab19d3e4417")]
MeterPointId = Annotated[str, _id("The meter point.", "mp-0001")]
AppealId = Annotated[str, _id("The appeal.", "appeal-5f0c2ab19d3e4417")]
ConsentId = Annotated[str, _id("The consent.", "consent-5f0c2ab19d3e4417")]
ContractId = Annotated[str, _id("The contract.", "contract-5f0c2ab19d3e4417")]
DeviceId = Annotated[str, _id("The device.", "meter-0001")]
PersonId = Annotated[str, _id("The person.", "person-5f0c2ab19d3e4417")]
ReservationId = Annotated[str, _id("The reservation.", "reservation-5f0c2ab19d3e4417")]
PaymentId = Annotated[str, _id("The payment.", "payment-5f0c2ab19d3e4417")]
LogName = Annotated[str, _id("The log.", "metering.readings")]
TransactionId = Annotated[
    str, Path(pattern="^[0-9a-f]{64}$", description="Transaction id, 64 hex digits.", examples=["9f" * 32])
]
