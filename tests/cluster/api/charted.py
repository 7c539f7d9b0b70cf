"""A city of the gateway alone, as the chart renders it for the operator: what `test_operator_canary` and `test_autoscaling` try it with."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from citykit.errors import EnvironmentFault
from infra.helm.rendering import Chart, installed
from infra.native import cache_folder
from operators.city.kube import Object
from tests.cluster.api.rig import Rig

HOST = "city.example.org"
_OPERATED = {"enabled": True, "webhook": {"enabled": False}, "policy": {"enabled": False}}
_BEFORE_IT = [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "gateways"}}}]


def gateway(version: str, values: Object) -> tuple[list[Object], Object]:
    """The gateway's objects of a version, and its entry in the City.

    Args:
        values: of `services.gateway`.
    """
    try:
        chart = Chart(installed(cache_folder()))
    except EnvironmentFault as fault:
        pytest.skip(fault.message)
    rendering = chart.render(
        "trial",
        {
            "version": version,
            "operator": _OPERATED,
            "expose": {"mode": "httproute", "host": HOST, "parentRefs": [{"name": "public", "namespace": "gateways"}]},
            "networkPolicy": {"peers": {"ingress": _BEFORE_IT}},
            "services": {"gateway": values},
        },
    )
    services = rendering.of("City")["city"]["spec"]["services"]
    entry: Object = next(one for one in services if one["name"] == "gateway")
    text = rendering.of("ConfigMap")[entry["manifests"]]["data"]["manifests.yaml"]
    return [one for one in yaml.safe_load_all(text) if one], entry


async def gateway_version(rig: Rig, version: str, values: Object, **more: Any) -> Object:
    """Writes the data of a version of the gateway, and returns the spec of a City that consists of nothing else.

    Args:
        more: goes into the spec.
    """
    documents, entry = gateway(version, values)
    manifests = await rig.data("gateway", version, {"manifests.yaml": documents})
    services = [{**entry, "manifests": manifests, "dependsOn": []}]
    return {"version": version, "profile": "trial", "services": services, **more}
