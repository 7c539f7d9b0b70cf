"""A parking service in an embedded city: identity and payments are fakes in process, notary and ledger are real. Used by parking's tests."""

from __future__ import annotations

import base64
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc.aio
from google.protobuf.timestamp_pb2 import Timestamp

from city.identity.v1 import events_pb2 as identity_events
from city.identity.v1 import identity_service_pb2 as identity
from city.identity.v1.identity_service_pb2_grpc import IdentityServiceServicer, add_IdentityServiceServicer_to_server
from city.notary.v1 import notary_service_pb2 as notary
from city.notary.v1.notary_service_pb2_grpc import NotaryServiceStub
from city.parking.v1 import parking_service_pb2 as pb
from city.parking.v1.parking_service_pb2_grpc import ParkingServiceStub
from city.payments.v1 import payments_service_pb2 as payments_pb
from citykit import canonical
from citykit.access import signing_key
from citykit.bus.events import cloud_event
from citykit.errors import CityError, NotFound
from citykit.package import Signer
from citykit.service import Context, Service, Servicer
from citykit.testing.polling import until
from services.testing import TestCity, embedded_city
from simulation.device import device_signer
from simulation.lock import Lock
from tests.system.fake_payments import FakePayments
from tests.system.metering_city import refusal
from tests.unit.parking.tariffs import tariff
from verifier.bundle import Report, check_bundle
from verifier.trust import read_trust

NINE = 1_478_595_600
"""2016-11-08T09:00 in London, a Tuesday."""
MINUTE, HOUR = 60, 3_600
LOT, LOCK = "high-street", "lock-high-street"
MANDATE = "mandate-1"


def lock_signer(name: str) -> Signer:
    """A lock's key."""
    return device_signer(7, name)


class Registry(IdentityServiceServicer):
    """Knows every lock."""

    def __init__(self) -> None:
        self.jwks = ""

    async def GetJwks(self, request: identity.GetJwksRequest, context: Any) -> identity.GetJwksResponse:
        return identity.GetJwksResponse(json=self.jwks)

    async def GetDevice(self, request: identity.GetDeviceRequest, context: Any) -> identity.GetDeviceResponse:
        if not request.device.startswith("lock-"):
            raise NotFound("no such device")
        public_key = lock_signer(request.device).public_key
        key = identity.DeviceKey(public_key=public_key, algorithm="EdDSA", from_sequence=1, transaction="00" * 32)
        found = identity.Device(id=request.device, keys=[key])
        found.registered_at.seconds = NINE - 86_400
        return identity.GetDeviceResponse(device=found)


@dataclass
class ParkingCity:
    """A running parking service; `payments` is the fake where there is one."""

    city: TestCity
    payments: FakePayments
    folder: Path
    signer: Callable[[str], Signer] = lock_signer
    channels: dict[str, grpc.aio.Channel] = field(default_factory=dict)
    numbers: int = 0

    def stub(self, who: str = "") -> Any:
        """A client: a resident by name, `billing:...` for the desk, nothing for another service."""
        if not who:
            return ParkingServiceStub(self.city.dial("parking"))
        if who not in self.channels:
            role = "billing" if who.startswith("billing") else "resident"
            token = self.city.token(role=role, subject=who, audience="parking")
            self.channels[who] = self.city.dial("parking", token)
        return ParkingServiceStub(self.channels[who])

    def request_id(self) -> str:
        self.numbers += 1
        return f"request-{self.numbers}"

    def now(self) -> int:
        return int(self.city.clock.now())

    async def open_lot(self, bays: int = 2, lot: str = LOT, lock: str = LOCK, **tariff_changes: Any) -> None:
        """A lot with reservable bays, a lock and a tariff."""
        text = canonical.encode(tariff(**tariff_changes)).decode()
        await self.stub().PublishTariff(pb.PublishTariffRequest(request_id=self.request_id(), tariff_json=text))
        place = pb.Lot(
            id=lot, name="High Street", operator="city", capacity=100, latitude_e7=524800000, longitude_e7=-19000000,
            tariff="bays", bays=[f"bay-{n}" for n in range(1, bays + 1)], lock=lock,
        )  # fmt: skip
        await self.stub().RegisterLots(pb.RegisterLotsRequest(request_id=self.request_id(), lots=[place]))

    async def lock(self, name: str = LOCK) -> Lock:
        """The lock, with the keys parking tells."""
        await until(self._has_key, "the key is published")
        answer = await self.stub().ListAccessKeys(pb.ListAccessKeysRequest())
        keys = {key.kid: key.public_key for key in answer.keys}
        return Lock(name, self.signer(name), keys, self.folder / f"{name}.json")

    async def _has_key(self) -> bool:
        return bool((await self.stub().ListAccessKeys(pb.ListAccessKeysRequest())).keys)

    async def hold(self, who: str, from_time: int, to_time: int, lot: str = LOT, **more: Any) -> pb.Reservation:
        request = pb.HoldRequest(
            request_id=more.pop("request_id", "") or self.request_id(), lot=lot,
            from_time=Timestamp(seconds=from_time), to_time=Timestamp(seconds=to_time), **more,
        )  # fmt: skip
        answer: pb.HoldResponse = await self.stub(who).Hold(request)
        return answer.reservation

    async def confirm(self, who: str, reservation: str, mandate: str = MANDATE) -> pb.Reservation:
        request = pb.ConfirmRequest(request_id=self.request_id(), reservation=reservation, mandate=mandate)
        answer: pb.ConfirmResponse = await self.stub(who).Confirm(request)
        return answer.reservation

    async def confirmed(self, who: str, from_time: int, to_time: int) -> pb.Reservation:
        """Held and confirmed."""
        return await self.confirm(who, (await self.hold(who, from_time, to_time)).id)

    async def get(self, who: str, reservation: str) -> pb.Reservation:
        answer = await self.stub(who).GetReservation(pb.GetReservationRequest(reservation=reservation))
        found: pb.Reservation = answer.reservation
        return found

    async def until_state(self, who: str, reservation: str, state: str) -> pb.Reservation:
        async def reached() -> bool:
            return (await self.get(who, reservation)).state == state

        await until(reached, f"{reservation} is {state}")
        return await self.get(who, reservation)

    async def extend(self, who: str, reservation: str, to_time: int) -> pb.Reservation:
        request = pb.ExtendRequest(
            request_id=self.request_id(), reservation=reservation, to_time=Timestamp(seconds=to_time)
        )
        answer: pb.ExtendResponse = await self.stub(who).Extend(request)
        return answer.reservation

    async def cancel(self, who: str, reservation: str) -> pb.Reservation:
        request = pb.CancelRequest(request_id=self.request_id(), reservation=reservation)
        answer: pb.CancelResponse = await self.stub(who).Cancel(request)
        return answer.reservation

    async def until_paid(self, who: str, reservation: str, state: str) -> None:
        async def reached() -> bool:
            return (await self.get(who, reservation)).payment_state == state

        await until(reached, f"{reservation} is {state}")

    async def until_settled(self) -> None:
        """No money is held any more."""
        await until(lambda: not self.payments.held(), "nothing is held")

    async def until_settled_but(self, reservation: str) -> None:
        """No money is held but for one reservation."""
        held = payments_pb.PAYMENT_STATE_AUTHORISED

        def settled() -> bool:
            left = {item.reference for item in self.payments.payments.values() if item.state == held}
            return left == {f"reservation/{reservation}"}

        await until(settled, f"nothing is held but for {reservation}")

    async def bundle(self, who: str, reservation: str) -> dict[str, Any]:
        """The proof of a session, once there is one."""

        async def provable() -> bool:
            return (await self.get(who, reservation)).provable

        await until(provable, f"{reservation} is provable")
        answer = await self.stub(who).GetSessionBundle(pb.GetSessionBundleRequest(reservation=reservation))
        found: dict[str, Any] = json.loads(answer.bundle_json)
        return found

    async def verified(self, bundle: dict[str, Any]) -> Report:
        """What the offline verifier says."""
        stub = NotaryServiceStub(self.city.process.anonymous())
        trust = read_trust(json.loads((await stub.GetTrust(notary.GetTrustRequest())).json))
        return check_bundle(canonical.encode(bundle), trust, None)

    async def instructions(self, lock: Lock) -> list[bytes]:
        """What the lock has not seen."""
        request = pb.ListInstructionsRequest(lock=lock.id, after_sequence=lock.last_instruction)
        return list((await self.stub().ListInstructions(request)).instructions)

    async def document_refused(self, who: str, reservation: str) -> CityError:
        return await refusal(self.document(who, reservation))

    async def document(self, who: str, reservation: str, act: str = "") -> str:
        request = pb.IssueAccessRequest(request_id=self.request_id(), reservation=reservation, act=act)
        answer = await self.stub(who).IssueAccess(request)
        return str(answer.document)

    async def send(self, lock: Lock) -> list[pb.PackageResult]:
        """What the lock has queued."""
        packages = lock.waiting()
        results = await self.ingest(packages)
        lock.sent(len(packages))
        return results

    async def ingest(self, packages: Sequence[bytes]) -> list[pb.PackageResult]:
        stub: Any = ParkingServiceStub(self.city.process.anonymous())
        call = stub.Ingest()
        await call.write(pb.IngestRequest(packages=packages))
        answer = await call.read()
        await call.done_writing()
        return list(answer.results)

    async def pass_(self, lock: Lock, who: str, reservation: str, act: str = "") -> None:
        """The person opens the lock with a document; the lock tells parking."""
        opened = lock.decide(await self.document(who, reservation, act), self.now())
        assert opened.opens, opened
        results = await self.send(lock)
        assert all(result.outcome == pb.PackageResult.OUTCOME_ACCEPTED for result in results), results

    def advance(self, seconds: int) -> None:
        self.city.clock.advance_to(self.city.clock.now() + seconds)

    async def erase(self, subject: str) -> None:
        event = identity_events.SubjectErased(audience="parking", subject=subject)
        message = cloud_event(
            topic="city.identity.events.v1", key=subject, event=event, source="identity", id=f"erased-{subject}",
            time=self.now(), commitment=bytes(32),
        )  # fmt: skip
        await self.city.bus.publish([message])
        await self.city.settle(anchored=False)

    async def books(self) -> pb.GetBooksResponse:
        answer: pb.GetBooksResponse = await self.stub().GetBooks(pb.GetBooksRequest())
        return answer


@contextlib.asynccontextmanager
async def parking_city(
    state: Path, *, now: float = NINE, payments: FakePayments | None = None
) -> AsyncIterator[ParkingCity]:
    """City time stands at `now`."""
    registry = Registry()  # type: ignore[abstract]  # the other RPCs are not called here
    paid = payments or FakePayments()

    def build(ctx: Context) -> Service:
        registry.jwks = json.dumps({"keys": [signing_key(ctx.key("token-signing")).as_dict(private=False)]})
        servicer = Servicer(add_IdentityServiceServicer_to_server, registry, "city.identity.v1.IdentityService")
        return Service(ctx.name, servicers=(servicer,))

    more = {"identity": build, "payments": paid.build}
    async with embedded_city(state, services=("parking", "notary"), start=now, more=more) as city:
        found = ParkingCity(city, paid, state)
        try:
            yield found
        finally:
            for channel in found.channels.values():
                await channel.close(None)


def number_of(document: str) -> int:
    """The number of an access document."""
    body = document.split(".")[1]
    return int(json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))["jti"])
