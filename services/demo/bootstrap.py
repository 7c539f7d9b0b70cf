"""Sets up what a city has before its first reading: people, devices, meter points, tariffs, contracts, car parks. Through the RPCs, idempotent."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc.aio

from city.access.v1 import access_pb2
from city.identity.v1 import identity_service_pb2 as identity
from city.identity.v1.identity_service_pb2_grpc import IdentityServiceStub
from city.metering.v1 import metering_service_pb2 as metering
from city.metering.v1.metering_service_pb2_grpc import MeteringServiceStub
from citykit.canonical import encode
from services.demo.parking import PARKERS, ParkingBootstrap
from simulation.car_parks import CarParks
from simulation.neighbourhood import Neighbourhood

CONTRACT_START = "2016-10-04"
MAX_SLOT_WH = 11_500
"""Half an hour at 100 A and 230 V: no home's meter can measure more."""

PEOPLE: dict[str, tuple[str, int]] = {
    "resident:ada": ("ada", access_pb2.ROLE_RESIDENT),
    "contractor:demo": ("contractor-demo", access_pb2.ROLE_CONTRACTOR),
    "staff:operator": ("staff-operator", access_pb2.ROLE_OPERATOR),
    "staff:billing": ("staff-billing", access_pb2.ROLE_BILLING),
    "staff:registrar": ("staff-registrar", access_pb2.ROLE_REGISTRAR),
    "staff:auditor": ("staff-auditor", access_pb2.ROLE_AUDITOR),
    **{f"resident:{login}": (login, access_pb2.ROLE_RESIDENT) for login in PARKERS},
}
_WEEKDAYS, _ALL_DAYS = [0, 1, 2, 3, 4], [0, 1, 2, 3, 4, 5, 6]
TARIFF: dict[str, Any] = {
    "id": "homes-2016",
    "version": 1,
    "currency": "GBP",
    "zone": "Europe/London",
    "valid_from": "2016-10-01",
    "bands": [
        {
            "name": "night",
            "windows": [{"days": _ALL_DAYS, "from_minute": 0, "to_minute": 420}],
            "steps": [{"up_to_wh_per_day": None, "price_micro_per_wh": 8_200}],
        },
        {
            "name": "day",
            "windows": [
                {"days": _WEEKDAYS, "from_minute": 420, "to_minute": 960},
                {"days": _WEEKDAYS, "from_minute": 1140, "to_minute": 1440},
                {"days": [5, 6], "from_minute": 420, "to_minute": 1440},
            ],
            "steps": [
                {"up_to_wh_per_day": 6_000, "price_micro_per_wh": 13_900},
                {"up_to_wh_per_day": None, "price_micro_per_wh": 15_400},
            ],
        },
        {
            "name": "peak",
            "windows": [{"days": _WEEKDAYS, "from_minute": 960, "to_minute": 1140}],
            "steps": [{"up_to_wh_per_day": None, "price_micro_per_wh": 21_700}],
        },
    ],
    "standing_micro_per_day": 24_600_000,
    "vat_basis_points": 500,
    "estimation": "profile-v1",
    "contact": {"disputes": "the city's billing desk", "hardship": "ask for the hardship scheme before the due date"},
    "dispute_days": 28,
}
_BATCH = 1_000


class Bootstrap:
    """The steps, each safe to repeat: request ids are made of what they set up."""

    def __init__(
        self,
        dial: Callable[[str], grpc.aio.Channel],
        neighbourhood: Neighbourhood,
        car_parks: CarParks,
        logins: Path,
        contracts_from: str = CONTRACT_START,
    ) -> None:
        self._parking = ParkingBootstrap(dial, neighbourhood, car_parks)
        self._identity = IdentityServiceStub(dial("identity"))
        self._metering = MeteringServiceStub(dial("metering"))
        self._neighbourhood = neighbourhood
        self._logins = logins
        self._contracts_from = contracts_from

    async def run(self) -> None:
        await self._people()
        await self._devices()
        await self._metering.PublishTariff(
            metering.PublishTariffRequest(request_id="demo-tariff-1", tariff_json=encode(TARIFF).decode())
        )
        await self._meter_points()
        await self._contracts()
        await self._parking.run()

    async def _people(self) -> None:
        logins = demo_logins(self._logins)
        for who, (login, role) in PEOPLE.items():
            request = identity.CreatePersonRequest(
                request_id=f"demo-person-{login}",
                login=login,
                display_name=login,
                roles=[role],  # type: ignore[list-item]  # enum values are ints at run time
                password=logins[who]["password"],
            )
            await self._identity.CreatePerson(request)

    async def _devices(self) -> None:
        vouchers = [
            identity.Voucher(document=item.document, signature=item.signature, manufacturer=item.manufacturer)
            for item in self._neighbourhood.vouchers()
        ]
        for start in range(0, len(vouchers), _BATCH):
            batch = vouchers[start : start + _BATCH]
            request = identity.RegisterDevicesRequest(request_id=f"demo-devices-{start}", vouchers=batch)
            request.in_service_from.seconds = self._neighbourhood.start
            await self._identity.RegisterDevices(request)

    async def _meter_points(self) -> None:
        points = [
            metering.MeterPoint(
                id=meter.meter_point, device=meter.device_id, max_slot_wh=MAX_SLOT_WH, zone="Europe/London"
            )
            for meter in self._neighbourhood.meters
        ]
        for start in range(0, len(points), _BATCH):
            await self._metering.RegisterMeterPoints(
                metering.RegisterMeterPointsRequest(
                    request_id=f"demo-meter-points-{start}", meter_points=points[start : start + _BATCH]
                )
            )

    async def _contracts(self) -> None:
        for meter in self._neighbourhood.meters:
            contract = metering.Contract(
                meter_point=meter.meter_point,
                subject=await self._subject(meter.resident, meter.meter_point),
                tariff=str(TARIFF["id"]),
                from_date=self._contracts_from,
            )
            await self._metering.CreateContract(
                metering.CreateContractRequest(request_id=f"demo-contract-{meter.meter_point}", contract=contract)
            )

    async def _subject(self, resident: str | None, meter_point: str) -> str:
        """Homes without a demo resident have a household nobody can log in as."""
        if resident is None:
            return f"household-{meter_point}"
        answer = await self._identity.GetPairwiseSubject(
            identity.GetPairwiseSubjectRequest(login=resident, audience="metering")
        )
        return answer.subject


def demo_logins(path: Path) -> dict[str, dict[str, str]]:
    """Logins of the demo with passwords made when first needed, readable by the owner only."""
    stored: dict[str, dict[str, str]] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    missing = {who: login for who, (login, _) in PEOPLE.items() if who not in stored}
    if not missing:
        return stored
    made = {who: {"login": login, "password": secrets.token_urlsafe(18)} for who, login in missing.items()}
    unfinished = path.with_suffix(".part")
    with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        json.dump(stored | made, file)
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(path)
    return stored | made
