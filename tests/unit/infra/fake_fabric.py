"""Fabric's programs as the tests of infra.fabric need them: calls are written down, answers come from a small channel in memory."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from infra.fabric.binaries import Binaries, CommandFailed


@dataclass(frozen=True)
class FakeFabric(Binaries):
    """Answers lifecycle commands as a channel of three organisations would."""

    calls: list[tuple[str, ...]] = field(default_factory=list)
    installed: dict[str, set[str]] = field(default_factory=dict)
    approved: dict[tuple[str, str, int], str] = field(default_factory=dict)
    committed: dict[str, dict[str, Any]] = field(default_factory=dict)
    joined: set[str] = field(default_factory=set)
    config_block: bytes = b""

    def call(
        self, tool: str, arguments: Sequence[str], *, env: Mapping[str, str] | None = None, cwd: Path | None = None
    ) -> str:
        self.calls.append((tool, *arguments))
        if tool == "osnadmin":
            return self._orderer(list(arguments))
        if tool == "cryptogen":
            folder = Path(arguments[2].partition("=")[2])
            folder.mkdir(parents=True, exist_ok=True)
        if tool != "peer":
            return ""
        if arguments[0] == "channel":
            return self._channel(list(arguments), (env or {})["CORE_PEER_ADDRESS"])
        if arguments[0] != "lifecycle":
            return "{}"
        answer: str = getattr(self, f"_{arguments[2]}")(list(arguments), (env or {})["CORE_PEER_LOCALMSPID"])
        return answer

    def acts(self, name: str) -> list[tuple[str, ...]]:
        """The calls of one lifecycle command."""
        return [call for call in self.calls if name in call]

    def _orderer(self, arguments: list[str]) -> str:
        address = _after(arguments, "-o")
        if arguments[1] == "join":
            self.joined.add(address)
        named = {"name": "city", "height": 1, "consensusRelation": "consenter", "status": "active"}
        if "-c" in arguments:
            return json.dumps(named)
        return json.dumps({"channels": [named] if address in self.joined else None})

    def _channel(self, arguments: list[str], address: str) -> str:
        if arguments[1] == "fetch":
            Path(arguments[3]).write_bytes(self.config_block)
        if arguments[1] in ("join", "joinbysnapshot"):
            self.joined.add(address)
        said = {"list": "Channels peers has joined:\n" + ("city\n" if address in self.joined else "")}
        return said.get(arguments[1], 'Blockchain info: {"height": 1}')

    def _queryinstalled(self, arguments: list[str], msp: str) -> str:
        return json.dumps({"installed_chaincodes": [{"package_id": one} for one in self.installed.get(msp, set())]})

    def _install(self, arguments: list[str], msp: str) -> str:
        self.installed.setdefault(msp, set()).add(Path(arguments[3]).name)
        return ""

    def _querycommitted(self, arguments: list[str], msp: str) -> str:
        return json.dumps({"chaincode_definitions": list(self.committed.values())} if self.committed else {})

    def _approveformyorg(self, arguments: list[str], msp: str) -> str:
        name, sequence = _after(arguments, "-n"), int(_after(arguments, "--sequence"))
        self.approved[msp, name, sequence] = _after(arguments, "--package-id")
        return ""

    def _queryapproved(self, arguments: list[str], msp: str) -> str:
        name, sequence = _after(arguments, "-n"), int(_after(arguments, "--sequence"))
        package = self.approved[msp, name, sequence]
        return json.dumps({"source": {"Type": {"LocalPackage": {"package_id": package}}}})

    def _checkcommitreadiness(self, arguments: list[str], msp: str) -> str:
        name, sequence = _after(arguments, "-n"), int(_after(arguments, "--sequence"))
        members = ("CityMSP", "UtilityMSP", "AuditorMSP")
        return json.dumps({"approvals": {one: (one, name, sequence) in self.approved for one in members}})

    def _commit(self, arguments: list[str], msp: str) -> str:
        name, sequence = _after(arguments, "-n"), int(_after(arguments, "--sequence"))
        if sequence != self.committed.get(name, {"sequence": 0})["sequence"] + 1:
            raise CommandFailed("wrong sequence", "wrong sequence")
        self.committed[name] = {"name": name, "version": _after(arguments, "-v"), "sequence": sequence}
        return ""


def _after(arguments: list[str], flag: str) -> str:
    return arguments[arguments.index(flag) + 1] if flag in arguments else ""
