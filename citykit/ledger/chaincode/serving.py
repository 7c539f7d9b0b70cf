"""Serves contracts as chaincodes, each on its own address, in one process. `city serve chaincode` and tests call it.

A peer tells nothing of itself before the server has named its package, so an address serves one package (chaincode as a service).
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from citykit.errors import EnvironmentFault, InvalidArgument
from citykit.ledger.chaincode import convention
from citykit.ledger.chaincode.convention import ConventionError
from citykit.ledger.chaincode.runner import ContractRunner
from citykit.ledger.chaincode.version import contract_version, package_label
from citykit.ledger.fabric.shim import ChaincodeServer, Limits, ServerTls

DRAIN_S = 10.0


@dataclass(frozen=True)
class Place:
    """Where a contract's chaincode is served.

    Attributes:
        chaincode_id: what the peer knows its package by (LABEL:HASH).
        address: HOST:PORT to listen on.
        tls: None: plain text, which only a test on loopback uses.
    """

    chaincode_id: str
    address: str
    tls: ServerTls | None = None


@dataclass(frozen=True)
class Serving:
    """Chaincodes that are served, by contract name."""

    servers: Mapping[str, ChaincodeServer]

    @property
    def ports(self) -> dict[str, int]:
        return {name: server.port for name, server in self.servers.items()}

    def peers(self) -> dict[str, int]:
        """Connected peers of each chaincode; a Fabric peer connects at its first call."""
        return {name: server.streams for name, server in self.servers.items()}


def read_places(path: Path) -> dict[str, Place]:
    """The places in a JSON document {"chaincodes": {NAME: {"chaincode_id", "address", "certificate", "key", "client_ca"}}}.

    The development peer's profile is one; deployment to a Fabric network writes one for each organisation. Paths are relative to the document.
    `listen` stands for `address` where the peer reaches it by another name than it listens on.

    Raises:
        InvalidArgument: it cannot be read, or lacks a field.
    """
    try:
        document = json.loads(path.read_bytes())
        return {name: _place(path.parent, one) for name, one in document["chaincodes"].items()}
    except OSError as error:
        raise InvalidArgument(f"{path} cannot be read: {error.strerror}", field="places") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InvalidArgument(
            f'{path} must hold {{"chaincodes": {{NAME: {{"chaincode_id", "address", "certificate", "key", "client_ca"}}}}}}: {error}',
            field="places",
        ) from None


def _place(folder: Path, one: Mapping[str, Any]) -> Place:
    tls = None
    if one.get("tls", "certificate" in one):
        roots = folder / one["client_ca"] if one.get("client_ca") else None
        tls = ServerTls(folder / one["certificate"], folder / one["key"], roots)
    return Place(str(one["chaincode_id"]), str(one.get("listen") or one["address"]), tls)


@asynccontextmanager
async def serve(
    contracts: Sequence[object],
    places: Mapping[str, Place],
    limits: Limits | None = None,
    *,
    operator: str = convention.OPERATOR,
) -> AsyncIterator[Serving]:
    """Serves the contracts that have a place; on leaving it lets running transactions end.

    Args:
        operator: MSP id of the organisation whose members are the city's services; the same wherever the contract runs.

    Raises:
        InvalidArgument: a place without a contract, a package of another version of the contract, or a contract that is not
            deterministic or whose name Fabric does not take.
        EnvironmentFault: an address or a TLS file cannot be used.
    """
    known = {str(getattr(contract, "name", "")): contract for contract in contracts}
    unknown = sorted(set(places) - set(known))
    if unknown:
        raise InvalidArgument(f"no contract {unknown[0]!r} here; there are {', '.join(sorted(known))}", field="places")
    async with AsyncExitStack() as stack:
        stopping: list[ChaincodeServer] = []
        stack.push_async_callback(_stop, stopping)
        servers = {}
        for name, place in places.items():
            require_version(known[name], place.chaincode_id)
            servers[name] = ChaincodeServer(
                place.chaincode_id, _runner(known[name], operator), address=place.address, tls=place.tls, limits=limits
            )
            await _start(servers[name], name)
            stopping.append(servers[name])
        yield Serving(servers)


def require_version(contract: object, chaincode_id: str) -> None:
    """Refuses to serve under a package that was made for other code of the contract. Ids without a version are taken as they are.

    Raises:
        InvalidArgument: it says what to do.
    """
    name, separator, version = chaincode_id.partition(":")[0].rpartition("_")
    if separator and name == getattr(contract, "name", "") and version != contract_version(contract):
        raise InvalidArgument(
            f"the package {chaincode_id} is of version {version} of the contract {name}, and this program holds {package_label(contract)}:"
            " deploy the contract again, or run the program the package was made by",
            reason="contract-version",
        )


def _runner(contract: object, operator: str) -> ContractRunner:
    try:
        return ContractRunner(contract, operator)
    except ConventionError as error:
        raise InvalidArgument(str(error), field="places") from None


async def _start(server: ChaincodeServer, name: str) -> None:
    try:
        await server.start()
    except OSError as error:
        raise EnvironmentFault(f"the chaincode {name} cannot be served: {error}") from None


async def _stop(servers: Sequence[ChaincodeServer]) -> None:
    await asyncio.gather(*(server.stop(DRAIN_S) for server in servers))
