"""Heavy imports stay in the computing process: the city and the command start without them."""

from __future__ import annotations

import subprocess
import sys

HEAVY = ("numpy", "pandas", "lightgbm", "prophet", "matplotlib", "holidays", "scipy")


def loaded(code: str) -> set[str]:
    asked = f"import sys\n{code}\nprint(*(name for name in {HEAVY!r} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_the_city_and_its_command_load_no_arrays_and_no_models() -> None:
    assert (
        loaded("from services.commands import forecast, bench, run\nfrom services.registry import builders\nbuilders()")
        == set()
    )


def test_forecasting_without_a_boosted_model_loads_arrays_only() -> None:
    assert loaded("import services.forecasting.app.compute") == {"numpy"}
    assert "prophet" not in loaded("import services.forecasting.app.models.boosting"), (
        "reading a model must not load Prophet"
    )
