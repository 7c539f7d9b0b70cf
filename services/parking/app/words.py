"""The domain's refusals as the city's errors, and what several use cases say alike. Called by the other use cases."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from citykit.errors import FailedPrecondition, InvalidArgument, NotFound
from services.parking.domain.errors import ParkingRefused, WrongState
from services.parking.domain.reservation import Reservation


@contextlib.contextmanager
def in_city_words() -> Iterator[None]:
    """Around a use case.

    Raises:
        FailedPrecondition: the state does not allow it. InvalidArgument: whatever the state.
    """
    try:
        yield
    except WrongState as error:
        raise FailedPrecondition(str(error), reason="wrong-state", field=error.field or None) from None
    except ParkingRefused as error:
        raise InvalidArgument(str(error), field=error.field or None) from None


def own(one: Reservation | None, id_: str, subject: str) -> Reservation:
    """The person's own reservation.

    Raises:
        NotFound: there is none; whether somebody else has one is not told.
    """
    if one is None or one.subject != subject:
        raise NotFound(f"you have no reservation {id_!r}; ListReservations names yours", field="reservation")
    return one
