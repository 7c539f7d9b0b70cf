"""A channel of Fabric between three organisations in one cluster: the city's peers and orderer as the chart runs them, the others' peers in
namespaces of their own. The programs are those of a release of Fabric, from the folder FABRIC_BIN names and the two beside it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import yaml
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from infra.fabric import FABRIC_BIN, Network, Node, Plan, find, not_run, read_policies
from infra.fabric.crypto import (
    admin_msp,
    identity,
    issue,
    node_folder,
    node_tls,
    organisation_folder,
    tls_extensions,
    write_key,
)
from infra.fabric.profiles import ORGANISATIONS, Organisation, profile_named
from infra.image import lockfile, tree
from infra.image.building import build, inputs_of
from infra.image.fetching import fetch
from infra.image.recipes import Image, Layer
from infra.image.store import Store
from infra.native import cache_folder
from tests.cluster.conftest import Tool
from tests.cluster.node.city_release import forwarded

VERSION = "3.1"
PEERS = 2
OTHERS = ORGANISATIONS[1:]
_USER = 10001
_CONFIGURATION = "etc/hyperledger/fabric"
_BUILDER = "opt/hyperledger/ccaas_builder"


def reason() -> str:
    """Why nothing of it can run here; empty where it can."""
    said = not_run(os.environ.get(FABRIC_BIN))
    if said:
        return said
    missing = [str(path) for path in (*_settings().values(), *_builders().values()) if not path.is_file()]
    return f"not run: beside {FABRIC_BIN} there is no {missing[0]}, as in a release of Fabric" if missing else ""


def archives(out: Path) -> list[Path]:
    """Images with the paths, settings and environment of the official ones."""
    inputs, store = lockfile.read(), Store(cache_folder() / "image")
    made = []
    for image in (_image("peer", ("node", "start")), _image("orderer", ())):
        fetch(store, inputs_of(image, inputs))
        made.append(build(image, store, inputs, out).archive)
    return made


def _image(program: str, arguments: Sequence[str]) -> Image:
    files = [
        tree.file(f"usr/local/bin/{program}", (_release() / "bin" / program).read_bytes(), 0o755),
        *(tree.file(f"{_CONFIGURATION}/{name}", path.read_bytes()) for name, path in _settings().items()),
        *(tree.file(f"{_BUILDER}/bin/{name}", path.read_bytes(), 0o755) for name, path in _builders().items()),
        *(tree.folder(name) for name in ("tmp", "dev", "proc", "sys", "var/hyperledger")),
        tree.file("etc/nsswitch.conf", "hosts: files dns\n"),
    ]
    layers = (Layer("debian", ("libc6", "libgcc-s1", "gcc-12-base")), Layer("fabric", files=tuple(files)))
    environment = {"PATH": "/usr/local/bin", "FABRIC_CFG_PATH": f"/{_CONFIGURATION}"}
    return Image(
        f"fabric-{program}", VERSION, layers, (f"/usr/local/bin/{program}", *arguments), f"{_USER}:{_USER}", environment
    )


def _release() -> Path:
    return Path(os.environ[FABRIC_BIN]).resolve().parent


def _settings() -> dict[str, Path]:
    return {name: _release() / "config" / name for name in ("core.yaml", "orderer.yaml")}


def _builders() -> dict[str, Path]:
    return {name: _release() / "builders" / "ccaas" / "bin" / name for name in ("detect", "build", "release")}


@dataclass(frozen=True)
class Channel:
    """Keys and first block of a channel whose nodes are pods.

    Attributes:
        namespaces: of each organisation, by its name.
    """

    network: Network
    namespaces: Mapping[str, str]

    @property
    def plan(self) -> Plan:
        return self.network.plan

    def secrets(self, organisation: Organisation, services: Sequence[str]) -> list[dict[str, Any]]:
        """What the chart asks of those who run the network, for one organisation.

        Args:
            services: those that submit.
        """
        nodes = [node for node in self.plan.nodes if node.organisation == organisation.name]
        found = {node.name: _of_node(self.plan, node) for node in nodes}
        found["fabric-chaincode"] = self._of_chaincodes(organisation)
        admin = admin_msp(self.plan, organisation)
        found["ledger-admin"] = self._of_member(organisation, _only(admin / "signcerts"), _only(admin / "keystore"))
        for name in services:
            files = identity(self.plan, organisation, name)
            found[f"ledger-{name}"] = self._of_member(organisation, files.certificate, files.key)
        return [_secret(name, content) for name, content in found.items()]

    def begin(self, kubectl: Tool) -> None:
        """Lets the orderers and then all peers, whose pods run, join; from outside, through the cluster's API server."""
        with ExitStack() as stack:
            reached = [stack.enter_context(self._reached(kubectl, node)) for node in self.plan.nodes]
            outside = Network(replace(self.plan, nodes=tuple(reached)), self.network.binaries)
            outside.join_orderers()
            outside.join_peers()

    @contextmanager
    def _reached(self, kubectl: Tool, node: Node) -> Iterator[Node]:
        """The node by ports of this machine's loopback."""
        there = kubectl.within(self.namespaces[node.organisation])
        wanted = [node.port, node.operations_port, *([] if node.is_peer else [node.admin_port])]
        with forwarded(there, f"pod/{node.name}-0", wanted) as ports:
            admin = ports.get(node.admin_port, 0)
            here = replace(node, host="127.0.0.1", port=ports[node.port], operations_port=ports[node.operations_port])
            yield replace(here, admin_port=admin)

    def _of_member(self, organisation: Organisation, certificate: Path, key: Path) -> dict[str, bytes]:
        return {
            "member.pem": certificate.read_bytes(),
            "member.key": key.read_bytes(),
            "ca.pem": node_tls(self.plan, self.plan.peer_of(organisation.name)).roots.read_bytes(),
            **self._tls_pair(organisation, "client", "client.pem", "client.key"),
        }

    def _of_chaincodes(self, organisation: Organisation) -> dict[str, bytes]:
        ca = organisation_folder(self.plan, organisation) / "tlsca"
        return {
            "ca.crt": next(ca.glob("*.pem")).read_bytes(),
            **self._tls_pair(organisation, f"*.{self.namespaces[organisation.name]}.svc", "tls.crt", "tls.key"),
            **self._tls_pair(organisation, "chaincode-caller", "peer.crt", "peer.key"),
        }

    def _tls_pair(self, organisation: Organisation, name: str, certificate: str, key: str) -> dict[str, bytes]:
        """A certificate for this name by the organisation's TLS authority, and its key."""
        made = ec.generate_private_key(ec.SECP256R1())
        file = self.plan.state / "made.key"
        write_key(file, made)
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        uses = tls_extensions(x509.SubjectAlternativeName([x509.DNSName(name)]))
        ca = organisation_folder(self.plan, organisation) / "tlsca"
        return {
            certificate: issue(ca, subject, made, valid=timedelta(days=30), extensions=uses),
            key: file.read_bytes(),
        }


def a_channel(folder: Path, namespaces: Mapping[str, str]) -> Channel:
    """Makes keys and first block; one orderer and two peers of the city, one peer of each other organisation."""
    city = ORGANISATIONS[0].name
    nodes = [_node("orderer", 0, city, namespaces[city])]
    nodes += [_node("peer", number, city, namespaces[city]) for number in range(PEERS)]
    nodes += [_node("peer", 0, one.name, namespaces[one.name]) for one in OTHERS]
    network = Network(Plan(folder, profile_named("raft1"), tuple(nodes)), find())
    network.make()
    return Channel(network, namespaces)


def _node(kind: str, number: int, organisation: str, namespace: str) -> Node:
    name = f"fabric-{kind}-{number}"
    host = f"{name}.{namespace}.svc.cluster.local"
    return Node(
        name, kind, organisation, 7050 if kind == "orderer" else 7051, 9443, 7053, host, (name, f"fabric-{kind}")
    )


def members_part(rendered: str, organisation: Organisation) -> list[dict[str, Any]]:
    """What another organisation runs of a chart rendered for it: its peer, the chaincodes of the contracts it runs, and the Job that brings them."""
    runs = {name for name, policy in read_policies().items() if organisation.name in policy.organisations}
    found = [one for one in yaml.safe_load_all(rendered) if one and _is_a_members(one)]
    for document in found:
        pod = document["spec"].get("template", {}).get("spec", {})
        for container in [*pod.get("initContainers", []), *pod.get("containers", [])]:
            container["args"] = [one for one in container.get("args", []) if _concerns(one, runs)]
            if container["name"] == "chaincode":
                submits = {
                    "CITY_FABRIC_MSP": ORGANISATIONS[0].msp
                }  # its members are known by their bare names, whoever runs a contract
                container["env"] = [
                    {**one, "value": submits.get(one["name"], one["value"])} for one in container["env"]
                ]
        if document["kind"] == "Deployment":
            document["spec"]["replicas"] = 1
    return found


def _is_a_members(document: dict[str, Any]) -> bool:
    name = str(document["metadata"]["name"])
    if document["kind"] in ("Service", "StatefulSet", "Deployment"):
        return name.startswith(("fabric-peer", "chaincode"))
    return document["kind"] == "Job" and name == "contracts"


def _concerns(argument: str, runs: set[str]) -> bool:
    option, _, rest = argument.partition("=")
    return option != "--chaincode" or rest.partition("=")[0] in runs


def _of_node(plan: Plan, node: Node) -> dict[str, bytes]:
    msp, tls = node_folder(plan, node) / "msp", node_tls(plan, node)
    authority = _only(msp / "cacerts")
    roles = (msp / "config.yaml").read_text(encoding="utf-8").replace(f"cacerts/{authority.name}", "cacerts/ca.pem")
    return {
        "cacerts.pem": authority.read_bytes(),
        "tlscacerts.pem": _only(msp / "tlscacerts").read_bytes(),
        "signcert.pem": _only(msp / "signcerts").read_bytes(),
        "key.pem": _only(msp / "keystore").read_bytes(),
        "config.yaml": roles.encode(),
        "tls.crt": tls.certificate.read_bytes(),
        "tls.key": tls.key.read_bytes(),
        "ca.crt": tls.roots.read_bytes(),
    }


def _only(folder: Path) -> Path:
    (file,) = folder.iterdir()
    return file


def _secret(name: str, content: Mapping[str, bytes]) -> dict[str, Any]:
    data = {key: value.decode("ascii") for key, value in content.items()}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": data}
