"""Endorsement policies: Fabric's expressions, whether signers satisfy one, and whom to ask. Used by endorsement and validation.

`AND('CityMSP.peer', OR('UtilityMSP.peer', 'AuditorMSP.peer'))`, `OutOf(2, ...)`; a signature counts once, as in Fabric.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from fabric_protos.common import policies_pb2
from fabric_protos.msp import msp_principal_pb2
from google.protobuf.message import DecodeError

from citykit.errors import InvalidArgument

ROLES = {"member": 0, "admin": 1, "client": 2, "peer": 3, "orderer": 4}
_NAMES = {number: name for name, number in ROLES.items()}
_TOKEN = re.compile(r"\s*(?:(\w+)\s*\(|'([^'.]+)\.(\w+)'|(\d+)|([,)]))")
_DEPTH_MAX = 16


@dataclass(frozen=True)
class Principal:
    """Somebody of an organisation in a role; `member` is anybody of it."""

    msp_id: str
    role: str

    def matches(self, other: Principal) -> bool:
        return self.msp_id == other.msp_id and self.role in ("member", other.role)


@dataclass(frozen=True)
class OutOf:
    """At least `count` of the rules."""

    count: int
    rules: tuple[Rule, ...]


Rule = Principal | OutOf


def parse(expression: str) -> Rule:
    """The rule of an expression.

    Raises:
        InvalidArgument: no such expression.
    """
    tokens = list(_tokens(expression))
    rule, rest = _rule(tokens, expression, 0)
    if rest:
        raise _wrong(expression)
    return rule


def majority(msp_ids: Collection[str]) -> Rule:
    """Peers of more than half of the organisations: Fabric's default."""
    return OutOf(len(msp_ids) // 2 + 1, tuple(Principal(name, "peer") for name in sorted(msp_ids)))


def satisfied(rule: Rule, signers: Sequence[Principal]) -> bool:
    """Whether the signers satisfy the rule, each used once."""
    return _used(rule, signers, frozenset()) is not None


def organisations(rule: Rule) -> frozenset[str]:
    """Every organisation the rule names."""
    if isinstance(rule, Principal):
        return frozenset([rule.msp_id])
    return frozenset().union(*(organisations(one) for one in rule.rules))


def chosen(rules: Sequence[Rule], first: str, hosted: Sequence[str]) -> tuple[str, ...] | None:
    """The fewest hosted organisations whose peers satisfy every rule, `first` among them where it helps; None if none do."""
    for size in range(1, len(hosted) + 1):
        combinations = sorted(itertools.combinations(hosted, size), key=lambda names: first not in names)
        for names in combinations:
            if all(satisfied(rule, [Principal(name, "peer") for name in names]) for rule in rules):
                return names
    return None


def from_envelope(data: bytes) -> Rule | None:
    """The rule of a serialized `common.SignaturePolicyEnvelope`, as key-level policies are stored; None if it is none."""
    try:
        envelope = policies_pb2.SignaturePolicyEnvelope.FromString(data)
        principals = [_principal(one) for one in envelope.identities]
        return _from_message(envelope.rule, principals, 0)
    except (ValueError, IndexError, KeyError, DecodeError):
        return None


def to_envelope(rule: Rule) -> bytes:
    """The serialized `common.SignaturePolicyEnvelope` of a rule."""
    envelope = policies_pb2.SignaturePolicyEnvelope(version=0)
    _to_message(rule, envelope.rule, envelope.identities)
    return bytes(envelope.SerializeToString(deterministic=True))


def _used(rule: Rule, signers: Sequence[Principal], used: frozenset[int]) -> frozenset[int] | None:
    if isinstance(rule, Principal):
        free = (i for i, signer in enumerate(signers) if i not in used and rule.matches(signer))
        found = next(free, None)
        return None if found is None else used | {found}
    held = 0
    for one in rule.rules:
        after = _used(one, signers, used)
        if after is not None:
            used, held = after, held + 1
    return used if held >= rule.count else None


def _tokens(expression: str) -> Iterator[tuple[str, str, str]]:
    at = 0
    text = expression.rstrip()
    while at < len(text):
        found = _TOKEN.match(text, at)
        if found is None:
            raise _wrong(expression)
        call, msp_id, role, number, mark = found.groups()
        yield ("call", call, "") if call else ("who", msp_id, role) if msp_id else ("sign", number or mark, "")
        at = found.end()


def _rule(tokens: list[tuple[str, str, str]], expression: str, depth: int) -> tuple[Rule, list[tuple[str, str, str]]]:
    if not tokens or depth > _DEPTH_MAX:
        raise _wrong(expression)
    kind, name, role = tokens[0]
    if kind == "who" and role.lower() in ROLES:
        return Principal(name, role.lower()), tokens[1:]
    if kind != "call" or name.upper() not in ("AND", "OR", "OUTOF"):
        raise _wrong(expression)
    return _call(name.upper(), tokens[1:], expression, depth)


def _call(
    name: str, tokens: list[tuple[str, str, str]], expression: str, depth: int
) -> tuple[Rule, list[tuple[str, str, str]]]:
    count = 1
    if name == "OUTOF":
        if len(tokens) < 2 or not tokens[0][1].isdigit() or tokens[1][1] != ",":  # noqa: PLR2004 - number and comma
            raise _wrong(expression)
        count, tokens = int(tokens[0][1]), tokens[2:]
    rules: list[Rule] = []
    while True:
        rule, tokens = _rule(tokens, expression, depth + 1)
        rules.append(rule)
        if not tokens or tokens[0][1] not in (",", ")"):
            raise _wrong(expression)
        mark, tokens = tokens[0][1], tokens[1:]
        if mark == ")":
            return OutOf(len(rules) if name == "AND" else count, tuple(rules)), tokens


def _wrong(expression: str) -> InvalidArgument:
    return InvalidArgument(
        f"{expression!r} is no endorsement policy; write for example AND('CityMSP.peer', 'UtilityMSP.peer')"
        " with AND, OR, OutOf(n, ...) and the roles member, admin, client, peer, orderer",
        field="policy",
    )


def _principal(message: msp_principal_pb2.MSPPrincipal) -> Principal:
    if message.principal_classification != 0:
        raise ValueError("only roles")
    role = msp_principal_pb2.MSPRole.FromString(message.principal)
    return Principal(role.msp_identifier, _NAMES[role.role])


def _from_message(rule: policies_pb2.SignaturePolicy, principals: list[Principal], depth: int) -> Rule:
    if depth > _DEPTH_MAX:
        raise ValueError("too deep")
    if rule.WhichOneof("Type") == "n_out_of":
        return OutOf(
            int(rule.n_out_of.n), tuple(_from_message(one, principals, depth + 1) for one in rule.n_out_of.rules)
        )
    return principals[int(rule.signed_by)]


def _to_message(
    rule: Rule, message: policies_pb2.SignaturePolicy, principals: list[msp_principal_pb2.MSPPrincipal]
) -> None:
    if isinstance(rule, OutOf):
        message.n_out_of.n = rule.count
        for one in rule.rules:
            _to_message(one, message.n_out_of.rules.add(), principals)
        return
    role = msp_principal_pb2.MSPRole(msp_identifier=rule.msp_id, role=ROLES[rule.role]).SerializeToString()
    principal = msp_principal_pb2.MSPPrincipal(principal_classification=0, principal=role)
    if principal not in principals:
        principals.append(principal)
    message.signed_by = list(principals).index(principal)
