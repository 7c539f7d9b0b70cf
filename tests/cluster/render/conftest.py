"""The chart as the real helm renders it: no cluster is needed."""

from __future__ import annotations

from functools import cache
from typing import Any, Protocol

import pytest

from citykit.errors import EnvironmentFault
from infra.helm.golden import PROFILES
from infra.helm.rendering import Chart, Rendering, installed
from infra.native import cache_folder

API_SERVER = "10.96.0.1"
_NARROW = {"networkPolicy": {"peers": {"apiserver": [{"ipBlock": {"cidr": f"{API_SERVER}/32"}}]}}}
WAYS: dict[str, dict[str, Any]] = {
    "direct": {
        **_NARROW,
        "operator": {"enabled": False, "approvals": 0},
        "services": {"gateway": {"canary": {"steps": []}}},
    },
    "operator": {**_NARROW, "operator": {"enabled": True, "webhook": {"caBundle": "QQ=="}}},
}
"""Who applies the services."""


class Rendered(Protocol):
    """`rendered("trial", "operator")`; each is rendered once."""

    def __call__(self, profile: str, way: str = "direct") -> Rendering: ...


@pytest.fixture(scope="session")
def chart() -> Chart:
    try:
        return Chart(installed(cache_folder()))
    except EnvironmentFault as fault:
        pytest.skip(fault.message)


@pytest.fixture(scope="session")
def rendered(chart: Chart) -> Rendered:
    @cache
    def render(profile: str, way: str = "direct") -> Rendering:
        return chart.render(profile, WAYS[way])

    return render


@pytest.fixture(scope="session", params=[(profile, way) for profile in PROFILES for way in WAYS], ids="-".join)
def rendering(request: pytest.FixtureRequest, rendered: Rendered) -> Rendering:
    """Every profile in both ways."""
    profile, way = request.param
    return rendered(profile, way)
