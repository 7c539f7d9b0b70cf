"""Two reservations on one bay whose times meet are counted; one that was left in the moment it began used nothing."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import create_engine, insert

from services.parking.store.reservations import double_bookings
from services.parking.store.tables import METADATA, RESERVATIONS

FROM, TO = 900, 4_500


def counted(*reservations: dict[str, Any]) -> int:
    engine = create_engine("sqlite://")
    METADATA.create_all(engine)
    with engine.begin() as connection:
        for number, one in enumerate(reservations):
            empty = {c.name: "" if c.type.python_type is str else 0 for c in RESERVATIONS.c}
            given = {"id": f"r{number}", "lot": "l", "bay": "b", "from_time": FROM, "to_time": TO, "state": "confirmed"}
            connection.execute(insert(RESERVATIONS).values(empty | given | one))
        return double_bookings(connection)


@pytest.mark.parametrize(
    ("first", "second", "twice"),
    [
        ({}, {}, 1),
        ({}, {"from_time": 3_600}, 1),
        ({}, {"from_time": TO, "to_time": 9_000}, 0),
        ({"state": "ended", "exit_time": 1_750}, {"from_time": 1_800}, 0),
        ({"state": "ended", "exit_time": 1_801}, {"from_time": 1_800}, 1),
        ({"state": "ended", "exit_time": FROM}, {}, 0),
        ({}, {"state": "ended", "exit_time": FROM}, 0),
        ({}, {"bay": "c"}, 0),
        ({}, {"state": "cancelled"}, 0),
    ],
)
def test_what_meets_is_counted(first: dict[str, Any], second: dict[str, Any], twice: int) -> None:
    assert counted(first, second) == twice
