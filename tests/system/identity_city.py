"""A served city of identity and notary, with a manufacturer, people of each role, and the ways a person logs in."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import grpc.aio
from nacl.signing import SigningKey

from city.access.v1 import access_pb2
from city.identity.v1 import identity_service_pb2 as pb
from city.identity.v1.identity_service_pb2_grpc import IdentityServiceStub
from citykit.access import mint, signing_key
from citykit.canonical import encode
from citykit.edge import city_error
from citykit.errors import CityError
from citykit.keys import derive_key
from citykit.settings import CitySettings, IdentitySettings, NotarySettings
from services.testing import START, TestCity, embedded_city

MAKER = SigningKey(bytes(range(32)))
PASSWORD = "correct horse battery"
VERIFIER = "a-verifier-of-forty-three-characters-or-more"
APP, APP_REDIRECT = "city-app", "http://127.0.0.1:5123/callback"


def settings(**identity: Any) -> CitySettings:
    """Settings under which the manufacturer is trusted."""
    chosen = IdentitySettings(**{"manufacturers": f"acme={bytes(MAKER.verify_key).hex()}", **identity})
    return replace(CitySettings(), identity=chosen, notary=NotarySettings(anchor_interval_s=0.05))


def device_key(device: str, generation: int = 0) -> SigningKey:
    return SigningKey(hashlib.sha256(f"{device}/{generation}".encode()).digest())


def voucher(device: str, **changes: Any) -> pb.Voucher:
    """A voucher of acme's; `changes` are to its document, `signer` and `manufacturer` to what is around it."""
    signer, manufacturer = changes.pop("signer", MAKER), changes.pop("manufacturer", "acme")
    content = {
        "algorithm": "EdDSA", "device": device, "key": bytes(device_key(device).verify_key).hex(), "model": "m-1",
        "serial": f"serial-{device}", **changes,
    }  # fmt: skip
    document = encode(content)
    signature = signer.sign(b"city.voucher.v1\n" + document).signature
    return pb.Voucher(document=document, signature=signature, manufacturer=manufacturer)


def rotation(request_id: str, device: str, from_sequence: int, /, *, generation: int = 1, **changes: Any) -> Any:
    """A request to rotate, signed by the generation before."""
    signer = changes.pop("signer", device_key(device, generation - 1))
    key = bytes(device_key(device, generation).verify_key)
    content = {"algorithm": "EdDSA", "device": device, "from_sequence": from_sequence, "key": key.hex()}
    signature = signer.sign(b"city.device-rotation.v1\n" + encode(content)).signature
    fields = {"device": device, "public_key": key, "algorithm": "EdDSA", "from_sequence": from_sequence}
    return pb.RotateDeviceKeyRequest(request_id=request_id, signature=signature, **{**fields, **changes})


def challenge(verifier: str = VERIFIER) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()


def claims_of(token: str) -> dict[str, Any]:
    part = token.split(".")[1]
    found: dict[str, Any] = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    return found


@dataclass
class IdentityCity:
    city: TestCity
    numbers: int = 0
    channels: list[grpc.aio.Channel] = field(default_factory=list)

    def request_id(self) -> str:
        self.numbers += 1
        return f"request-{self.numbers}"

    def service(self, name: str = "gateway") -> Any:
        """Identity as a service of the city calls it."""
        return IdentityServiceStub(self.city.process.dial(name, "identity"))

    def anyone(self) -> Any:
        return IdentityServiceStub(self.city.process.anonymous())

    def bearer(self, token: str) -> Any:
        self.channels.append(self.city.dial("identity", token))
        return IdentityServiceStub(self.channels[-1])

    def role(self, role: str) -> Any:
        """Identity as somebody of a role calls it who has no record here."""
        return self.bearer(self.city.token(role=role, subject=f"{role}-1", audience="identity"))

    async def create(self, login: str, role: str = "resident", password: str = PASSWORD) -> pb.Person:
        answer = await self.service().CreatePerson(self.person(login, role, password))
        found: pb.Person = answer.person
        return found

    def person(self, login: str, role: str = "resident", password: str = PASSWORD) -> pb.CreatePersonRequest:
        roles = [access_pb2.Role.Value(f"ROLE_{role.upper()}")]
        return pb.CreatePersonRequest(
            request_id=self.request_id(), login=login, display_name=f"Name of {login}", roles=roles, password=password
        )

    def login(self, login: str, /, **changes: Any) -> pb.AuthorizeRequest:
        fields: dict[str, Any] = {
            "client_id": APP, "redirect_uri": APP_REDIRECT, "scope": "openid", "nonce": "n-1", "login": login,
            "code_challenge": challenge(), "code_challenge_method": "S256", "password": PASSWORD, "throttle_key": "address-1",
            **changes,
        }  # fmt: skip
        return pb.AuthorizeRequest(**fields)

    async def code(self, login: str, /, **changes: Any) -> str:
        return str((await self.service().Authorize(self.login(login, **changes))).code)

    def code_request(self, code: str, /, **changes: Any) -> pb.ExchangeCodeRequest:
        fields = {"client_id": APP, "redirect_uri": APP_REDIRECT, "code": code, "code_verifier": VERIFIER, **changes}
        return pb.ExchangeCodeRequest(**fields)

    async def token(self, login: str, audience: str = "gateway") -> str:
        """A token as a person gets it: login, code, exchange."""
        answer = await self.service().ExchangeCode(self.code_request(await self.code(login)))
        return str(answer.access_token) if audience == "gateway" else await self.exchange(answer.access_token, audience)

    async def exchange(self, token: str, audience: str) -> str:
        request = pb.ExchangeTokenRequest(subject_token=token, audience=audience)
        return str((await self.service().ExchangeToken(request)).access_token)

    async def as_person(self, login: str) -> Any:
        return self.bearer(await self.token(login, "identity"))

    def forge(self, claims: dict[str, Any], kind: str = "at+jwt") -> str:
        """Signed with the city's own key."""
        return mint(signing_key(derive_key(self.city.world.root_key, "identity", "token-signing")), claims, kind=kind)

    async def register(self, *devices: str) -> pb.RegisterDevicesResponse:
        request = pb.RegisterDevicesRequest(request_id=self.request_id(), vouchers=[voucher(name) for name in devices])
        answer: pb.RegisterDevicesResponse = await self.service().RegisterDevices(request)
        return answer


async def refusal(call: Any) -> CityError:
    """The error a call ends with.

    Raises:
        AssertionError: it ends well.
    """
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return city_error(error)
    raise AssertionError("the call was not refused")


@contextlib.asynccontextmanager
async def identity_city(
    state: Path,
    chosen: CitySettings | None = None,
    *,
    start: float = START,
    services: tuple[str, ...] = ("identity", "notary"),
) -> AsyncIterator[IdentityCity]:
    async with embedded_city(state, services=services, start=start, settings=chosen or settings()) as city:
        found = IdentityCity(city)
        try:
            yield found
        finally:
            for channel in found.channels:
                await channel.close(None)
