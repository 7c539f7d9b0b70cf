"""The contract of closed days."""

from __future__ import annotations

from typing import Any

import pytest

from citykit.ledger.contract import Refusal
from citykit.ledger.lint import require_deterministic
from services.payments.contract import CONTRACTS, PaymentsDays


class Tx:
    """What the contract sees; writes count at once."""

    id, time, submitter = "tx", 0, "payments"

    def __init__(self) -> None:
        self.state: dict[str, Any] = {}
        self.events: list[str] = []

    def get(self, key: str) -> Any:
        return self.state.get(key)

    def put(self, key: str, value: Any) -> None:
        self.state[key] = value

    def emit(self, name: str, payload: Any) -> None:
        self.events.append(name)


def close(tx: Any, day: str, captured: int = 5, refunded: int = 1, size: int = 3) -> Any:
    return PaymentsDays().close(tx, day=day, captured_minor=captured, refunded_minor=refunded, transfers_size=size)


def test_days_are_closed_once_and_in_order() -> None:
    tx: Any = Tx()
    assert close(tx, "2016-10-04") == {"day": "2016-10-04"}
    close(tx, "2016-10-04")
    close(tx, "2016-10-05", size=3)
    assert tx.events == ["DayClosed", "DayClosed"]
    assert PaymentsDays().get(tx, day="2016-10-04") == {"captured_minor": 5, "refunded_minor": 1, "transfers_size": 3}
    for day, more, code in (
        ("2016-10-04", {"captured": 6}, "day-closed"),
        ("2016-10-03", {}, "day-order"),
        ("2016-10-06", {"size": 2}, "day-order"),
        ("2016-10-06", {"captured": -1}, "day-invalid"),
        ("20161006", {}, "day-invalid"),
        ("today", {}, "day-invalid"),
    ):
        with pytest.raises(Refusal) as found:
            close(tx, day, **more)
        assert found.value.code == code


def test_it_answers_the_same_on_every_peer() -> None:
    for contract in CONTRACTS:
        require_deterministic(contract)
