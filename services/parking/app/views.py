"""A reservation as its resident sees it. Called by `api` and the other use cases."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from google.protobuf.timestamp_pb2 import Timestamp
from sqlalchemy import Connection

from city.parking.v1 import parking_service_pb2 as pb
from citykit.errors import InvalidArgument
from citykit.store.port import Store
from services.parking.app.words import own
from services.parking.domain.reservation import Reservation
from services.parking.store import payments, reservations
from services.parking.store.payments import DROPPED, PaymentRow

PAGE_MAX = 100
_TOKEN = re.compile(r"(\d{1,15})/([a-z0-9-]{1,64})")


@dataclass(frozen=True)
class Views:
    """Reads."""

    store: Store

    async def get(self, id_: str, subject: str) -> pb.Reservation:
        """The person's reservation as it is now.

        Raises:
            NotFound.
        """
        return await self.store.read(lambda c: shown(c, own(reservations.get(c, id_), id_, subject)))

    async def page(self, subject: str, page_size: int, token: str) -> tuple[list[pb.Reservation], str]:
        """The person's reservations, newest first, and the token of the next page.

        Raises:
            InvalidArgument: a negative size, or a token that is none.
        """
        if page_size < 0:
            raise InvalidArgument(f"page_size must lie between 1 and {PAGE_MAX}", field="page_size")
        limit, after = min(page_size or PAGE_MAX, PAGE_MAX), _place(token)
        rows = await self.store.read(_page(subject, after, limit))
        return [message for message, _ in rows], rows[-1][1] if len(rows) == limit else ""


def shown(connection: Connection, one: Reservation) -> pb.Reservation:
    """The message of a stored reservation."""
    return message(one, payments.payments_of(connection, one.id), reservations.is_provable(connection, one.id))


def message(one: Reservation, paid: list[PaymentRow], provable: bool) -> pb.Reservation:
    """The message. Personal data are not in it: it is kept as answers are."""
    answer = pb.Reservation(
        id=one.id,
        lot=one.lot,
        bay=one.bay,
        state=one.state,
        from_time=Timestamp(seconds=one.from_time),
        to_time=Timestamp(seconds=one.to_time),
        hold_until=Timestamp(seconds=one.hold_until),
        quote_minor=one.quote_minor,
        amount_minor=one.price_minor or 0,
        currency=one.currency,
        tariff=one.tariff,
        payments=[row.payment for row in paid if row.payment],
        provable=provable,
        payment_state=_state_of(paid[-1]) if paid else "",
    )
    if one.entry_time:
        answer.entry_time.seconds = one.entry_time
    if one.exit_time:
        answer.exit_time.seconds = one.exit_time
    return answer


def _state_of(row: PaymentRow) -> str:
    return "unknown" if row.state == DROPPED else row.state


def _page(
    subject: str, after: tuple[int, str] | None, limit: int
) -> Callable[[Connection], list[tuple[pb.Reservation, str]]]:
    def read(connection: Connection) -> list[tuple[pb.Reservation, str]]:
        found = reservations.page(connection, subject, after, limit)
        return [
            (message(one, payments.payments_of(connection, one.id), provable), f"{made}/{one.id}")
            for one, made, provable in found
        ]

    return read


def _place(token: str) -> tuple[int, str] | None:
    if not token:
        return None
    found = _TOKEN.fullmatch(token)
    if found is None:
        raise InvalidArgument("page_token must be one this call gave before", field="page_token")
    return int(found[1]), found[2]
