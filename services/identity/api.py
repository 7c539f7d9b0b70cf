"""Identity's gRPC edge: proto in, app, proto out."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import wraps
from typing import Any

from city.identity.v1 import identity_service_pb2 as pb
from city.identity.v1.identity_service_pb2_grpc import IdentityServiceServicer
from citykit.access import caller
from citykit.errors import InvalidArgument
from services.identity.app.consents import Consents
from services.identity.app.devices import Devices
from services.identity.app.logins import Logins
from services.identity.app.own_data import OwnData
from services.identity.app.people import People
from services.identity.domain.errors import IdentityError

Method = Callable[..., Awaitable[Any]]


def _ruled(method: Method) -> Method:
    """The domain's broken rules are wrong arguments to the caller."""

    @wraps(method)
    async def call(self: Any, request: Any, context: Any) -> Any:
        try:
            return await method(self, request, context)
        except IdentityError as error:
            raise InvalidArgument(error.message, reason=error.reason, field=error.field or None) from None

    return call


class IdentityApi(IdentityServiceServicer):
    """The servicer."""

    def __init__(self, devices: Devices, people: People, logins: Logins, consents: Consents, own_data: OwnData) -> None:
        self._devices = devices
        self._people = people
        self._logins = logins
        self._consents = consents
        self._own_data = own_data

    @_ruled
    async def RegisterDevices(self, request: pb.RegisterDevicesRequest, context: Any) -> pb.RegisterDevicesResponse:
        return await self._devices.register(request)

    @_ruled
    async def GetDevice(self, request: pb.GetDeviceRequest, context: Any) -> pb.GetDeviceResponse:
        return pb.GetDeviceResponse(device=await self._devices.get(request.device))

    @_ruled
    async def ListDevices(self, request: pb.ListDevicesRequest, context: Any) -> pb.ListDevicesResponse:
        return await self._devices.page(request.page_size, request.page_token)

    @_ruled
    async def RotateDeviceKey(self, request: pb.RotateDeviceKeyRequest, context: Any) -> pb.RotateDeviceKeyResponse:
        return await self._devices.rotate(request)

    @_ruled
    async def RevokeDevice(self, request: pb.RevokeDeviceRequest, context: Any) -> pb.RevokeDeviceResponse:
        return await self._devices.revoke(request)

    @_ruled
    async def CreatePerson(self, request: pb.CreatePersonRequest, context: Any) -> pb.CreatePersonResponse:
        return pb.CreatePersonResponse(person=await self._people.create(request, caller()))

    @_ruled
    async def GetPerson(self, request: pb.GetPersonRequest, context: Any) -> pb.GetPersonResponse:
        return pb.GetPersonResponse(person=await self._people.get(request, caller()))

    @_ruled
    async def GetPairwiseSubject(
        self, request: pb.GetPairwiseSubjectRequest, context: Any
    ) -> pb.GetPairwiseSubjectResponse:
        subject = await self._people.subject_for(request.login, request.audience)
        return pb.GetPairwiseSubjectResponse(subject=subject)

    @_ruled
    async def GetProviderMetadata(
        self, request: pb.GetProviderMetadataRequest, context: Any
    ) -> pb.GetProviderMetadataResponse:
        return pb.GetProviderMetadataResponse(json=self._logins.metadata())

    @_ruled
    async def GetJwks(self, request: pb.GetJwksRequest, context: Any) -> pb.GetJwksResponse:
        return pb.GetJwksResponse(json=self._logins.jwks())

    @_ruled
    async def Authorize(self, request: pb.AuthorizeRequest, context: Any) -> pb.AuthorizeResponse:
        return pb.AuthorizeResponse(code=await self._logins.authorize(request))

    @_ruled
    async def ExchangeCode(self, request: pb.ExchangeCodeRequest, context: Any) -> pb.ExchangeCodeResponse:
        return await self._logins.exchange_code(request)

    @_ruled
    async def ExchangeToken(self, request: pb.ExchangeTokenRequest, context: Any) -> pb.ExchangeTokenResponse:
        return await self._logins.exchange_token(request)

    @_ruled
    async def RecordConsent(self, request: pb.RecordConsentRequest, context: Any) -> pb.RecordConsentResponse:
        return pb.RecordConsentResponse(consent=await self._consents.record(request, caller()))

    @_ruled
    async def WithdrawConsent(self, request: pb.WithdrawConsentRequest, context: Any) -> pb.WithdrawConsentResponse:
        return pb.WithdrawConsentResponse(consent=await self._consents.withdraw(request, caller()))

    @_ruled
    async def ListConsents(self, request: pb.ListConsentsRequest, context: Any) -> pb.ListConsentsResponse:
        return await self._consents.page(request.page_size, request.page_token, caller())

    @_ruled
    async def RecordAccess(self, request: pb.RecordAccessRequest, context: Any) -> pb.RecordAccessResponse:
        await self._own_data.record_access(request, caller())
        return pb.RecordAccessResponse()

    @_ruled
    async def ListAccesses(self, request: pb.ListAccessesRequest, context: Any) -> pb.ListAccessesResponse:
        return await self._own_data.accesses(request.page_size, request.page_token, caller())

    @_ruled
    async def ExportMyData(self, request: pb.ExportMyDataRequest, context: Any) -> pb.ExportMyDataResponse:
        return pb.ExportMyDataResponse(json=await self._own_data.export(caller()))

    @_ruled
    async def EraseMe(self, request: pb.EraseMeRequest, context: Any) -> pb.EraseMeResponse:
        return pb.EraseMeResponse(receipt_json=await self._own_data.erase(request, caller()))
