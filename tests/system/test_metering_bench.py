"""The benches run and say what they measured; how fast is not tested."""

from __future__ import annotations

import pytest

from services.metering import bench
from services.metering.bench import Load


@pytest.mark.parametrize("name", ["readings_batched", "readings_single"])
def test_the_on_ramp_bench_sends_everything(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    small = Load(devices=5, packages=4, readings=3, batch=2)
    monkeypatch.setattr(bench, "BATCHED", small)
    monkeypatch.setattr(bench, "SINGLE", small)
    figure = getattr(bench, name)()
    assert set(figure) == {"name", "value", "unit", "floor", "aim", "how"}
    assert (figure["value"] > 0, figure["unit"], "5 devices" in figure["how"]) == (True, "readings/s", True)


def test_the_aggregate_benches_answer() -> None:
    figures = [bench.aggregate_10000(), bench.aggregate_100000()]
    assert [(figure["name"], figure["unit"]) for figure in figures] == [
        ("aggregate-10000", "ms"),
        ("aggregate-100000", "ms"),
    ]
