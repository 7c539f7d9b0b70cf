"""Asking services over mutual TLS what holds: the certificate and the token come along, and no answer is never taken for a good one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from citykit.network import tls_network
from citykit.settings import ServicesSettings
from operators.city.asking import Services
from tests.cluster.api.programmable import Programmable, programmable

NOW = datetime(2026, 1, 1, tzinfo=UTC)
NAMES = ("metering", "payments", "gateway")


@pytest.fixture
async def city(tmp_path: Path) -> AsyncIterator[Programmable]:
    async with programmable(tmp_path, NAMES) as knobs:
        yield knobs


@pytest.fixture
async def services(city: Programmable) -> AsyncIterator[Services]:
    environment = city.environment()
    settings = ServicesSettings(
        addresses=environment["CITY_SERVICES_ADDRESSES"], certificates=environment["CITY_SERVICES_CERTIFICATES"]
    )
    found = Services(tls_network(settings), city.token_file)
    yield found
    await found.close()


async def test_what_holds_what_is_broken_and_who_has_none(city: Programmable, services: Services) -> None:
    city.broken["payments", "sum-is-zero"] = "off by 3"
    city.without.add("gateway")
    metering, payments, gateway = await services.invariants(NAMES, NOW)
    assert metering.held == ("ledger-agrees",)
    assert "sum-is-zero of payments is broken" in payments.broken[0]
    assert payments.broken[0].endswith("off by 3")
    assert (gateway.held, gateway.silent) == ((), "")
    assert "operator" in city.callers


async def test_one_that_only_calls_has_nothing_to_say(city: Programmable, services: Services) -> None:
    asked = Services(services._network, city.token_file, ["portal"])
    (portal,) = await asked.invariants(["portal"], NOW)
    assert (portal.held, portal.silent) == ((), "")
    assert await asked.freezes(["portal"]) == {}
    await asked.close()


async def test_no_answer_is_told(city: Programmable, services: Services) -> None:
    city.silent.add("metering")
    (found,) = await services.invariants(["metering"], NOW)
    assert found.silent == "metering does not say whether its invariants hold (UNAVAILABLE: away)"
    (unknown,) = await services.invariants(["voting"], NOW)
    assert "no address is known for the service voting" in unknown.silent
    city.token_file.write_text("another", encoding="ascii")
    (refused,) = await services.invariants(["metering"], NOW)
    assert "UNAUTHENTICATED" in refused.silent
    city.token_file.unlink()
    (without,) = await services.invariants(["metering"], NOW)
    assert "token cannot be read" in without.silent


async def test_freezes_are_what_services_say_and_silence_is_none(city: Programmable, services: Services) -> None:
    city.freezes["payments"] = "the month is being closed"
    city.silent.add("metering")
    assert await services.freezes(NAMES) == {"payments": "the month is being closed"}
