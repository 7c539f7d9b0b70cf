"""Files of the chart that repeat what the code says: a chart can read nothing outside its folder. A test holds them equal.

Called by `python -m infra.helm facts`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from citykit.bus.kafka.declared import read_declaration
from citykit.bus.kafka.rights import Right, wanted_rights
from citykit.settings import KafkaSettings, describe_settings

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "helm" / "city"
_FILES = CHART / "files"
_RULES = ("alerts.yml", "recording.yml")
_SEEN = frozenset({"describe", "describe_configs"})
"""What everybody may do with every topic."""


def generated() -> dict[Path, str]:
    """Path to content of every generated file."""
    found = {_FILES / "rules" / name: (ROOT / "infra/observability/rules" / name).read_text() for name in _RULES}
    found[_FILES / "settings.yaml"] = _document(
        "Every setting of the city, from citykit.settings.",
        {"settings": sorted(name for name, _, _ in describe_settings())},
    )
    found[_FILES / "rights.yaml"] = _document(
        "Who may do what in Kafka, from infra/kafka/topics.yaml. Everybody may see that each of the topics is there.",
        rights(),
    )
    return found


def rights() -> dict[str, Any]:
    """`topics`, and by service what it reads, writes, and how its groups' names begin."""
    declared = read_declaration((ROOT / "infra/kafka/topics.yaml").read_text(encoding="utf-8"))
    wanted = sorted(wanted_rights(declared, KafkaSettings()))
    services: dict[str, dict[str, list[str]]] = defaultdict(lambda: {"read": [], "write": [], "groups": []})
    for one in wanted:
        if one.operation not in _SEEN:
            services[one.service]["groups" if one.kind == "group" else one.operation].append(one.name)
    return {"topics": _topics(wanted), "services": dict(services)}


def _topics(wanted: Iterable[Right]) -> list[str]:
    return sorted({one.name for one in wanted if one.kind == "topic"})


def _document(what: str, content: dict[str, Any]) -> str:
    text = yaml.safe_dump(content, sort_keys=False, width=140)
    return f"# {what} Made by `python -m infra.helm facts`.\n{text}"
