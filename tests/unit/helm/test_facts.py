"""What the chart repeats of the code is what the code says."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from citykit.ledger.chaincode.convention import chaincode_name
from infra.helm.facts import CHART, ROOT, generated
from infra.kafka import broker
from infra.kafka.broker import BrokerTls, Node
from operators.city import spec as operator_spec
from services.registry import SERVICES, WITHOUT_PARTS, contracts

FACTS = yaml.safe_load((CHART / "files" / "services.yaml").read_text())
VALUES = (CHART / "values.yaml").read_text()


def test_generated_files_are_up_to_date() -> None:
    for path, text in generated().items():
        assert path.read_text(encoding="utf-8") == text, f"{path} is old; run `python -m infra.helm facts`"


def test_the_services_are_the_registrys() -> None:
    assert tuple(FACTS["services"]) == SERVICES
    assert {name for name, fact in FACTS["services"].items() if not fact["holds"]} == set(WITHOUT_PARTS)
    assert {name for name, fact in FACTS["services"].items() if not fact["serves"]} == set(WITHOUT_PARTS)
    assert list(yaml.safe_load(VALUES)["services"]) == list(SERVICES)


def test_a_service_keeps_files_exactly_where_it_asks_for_its_folder() -> None:
    """`ctx.directory` is a service's own folder. The gateway's holds what a check is made in, which may be lost."""
    asking = {
        name for name in SERVICES if any("ctx.directory" in path.read_text() for path in (ROOT / "services" / name).rglob("*.py"))
    }  # fmt: skip
    asking |= {"notary"} if "_ctx.directory" in (ROOT / "services/notary/app.py").read_text() else set()
    assert {name for name, fact in FACTS["services"].items() if fact["files"]} == asking - {"gateway"}


def test_every_contract_has_a_chaincode_at_a_port_of_its_own() -> None:
    found: dict[str, int] = FACTS["chaincodes"]
    assert set(found) == {chaincode_name(contract) for contract in contracts()}
    assert len(set(found.values())) == len(found)


def test_versions_are_the_projects() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    for chart in ("city", "city-crds"):
        found = yaml.safe_load((ROOT / "helm" / chart / "Chart.yaml").read_text())
        assert (found["version"], found["appVersion"]) == (project, project), chart


# --- Kafka --------------------------------------------------------------------------------------------


def _kafka_variables() -> dict[str, str]:
    text = (CHART / "templates" / "kafka.yaml").read_text()
    body = text.partition('{{- define "city.kafka-settings" -}}')[2].partition("{{- end }}")[0]
    lines = [line.partition(": ") for line in body.strip().splitlines()]
    return {name: value.strip('"') for name, _, value in lines}


def _variable(name: str) -> str:
    return "KAFKA_" + name.upper().replace(".", "_")


_ELSEWHERE = {  # addresses, numbers and files are others in a pod
    "node.id", "controller.quorum.bootstrap.servers", "log.dirs", "listeners", "advertised.listeners",
    "listener.security.protocol.map", "ssl.keystore.location", "ssl.truststore.location",
}  # fmt: skip


def test_the_bundled_broker_has_the_settings_of_the_native_one(tmp_path: Path) -> None:
    tls = BrokerTls(*(tmp_path / name for name in ("ca", "certificate", "key", "admin", "admin-key")))
    for path in (tls.key_file, tls.certificate_file):
        path.write_bytes(b"-")
    node = Node(1, 1, 2, 3, "d", tmp_path)
    wanted = broker._settings(node, [node], tls)
    found = _kafka_variables()
    for name, value in wanted.items():
        if name in _ELSEWHERE or "scram" in name or name.startswith("sasl."):  # a pod takes certificates only
            continue
        assert found[_variable(name)] == value, name


# --- values -------------------------------------------------------------------------------------------


def _uncommented(text: str) -> list[str]:
    """Keys that stand right under neither a comment nor a sibling whose comment speaks for a group."""
    lines = text.splitlines()
    told = re.compile(r"^\s*(#|$)")
    plain = ("resources:", "limits:", "requests:", "storage:", "image:", "repository:", "tag:")
    found = []
    for number, line in enumerate(lines):
        key = re.match(r"^( *)([A-Za-z][A-Za-z-]*:)", line)
        if key is None or not lines[number - 1 : number] or told.match(lines[number - 1]):
            continue
        before = lines[number - 1]
        first = len(before) - len(before.lstrip()) < len(key[1])  # the parent's comment stands above it
        if not first and key[2] not in plain:
            found.append(f"{number + 1}: {line.strip()}")
    return found


def test_every_value_has_a_comment() -> None:
    services = {f"{name}:" for name in SERVICES}
    missing = [
        one for one in _uncommented(VALUES) if not any(one.split(": ", 1)[1].startswith(name) for name in services)
    ]
    assert missing == []


# --- the kind City ------------------------------------------------------------------------------------

CITY = yaml.safe_load((ROOT / "helm/city-crds/templates/cities.yaml").read_text())
SPEC = CITY["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]


def test_the_kind_has_the_fields_the_operator_reads() -> None:
    assert set(SPEC["properties"]) == set(operator_spec._KNOWN)


def _lists(node: Any, path: str = "") -> list[str]:
    found = []
    if isinstance(node, dict):
        if node.get("type") == "array" and "maxItems" not in node:
            found.append(path)
        found += [one for key, value in node.items() for one in _lists(value, f"{path}.{key}")]
    return found


def test_every_list_of_the_kind_has_a_limit() -> None:
    assert _lists(CITY["spec"]["versions"][0]["schema"]["openAPIV3Schema"]) == []


@pytest.mark.parametrize(
    ("path", "limit"),
    [
        ("services", operator_spec.SERVICES_MAX),
        ("windows", operator_spec.WINDOWS_MAX),
        ("freezes", operator_spec.FREEZES_MAX),
    ],
)
def test_limits_are_the_operators(path: str, limit: int) -> None:
    assert SPEC["properties"][path]["maxItems"] == limit
    assert SPEC["properties"]["gates"]["properties"]["analyses"]["maxItems"] == operator_spec.ANALYSES_MAX
    assert tuple(SPEC["properties"]["profile"]["enum"]) == operator_spec.PROFILES
