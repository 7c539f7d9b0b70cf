"""The sandbox provider's books outlive a kill, also one in the middle of a line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from simulation.provider_journal import kept_books


def asked(key: str, kind: str, method: str = "pm_visa", amount: int = 100) -> dict[str, Any]:
    names = ("key", "kind", "payment", "amount_minor", "currency", "method", "at")
    return dict(zip(names, (key, kind, "p-1", amount, "GBP", method, 5), strict=True))


def test_what_was_authorised_before_a_kill_can_be_captured_after_it(tmp_path: Path) -> None:
    path = tmp_path / "simulation" / "provider.jsonl"
    with kept_books(path) as books:
        books.act(asked("a", "authorise", "pm_later"))
        books.decide("a")
    with path.open("a", encoding="utf-8") as file:
        file.write('{"key": "cut sho')
    with kept_books(path) as books:
        assert books.operations["a"].outcome == "done"
        assert not books.act(asked("a", "authorise", "pm_later"))[1]
        captured, new = books.act(asked("c", "capture", amount=60))
        assert (captured.outcome, new) == ("done", True)
    with kept_books(path) as books:
        assert sorted(books.operations) == ["a", "c"]
        assert books.moved_minor("capture") == 60
        assert books.act(asked("d", "capture"))[0].outcome == "refused"
