"""The development peer put together: `development_peer` in process, `serve` as a process of its own.

Tests and `city serve ledger` call it. It says at start, in its profile and in the trust file what it is: not Fabric, one operator.
"""

from __future__ import annotations

import asyncio
import datetime
import json
import os
import signal
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
from fabric_protos.common import common_pb2
from fabric_protos.gateway import gateway_pb2_grpc
from fabric_protos.peer import events_pb2_grpc, peer_pb2_grpc

from citykit import telemetry
from citykit.errors import EnvironmentFault, FailedPrecondition, Unavailable
from citykit.ledger.channel.shown import trust_of
from citykit.ledger.devpeer.blocks import check_block, first_envelope, header_hash
from citykit.ledger.devpeer.chaincodes import MESSAGE_MAX, Chaincodes
from citykit.ledger.devpeer.delivery import DeliveryService
from citykit.ledger.devpeer.endorsement import Endorser
from citykit.ledger.devpeer.enrolment import Enrolment, enrol, profile, write_profile
from citykit.ledger.devpeer.gateway import EndorserService, GatewayService
from citykit.ledger.devpeer.members import Members, Signer
from citykit.ledger.devpeer.ordering import Chain
from citykit.ledger.devpeer.qscc import SystemChaincode
from citykit.ledger.devpeer.specification import NOTE, ORDERER, Chaincode, Specification
from citykit.ledger.devpeer.state import WorldState
from citykit.ledger.devpeer.storage import Storage
from citykit.ledger.devpeer.validation import Validator
from citykit.ledger.fabric.configuration import read_configuration
from citykit.settings import FabricSettings
from citykit.state import locked

_STOP_S = 2.0
_OPTIONS = [
    ("grpc.max_send_message_length", MESSAGE_MAX),
    ("grpc.max_receive_message_length", MESSAGE_MAX),
    ("grpc.http2.min_ping_interval_without_data_ms", 30_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.so_reuseport", 0),
]
_log = telemetry.logger("devpeer")


Clock = Callable[[], datetime.datetime]
"""Now, in UTC."""


class DevelopmentPeer:
    """A peer; `development_peer` starts and stops it.

    Args:
        state: keeps its ledger and certificates.
        clock: for certificates; the system's if None.
    """

    def __init__(
        self, state: Path, specification: Specification, clock: Clock | None = None,
        randomness: Callable[[int], bytes] = os.urandom,
    ) -> None:  # fmt: skip
        self.state = state
        self.specification = specification
        self._clock = clock or _system_clock
        self._server: grpc.aio.Server | None = None
        self.port = 0
        self._held = ExitStack()
        with ExitStack() as held:
            held.enter_context(locked(state))
            self.enrolment: Enrolment = enrol(state, specification, self._clock())
            self._storage = Storage(state / "ledger.db")
            held.callback(self._storage.close)
            self._held = held.pop_all()
        self.members = Members(self.enrolment.roots, self._clock)
        self._world = WorldState()
        self.chain = Chain(
            specification, self._storage, self._world, Signer(ORDERER, self.enrolment.orderer), randomness
        )
        self._chaincodes = Chaincodes(specification)
        signers = {name: Signer(name, issued) for name, issued in self.enrolment.peers.items()}
        self._endorser = Endorser(
            specification, self._world, self.members, signers, self._chaincodes,
            SystemChaincode(self.chain, specification.channel), self.chain.known, self._storage.history,
        )  # fmt: skip

    @property
    def address(self) -> str:
        return f"{self.specification.host}:{self.port}"

    @property
    def profile(self) -> dict[str, Any]:
        """What clients connect with, as it stands in profile.json."""
        return profile(self.enrolment, self.specification, self.port)

    def trust(self) -> dict[str, Any]:
        """The `ledger` part of a trust file, as every client of the channel makes it out of block 0."""
        settings = FabricSettings(channel=self.specification.channel, msp=self.specification.organisations[0])
        return trust_of(read_configuration(self.chain.block(0)), settings)

    async def require_chaincodes(self) -> None:
        """Raises Unavailable, naming them, where chaincodes are not connected."""
        away = [name for name, ready in self._chaincodes.ready().items() if not ready]
        if away:
            raise Unavailable(f"not connected: {', '.join(away)}; start their servers")

    async def require_writing(self) -> None:
        """Raises Unavailable while the disk refuses a block."""
        self.chain.require_writing()

    def received(self, chaincode: str) -> Mapping[str, int]:
        """Messages a chaincode sent since the start, by type: which parts of the protocol it uses."""
        return self._chaincodes.received(chaincode)

    async def start(self) -> None:
        """Verifies what is stored, then serves.

        Raises:
            LedgerDamaged: naming the first damaged block.
            EnvironmentFault: the port is taken.
        """
        _log.warning("development-peer", extra={"fields": {"note": NOTE, "channel": self.specification.channel}})
        self._open()
        validator = Validator(
            self._world, self.members, {one.name: one for one in self.specification.chaincodes},
            self._endorser.policies, self.chain.known, self._endorser.private_of,
        )  # fmt: skip
        self.chain.start(validator, self._endorser.forget_private)
        self._chaincodes.start({one.name: self._credentials(one) for one in self.specification.chaincodes})
        await self._listen()
        _log.info("peer-serves", extra={"fields": {"address": self.address, "blocks": self.chain.height}})

    async def stop(self) -> None:
        """Commits what was ordered, then ends."""
        if self._server is not None:
            await self._server.stop(_STOP_S)
        await self._chaincodes.stop()
        await self.chain.stop()
        self._held.close()

    def _open(self) -> None:
        height, previous = self._storage.height(), b""
        for number in range(height):
            block = common_pb2.Block.FromString(self._storage.block(number))
            check_block(block, number, previous, self.members)
            previous = header_hash(block.header)
        for change in self._storage.state():
            self._world.load(change)
        self.chain.resume(height, previous)
        if not height:
            now = self._clock()
            pem = {name: one.pem for name, one in self.enrolment.authorities.items()}
            orderers = {ORDERER: pem.pop(ORDERER)}
            time = (int(now.timestamp()), 0)
            self.chain.begin(first_envelope(self.specification.channel, pem, orderers, time))

    async def _listen(self) -> None:
        server = grpc.aio.server(options=_OPTIONS, maximum_concurrent_rpcs=self.specification.calls_max)
        gateway = GatewayService(self.specification, self._endorser, self.members, self.chain, lambda: self.address)
        gateway_pb2_grpc.add_GatewayServicer_to_server(gateway, server)
        endorser = EndorserService(self.specification, self._endorser)
        peer_pb2_grpc.add_EndorserServicer_to_server(endorser, server)
        delivery = DeliveryService(self.specification, self.members, self.chain)
        events_pb2_grpc.add_DeliverServicer_to_server(delivery, server)
        own, mutual = self.enrolment.tls_peer, self.specification.mutual_tls
        credentials = grpc.ssl_server_credentials(
            [(own.key, own.certificate)], self.enrolment.tls.pem if mutual else None, mutual
        )
        wanted = self.port = self.specification.port or _last_port(self.state)
        if wanted:
            write_profile(self.state, self.profile)  # whoever sees the port open finds the profile
        try:
            self.port = server.add_secure_port(f"{self.specification.host}:{wanted}", credentials)
        except RuntimeError:
            raise EnvironmentFault(
                f"port {wanted} of {self.specification.host} cannot be listened on; stop what uses it, or set another"
            ) from None
        write_profile(self.state, self.profile)
        await server.start()
        self._server = server

    def _credentials(self, chaincode: Chaincode) -> grpc.ChannelCredentials | None:
        if not chaincode.tls:
            return None
        own = self.enrolment.tls_peer
        root = Path(chaincode.tls_ca).read_bytes() if chaincode.tls_ca else self.enrolment.tls.pem
        return grpc.ssl_channel_credentials(root, own.key, own.certificate)


@asynccontextmanager
async def development_peer(
    state: Path,
    specification: Specification | None = None,
    *,
    clock: Clock | None = None,
    randomness: Callable[[int], bytes] = os.urandom,
) -> AsyncIterator[DevelopmentPeer]:
    """A peer that serves inside the block. `state` keeps its ledger and certificates; the same folder goes on where it was."""
    peer = DevelopmentPeer(state, specification or Specification(), clock, randomness)
    try:
        await peer.start()
        yield peer
    finally:
        await peer.stop()


def require_trial(mode: str, *, trial: bool) -> None:
    """That the peer may run: a city in earnest (`cluster`) needs a real channel.

    Raises:
        FailedPrecondition: in mode cluster, unless it is said to be a trial.
    """
    if mode == "cluster" and not trial:
        raise FailedPrecondition(
            f"the development peer is {NOTE}. In mode cluster the ledger is a Fabric network;"
            " for a trial run say so with --trial"
        )


async def serve(state: Path, specification: Specification, *, mode: str = "demo", trial: bool = False) -> None:
    """Serves until SIGTERM or SIGINT.

    Raises:
        FailedPrecondition: not in a trial.
    """
    require_trial(mode, trial=trial)
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    async with development_peer(state, specification) as peer:
        print(f"development peer on {peer.address}: {NOTE}; profile {state / 'profile.json'}", flush=True)
        await ended.wait()


def _system_clock() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


def _last_port(state: Path) -> int:
    """The port of the last run where it is free, so that clients find the peer again; else any."""
    try:
        address = json.loads((state / "profile.json").read_bytes())["gateway"]["address"]
        port = int(address.rpartition(":")[2])
        with socket.socket() as asked:
            asked.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            asked.bind(("127.0.0.1", port))
    except (OSError, ValueError, KeyError):
        return 0
    return port
