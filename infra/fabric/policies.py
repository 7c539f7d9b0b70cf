"""The table of endorsement policies and private data (`policies.yaml`), in Fabric's words."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import yaml

from citykit.errors import InvalidArgument
from infra.fabric.profiles import organisation_named

TABLE = Path(__file__).parent / "policies.yaml"
_POLICY_FIELDS = {"organisations", "needed", "private"}
_PRIVATE_FIELDS = {"name", "organisations", "keep_blocks"}


@dataclass(frozen=True)
class Private:
    """Data that only some organisations' peers hold; the channel sees hashes.

    Attributes:
        keep_blocks: blocks after which it is forgotten; 0 for never.
    """

    name: str
    organisations: tuple[str, ...]
    keep_blocks: int = 0


@dataclass(frozen=True)
class Policy:
    """Who runs a contract and how many of them must agree."""

    contract: str
    organisations: tuple[str, ...]
    needed: int
    private: tuple[Private, ...] = ()

    @property
    def signature_policy(self) -> str:
        """As `--signature-policy` takes it."""
        return f"OutOf({self.needed}, {_principals(self.organisations, 'peer')})"

    @property
    def digest(self) -> str:
        """8 hex digits of what the organisations agree to; another policy has another."""
        agreed = [self.signature_policy, self.collections()]
        return sha256(json.dumps(agreed, sort_keys=True).encode()).hexdigest()[:8]

    def version(self, of_code: str) -> str:
        """A contract's version on the channel: another policy is another version too, and no other package."""
        return f"{of_code}+{self.digest}"

    def collections(self) -> list[dict[str, Any]]:
        """As `--collections-config` takes them."""
        return [_collection(one) for one in self.private]


def read_policies(path: Path = TABLE) -> dict[str, Policy]:
    """The table by contract.

    Raises:
        InvalidArgument: a line that says something impossible; the message names it.
    """
    document = yaml.safe_load(path.read_text())
    return {name: _policy(str(name), line) for name, line in document["contracts"].items()}


def policies_of(contracts: Iterable[str], table: Mapping[str, Policy]) -> list[Policy]:
    """The policies of these contracts, by name.

    Raises:
        InvalidArgument: the table has none for one of them.
    """
    names = sorted(contracts)
    if without := [name for name in names if name not in table]:
        raise InvalidArgument(
            f"no endorsement policy for {', '.join(without)}: add a line to infra/fabric/policies.yaml"
        )
    return [table[name] for name in names]


def _policy(contract: str, line: Mapping[str, Any]) -> Policy:
    _only(contract, line, _POLICY_FIELDS)
    organisations = tuple(organisation_named(name).name for name in line["organisations"])
    needed = int(line["needed"])
    if not 1 <= needed <= len(organisations):
        raise InvalidArgument(
            f"policy of {contract}: needed is {needed}, but {len(organisations)} organisations run it", field="needed"
        )
    return Policy(contract, organisations, needed, tuple(_private(contract, one) for one in line.get("private", [])))


def _private(contract: str, line: Mapping[str, Any]) -> Private:
    _only(contract, line, _PRIVATE_FIELDS)
    organisations = tuple(organisation_named(name).name for name in line["organisations"])
    return Private(str(line["name"]), organisations, int(line.get("keep_blocks", 0)))


def _only(contract: str, line: Mapping[str, Any], allowed: set[str]) -> None:
    unknown = sorted(set(line) - allowed)
    if unknown:
        raise InvalidArgument(f"policy of {contract}: unknown {unknown[0]!r}; allowed are {', '.join(sorted(allowed))}")


def _principals(organisations: tuple[str, ...], role: str) -> str:
    return ", ".join(f"'{organisation_named(name).msp}.{role}'" for name in organisations)


def _collection(private: Private) -> dict[str, Any]:
    return {
        "name": private.name,
        "policy": f"OR({_principals(private.organisations, 'member')})",
        "requiredPeerCount": 0,
        "maxPeerCount": len(private.organisations) - 1,
        "blockToLive": private.keep_blocks,
        "memberOnlyRead": True,
        "memberOnlyWrite": True,
    }
