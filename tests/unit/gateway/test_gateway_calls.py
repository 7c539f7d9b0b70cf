"""What the gateway says of services that are not there."""

from __future__ import annotations

from pathlib import Path

import pytest
from google.protobuf.empty_pb2 import Empty

from citykit.errors import NotFound, SettingsError
from citykit.network import TlsNetwork
from infra.certificates import ensure_certificates
from services.gateway.app.calls import Calls


@pytest.fixture
def calls(tmp_path: Path) -> Calls:
    """In a process of its own, where no service has an address."""
    ensure_certificates(tmp_path, ["gateway"])
    network = TlsNetwork({}, lambda name: tmp_path / name)
    return Calls(lambda service: network.channel("gateway", service))


async def test_a_city_of_many_processes_has_no_simulation(calls: Calls) -> None:
    with pytest.raises(NotFound) as refused:
        await calls.ask("simulation", "GetNeighbourhood", Empty())
    assert refused.value.reason == "service-absent"


async def test_a_service_without_an_address_is_a_mistake_in_the_settings(calls: Calls) -> None:
    with pytest.raises(SettingsError, match="add parking=host:port"):
        await calls.ask("parking", "ListLots", Empty())
