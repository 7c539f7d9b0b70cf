"""The table of flows (helm/city/files/flows.yaml) read: who may speak with whom. The tests hold it against the code's calls and the policies."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

import yaml

from infra.helm.facts import CHART

TABLE = CHART / "files" / "flows.yaml"
OUTSIDE = ("dns", "apiserver", "prometheus", "ingress", "provider", "issuer", "organisations", "nodes")
"""Names of the table that are never pods of the city."""


@dataclass(frozen=True, order=True)
class Flow:
    """One allowed connection.

    Attributes:
        source, target: names of pods, or of somebody outside.
        implicit: allowed by Kubernetes itself.
    """

    source: str
    target: str
    port: int
    protocol: str = "TCP"
    implicit: bool = False


def read_flows() -> list[Flow]:
    """Every flow of the table, lists taken apart."""
    content = yaml.safe_load(TABLE.read_text(encoding="utf-8"))
    return [flow for row in content["flows"] for flow in _taken_apart(row)]


def _taken_apart(row: dict[str, Any]) -> Iterator[Flow]:
    if not str(row.get("why", "")).strip():
        raise ValueError(f"a flow without a reason: {row}")
    for source, target, port in product(_listed(row["from"]), _listed(row["to"]), _listed(row["port"])):
        yield Flow(source, target, int(port), row.get("protocol", "TCP"), bool(row.get("implicit", False)))


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def between(flows: Iterable[Flow], pods: Iterable[str]) -> set[Flow]:
    """The flows from one of these pods to another, or to itself."""
    names = set(pods)
    return {one for one in flows if one.source in names and one.target in names and not one.implicit}


def services_called(flows: Iterable[Flow], source: str, port: int = 50051) -> set[str]:
    """Whom a pod calls over gRPC."""
    return {one.target for one in flows if one.source == source and one.port == port}
