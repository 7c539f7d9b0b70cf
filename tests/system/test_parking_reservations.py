"""Reservations over gRPC: hold, confirm, extend, cancel, use; what is refused, and what happens by itself."""

from __future__ import annotations

from pathlib import Path

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from city.parking.v1 import parking_service_pb2 as pb
from citykit.errors import FailedPrecondition, InvalidArgument, NotFound, RequestReused, ResourceExhausted
from citykit.testing.polling import until
from tests.system.metering_city import refusal
from tests.system.parking_city import HOUR, LOT, MINUTE, NINE, ParkingCity, parking_city
from tests.unit.parking.tariffs import band, free_tariff


async def test_hold_confirm_and_cancel(tmp_path: Path) -> None:
    async with parking_city(tmp_path) as town:
        await town.open_lot(bays=1)
        held = await town.hold("ada", NINE + HOUR, NINE + 3 * HOUR, plate="ab12 cde")
        assert (held.state, held.bay, held.quote_minor, held.currency) == ("held", "bay-1", 240, "GBP")
        assert held.hold_until.seconds == NINE + 10 * MINUTE
        found = await town.confirm("ada", held.id)
        assert (found.state, found.payment_state, list(found.payments)) == ("confirmed", "authorised", ["payment-1"])
        assert town.payments.payments["payment-1"].authorised_minor == 240 + 8 * 150
