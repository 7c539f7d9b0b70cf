"""Reads the rules that `infra.kubernetes.network_policies` writes and says what they do to a packet: tests are about connections, not about text."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from ipaddress import ip_address, ip_network

_CHAIN = re.compile(r"  chain (\w+) \{\n(.*?)\n  \}", re.DOTALL)
_PIECE = re.compile(
    r"ip (?P<side>[sd]addr) (?P<unless>!= )?(?:\{ (?P<several>[^}]*) \}|(?P<one>[\d./]+))"
    r"|(?P<protocol>tcp|udp|sctp) dport (?P<low>\d+)(?:-(?P<high>\d+))?"
    r"|meta l4proto (?P<any>tcp|udp|sctp)"
)
_MAP = re.compile(r"ip ([sd]addr) vmap \{ (.*) \}")


def connects(rules: str, source: str, target: str, port: int, protocol: str = "tcp", hook: str = "forward") -> bool:
    """Whether a new connection passes.

    Args:
        hook: `forward` between pods, `input` from a pod to the node.
    """
    chains = {name: [line.strip() for line in body.splitlines()] for name, body in _CHAIN.findall(rules)}
    packet = {"saddr": source, "daddr": target}
    return all(_passes(rule, chains, packet, port, protocol) for rule in chains[hook] if " vmap " in rule)


def _passes(
    rule: str, chains: Mapping[str, Sequence[str]], packet: Mapping[str, str], port: int, protocol: str
) -> bool:
    found = _MAP.fullmatch(rule)
    assert found, rule
    jumps = dict(pair.split(" : jump ") for pair in found[2].split(", "))
    chain = jumps.get(packet[found[1]])
    if chain is None:
        return True
    for one in chains[chain]:
        if one.startswith("reject"):
            return False
        assert one.endswith("return"), one
        if _matches(one.removesuffix("return").strip(), packet, port, protocol):
            return True
    raise AssertionError(f"chain {chain} has no end")


def _matches(text: str, packet: Mapping[str, str], port: int, protocol: str) -> bool:
    pieces = list(_PIECE.finditer(text))
    assert " ".join(piece[0] for piece in pieces) == text, f"not understood: {text!r}"
    return all(_holds(piece, packet, port, protocol) for piece in pieces)


def _holds(piece: re.Match[str], packet: Mapping[str, str], port: int, protocol: str) -> bool:
    if piece["side"]:
        listed = (piece["several"] or piece["one"]).split(", ")
        inside = any(ip_address(packet[piece["side"]]) in ip_network(one) for one in listed)
        return inside != bool(piece["unless"])
    if piece["any"]:
        return piece["any"] == protocol
    return piece["protocol"] == protocol and int(piece["low"]) <= port <= int(piece["high"] or piece["low"])
