"""What a network consists of and where it listens, decided once and kept in `<state>/network.json`, so that it can be started again."""

from __future__ import annotations

import json
import random
import socket
from dataclasses import asdict, dataclass, field
from pathlib import Path

from citykit.errors import NotFound
from infra.fabric.profiles import CHANNEL, ORGANISATIONS, Organisation, Profile, profile_named

_FILE = "network.json"
_PORTS = (
    20_000,
    32_000,
)  # below what the kernel gives to outgoing connections, so that a stopped node finds its port free
_TRIES = 1_000


@dataclass(frozen=True)
class Node:
    """A peer or an orderer of an organisation.

    Attributes:
        host: where other nodes reach it; of nodes that this machine runs always loopback.
        aliases: further names that stand for it, in its certificate.
        admin_port: of an orderer, where `osnadmin` joins it to a channel; of a peer, its chaincode listener that nothing uses.
    """

    name: str
    kind: str
    organisation: str
    port: int
    operations_port: int
    admin_port: int
    host: str = "127.0.0.1"
    aliases: tuple[str, ...] = ()

    @property
    def address(self) -> str:
        return f"{self.host}:{self.port}"

    @property
    def is_peer(self) -> bool:
        return self.kind == "peer"


@dataclass(frozen=True)
class Plan:
    """A network as decided; `state` is the one folder that holds all of it."""

    state: Path
    profile: Profile
    nodes: tuple[Node, ...]
    organisations: tuple[Organisation, ...] = field(default=ORGANISATIONS)

    @property
    def peers(self) -> tuple[Node, ...]:
        return tuple(node for node in self.nodes if node.is_peer)

    @property
    def orderers(self) -> tuple[Node, ...]:
        return tuple(node for node in self.nodes if not node.is_peer)

    def node(self, name: str) -> Node:
        """The node.

        Raises:
            NotFound: no such node.
        """
        for node in self.nodes:
            if node.name == name:
                return node
        raise NotFound(f"no node {name!r}; there are {', '.join(node.name for node in self.nodes)}")

    def organisation(self, name: str) -> Organisation:
        """The organisation.

        Raises:
            NotFound: no such organisation in this network.
        """
        for organisation in self.organisations:
            if organisation.name == name:
                return organisation
        raise NotFound(f"no organisation {name!r}; there are {', '.join(one.name for one in self.organisations)}")

    def peer_of(self, organisation: str) -> Node:
        """The organisation's (first) peer."""
        return next(node for node in self.peers if node.organisation == self.organisation(organisation).name)

    def genesis(self) -> Path:
        return self.state / f"{CHANNEL}.block"

    def save(self) -> None:
        document = {
            "profile": self.profile.name,
            "organisations": [one.name for one in self.organisations],
            "nodes": [asdict(node) for node in self.nodes],
        }
        self.state.mkdir(parents=True, exist_ok=True)
        unfinished = self.state / f"{_FILE}.part"
        unfinished.write_text(json.dumps(document, indent=2) + "\n")
        unfinished.replace(self.state / _FILE)


def new_plan(state: Path, profile: Profile) -> Plan:
    """A plan with free ports: one peer an organisation, and the profile's orderers."""
    ports = _Ports()
    orderers = [ports.node(f"orderer{n}", "orderer", name) for n, name in enumerate(profile.orderers, 1)]
    peers = [ports.node(f"peer-{one.name}", "peer", one.name) for one in ORGANISATIONS]
    return Plan(state.resolve(), profile, (*orderers, *peers))


def load_plan(state: Path) -> Plan:
    """The plan of a network that was created before.

    Raises:
        NotFound: there is none in this folder.
    """
    try:
        document = json.loads((state / _FILE).read_text())
    except FileNotFoundError:
        raise NotFound(f"no network in {state}; `city ledger network up` makes one") from None
    nodes = tuple(Node(**{**node, "aliases": tuple(node.get("aliases", ()))}) for node in document["nodes"])
    organisations = tuple(Organisation(name) for name in document["organisations"])
    return Plan(state.resolve(), profile_named(document["profile"]), nodes, organisations)


def has_plan(state: Path) -> bool:
    return (state / _FILE).exists()


def new_peer(name: str, organisation: str) -> Node:
    """A peer of an organisation that joins later, on free ports."""
    return _Ports().node(name, "peer", organisation)


def free_ports(count: int) -> list[int]:
    """Ports of loopback that nobody listens on, below those the kernel gives to outgoing connections."""
    ports = _Ports()
    return [ports.next() for _ in range(count)]


class _Ports:
    """Free ports, each given once."""

    def __init__(self) -> None:
        self._given: set[int] = set()
        self._random = random.SystemRandom()

    def node(self, name: str, kind: str, organisation: str) -> Node:
        return Node(name, kind, organisation, self.next(), self.next(), self.next())

    def next(self) -> int:
        for _ in range(_TRIES):
            port = self._random.randrange(*_PORTS)
            if port not in self._given and _is_free(port):
                self._given.add(port)
                return port
        raise NotFound(f"no free port between {_PORTS[0]} and {_PORTS[1]} on loopback; stop what listens there")


def _is_free(port: int) -> bool:
    with socket.socket() as tried:
        try:
            tried.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
