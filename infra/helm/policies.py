"""NetworkPolicies evaluated: may this end open a connection to that one? After networking.k8s.io/v1, as Kubernetes describes it.

A connection is let through if the source's egress and the target's ingress both allow it. An end that no policy selects for a direction is open in
that direction; one that is selected is open to exactly what one of its policies names. Called by the tests of the chart and of the node tier.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from typing import Any

from infra.kubernetes.label_selectors import selects

Object = Mapping[str, Any]
INGRESS, EGRESS = "Ingress", "Egress"


@dataclass(frozen=True)
class End:
    """One end of a connection.

    Attributes:
        namespace: of a pod; empty: no pod but a machine somewhere, known by its address only.
        labels: of the pod.
        namespace_labels: of its namespace; `kubernetes.io/metadata.name` is always there.
        address: needed where policies name blocks of addresses.
    """

    namespace: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    namespace_labels: Mapping[str, str] = field(default_factory=dict)
    address: str = ""

    @property
    def all_namespace_labels(self) -> Mapping[str, str]:
        return {**self.namespace_labels, "kubernetes.io/metadata.name": self.namespace}


class Policies:
    """The policies of a cluster.

    Args:
        documents: NetworkPolicy objects; one without a namespace is in `namespace`.
    """

    def __init__(self, documents: Iterable[Object], namespace: str) -> None:
        self._all = [(one["metadata"].get("namespace", namespace), one["spec"]) for one in documents]

    def allows(self, source: End, target: End, port: int, protocol: str = "TCP") -> bool:
        """Whether a connection is let through."""
        return self._lets(source, target, EGRESS, port, protocol) and self._lets(
            target, source, INGRESS, port, protocol
        )

    def _lets(self, own: End, other: End, direction: str, port: int, protocol: str) -> bool:
        concerned = [
            spec for namespace, spec in self._all
            if own.namespace == namespace and selects(spec.get("podSelector", {}), own.labels) and direction in _types(spec)
        ]  # fmt: skip
        if not concerned:
            return True
        rules = [rule for spec in concerned for rule in spec.get(direction.lower()) or []]
        side = "to" if direction == EGRESS else "from"
        return any(
            _peer_fits(rule.get(side), own, other) and _port_fits(rule.get("ports"), port, protocol) for rule in rules
        )


def _types(spec: Object) -> Sequence[str]:
    """Ingress always, egress where it is said or there are rules for it: the API server's own default."""
    return spec.get("policyTypes") or ([INGRESS, EGRESS] if spec.get("egress") else [INGRESS])


def _peer_fits(peers: Sequence[Object] | None, own: End, other: End) -> bool:
    """No peers: everybody."""
    return not peers or any(_one_peer_fits(peer, own, other) for peer in peers)


def _one_peer_fits(peer: Object, own: End, other: End) -> bool:
    if "ipBlock" in peer:
        return _in_block(peer["ipBlock"], other.address)
    if not other.namespace:
        return False
    there = (
        selects(peer["namespaceSelector"], other.all_namespace_labels)
        if "namespaceSelector" in peer
        else other.namespace == own.namespace
    )
    return there and selects(peer.get("podSelector", {}), other.labels)


def _in_block(block: Object, address: str) -> bool:
    if not address:
        return False
    found = ip_address(address)
    return found in ip_network(block["cidr"]) and not any(found in ip_network(one) for one in block.get("except") or [])


def _port_fits(ports: Sequence[Object] | None, port: int, protocol: str) -> bool:
    """No ports: every one. Ports by name are not used by the chart and are refused."""
    if not ports:
        return True
    for one in ports:
        if not isinstance(one.get("port", 0), int):
            raise ValueError(f"a port by name cannot be evaluated: {one}")
    return any(
        one.get("protocol", "TCP") == protocol
        and ("port" not in one or one["port"] <= port <= one.get("endPort", one["port"]))
        for one in ports
    )
