"""The command lines of a control plane: etcd, API server, controllers, scheduler. Called by `control_plane`.

One etcd that does not wait for the disk, no election of leaders: a cluster for tests and trials on one machine, never for a city.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from infra.kubernetes.pki import MASTERS, Pki
from infra.kubernetes.ports import HeldPorts

SERVICE_RANGE, SERVICE_API, SERVICE_DNS = "10.96.0.0/16", "10.96.0.1", "10.96.0.10"
POD_RANGE = "10.244.0.0/16"
ISSUER = "https://kubernetes.default.svc.cluster.local"
LOOPBACK = "127.0.0.1"
ADMIN = "admin"
CONTROLLERS, SCHEDULER, PROXY = "system:kube-controller-manager", "system:kube-scheduler", "system:kube-proxy"
"""Users whose rights the API server makes itself."""
_DIRECT = "--enable-aggregator-routing=true"
"""To the endpoints of a Service: without real pods nothing leads on from its own address."""
_AUTOSCALER = {"sync-period": "2s", "downscale-stabilization": "4s"} | {
    "initial-readiness-delay": "1s", "cpu-initialization-period": "1s",
}  # fmt: skip
"""Minutes are for cities, not for who waits."""


@dataclass(frozen=True)
class Place:
    """Where the programs run.

    Attributes:
        enter: words before each command line, to run it in other namespaces.
        address: under which pods and the node reach the API server; empty: it is on loopback and there are no real pods.
        api_port: of the API server there; 0: the same as outside.
        extra: more flags for a program, by its name.
    """

    enter: Sequence[str] = ()
    address: str = ""
    api_port: int = 0
    extra: Mapping[str, Sequence[str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Ports:
    """Of loopback.

    Attributes:
        api: where the API server listens; in namespaces of its own, as seen there.
        outside: where it is reached from the machine.
    """

    etcd: int
    peer: int
    controllers: int
    scheduler: int
    api: int
    outside: int

    @classmethod
    def take(cls, held: HeldPorts, place: Place) -> Ports:
        etcd, peer, managed, placed, outside = (held.take() for _ in range(5))
        return cls(etcd, peer, managed, placed, place.api_port or outside, outside)

    @property
    def server(self) -> str:
        """For clients on the machine."""
        return f"https://{LOOPBACK}:{self.outside}"

    @property
    def inner_server(self) -> str:
        """For the programs of the cluster."""
        return f"https://{LOOPBACK}:{self.api}"


def issue_all(pki: Pki, place: Place) -> None:
    """The certificates of the programs and of the administrator."""
    own = [LOOPBACK, "localhost", *([place.address] if place.address else [])]
    names = ["kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"]
    pki.issue("apiserver", "kube-apiserver", hosts=[*names, *own, SERVICE_API])
    pki.issue("etcd", hosts=own)
    pki.issue("apiserver-etcd", "kube-apiserver")
    pki.issue("apiserver-kubelet", "kube-apiserver", [MASTERS])
    pki.issue("front-proxy")
    pki.issue(ADMIN, groups=[MASTERS])
    pki.issue("controllers", CONTROLLERS)
    pki.issue("scheduler", SCHEDULER)


def etcd(pki: Pki, ports: Ports, data: Path) -> list[str]:
    client, peer = f"https://{LOOPBACK}:{ports.etcd}", f"http://{LOOPBACK}:{ports.peer}"
    return [
        "--name=one", f"--data-dir={data}", f"--listen-client-urls={client}", f"--advertise-client-urls={client}",
        f"--listen-peer-urls={peer}", f"--initial-advertise-peer-urls={peer}", f"--initial-cluster=one={peer}",
        f"--cert-file={pki.certificate('etcd')}", f"--key-file={pki.key('etcd')}", "--client-cert-auth",
        f"--trusted-ca-file={pki.authority}", "--unsafe-no-fsync", "--log-level=warn",
    ]  # fmt: skip


def api_server(pki: Pki, ports: Ports, place: Place) -> list[str]:
    # 127.0.0.1 is no legal endpoint of a Service: on loopback the Service `kubernetes` has none
    reached = (
        ["--bind-address=0.0.0.0", f"--advertise-address={place.address}"]
        if place.address
        else [f"--bind-address={LOOPBACK}", "--endpoint-reconciler-type=none", _DIRECT]
    )
    headers = {"username-headers": "User", "group-headers": "Group", "extra-headers-prefix": "Extra-"}
    return [
        *reached, f"--secure-port={ports.api}",
        f"--etcd-servers=https://{LOOPBACK}:{ports.etcd}", f"--etcd-cafile={pki.authority}",
        *_pair("etcd-certfile", "etcd-keyfile", pki, "apiserver-etcd"),
        *_pair("tls-cert-file", "tls-private-key-file", pki, "apiserver"),
        *_pair("kubelet-client-certificate", "kubelet-client-key", pki, "apiserver-kubelet"),
        *_pair("proxy-client-cert-file", "proxy-client-key-file", pki, "front-proxy"),
        f"--client-ca-file={pki.authority}", f"--kubelet-certificate-authority={pki.authority}",
        f"--requestheader-client-ca-file={pki.authority}", "--requestheader-allowed-names=front-proxy",
        *(f"--requestheader-{flag}=X-Remote-{header}" for flag, header in headers.items()),
        f"--service-cluster-ip-range={SERVICE_RANGE}", "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction", "--allow-privileged=true",
        f"--service-account-issuer={ISSUER}", f"--service-account-key-file={pki.account_public}",
        f"--service-account-signing-key-file={pki.account_key}",
        "--kubelet-preferred-address-types=InternalIP",
    ]  # fmt: skip


def controllers(pki: Pki, ports: Ports, kubeconfig: Path) -> list[str]:
    return [
        *_as_client(kubeconfig, ports.controllers), "--leader-elect=false",
        f"--root-ca-file={pki.authority}", f"--service-account-private-key-file={pki.account_key}",
        "--use-service-account-credentials=true", f"--cluster-signing-cert-file={pki.authority}",
        f"--cluster-signing-key-file={pki.authority_key}", "--allocate-node-cidrs=true",
        f"--cluster-cidr={POD_RANGE}", f"--service-cluster-ip-range={SERVICE_RANGE}",
        f"--requestheader-client-ca-file={pki.authority}",
        *(f"--horizontal-pod-autoscaler-{flag}={value}" for flag, value in _AUTOSCALER.items()),
    ]  # fmt: skip


def scheduler(ports: Ports, kubeconfig: Path) -> list[str]:
    return [*_as_client(kubeconfig, ports.scheduler), "--leader-elect=false"]


def _as_client(kubeconfig: Path, port: int) -> list[str]:
    flags = ("kubeconfig", "authentication-kubeconfig", "authorization-kubeconfig")
    return [*(f"--{flag}={kubeconfig}" for flag in flags), f"--bind-address={LOOPBACK}", f"--secure-port={port}"]


def _pair(certificate: str, key: str, pki: Pki, name: str) -> list[str]:
    return [f"--{certificate}={pki.certificate(name)}", f"--{key}={pki.key(name)}"]
