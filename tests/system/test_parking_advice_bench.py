"""The bench of advice runs and says what it measured; how fast is not tested."""

from __future__ import annotations

import pytest

from services.parking import bench


def test_the_bench_of_advice_has_an_answer_to_every_question(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "ASKED", 5)
    monkeypatch.setattr(bench, "LOTS_ASKED", 50)
    figure = bench.advice_500_lots()
    assert set(figure) == {"name", "value", "unit", "floor", "aim", "how"}
    assert (figure["name"], figure["value"] > 0, "5 questions" in figure["how"]) == ("advice-500-lots", True, True)
