"""What holds for every test: the long files begin first, so that two workers end at about the same time; no test fails for being slow."""

from __future__ import annotations

import pytest
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

settings.register_profile("city", deadline=None)  # a busy machine is no failure
settings.load_profile("city")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Within a file the order stays."""
    order = {name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: order.get(item.nodeid.partition("::")[0], len(order)))
