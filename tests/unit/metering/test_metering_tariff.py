"""Tariffs: what is valid, and that each refusal names its field."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from citykit.ledger.contract import Refusal, call, functions_of
from citykit.ledger.lint import require_deterministic
from services.metering.contract import CONTRACTS, Billing, Tariffs
from services.metering.domain.errors import TariffInvalid
from services.metering.domain.tariff import parse_tariff
from tests.unit.metering.homes import tariff


def test_a_valid_tariff_gives_every_minute_its_band() -> None:
    parsed = parse_tariff(tariff())
    assert [parsed.band_at(day, minute) for day, minute in ((0, 0), (0, 419), (0, 420), (6, 1_439))] == [0, 0, 1, 1]
    assert parsed.bands[1].steps[0].price_micro_per_wh == 14_370


def _set(path: str, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(document: dict[str, Any]) -> None:
        target: Any = document
        *parents, last = [int(part) if part.isdecimal() else part for part in path.split(".")]
        for part in parents:
            target = target[part]
        target[last] = value

    return change


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (_set("id", "Homes 2016"), "id"),
        (_set("id", ""), "id"),
        (_set("version", 0), "version"),
        (_set("version", True), "version"),
        (_set("currency", "gbp"), "currency"),
        (_set("currency", 5), "currency"),
        (_set("valid_from", "2016-13-01"), "valid_from"),
        (_set("valid_from", "20161001"), "valid_from"),
        (_set("estimation", "guess"), "estimation"),
        (_set("contact", "phone"), "contact"),
        (_set("vat_basis_points", 10_001), "vat_basis_points"),
        (_set("standing_micro_per_day", 1.5), "standing_micro_per_day"),
        (_set("bands", []), "bands"),
        (_set("bands.0.name", "day"), "bands"),
        (_set("bands.0.windows.0.to_minute", 421), "bands"),
        (_set("bands.0.windows.0.to_minute", 419), "bands"),
        (_set("bands.0.windows.0.days", [0, 0]), "bands[0].windows[0].days"),
        (_set("bands.0.windows.0.days", [7]), "bands[0].windows[0].days"),
        (_set("bands.0.windows.0.from_minute", 500), "bands[0].windows[0].to_minute"),
        (_set("bands.0.windows", "always"), "bands[0].windows"),
        (_set("bands.0.steps.0.up_to_wh_per_day", 5), "bands[0].steps"),
        (_set("bands.1.steps.0.up_to_wh_per_day", None), "bands[1].steps"),
        (_set("bands.1.steps.0.up_to_wh_per_day", 0), "bands[1].steps[0].up_to_wh_per_day"),
        (_set("bands.1.steps.1.price_micro_per_wh", -1), "bands[1].steps[1].price_micro_per_wh"),
        (_set("bands.1", 7), "bands[1]"),
        (_set("surprise", 1), "tariff"),
        (lambda document: document.pop("zone"), "tariff"),
    ],
)
def test_each_fault_is_refused_and_named(change: Callable[[dict[str, Any]], Any], field: str) -> None:
    document = tariff()
    change(document)
    with pytest.raises(TariffInvalid) as caught:
        parse_tariff(document)
    assert str(caught.value).startswith(f"{field}: ")


def test_steps_must_grow() -> None:
    document = tariff()
    step = {"up_to_wh_per_day": 8_000, "price_micro_per_wh": 1}
    document["bands"][1]["steps"].insert(0, step)
    with pytest.raises(TariffInvalid, match="must grow"):
        parse_tariff(document)


def test_what_is_no_object_is_refused() -> None:
    with pytest.raises(TariffInvalid, match="must be an object"):
        parse_tariff([])


class Tx:
    """A committed state of its own; writes show at once, which these contracts do not rely on."""

    id, time, submitter = "00" * 32, 0, "metering"

    def __init__(self) -> None:
        self.state: dict[str, Any] = {}
        self.events: list[tuple[str, Any]] = []

    def get(self, key: str) -> Any:
        return self.state.get(key)

    def put(self, key: str, value: Any) -> None:
        self.state[key] = value

    def delete(self, key: str) -> None:
        del self.state[key]

    def range(self, prefix: str, *, limit: int) -> list[tuple[str, Any]]:
        return sorted(item for item in self.state.items() if item[0].startswith(prefix))[:limit]

    def emit(self, name: str, payload: dict[str, Any]) -> None:
        self.events.append((name, payload))


def submit(contract: object, tx: Tx, function: str, **args: Any) -> Any:
    return call(contract, functions_of(contract)[function], tx, args)


def test_the_contracts_are_deterministic() -> None:
    for contract in CONTRACTS:
        require_deterministic(contract)
    assert len(CONTRACTS) == 2


def test_a_published_version_never_changes() -> None:
    tx = Tx()
    for _ in range(2):
        assert submit(Tariffs(), tx, "publish", tariff=tariff()) == {"id": "homes-2016", "version": 1}
    assert [name for name, _ in tx.events] == ["TariffPublished"]
    with pytest.raises(Refusal, match="new version") as caught:
        submit(Tariffs(), tx, "publish", tariff=tariff(vat_basis_points=2_000))
    assert caught.value.code == "tariff-published"
    with pytest.raises(Refusal) as invalid:
        submit(Tariffs(), tx, "publish", tariff=tariff(version=0))
    assert invalid.value.code == "tariff-invalid"
    assert submit(Tariffs(), tx, "get", id="homes-2016", version=1) == tariff()


RUN = {
    "run": "run-1",
    "period": "2016-10-04/2016-11-04",
    "count": 2,
    "root": "0" * 64,
    "tariff": {"id": "t", "version": 1},
}


def test_a_run_closes_once() -> None:
    tx = Tx()
    assert submit(Billing(), tx, "close", **RUN) == {"run": "run-1"}
    assert submit(Billing(), tx, "get", run="run-1")["count"] == 2
    with pytest.raises(Refusal) as caught:
        submit(Billing(), tx, "close", **RUN)
    assert caught.value.code == "run-closed"


@pytest.mark.parametrize("change", [{"run": ""}, {"count": 0}, {"root": "0"}, {"root": "X" * 64}, {"tariff": {}}])
def test_a_run_out_of_form_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(Refusal) as caught:
        submit(Billing(), Tx(), "close", **{**RUN, **change})
    assert caught.value.code == "run-invalid"


def test_only_metering_decides() -> None:
    tx = Tx()
    tx.submitter = "gateway"
    with pytest.raises(Refusal) as caught:
        submit(Billing(), tx, "close", **RUN)
    assert caught.value.code == "submitter-not-allowed"
