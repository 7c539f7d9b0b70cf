"""`city ledger contracts`: this version's contracts on a channel of Fabric, for our organisation; `--check` says what it would do.

The Job `contracts` of a rollout runs it, as does who deploys by hand. It installs on our peers, approves, and commits once enough other organisations
have approved; an older version of the city puts its contracts back by the next sequence. `--places FILE` writes what `city serve chaincode` serves
by, from the same arguments, so that it answers under the package that is installed. `services.commands.ledger` adds it.
"""

from __future__ import annotations

import argparse
import asyncio
import ipaddress
import json
import os
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from citykit.errors import CityError, FailedPrecondition, InvalidArgument, PermissionDenied, Unavailable
from citykit.ledger.channel.faults import translated
from citykit.ledger.channel.members import credentials_of, read_members, read_tls
from citykit.ledger.fabric.connection import Connection, Deadlines, Tls, connect
from citykit.ledger.fabric.definitions import Agreement, Collection, Definition
from citykit.ledger.fabric.deployment import Deployment, Release
from citykit.ledger.fabric.errors import FabricError
from citykit.ledger.fabric.gateway import Gateway
from citykit.ledger.fabric.lifecycle import Lifecycle, LifecycleError, Peer, PeerError
from citykit.settings import FabricSettings, read_settings
from infra.fabric.packages import Endpoint, Package, contract_package
from infra.fabric.policies import TABLE, Policy, policies_of, read_policies
from infra.fabric.profiles import organisation_named
from services.registry import contract_versions

_WAIT_S = 300
_WAIT_MAX_S = 86_400
_PEERS_MAX = 100
_PORT_MAX = 65_535


def add(acts: Any) -> None:
    """The sub-command of `city ledger`."""
    parser = acts.add_parser(
        "contracts", help="bring this version's contracts onto a Fabric channel, for our organisation"
    )
    parser.add_argument("--check", action="store_true", help="change nothing; say what would be done")
    parser.add_argument(
        "--places", type=Path, metavar="FILE", help="write what `city serve chaincode` serves by, and ask nobody"
    )
    parser.add_argument(
        "--chaincode", action="append", default=[], metavar="NAME=HOST:PORT",
        help="where our peers reach a contract's chaincode; one for each contract we run",
    )  # fmt: skip
    parser.add_argument(
        "--tls", type=Path, metavar="FOLDER",
        help="TLS between peers and chaincodes: ca.crt, peer.crt, peer.key; for --places tls.crt and tls.key too. Without: plain text on loopback",
    )  # fmt: skip
    parser.add_argument(
        "--peer", action="append", default=[], metavar="HOST:PORT",
        help="a peer of ours; repeat it for each, or it alone is CITY_FABRIC_PEER",
    )  # fmt: skip
    parser.add_argument(
        "--member", default="admin", help="our administrator: NAME.pem and NAME.key in CITY_FABRIC_MEMBERS"
    )
    parser.add_argument(
        "--policies", type=Path, default=TABLE, metavar="FILE", help="who endorses what; as infra/fabric/policies.yaml"
    )
    parser.add_argument("--wait", type=float, default=_WAIT_S, metavar="SECONDS", help="for others' approvals")
    parser.set_defaults(run=_run)


@dataclass(frozen=True)
class _Wanted:
    """What the arguments and settings say.

    Attributes:
        addresses: of the chaincodes of the contracts we run.
    """

    releases: tuple[Release, ...]
    addresses: Mapping[str, str]


def _run(arguments: argparse.Namespace) -> int:
    if not 0 <= arguments.wait <= _WAIT_MAX_S:
        raise InvalidArgument(
            f"--wait is 0 to {_WAIT_MAX_S} seconds, not {arguments.wait:g}: beyond that run it again", field="--wait"
        )
    settings = read_settings(os.environ).fabric
    wanted = _wanted(arguments, settings.msp)
    if arguments.places:
        return _write_places(arguments.places, arguments.tls, wanted)
    try:
        asyncio.run(_bring(arguments, settings, wanted.releases))
    except FabricError as error:
        raise _said(error) from None
    return 0


# --- what is wanted ---------------------------------------------------------------------------------------


def _wanted(arguments: argparse.Namespace, msp: str) -> _Wanted:
    """Every contract of this program: its definition, and its package where our organisation runs it.

    Raises:
        InvalidArgument: a contract without a policy or without an address, or an address without a contract.
    """
    versions = contract_versions()
    policies, given = policies_of(versions, _table(arguments.policies)), _addresses(arguments.chaincode)
    ours = [one for one in policies if msp in _msps(one.organisations)]
    _require_all([one.contract for one in ours], given, msp)
    packages = {
        one.contract: contract_package(
            one.contract, versions[one.contract], _endpoint(given[one.contract], arguments.tls)
        )
        for one in ours
    }
    releases = tuple(_release(one, versions[one.contract], packages.get(one.contract)) for one in policies)
    return _Wanted(releases, given)


def _table(path: Path) -> dict[str, Policy]:
    try:
        return read_policies(path)
    except OSError as error:
        raise InvalidArgument(f"{path} cannot be read: {error.strerror}", field="--policies") from None


def _msps(organisations: Sequence[str]) -> tuple[str, ...]:
    return tuple(organisation_named(name).msp for name in organisations)


def _addresses(given: Sequence[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for text in given:
        name, _, address = text.partition("=")
        host, _, port = address.rpartition(":")
        if not name or not host or not port.isdecimal() or not 1 <= int(port) <= _PORT_MAX:
            raise InvalidArgument(f"--chaincode {text!r} must be NAME=HOST:PORT", field="--chaincode")
        found[name] = address
    return found


def _require_all(ours: Sequence[str], given: Mapping[str, str], msp: str) -> None:
    lacking, unknown = sorted(set(ours) - set(given)), sorted(set(given) - set(ours))
    if lacking:
        raise InvalidArgument(
            f"{msp} runs {', '.join(lacking)} too: say where by --chaincode NAME=HOST:PORT", field="--chaincode"
        )
    if unknown:
        raise InvalidArgument(
            f"--chaincode names {unknown[0]!r}, which {msp} does not run; it runs {', '.join(sorted(ours)) or 'nothing'}",
            field="--chaincode",
        )


def _endpoint(address: str, tls: Path | None) -> Endpoint:
    if tls is None:
        if not _is_loopback(address):
            raise InvalidArgument(f"a chaincode at {address} needs --tls: plain text is for loopback", field="--tls")
        return Endpoint(address)
    roots, certificate, key = (_text(tls / name) for name in ("ca.crt", "peer.crt", "peer.key"))
    return Endpoint(address, roots, certificate, key)


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address.rpartition(":")[0].strip("[]")).is_loopback
    except ValueError:
        return False


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii")
    except OSError as error:
        raise InvalidArgument(f"{path} cannot be read: {error.strerror}", field="--tls") from None
    except ValueError:
        raise InvalidArgument(f"{path} is no PEM", field="--tls") from None


def _release(policy: Policy, version: str, package: Package | None) -> Release:
    definition = Definition(
        policy.contract,
        policy.version(version),
        Agreement(policy.needed, _msps(policy.organisations)),
        tuple(Collection(one.name, _msps(one.organisations), one.keep_blocks) for one in policy.private),
    )
    return Release(definition) if package is None else Release(definition, package.content, package.id)


# --- what is done -----------------------------------------------------------------------------------------


def _write_places(path: Path, tls: Path | None, wanted: _Wanted) -> int:
    files: dict[str, str] = {}
    if tls is not None:
        names = {"certificate": "tls.crt", "key": "tls.key", "client_ca": "ca.crt"}
        files = {field: str((tls / name).absolute()) for field, name in names.items()}
    places = {
        one.name: {"chaincode_id": one.package_id, **_listening(wanted.addresses[one.name]), **files}
        for one in wanted.releases
        if one.package_id
    }
    path.write_text(json.dumps({"chaincodes": places}, indent=2) + "\n", encoding="utf-8")
    print(f"{path}: {', '.join(one['chaincode_id'] for one in places.values())}")
    return 0


def _listening(address: str) -> dict[str, str]:
    """Peers come by a name that stands for many pods, so each listens on all of its own addresses; on loopback there alone."""
    if _is_loopback(address):
        return {"address": address}
    return {"address": address, "listen": f"0.0.0.0:{address.rpartition(':')[2]}"}


async def _bring(arguments: argparse.Namespace, settings: FabricSettings, releases: Sequence[Release]) -> None:
    async with AsyncExitStack() as stack:
        deployment = await _deployment(stack, arguments, settings)
        if not arguments.check:
            await deployment.bring(releases, arguments.wait)
            return
        for step in await deployment.look(releases):
            _tell("\n".join(step.intended(settings.msp)))


async def _deployment(stack: AsyncExitStack, arguments: argparse.Namespace, settings: FabricSettings) -> Deployment:
    """The connections it uses are closed with the stack.

    Raises:
        SettingsError, PermissionDenied: no administrator, or files that cannot be used.
    """
    identity, signer = credentials_of(read_members(settings), arguments.member)
    tls, addresses = read_tls(settings), list(dict.fromkeys(arguments.peer))
    if len(addresses) > _PEERS_MAX:
        raise InvalidArgument(f"--peer names {len(addresses)} peers; {_PEERS_MAX} are allowed", field="--peer")
    gateway = await stack.enter_async_context(_connection(settings.peer, tls, settings))
    peers = [Peer(settings.peer, Gateway(gateway, "", identity, signer))] if not addresses else []
    plain = Tls(tls.roots, tls.certificate, tls.key) if tls else None
    for address in addresses:
        connection = await stack.enter_async_context(_connection(address, plain, settings))
        peers.append(Peer(address, Gateway(connection, "", identity, signer)))
    return Deployment(Lifecycle(Gateway(gateway, settings.channel, identity, signer)), peers, _tell)


def _connection(address: str, tls: Tls | None, settings: FabricSettings) -> Connection:
    deadlines = Deadlines(settings.evaluate_s, settings.endorse_s, settings.submit_s, settings.commit_s)
    return connect(address, tls=tls, deadlines=deadlines)


def _tell(line: str) -> None:
    print(line, flush=True)


def _said(error: FabricError) -> CityError:
    """The error in words of who deploys."""
    if isinstance(error, LifecycleError):
        return FailedPrecondition(str(error))
    if isinstance(error, PeerError) and error.refused:
        return PermissionDenied(
            f"the peer {error.peer} takes packages from administrators of its organisation only, and --member is none: {error.message}"
        )
    if isinstance(error, PeerError) and error.unavailable:
        return Unavailable(f"the peer {error.peer} does not answer, and all of ours must hold the packages: {error}")
    if isinstance(error, PeerError):
        return FailedPrecondition(f"the peer {error.peer} refused: {error.message}")
    return translated(error, "the lifecycle of contracts")
