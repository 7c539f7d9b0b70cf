"""Identity, notary and simulation with canned data; metering is in `fake_metering`. Used by `fakes`."""

from __future__ import annotations

import json
import random
from typing import Any

from city.access.v1 import access_pb2
from city.identity.v1 import identity_service_pb2 as identity
from city.identity.v1 import identity_service_pb2_grpc as identity_grpc
from city.notary.v1 import notary_service_pb2 as notary
from city.notary.v1 import notary_service_pb2_grpc as notary_grpc
from city.simulation.v1 import simulation_service_pb2 as simulation
from city.simulation.v1 import simulation_service_pb2_grpc as simulation_grpc
from citykit.errors import NotFound, Unauthenticated
from tests.system.fake_calls import DAY, METERS, NOW, TX, Asked, at, claims_of, fake_token

FAULTS = ("forged", "replayed", "reordered", "missing", "stuck", "drift", "spike", "skew", "flood")
LOGS = {"metering.readings": 14_904, "metering.events": 212, "identity.events": 131}


class Identity(identity_grpc.IdentityServiceServicer):
    def __init__(self, asked: Asked) -> None:
        self._asked = asked

    async def GetProviderMetadata(self, request: Any, _: Any) -> Any:
        self._asked.note("GetProviderMetadata", request)
        issuer = "https://provable.city/demo"
        document = {
            "issuer": issuer,
            "authorization_endpoint": f"{issuer}/oidc/authorize",
            "token_endpoint": f"{issuer}/oidc/token",
        }
        return identity.GetProviderMetadataResponse(json=json.dumps(document))

    async def GetJwks(self, request: Any, _: Any) -> Any:
        self._asked.note("GetJwks", request)
        return identity.GetJwksResponse(json='{"keys":[]}')

    async def Authorize(self, request: Any, _: Any) -> Any:
        self._asked.note("Authorize", request)
        if not request.password.startswith("a password for"):
            raise Unauthenticated("login or password is wrong", reason="wrong-login")
        return identity.AuthorizeResponse(code=f"code-{request.password.removeprefix('a password for ')}")

    async def ExchangeCode(self, request: Any, _: Any) -> Any:
        self._asked.note("ExchangeCode", request)
        if not request.code.startswith("code-"):
            raise Unauthenticated("the code is not known")
        kind, _, name = request.code.removeprefix("code-").partition(":")
        token = fake_token("resident", name) if kind == "resident" else fake_token(name, f"staff-{name}")
        return identity.ExchangeCodeResponse(
            access_token=token, id_token="e30.e30.fake", expires_in_s=900, scope="openid"
        )

    async def ExchangeToken(self, request: Any, _: Any) -> Any:
        self._asked.note("ExchangeToken", request)
        claims = claims_of(request.subject_token)
        token = fake_token("+".join(claims["roles"]), f"{claims['sub']}-at-{request.audience}", request.audience)
        return identity.ExchangeTokenResponse(access_token=token, expires_in_s=900)

    async def GetPerson(self, request: Any, _: Any) -> Any:
        self._asked.note("GetPerson", request)
        person = identity.Person(
            id="person-5f0c2ab19d3e4417",
            login="ada",
            display_name="Ada",
            roles=[access_pb2.ROLE_RESIDENT],
            created_at=at(NOW - 40 * DAY),
        )
        return identity.GetPersonResponse(person=person)

    async def CreatePerson(self, request: Any, _: Any) -> Any:
        person = identity.Person(
            id="person-1", login=request.login, display_name=request.display_name, roles=request.roles
        )
        return self._asked.once("CreatePerson", request, identity.CreatePersonResponse(person=person))

    async def GetPairwiseSubject(self, request: Any, _: Any) -> Any:
        self._asked.note("GetPairwiseSubject", request)
        return identity.GetPairwiseSubjectResponse(subject="5f0c2ab19d3e4417")

    async def RecordConsent(self, request: Any, _: Any) -> Any:
        return self._asked.once(
            "RecordConsent",
            request,
            identity.RecordConsentResponse(consent=self._consent(request.purpose, request.recipient)),
        )

    async def WithdrawConsent(self, request: Any, _: Any) -> Any:
        return self._asked.once(
            "WithdrawConsent", request, identity.WithdrawConsentResponse(consent=self._consent("p", "r"))
        )

    def _consent(self, purpose: str, recipient: str) -> Any:
        return identity.Consent(
            id="consent-1", purpose=purpose, recipient=recipient, given_at=at(NOW), receipt_json="{}"
        )

    async def ListConsents(self, request: Any, _: Any) -> Any:
        self._asked.note("ListConsents", request)
        return identity.ListConsentsResponse(consents=[self._consent("energy advice", "forecasting")])

    async def ListAccesses(self, request: Any, _: Any) -> Any:
        self._asked.note("ListAccesses", request)
        rows = (
            ("operator at metering", "usage of mp-0001", "meter check asked for by phone", 3),
            ("billing at metering", "bill", "question about the bill", 20),
        )
        accesses = [
            identity.Access(at=at(NOW - hours * 3_600), by=by, what=what, purpose=why) for by, what, why, hours in rows
        ]
        return identity.ListAccessesResponse(accesses=accesses)

    async def ExportMyData(self, request: Any, _: Any) -> Any:
        self._asked.note("ExportMyData", request)
        return identity.ExportMyDataResponse(json='{"login":"ada"}')

    async def EraseMe(self, request: Any, _: Any) -> Any:
        return self._asked.once("EraseMe", request, identity.EraseMeResponse(receipt_json='{"destroyed":["identity"]}'))

    def _device(self, number: int = 1) -> Any:
        key = identity.DeviceKey(public_key=bytes(32), algorithm="EdDSA", from_sequence=1, transaction=TX)
        return identity.Device(id=f"meter-{number:04}", model="sim-1", keys=[key], registered_at=at(NOW - 36 * DAY))

    async def ListDevices(self, request: Any, _: Any) -> Any:
        self._asked.note("ListDevices", request)
        start = int(request.page_token or "0") if request.page_token.isdigit() or not request.page_token else 0
        end = min(start + request.page_size, METERS)
        return identity.ListDevicesResponse(
            devices=[self._device(number) for number in range(start, end)],
            next_page_token=str(end) if end < METERS else "",
        )

    async def GetDevice(self, request: Any, _: Any) -> Any:
        self._asked.note("GetDevice", request)
        return identity.GetDeviceResponse(device=self._device())

    async def RegisterDevices(self, request: Any, _: Any) -> Any:
        return self._asked.once(
            "RegisterDevices", request, identity.RegisterDevicesResponse(devices=[self._device()], transaction=TX)
        )

    async def RevokeDevice(self, request: Any, _: Any) -> Any:
        return self._asked.once("RevokeDevice", request, identity.RevokeDeviceResponse(device=self._device()))


class Notary(notary_grpc.NotaryServiceServicer):
    def __init__(self, asked: Asked) -> None:
        self._asked = asked

    def _head(self, log: str) -> Any:
        if log not in LOGS:
            raise NotFound(f"no log {log}; there are {', '.join(LOGS)}")
        grown = len(self._asked.of("ListLogs"))
        size = LOGS[log] + grown * 3
        return notary.Head(
            log=log, origin=f"provable.city/demo/{log}", size=size, anchored_size=size - size % 10, anchored_root=bytes(range(32)),
            checkpoint=f"provable.city/demo/{log}\n{size}\nAAAA\n", anchor_transaction=TX, anchored_at=at(NOW - 2),
        )  # fmt: skip

    async def ListLogs(self, request: Any, _: Any) -> Any:
        self._asked.note("ListLogs", request)
        return notary.ListLogsResponse(heads=[self._head(log) for log in LOGS])

    async def GetHead(self, request: Any, _: Any) -> Any:
        self._asked.note("GetHead", request)
        return notary.GetHeadResponse(head=self._head(request.log))

    async def GetInclusionProof(self, request: Any, _: Any) -> Any:
        self._asked.note("GetInclusionProof", request)
        return notary.GetInclusionProofResponse(index=request.index, size=14_900, hashes=[bytes(32)], checkpoint="note")

    async def GetConsistencyProof(self, request: Any, _: Any) -> Any:
        self._asked.note("GetConsistencyProof", request)
        return notary.GetConsistencyProofResponse(
            from_size=request.from_size, to_size=request.to_size, hashes=[bytes(32)], checkpoint="note"
        )

    async def GetTile(self, request: Any, _: Any) -> Any:
        self._asked.note("GetTile", request)
        self._head(request.log)
        return notary.GetTileResponse(
            content=f"{request.log}/{request.path}".encode(), immutable=request.path != "checkpoint"
        )

    async def GetEvidence(self, request: Any, _: Any) -> Any:
        self._asked.note("GetEvidence", request)
        return notary.GetEvidenceResponse(json='{"type":"embedded.v1"}')

    async def CheckLogs(self, request: Any, _: Any) -> Any:
        self._asked.note("CheckLogs", request)
        return notary.CheckLogsResponse(findings=[], entries_checked=15_247)

    async def GetTrust(self, request: Any, _: Any) -> Any:
        self._asked.note("GetTrust", request)
        return notary.GetTrustResponse(json='{"city":"provable.city/demo","format":"city.trust.v1"}')


class Simulation(simulation_grpc.SimulationServiceServicer):
    def __init__(self, asked: Asked) -> None:
        self._asked = asked
        self.faults: list[str] = []

    async def GetNeighbourhood(self, request: Any, _: Any) -> Any:
        self._asked.note("GetNeighbourhood", request)
        places = random.Random(7)
        meters = [
            simulation.Meter(
                device=f"meter-{number:04}", meter_point=f"mp-{number:04}", kind="measured" if number <= 4 else "simulated",
                label=f"simulated home {number}" if number > 4 else "real home, UCI 2006 to 2010",
                x=40 + (number - 1) % 12 * 84 + places.randint(-18, 18), y=60 + (number - 1) // 12 * 108 + places.randint(-26, 26),
            )
            for number in range(1, METERS + 1)
        ]  # fmt: skip
        attribution = simulation.Attribution(
            name="Individual household electric power consumption",
            licence="CC BY 4.0",
            text="Hebrail, G. and Berard, A., UCI Machine Learning Repository",
            shifted_weeks=515,
        )
        return simulation.GetNeighbourhoodResponse(meters=meters, attributions=[attribution], time_zone="Europe/London")

    async def GetReplay(self, request: Any, _: Any) -> Any:
        self._asked.note("GetReplay", request)
        return simulation.GetReplayResponse(
            city_time=at(NOW + self._asked.later_s), speed=900, faults=self.faults, faults_available=FAULTS,
            faulted_devices=[f"{fault}:meter-0017" for fault in self.faults], phase=self._asked.phase,
        )  # fmt: skip

    async def SetFaults(self, request: Any, _: Any) -> Any:
        self._asked.note("SetFaults", request)
        self.faults = [fault for fault in request.faults if fault in FAULTS]
        return simulation.SetFaultsResponse(faults=self.faults)
