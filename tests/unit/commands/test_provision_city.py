"""What was provisioned, on a service that runs with it: the operator asks with its token and certificate, the first registrar is made."""

from __future__ import annotations

import asyncio
import contextlib
import io
from collections.abc import AsyncIterator, Awaitable
from dataclasses import replace
from pathlib import Path

import grpc
import grpc.aio
import pytest

from city.identity.v1 import identity_service_pb2 as identity
from city.identity.v1.identity_service_pb2_grpc import IdentityServiceStub
from city.operations.v1 import operations_service_pb2 as operations
from city.operations.v1.operations_service_pb2_grpc import OperationsServiceStub
from citykit.clock import ReplayClock
from citykit.edge import city_error
from citykit.errors import CityError, PermissionDenied, Unauthenticated
from citykit.ids import seeded_randomness
from citykit.network import TlsNetwork, tls_network
from citykit.run import running
from citykit.settings import CitySettings, ServicesSettings
from infra.native import free_port
from infra.provision import provision
from services.__main__ import main
from services.registry import builders
from services.testing import START
from services.world import embedded_world
from tests.unit.infra.fake_secrets import MemorySecrets, mount, wanted

PASSWORD = "a long enough password"


@pytest.fixture(scope="module")
def secrets() -> MemorySecrets:
    store = MemorySecrets()
    provision(store, wanted(groups=("tls", "root-key", "operator-token")), lambda line: None)
    return store


@pytest.fixture
def settings(secrets: MemorySecrets, tmp_path: Path) -> ServicesSettings:
    """As the pod of identity has them, and the operator's certificate beside its own."""
    for name in ("identity", "operator", "demo"):
        mount(secrets, f"{name}-tls", tmp_path / "tls" / name)
    mount(secrets, "city-root-key", tmp_path / "root")
    port = free_port()
    return ServicesSettings(
        addresses=f"identity=dns:///localhost:{port}",
        listen=f"127.0.0.1:{port}",
        certificates=str(tmp_path / "tls" / "{service}"),
        callers="operator,demo",
        root_key_file=str(tmp_path / "root" / "root"),
    )


@contextlib.asynccontextmanager
async def city(settings: ServicesSettings, state: Path) -> AsyncIterator[TlsNetwork]:
    """Identity as `city serve` runs it, but for its store, bus and ledger."""
    network = tls_network(settings)
    async with embedded_world(state, CitySettings(), ReplayClock(START), seeded_randomness(7)) as world:
        key = Path(settings.root_key_file).read_bytes()
        alone = replace(world, network=network, whole=False, root_key=key)
        async with running(alone, builders(["identity"])):
            yield network


async def refusal(call: Awaitable[object]) -> CityError:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call
    return city_error(refused.value)


async def test_the_operator_asks_what_must_hold_and_may_do_nothing_else(
    secrets: MemorySecrets, settings: ServicesSettings, tmp_path: Path
) -> None:
    shown = [("authorization", f"Bearer {secrets.data('operator-token')['token'].decode()}")]
    async with (
        city(settings, tmp_path / "state") as network,
        network.channel("operator", "identity") as channel,
        network.channel("demo", "identity") as other,
    ):
        asked = operations.GetFreezeRequest(service="identity")
        assert (await OperationsServiceStub(channel).GetFreeze(asked, metadata=shown, timeout=10)).reason == ""
        listed = operations.ListInvariantsRequest()
        await OperationsServiceStub(channel).ListInvariants(listed, metadata=shown, timeout=10)
        person = identity.CreatePersonRequest(request_id="r", login="mallory", display_name="mallory")
        refused = await refusal(IdentityServiceStub(channel).CreatePerson(person, metadata=shown, timeout=10))
        assert (type(refused), "for another audience" in refused.message) == (Unauthenticated, True)
        stolen = await refusal(OperationsServiceStub(other).GetFreeze(asked, metadata=shown, timeout=10))
        assert (type(stolen), stolen.reason) == (PermissionDenied, "certificate-of-another")


async def test_the_first_registrar_is_made_where_identity_runs(
    settings: ServicesSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in vars(settings).items():
        monkeypatch.setenv(f"CITY_SERVICES_{name}".upper(), str(value))

    async def made(login: str, typed: str) -> tuple[int, str]:
        monkeypatch.setattr("sys.stdin", io.StringIO(typed))
        code = await asyncio.to_thread(main, ["provision", "registrar", "--login", login])
        printed = capsys.readouterr()
        assert PASSWORD not in printed.out + printed.err
        return code, printed.out + printed.err

    async with city(settings, tmp_path / "state"):
        assert await made("clerk", f"{PASSWORD}\n") == (
            0, "clerk is a registrar, and makes the others on the city's page\n",
        )  # fmt: skip
        assert (await made("clerk", PASSWORD))[0] == 0, "again, with the same password"
        code, told = await made("clerk", f"another {PASSWORD}")
        assert (code, "clerk" in told or "login" in told) == (2, True)
        assert (await made("clerk", "\n"))[0] == 2
        assert (await made("clerk2", "short"))[0] == 2
