"""Services in processes of their own: each at its address, both sides with certificates; what is refused says what to do."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import grpc.aio
import pytest

from city.identity.v1 import identity_service_pb2 as identity
from city.identity.v1.identity_service_pb2_grpc import IdentityServiceStub
from city.notary.v1 import notary_service_pb2 as notary
from city.notary.v1.notary_service_pb2_grpc import NotaryServiceStub
from citykit.access import ServiceTokens, bearer_client_interceptors
from citykit.clock import ReplayClock
from citykit.edge import city_error
from citykit.errors import EnvironmentFault, PermissionDenied, SettingsError, Unauthenticated, Unavailable
from citykit.ids import seeded_randomness
from citykit.keys import service_token_seed
from citykit.network import TlsNetwork, read_addresses, tls_network
from citykit.run import Process, running
from citykit.settings import CitySettings, ServicesSettings
from citykit.testing.polling import until
from citykit.tls import CertificateFolder
from infra.certificates import ensure_certificates
from infra.native import free_port
from services.registry import builders
from services.testing import START
from services.world import embedded_world

NAMES = ("identity", "notary", "stranger", "demo")


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("certificates")
    ensure_certificates(folder, NAMES)
    return folder


@contextlib.asynccontextmanager
async def service(name: str, state: Path, network: TlsNetwork) -> AsyncIterator[Process]:
    """One service as `city serve` runs it, but for its store, bus and ledger."""
    async with embedded_world(state / name, CitySettings(), ReplayClock(START), seeded_randomness(7)) as world:
        alone = replace(world, network=network, whole=False, root_key=bytes(32))
        async with running(alone, builders([name])) as process:
            yield process


def network(certificates: Path, *callers: str) -> TlsNetwork:
    addresses = {name: f"127.0.0.1:{free_port()}" for name in ("identity", "notary")}
    return TlsNetwork(addresses, lambda name: certificates / name, callers)


def speaking_as(name: str, callee: str) -> list[object]:
    return bearer_client_interceptors(ServiceTokens(service_token_seed(bytes(32)), name), callee)


async def subject(channel: grpc.aio.Channel) -> object:
    request = identity.GetPairwiseSubjectRequest(login="nobody", audience="notary")
    try:
        return await IdentityServiceStub(channel).GetPairwiseSubject(request, timeout=10)
    except grpc.aio.AioRpcError as error:
        return city_error(error)


async def test_two_services_call_each_other_over_mutual_tls(tmp_path: Path, certificates: Path) -> None:
    net = network(certificates)
    async with service("identity", tmp_path, net) as first, service("notary", tmp_path, net) as second:
        answer = await IdentityServiceStub(second.dial("notary", "identity")).GetJwks(identity.GetJwksRequest())
        assert "keys" in answer.json
        heads = await NotaryServiceStub(first.dial("identity", "notary")).ListLogs(notary.ListLogsRequest())
        assert heads.heads
        assert getattr(await subject(second.dial("notary", "identity")), "reason", "") == "not-found"


async def test_a_certificate_of_no_service_is_refused(tmp_path: Path, certificates: Path) -> None:
    net = network(certificates)
    async with service("identity", tmp_path, net):
        stranger = net.channel("stranger", "identity", speaking_as("stranger", "identity"))
        refused = await subject(stranger)
        await stranger.close(None)
    assert isinstance(refused, Unauthenticated)
    assert refused.reason == "certificate-unknown"
    assert "CITY_SERVICES_CALLERS" in refused.message


async def test_a_service_cannot_show_another_services_token(tmp_path: Path, certificates: Path) -> None:
    net = network(certificates, "demo")
    async with service("identity", tmp_path, net):
        posing = net.channel("demo", "identity", speaking_as("notary", "identity"))
        refused = await subject(posing)
        await posing.close(None)
    assert isinstance(refused, PermissionDenied)
    assert refused.reason == "certificate-of-another"


async def test_plain_text_and_a_foreign_authority_get_nothing(tmp_path: Path, certificates: Path) -> None:
    net = network(certificates)
    ensure_certificates(tmp_path / "foreign", ["notary"])
    foreign = TlsNetwork({"identity": net.address("identity")}, lambda name: tmp_path / "foreign" / name)
    async with service("identity", tmp_path, net):
        async with grpc.aio.insecure_channel(net.address("identity")) as plain:
            assert isinstance(await subject(plain), Unavailable)
        async with foreign.channel("notary", "identity") as other:
            refused = await subject(other)
    assert isinstance(refused, Unavailable)
    assert "authority" in refused.message
    assert "make up" in refused.message


async def test_the_callee_is_known_by_its_certificate(tmp_path: Path, certificates: Path) -> None:
    """Whoever else listens at the address is no identity."""
    net = network(certificates)
    crossed = TlsNetwork({"identity": net.address("notary")}, lambda name: certificates / name)
    async with service("notary", tmp_path, net), crossed.channel("notary", "identity") as channel:
        refused = await subject(channel)
    assert isinstance(refused, Unavailable)
    assert "another service" in refused.message


async def test_renewed_certificates_are_taken_by_both_sides_without_a_restart(tmp_path: Path) -> None:
    folder = tmp_path / "certificates"
    ensure_certificates(folder, NAMES)
    net = network(folder)
    async with service("identity", tmp_path, net):
        channel = net.channel("notary", "identity", speaking_as("notary", "identity"))
        assert getattr(await subject(channel), "reason", "") == "not-found"
        for old in folder.rglob("tls.crt"):
            old.unlink()
        assert sorted(ensure_certificates(folder, NAMES)) == sorted(
            NAMES
        )  # a new authority: the old one is worth nothing

        async def answered() -> bool:
            return getattr(await subject(channel), "reason", "") == "not-found"

        await until(answered, "a call under the new authority")
        async with net.channel("notary", "identity", speaking_as("notary", "identity")) as fresh:
            assert getattr(await subject(fresh), "reason", "") == "not-found"
        await channel.close(None)


def test_a_start_stops_at_certificates_that_do_not_hold(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentFault, match=r"tls.crt, tls.key, ca.crt.*make up"):
        CertificateFolder(tmp_path / "nowhere", "identity")
    ensure_certificates(tmp_path, ["identity", "notary"])
    with pytest.raises(EnvironmentFault, match=r"is for identity, localhost, not for notary"):
        CertificateFolder(tmp_path / "identity", "notary")
    with pytest.raises(EnvironmentFault, match=r"expired on .*make up"):
        CertificateFolder(tmp_path / "identity", "identity", lambda: datetime.now(UTC) + timedelta(days=90))
    with pytest.raises(EnvironmentFault, match="not valid yet; check this machine's clock"):
        CertificateFolder(tmp_path / "identity", "identity", lambda: datetime.now(UTC) - timedelta(days=1))
    key = (tmp_path / "notary" / "tls.key").read_bytes()
    (tmp_path / "identity" / "tls.key").write_bytes(key)
    with pytest.raises(EnvironmentFault, match=r"is not the key of tls.crt"):
        CertificateFolder(tmp_path / "identity", "identity")
    (tmp_path / "notary" / "ca.crt").write_bytes((tmp_path / "notary" / "tls.crt").read_bytes())
    with pytest.raises(EnvironmentFault, match=r"not issued by ca.crt"):
        CertificateFolder(tmp_path / "notary", "notary")
    (tmp_path / "notary" / "ca.crt").write_bytes(b"no certificate")
    with pytest.raises(EnvironmentFault, match="no PEM certificate"):
        CertificateFolder(tmp_path / "notary", "notary")


def test_half_written_certificates_are_not_taken(tmp_path: Path) -> None:
    ensure_certificates(tmp_path, ["identity"])
    found = CertificateFolder(tmp_path / "identity", "identity")
    before = found.fresh()
    (tmp_path / "identity" / "tls.crt").write_bytes(b"-----BEGIN")
    assert found.fresh() is before


def test_certificates_with_half_their_life_behind_them_are_made_again(tmp_path: Path) -> None:
    assert ensure_certificates(tmp_path, ["identity"], leaf_days=0.0001) == ["identity"]
    assert ensure_certificates(tmp_path, ["identity"]) == ["identity"]
    assert ensure_certificates(tmp_path, ["identity"]) == []


async def test_an_address_in_use_and_an_unknown_service_say_what_to_change(tmp_path: Path, certificates: Path) -> None:
    net = network(certificates)
    async with service("identity", tmp_path, net):
        with pytest.raises(EnvironmentFault, match="CITY_SERVICES_ADDRESSES"):
            async with service("identity", tmp_path / "again", net):
                pass
    with pytest.raises(SettingsError, match="no address is known for the service gateway"):
        net.address("gateway")


def test_settings_of_the_network() -> None:
    assert read_addresses("identity=127.0.0.1:1,notary=[::1]:2") == {"identity": "127.0.0.1:1", "notary": "[::1]:2"}
    for wrong in ("identity", "identity=host", "=host:1", "identity=:1"):
        with pytest.raises(SettingsError, match="name=host:port"):
            read_addresses(wrong)
    with pytest.raises(SettingsError, match="CITY_SERVICES_CERTIFICATES"):
        tls_network(ServicesSettings(addresses="identity=127.0.0.1:1"))
