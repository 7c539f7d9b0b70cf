"""NetworkPolicies made into nftables rules, for the one node: its bridge knows no policy. `ruleset` is a pure function of what the API server holds.

Called by `infra.kubernetes.firewall`. Semantics, for IPv4: https://kubernetes.io/docs/concepts/services-networking/network-policies/.
What Kubernetes leaves open is decided so: the node itself always reaches its pods, connections that are open stay open, addresses of Services are
replaced by those of pods before the rules look, and what is not allowed is answered with an ICMP message instead of silence: tests need not wait.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_network
from typing import Any

from infra.kubernetes.label_selectors import selects

TABLE = "provable_city_policies"
_VERSION = 4
_ALL = "0.0.0.0/0"
_INGRESS, _EGRESS = "Ingress", "Egress"
_ENDED = ("Succeeded", "Failed")
_REFUSE = "reject with icmp type admin-prohibited"


@dataclass(frozen=True)
class Pod:
    """A pod with an address of its own.

    Attributes:
        ports: (protocol, name) to number, for policies that name a port.
    """

    namespace: str
    name: str
    address: str
    labels: Mapping[str, str]
    ports: Mapping[tuple[str, str], int]


@dataclass(frozen=True)
class World:
    """What a policy's selectors look at.

    Attributes:
        spaces: labels by the name of a namespace.
    """

    pods: Sequence[Pod]
    spaces: Mapping[str, Mapping[str, str]]


def read_world(
    pods: Iterable[Mapping[str, Any]], namespaces: Iterable[Mapping[str, Any]], more: Iterable[Pod] = ()
) -> World:
    """From the API server's objects.

    Args:
        more: what is no pod here and is one elsewhere: CoreDNS.
    """
    spaces = {one["metadata"]["name"]: one["metadata"].get("labels") or {} for one in namespaces}
    found = [pod for one in pods if (pod := _pod(one)) is not None]
    return World([*sorted(found, key=lambda pod: (pod.namespace, pod.name)), *more], spaces)


def ruleset(policies: Sequence[Mapping[str, Any]], world: World) -> str:
    """A file for `nft -f -` that replaces the rules there were, in one step."""
    incoming = _chains(policies, world, _INGRESS)
    outgoing = _chains(policies, world, _EGRESS)
    lines = [f"table inet {TABLE}", f"delete table inet {TABLE}", f"table inet {TABLE} {{"]
    for prefix, chains in (("in", incoming), ("out", outgoing)):
        for address, rules in chains.items():
            lines += [
                f"  chain {_chain(prefix, address)} {{",
                *(f"    {rule}" for rule in rules),
                f"    {_REFUSE}",
                "  }",
            ]
    jumps_out, jumps_in = _jumps("saddr", "out", outgoing), _jumps("daddr", "in", incoming)
    lines += _hook("forward", [*jumps_out, *jumps_in])
    lines += _hook("input", jumps_out)  # from pods to the node: the API server, CoreDNS
    return "\n".join([*lines, "}", ""])


def _chains(policies: Sequence[Mapping[str, Any]], world: World, direction: str) -> dict[str, list[str]]:
    """Rules of every pod that some policy isolates in this direction, by its address."""
    chains: dict[str, list[str]] = {}
    for policy in policies:
        if direction in _directions(policy["spec"]):
            for pod in _selected(policy, world):
                chains.setdefault(pod.address, []).extend(_rules(policy, pod, world, direction))
    return {address: list(dict.fromkeys(rules)) for address, rules in sorted(chains.items())}


def _directions(spec: Mapping[str, Any]) -> Sequence[str]:
    """As the API server fills it in where it is left out."""
    return spec.get("policyTypes") or ([_INGRESS, _EGRESS] if spec.get("egress") else [_INGRESS])


def _selected(policy: Mapping[str, Any], world: World) -> list[Pod]:
    space, selector = policy["metadata"]["namespace"], policy["spec"].get("podSelector") or {}
    return [pod for pod in world.pods if pod.namespace == space and selects(selector, pod.labels)]


def _rules(policy: Mapping[str, Any], pod: Pod, world: World, direction: str) -> Iterator[str]:
    side, key, peers_key = ("saddr", "ingress", "from") if direction == _INGRESS else ("daddr", "egress", "to")
    for rule in policy["spec"].get(key) or []:
        blocks, pods = _peers(rule.get(peers_key) or [], policy["metadata"]["namespace"], world)
        ports = rule.get("ports") or []
        if direction == _INGRESS:
            yield from _allowed(side, blocks, [one.address for one in pods], _matches(ports, [pod]))
        else:
            yield from _allowed(side, blocks, [], _matches(ports, []))
            # a port's name is each peer's own
            for peer in pods:
                yield from _allowed(side, [], [peer.address], _matches(ports, [peer]))


def _peers(peers: Sequence[Mapping[str, Any]], space: str, world: World) -> tuple[list[str], list[Pod]]:
    """Blocks as nft expressions without their side, and pods; no peers means everybody."""
    if not peers:
        return [_ALL], []
    blocks = [_block(peer["ipBlock"]) for peer in peers if "ipBlock" in peer and _is_ours(peer["ipBlock"])]
    pods = [
        pod for pod in world.pods if any(_is_peer(peer, pod, space, world) for peer in peers if "ipBlock" not in peer)
    ]
    return blocks, pods


def _is_peer(peer: Mapping[str, Any], pod: Pod, space: str, world: World) -> bool:
    if "namespaceSelector" in peer:
        if not selects(peer["namespaceSelector"], world.spaces.get(pod.namespace, {})):
            return False
    elif pod.namespace != space:
        return False
    return selects(peer.get("podSelector") or {}, pod.labels)


def _is_ours(block: Mapping[str, Any]) -> bool:
    """A node here has IPv4 only; what is said of IPv6 concerns nobody."""
    return ip_network(block["cidr"], strict=False).version == _VERSION


def _block(block: Mapping[str, Any]) -> str:
    """`10.0.0.0/8`, or `10.0.0.0/8 != 10.1.0.0/16, 10.2.0.0/16`."""
    network = str(ip_network(block["cidr"], strict=False))
    without = [str(ip_network(one, strict=False)) for one in block.get("except") or []]
    return f"{network} != {', '.join(without)}" if without else network


def _allowed(side: str, blocks: Sequence[str], addresses: Sequence[str], matches: Sequence[str]) -> Iterator[str]:
    origins = [_origin(side, block) for block in blocks]
    origins += [f"ip {side} {{ {', '.join(sorted(addresses))} }} "] if addresses else []
    for origin in origins:
        for match in matches:
            yield f"{origin}{match}return".replace("  ", " ")


def _origin(side: str, block: str) -> str:
    network, _, without = block.partition(" != ")
    if network == _ALL and not without:
        return ""
    return f"ip {side} {network} " + (f"ip {side} != {{ {without} }} " if without else "")


def _matches(ports: Sequence[Mapping[str, Any]], targets: Sequence[Pod]) -> list[str]:
    """What of a packet must match, each for itself; one empty word where every port is allowed.

    Args:
        targets: pods whose names of ports count; none: named ports match nothing.
    """
    if not ports:
        return [""]
    return [f"{found} " for one in ports for found in _port(one, targets)]


def _port(port: Mapping[str, Any], targets: Sequence[Pod]) -> Iterator[str]:
    protocol, number = str(port.get("protocol") or "TCP"), port.get("port")
    word = protocol.lower()
    if number is None:
        yield f"meta l4proto {word}"
    elif isinstance(number, int):
        end = port.get("endPort")
        yield f"{word} dport {number}-{end}" if end else f"{word} dport {number}"
    else:
        for pod in targets:
            if (protocol, number) in pod.ports:
                yield f"{word} dport {pod.ports[protocol, number]}"


def _jumps(side: str, prefix: str, chains: Mapping[str, Sequence[str]]) -> list[str]:
    if not chains:
        return []
    pairs = ", ".join(f"{address} : jump {_chain(prefix, address)}" for address in chains)
    return [f"ip {side} vmap {{ {pairs} }}"]


def _hook(name: str, rules: Sequence[str]) -> list[str]:
    """Before the rules of kube-proxy, which accept."""
    first = [f"type filter hook {name} priority filter - 10; policy accept;", "ct state established,related accept"]
    return [f"  chain {name} {{", *(f"    {rule}" for rule in (*first, *rules)), "  }"]


def _chain(prefix: str, address: str) -> str:
    return f"{prefix}_{address.replace('.', '_')}"


def _pod(found: Mapping[str, Any]) -> Pod | None:
    """None where it has no address of its own, or its address may already be another's."""
    spec, status, metadata = found["spec"], found.get("status") or {}, found["metadata"]
    if spec.get("hostNetwork") or status.get("phase") in _ENDED or not status.get("podIP"):
        return None
    ports = {
        (str(port.get("protocol") or "TCP"), str(port["name"])): int(port["containerPort"])
        for container in spec.get("containers") or []
        for port in container.get("ports") or []
        if port.get("name")
    }
    return Pod(metadata["namespace"], metadata["name"], status["podIP"], metadata.get("labels") or {}, ports)
