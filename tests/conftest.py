"""What holds for every test: the long files begin first, so that two workers end at about the same time; no test fails for being slow."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

import pytest
import uvloop
from hypothesis import settings

LONGEST = (
    "tests/system/test_city_run.py",
    "tests/browser/test_dashboard.py",
    "tests/system/test_openapi.py",
    "tests/browser/test_parking.py",
    "tests/system/test_metering_bench.py",
    "tests/system/test_forecasting.py",
    "tests/system/test_verifier.py",
    "tests/system/test_metering_city.py",
    "tests/property/test_payments_histories.py",
)
"""By seconds, from `make test ARGS=--durations=30`."""

SERVED_BY_ASYNCIO = "tests/system/test_serve_chaincode.py"
"""Its programs run on asyncio's own loop; whatever else is tested as a whole city runs on uvloop, as `citykit.loop` says."""

settings.register_profile("city", deadline=None)  # a busy machine is no failure
settings.load_profile("city")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Within a file the order stays."""
    order = {name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: order.get(item.nodeid.partition("::")[0], len(order)))


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The loop a test runs on is the loop its subject runs on."""
    whole = item.nodeid.startswith(("tests/system/", "tests/real/store/", "tests/real/system/", "tests/browser/"))
    if whole and not item.nodeid.startswith(SERVED_BY_ASYNCIO):
        return {"uvloop": uvloop.new_event_loop}
    return {"asyncio": asyncio.new_event_loop}
