"""kubelet, kube-proxy and CoreDNS, inside a node's namespaces. Called by `infra.kubernetes.node`.

CoreDNS is a process of the node, with a user and rights of its own; a Service without selector leads to it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from infra.kubernetes import components
from infra.kubernetes.components import SERVICE_DNS
from infra.kubernetes.containerd import SOCKET
from infra.kubernetes.control_plane import Cluster
from infra.kubernetes.install import program
from infra.kubernetes.namespaces import Namespaces
from infra.native import Program

DNS_USER = "provable-city:dns"
DOMAIN = "cluster.local"
_FILES_MAX = 20_000
_HEALTH, _READY = 18_080, 18_181
_STOP_S = 3.0


def kubelet(cluster: Cluster, namespaces: Namespaces, name: str, address: str) -> Program:
    folder, pki = cluster.folder, cluster.pki
    pki.issue("node", f"system:node:{name}", ["system:nodes"])
    pki.issue("kubelet", name, hosts=[name, address])
    resolving = folder / "resolv.conf"
    resolving.write_text(f"nameserver {address}\n", encoding="ascii")
    configuration = {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": address,
        "readOnlyPort": 0,
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(pki.authority)},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": str(pki.certificate("kubelet")),
        "tlsPrivateKeyFile": str(pki.key("kubelet")),
        "containerRuntimeEndpoint": f"unix://{SOCKET}",
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{namespaces.cgroup}",
        "cgroupsPerQOS": True,
        "enforceNodeAllocatable": [],
        "failCgroupV1": False,
        "failSwapOn": False,
        "maxOpenFiles": _FILES_MAX,
        "oomScoreAdj": 0,
        "clusterDNS": [SERVICE_DNS],
        "clusterDomain": DOMAIN,
        "resolvConf": str(resolving),
        "podLogsDir": str(folder / "pods"),
        "evictionHard": {
            "nodefs.available": "1Gi",
            "imagefs.available": "1Gi",
            "memory.available": "100Mi",
            "nodefs.inodesFree": "1%",
        },
        "imageGCHighThresholdPercent": 100,
        "syncFrequency": "10s",
    }
    flags = [
        f"--config={_written(folder / 'kubelet.json', configuration)}",
        f"--kubeconfig={cluster.kubeconfig_of('node')}", f"--hostname-override={name}", f"--node-ip={address}",
        f"--root-dir={folder / 'kubelet'}", f"--cert-dir={folder / 'kubelet-pki'}",
    ]  # fmt: skip
    return _inside(cluster, namespaces, "kubelet", flags)


def kube_proxy(cluster: Cluster, namespaces: Namespaces, name: str) -> Program:
    cluster.pki.issue("proxy", components.PROXY)
    # zeros: it would else write settings of the whole machine
    conntrack = {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"}
    configuration = {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "iptables",
        "hostnameOverride": name,
        "clusterCIDR": components.POD_RANGE,
        "clientConnection": {"kubeconfig": str(cluster.kubeconfig_of("proxy"))},
        "conntrack": conntrack,
        "healthzBindAddress": "127.0.0.1:10256",
        "metricsBindAddress": "127.0.0.1:10249",
    }
    flags = [f"--config={_written(cluster.folder / 'kube-proxy.json', configuration)}"]
    return _inside(cluster, namespaces, "kube-proxy", flags)


def coredns(cluster: Cluster, namespaces: Namespaces, address: str) -> Program:
    cluster.pki.issue("dns", DNS_USER)
    path = cluster.folder / "Corefile"
    path.write_text(corefile(address, cluster.kubeconfig_of("dns")), encoding="utf-8")
    return _inside(cluster, namespaces, "coredns", ["-conf", str(path)])


def corefile(address: str, kubeconfig: Path) -> str:
    """What CoreDNS serves: the cluster's names, from the API server."""
    return f"""\
.:53 {{
    bind {address}
    errors
    health 127.0.0.1:{_HEALTH}
    ready 127.0.0.1:{_READY}
    kubernetes {DOMAIN} in-addr.arpa ip6.arpa {{
        kubeconfig {kubeconfig}
        pods insecure
        ttl 5
    }}
    cache 5
}}
"""


def dns_objects(address: str) -> list[dict[str, Any]]:
    """The rights of CoreDNS, and the Service that pods ask."""
    rules = [
        {"apiGroups": [""], "resources": ["services", "pods", "namespaces", "endpoints"], "verbs": ["list", "watch"]},
        {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list", "watch"]},
    ]
    rbac = "rbac.authorization.k8s.io"
    role = {"apiGroup": rbac, "kind": "ClusterRole", "name": DNS_USER}
    ports = [{"name": "dns", "port": 53, "protocol": "UDP"}, {"name": "dns-tcp", "port": 53, "protocol": "TCP"}]
    metadata = {"name": "kube-dns", "namespace": "kube-system", "labels": {"k8s-app": "kube-dns"}}
    return [
        {"apiVersion": f"{rbac}/v1", "kind": "ClusterRole", "metadata": {"name": DNS_USER}, "rules": rules},
        {
            "apiVersion": f"{rbac}/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": DNS_USER},
            "roleRef": role,
            "subjects": [{"apiGroup": rbac, "kind": "User", "name": DNS_USER}],
        },
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": metadata,
            "spec": {"clusterIP": SERVICE_DNS, "ports": ports},
        },
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {**metadata, "labels": {"kubernetes.io/service-name": "kube-dns"}},
            "addressType": "IPv4",
            "endpoints": [{"addresses": [address]}],
            "ports": ports,
        },
    ]


def _inside(cluster: Cluster, namespaces: Namespaces, name: str, flags: Sequence[str]) -> Program:
    argv = [*namespaces.enter, str(program(cluster.cache, name)), *flags]
    return Program(name, argv, lambda: True, stop_s=_STOP_S)


def _written(path: Path, document: Mapping[str, Any]) -> Path:
    path.write_text(json.dumps(document, indent=1), encoding="utf-8")
    return path
