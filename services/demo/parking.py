"""Sets up the demo's parking before its first count: devices, tariff, lots, a permit, the events calendar. Called by `Bootstrap`."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import grpc.aio

from city.identity.v1 import identity_service_pb2 as identity
from city.identity.v1.identity_service_pb2_grpc import IdentityServiceStub
from city.parking.v1 import parking_service_pb2 as parking
from city.parking.v1.parking_service_pb2_grpc import ParkingServiceStub
from citykit.canonical import encode
from simulation.car_parks import CENTRE_E7, CarPark, CarParks
from simulation.neighbourhood import ZONE, Neighbourhood

PARKERS = tuple(f"parker-{number:02d}" for number in range(1, 7))
"""Logins of the simulated residents who park; the first has a permit."""
PERMIT_BASIS_POINTS = 5_000
HOLD_MINUTES = 60
"""Long, because city time flies in a demo: at 900 city seconds a second it is four seconds."""
_OPERATOR = "demo-car-parks"
_ALL_DAYS = [0, 1, 2, 3, 4, 5, 6]
TARIFF: dict[str, Any] = {
    "id": "bays-2016",
    "version": 1,
    "currency": "GBP",
    "zone": "Europe/London",
    "valid_from": "2016-10-01",
    "step_minutes": 30,
    "bands": [
        {"name": "night", "windows": [{"days": _ALL_DAYS, "from_minute": 0, "to_minute": 420}], "price_minor_per_step": 20},
        {"name": "day", "windows": [{"days": _ALL_DAYS, "from_minute": 420, "to_minute": 1140}], "price_minor_per_step": 90},
        {"name": "evening", "windows": [{"days": _ALL_DAYS, "from_minute": 1140, "to_minute": 1440}], "price_minor_per_step": 50},
    ],
    "cap_minor_per_day": 1_200,
    "overstay_minor_per_step": 150,
    "overstay_steps_max": 8,
    "no_show_minor": 200,
    "cancel_minor": 100,
    "cancel_free_minutes": 60,
    "grace_minutes": 10,
    "hold_minutes": HOLD_MINUTES,
    "vat_basis_points": 2_000,
}  # fmt: skip
_EVENTS = (
    ("evening-concert", "Concert in the town hall", datetime(2016, 11, 9, 18, tzinfo=ZONE), 4, 350, (300, -200)),
    ("winter-market", "Winter market", datetime(2016, 11, 19, 9, tzinfo=ZONE), 9, 900, (0, 0)),
    ("cup-match", "Cup match in the stadium", datetime(2016, 11, 26, 14, tzinfo=ZONE), 4, 1_500, (-600, 500)),
)
"""(id, name, beginning, hours, cars, metres north and east of the centre). All invented; the calendar knows them beforehand."""
_E7_PER_M = 90


class ParkingBootstrap:
    """The steps, each safe to repeat."""

    def __init__(
        self, dial: Callable[[str], grpc.aio.Channel], neighbourhood: Neighbourhood, car_parks: CarParks
    ) -> None:
        self._identity = IdentityServiceStub(dial("identity"))
        self._parking = ParkingServiceStub(dial("parking"))
        self._neighbourhood = neighbourhood
        self._car_parks = car_parks

    async def run(self) -> None:
        await self._devices()
        await self._parking.PublishTariff(
            parking.PublishTariffRequest(request_id="demo-bays-1", tariff_json=encode(TARIFF).decode())
        )
        lots = [lot_message(lot) for lot in self._car_parks.lots]
        await self._parking.RegisterLots(parking.RegisterLotsRequest(request_id="demo-lots", lots=lots))
        await self._permit()
        await self._parking.AddCityEvents(
            parking.AddCityEventsRequest(request_id="demo-city-events", events=[_event(*one) for one in _EVENTS])
        )

    async def _devices(self) -> None:
        vouchers = [
            identity.Voucher(document=item.document, signature=item.signature, manufacturer=item.manufacturer)
            for item in self._car_parks.vouchers(self._neighbourhood)
        ]
        request = identity.RegisterDevicesRequest(request_id="demo-parking-devices", vouchers=vouchers)
        await self._identity.RegisterDevices(request)

    async def _permit(self) -> None:
        """Half price for one of the simulated residents."""
        answer = await self._identity.GetPairwiseSubject(
            identity.GetPairwiseSubjectRequest(login=PARKERS[0], audience="parking")
        )
        request = parking.GrantPermitRequest(
            request_id="demo-permit", subject=answer.subject, price_basis_points=PERMIT_BASIS_POINTS
        )
        request.from_time.seconds = self._car_parks.start
        request.to_time.seconds = self._car_parks.start + int(timedelta(days=365).total_seconds())
        await self._parking.GrantPermit(request)


def lot_message(lot: CarPark) -> parking.Lot:
    """The lot as parking registers it. The source says nothing of opening hours, so it is always open."""
    return parking.Lot(
        id=lot.id,
        name=lot.name,
        operator=_OPERATOR,
        capacity=lot.capacity,
        latitude_e7=lot.latitude_e7,
        longitude_e7=lot.longitude_e7,
        open_hours=[parking.OpenHours(weekday=day, from_minute=0, to_minute=1_440) for day in _ALL_DAYS],
        tariff=TARIFF["id"],
        bays=lot.bays,
        sensors=lot.sensors,
        lock=lot.lock,
    )


def _event(id: str, name: str, begins: datetime, hours: int, cars: int, metres: tuple[int, int]) -> parking.CityEvent:
    north, east = metres
    event = parking.CityEvent(
        id=id,
        name=name,
        latitude_e7=CENTRE_E7[0] + north * _E7_PER_M,
        longitude_e7=CENTRE_E7[1] + east * _E7_PER_M * 164 // 100,
        cars=cars,
    )
    event.from_time.seconds = int(begins.timestamp())
    event.to_time.seconds = int(begins.timestamp()) + hours * 3_600
    return event
