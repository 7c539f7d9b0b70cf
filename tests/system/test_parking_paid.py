"""One session from the mandate to the receipt, in a city of the real services: what the resident gets convinces the offline verifier."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc.aio

from city.identity.v1 import identity_service_pb2 as identity
from city.identity.v1.identity_service_pb2_grpc import IdentityServiceStub
from city.payments.v1 import payments_service_pb2 as payments
from city.payments.v1.payments_service_pb2_grpc import PaymentsServiceStub
from citykit.bus.port import Bus
from citykit.package import Ed25519Signer, Signer
from services.testing import embedded_city
from simulation.provider import SandboxProvider
from tests.system.fake_payments import FakePayments
from tests.system.identity_city import device_key, voucher
from tests.system.identity_city import settings as identity_settings
from tests.system.parking_city import HOUR, LOCK, NINE, ParkingCity
from tests.system.payments_city import SECRET, payments_settings


def signer(name: str) -> Signer:
    return Ed25519Signer.from_seed(bytes(device_key(name)))


@contextlib.asynccontextmanager
async def paid_city(
    state: Path,
    more: Sequence[str] = (),
    *,
    start: float = NINE,
    bus: Callable[[Bus], Bus] | None = None,
    **groups: Any,
) -> AsyncIterator[ParkingCity]:
    """Identity, parking, payments, notary, `more` services and the sandbox provider; the lock is registered on the ledger.

    Args:
        groups: of settings, instead of the usual ones.
    """
    running: list[Any] = []

    async def callback(body: bytes, signature: str) -> None:
        with contextlib.suppress(grpc.aio.AioRpcError):
            stub = PaymentsServiceStub(running[0].process.anonymous())
            await stub.ReceiveCallback(payments.ReceiveCallbackRequest(body=body, signature=signature))

    async with SandboxProvider(seed=1, secret=SECRET, callback=callback) as provider:
        settings = replace(payments_settings(state, provider, 0.05), identity=identity_settings().identity, **groups)
        services = ("identity", "parking", "payments", "notary", *more)
        async with embedded_city(state, services=services, start=start, settings=settings, bus=bus) as city:
            running.append(city)
            town = ParkingCity(city, FakePayments(), state, signer)
            request = identity.RegisterDevicesRequest(request_id="lock", vouchers=[voucher(LOCK)])
            await IdentityServiceStub(city.dial("identity")).RegisterDevices(request)
            try:
                yield town
            finally:
                for channel in town.channels.values():
                    await channel.close(None)


def purse(town: ParkingCity, who: str) -> Any:
    """A resident's client of payments."""
    place = f"payments/{who}"
    if place not in town.channels:
        token = town.city.token(role="resident", subject=who, audience="payments")
        town.channels[place] = town.city.dial("payments", token)
    return PaymentsServiceStub(town.channels[place])


async def mandate(town: ParkingCity, who: str) -> str:
    """What a resident allows parking to charge."""
    request = payments.CreateMandateRequest(
        request_id=f"mandate-{who}", payee="parking", limit_minor=10_000, currency="GBP", payment_method="pm_1", lifetime_s=86_400,
    )  # fmt: skip
    return str((await purse(town, who).CreateMandate(request)).mandate)


async def test_a_session_is_paid_and_proven(tmp_path: Path) -> None:
    async with paid_city(tmp_path) as town:
        await town.open_lot(bays=1)
        barrier = await town.lock()
        held = await town.hold("ada", NINE, NINE + HOUR, plate="AB12 CDE")
        confirmed = await town.confirm("ada", held.id, await mandate(town, "ada"))
        assert (confirmed.state, confirmed.payment_state) == ("confirmed", "authorised")
        await town.extend("ada", held.id, NINE + 2 * HOUR)
        await town.pass_(barrier, "ada", held.id)
        town.advance(3 * HOUR)
        await town.pass_(barrier, "ada", held.id)
        await town.until_paid("ada", held.id, "voided")
        bundle = await town.bundle("ada", held.id)
        report = await town.verified(bundle)
        assert report.ok, report
        assert [document["document"]["change"] for document in bundle["reservation"]] == [
            "held", "confirming", "confirmed", "extended", "started", "ended",
        ]  # fmt: skip
        forged = copy.deepcopy(bundle)
        forged["reservation"][-1]["document"]["price_minor"] -= 1
        assert not (await town.verified(forged)).ok
