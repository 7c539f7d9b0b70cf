"""The table of flows against the calls in the code: whoever dials is in it, and nobody else."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
import yaml

from infra.helm.facts import CHART, ROOT
from infra.helm.flows import OUTSIDE, read_flows, services_called
from services.gateway.app import calls
from services.registry import SERVICES, WITHOUT_PARTS

_DIALS = ("dial", "_dial")
_ONLY_IN_A_DEMO = {"simulation"}
HOLDERS = tuple(name for name in SERVICES if name not in WITHOUT_PARTS)


def _file(module: str) -> Path | None:
    path = ROOT / module.replace(".", "/")
    found = path.with_suffix(".py") if path.with_suffix(".py").exists() else path / "__init__.py"
    return found if found.exists() else None


@cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def _imported(path: Path) -> Iterator[str]:
    for node in ast.walk(_tree(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (node.module, *(f"{node.module}.{alias.name}" for alias in node.names))


def _reached(*roots: str) -> set[Path]:
    """The files of citykit and of the service that are loaded from here."""
    found: set[Path] = set()
    todo = list(roots)
    while todo:
        path = _file(todo.pop())
        if path is not None and path not in found:
            found.add(path)
            todo += [name for name in _imported(path) if name.startswith(("citykit.", "services."))]
    return found


def _dialled(path: Path) -> Iterator[str | None]:
    """Names dialled by this file; None where the name is not written there."""
    for node in ast.walk(_tree(path)):
        if not isinstance(node, ast.Call) or not node.args:
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        if name in _DIALS:
            last = node.args[-1]
            yield str(last.value) if isinstance(last, ast.Constant) else None


def _called(service: str) -> set[str]:
    serving = ("citykit.run",) if service in HOLDERS else ()  # checks people's tokens with the keys of identity
    found = {name for path in _reached(f"services.{service}.main", *serving) for name in _dialled(path)}
    if None in found:
        assert service == "gateway", f"{service} dials a name that is not written where it dials; write it there"
        found = (found - {None}) | set(calls._STUBS)
    return {str(name) for name in found} - _ONLY_IN_A_DEMO


@pytest.mark.parametrize("service", SERVICES)
def test_the_table_has_exactly_the_calls_in_the_code(service: str) -> None:
    assert services_called(read_flows(), service) == _called(service)


def test_the_operator_asks_every_service_that_answers_calls() -> None:
    assert services_called(read_flows(), "operator") == set(HOLDERS)


@pytest.mark.parametrize(("part", "port"), [("kafka", 9093), ("postgres", 5432), ("ledger", 7051)])
def test_the_services_that_hold_state_reach_the_parts(part: str, port: int) -> None:
    found = {one.source for one in read_flows() if one.target == part and one.port == port and one.source in SERVICES}
    assert found == set(HOLDERS)


def test_no_flow_is_said_twice() -> None:
    flows = read_flows()
    keys = [(one.source, one.target, one.port, one.protocol) for one in flows]
    assert {key for key in keys if keys.count(key) > 1} <= {
        ("metering", "identity", 50051, "TCP"),
        ("parking", "identity", 50051, "TCP"),
    }, "the devices' keys and the people's go the same way for two reasons"


def test_nobody_from_outside_reaches_a_part() -> None:
    into = {one.target for one in read_flows() if one.source in OUTSIDE and not one.implicit}
    assert into.isdisjoint({"kafka", "postgres", "prepare", "provision", "check", "uninstall"})


def test_the_chaincodes_are_called_at_their_ports() -> None:
    facts = yaml.safe_load((CHART / "files" / "services.yaml").read_text())
    assert {one.port for one in read_flows() if one.target == "chaincode" and one.source == "fabric-peer"} == set(
        facts["chaincodes"].values()
    )
