"""A served city of payments and notary with the sandbox provider, a stand-in for identity, and callers of each role."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import grpc.aio

from city.identity.v1.identity_service_pb2_grpc import add_IdentityServiceServicer_to_server
from city.notary.v1 import notary_service_pb2 as notary
from city.notary.v1.notary_service_pb2_grpc import NotaryServiceStub
from city.payments.v1 import payments_service_pb2 as pb
from city.payments.v1.payments_service_pb2_grpc import PaymentsServiceStub
from citykit import canonical
from citykit.access import signing_key
from citykit.run import Build
from citykit.service import Context, Service, Servicer
from citykit.settings import CitySettings, NotarySettings, PaymentsSettings
from citykit.testing.polling import until
from services.testing import START, TestCity, embedded_city
from simulation.provider import SandboxProvider
from simulation.provider_books import ProviderBooks
from simulation.provider_faults import NO_FAULTS, ProviderFaults
from tests.system.metering_city import Registry, refusal
from verifier.bundle import Report, check_bundle
from verifier.trust import read_trust

SECRET = b"a key shared with the provider"
NOON = START + 12 * 3_600
ADA, BOB = "ada", "bob"
STATE = pb.PaymentState


@dataclass
class PaymentsCity:
    city: TestCity
    provider: SandboxProvider
    registry: Registry
    channels: list[grpc.aio.Channel] = field(default_factory=list)
    numbers: int = 0

    def service(self, name: str = "parking") -> Any:
        """A client as a service has it."""
        return PaymentsServiceStub(self.city.process.dial(name, "payments"))

    def stub(self, role: str, subject: str = "") -> Any:
        """A client with a role; `nobody` has none."""
        if role == "nobody":
            return PaymentsServiceStub(self.city.process.anonymous())
        token = self.city.token(role=role, subject=subject or f"{role}-1", audience="payments")
        channel = self.city.dial("payments", token)
        self.channels.append(channel)
        return PaymentsServiceStub(channel)

    def request_id(self) -> str:
        self.numbers += 1
        return f"request-{self.numbers}"

    async def mandate(
        self, subject: str = ADA, *, method: str = "pm_1", limit: int = 10_000, payee: str = "parking"
    ) -> str:
        request = pb.CreateMandateRequest(
            request_id=self.request_id(), payee=payee, limit_minor=limit, currency="GBP", payment_method=method, lifetime_s=86_400,
        )  # fmt: skip
        answer = await self.stub("resident", subject).CreateMandate(request)
        return str(answer.mandate)

    async def authorise(self, mandate: str, reference: str, amount: int = 1_000) -> pb.Payment:
        """Authorised, or what came of it, for certain."""
        answer = await self.service().Authorise(self.authorising(mandate, reference, amount))
        return await self.certain(answer.payment.id)

    def authorising(
        self, mandate: str, reference: str, amount: int = 1_000, currency: str = "GBP"
    ) -> pb.AuthoriseRequest:
        return pb.AuthoriseRequest(
            request_id=self.request_id(), mandate=mandate, amount_minor=amount, currency=currency, reference=reference
        )

    async def capture(self, payment: str, amount: int) -> pb.Payment:
        request = pb.CaptureRequest(request_id=self.request_id(), payment=payment, amount_minor=amount)
        await self.service().Capture(request)
        return await self.certain(payment)

    async def void(self, payment: str) -> pb.Payment:
        request = pb.VoidPaymentRequest(request_id=self.request_id(), payment=payment)
        await self.service().VoidPayment(request)
        return await self.certain(payment)

    async def refund(self, payment: str, amount: int, reason: str = "") -> pb.Payment:
        request = pb.RefundRequest(request_id=self.request_id(), payment=payment, amount_minor=amount, reason=reason)
        await self.service().Refund(request)
        return await self.certain(payment)

    async def payment(self, id_: str) -> pb.Payment:
        found: pb.Payment = (await self.service().GetPayment(pb.GetPaymentRequest(payment=id_))).payment
        return found

    async def certain(self, id_: str) -> pb.Payment:
        """The payment, once nothing is waited for."""

        async def quiet() -> bool:
            return not (await self.payment(id_)).waiting_for

        await until(quiet, f"{id_} is certain")
        return await self.payment(id_)

    async def certain_of(self, subject: str, id_: str) -> pb.Payment:
        """The same, as its resident sees it."""
        stub = self.stub("resident", subject)

        async def quiet() -> bool:
            return not (await stub.GetPayment(pb.GetPaymentRequest(payment=id_))).payment.waiting_for

        await until(quiet, f"{id_} is certain")
        found: pb.Payment = (await stub.GetPayment(pb.GetPaymentRequest(payment=id_))).payment
        return found

    async def receipt(self, id_: str) -> Any:
        answer = await self.service().GetReceipt(pb.GetReceiptRequest(payment=id_))
        return json.loads(answer.document)

    async def account(self, id_: str) -> pb.Account:
        found: pb.Account = (await self.stub("billing").GetAccount(pb.GetAccountRequest(account=id_))).account
        return found

    async def job(self, name: str) -> None:
        """Runs a job of payments now."""
        await next(job for job in self.city.process.services["payments"].jobs if job.name == name).run()

    async def books(self) -> pb.GetBooksResponse:
        found: pb.GetBooksResponse = await self.stub("nobody").GetBooks(pb.GetBooksRequest())
        return found

    async def open(self, *names: str, rule: int = pb.BALANCE_RULE_FREE, currency: str = "GBP") -> None:
        accounts = [pb.Account(id=name, currency=currency, rule=rule) for name in names]  # type: ignore[arg-type]
        await self.service().CreateAccounts(pb.CreateAccountsRequest(request_id=self.request_id(), accounts=accounts))

    async def transfer(self, *transfers: pb.Transfer, request_id: str = "") -> pb.CreateTransfersResponse:
        request = pb.CreateTransfersRequest(request_id=request_id or self.request_id(), transfers=transfers)
        found: pb.CreateTransfersResponse = await self.service().CreateTransfers(request)
        return found

    async def verified(self, bundle: Any) -> Report:
        """What the offline verifier says of a bundle."""
        stub = NotaryServiceStub(self.city.process.anonymous())
        trust = read_trust(json.loads((await stub.GetTrust(notary.GetTrustRequest())).json))
        return check_bundle(canonical.encode(bundle), trust, None)


def moving(id_: str, debit: str, credit: str, amount: int, **more: Any) -> pb.Transfer:
    """A posted transfer, or another kind."""
    kind = more.pop("kind", pb.TRANSFER_KIND_POSTED)
    return pb.Transfer(
        id=id_, kind=kind, debit_account=debit, credit_account=credit, amount_minor=amount, currency="GBP", **more
    )


def payments_settings(state: Path, provider: SandboxProvider, retry_s: float) -> CitySettings:
    secret = state / "provider.key"
    secret.write_bytes(SECRET + b"\n")
    payments = PaymentsSettings(
        provider_url=provider.url, provider_secret_file=str(secret), provider_timeout_s=2.0, retry_s=retry_s
    )
    return replace(CitySettings(), notary=NotarySettings(anchor_interval_s=0.05), payments=payments)


@contextlib.asynccontextmanager
async def payments_city(
    state: Path,
    *,
    faults: ProviderFaults = NO_FAULTS,
    books: ProviderBooks | None = None,
    services: Sequence[str] = ("payments", "notary"),
    seed: int = 1,
    now: float = NOON,
    retry_s: float = 0.05,
) -> AsyncIterator[PaymentsCity]:
    """City time stands at `now`. `books` are the provider's from a run before."""
    registry = Registry()  # type: ignore[abstract]  # the other RPCs are not called here
    running: list[PaymentsCity] = []

    async def callback(body: bytes, signature: str) -> None:
        if running:
            with contextlib.suppress(grpc.aio.AioRpcError):
                await (
                    running[0].stub("nobody").ReceiveCallback(pb.ReceiveCallbackRequest(body=body, signature=signature))
                )

    def identity(ctx: Context) -> Service:
        registry.jwks = json.dumps({"keys": [signing_key(ctx.key("token-signing")).as_dict(private=False)]})
        servicer = Servicer(add_IdentityServiceServicer_to_server, registry, "city.identity.v1.IdentityService")
        return Service(ctx.name, servicers=(servicer,))

    more: dict[str, Build] = {"identity": identity}
    provider = SandboxProvider(seed=seed, secret=SECRET, callback=callback, faults=faults, books=books)
    async with provider:
        settings = payments_settings(state, provider, retry_s)
        async with embedded_city(state, services=services, start=now, settings=settings, more=more) as city:
            found = PaymentsCity(city, provider, registry)
            running.append(found)
            try:
                yield found
            finally:
                running.clear()
                for channel in found.channels:
                    await channel.close(None)


__all__ = ["ADA", "BOB", "NOON", "SECRET", "STATE", "PaymentsCity", "moving", "payments_city", "refusal"]
