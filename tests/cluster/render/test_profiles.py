"""The four profiles: as they were, and free of what helm itself finds fault with."""

from __future__ import annotations

from pathlib import Path

import pytest

from infra.helm.golden import GOLDEN, PROFILES, golden
from infra.helm.rendering import CRDS, Chart
from tests.cluster.render.conftest import Rendered


@pytest.mark.parametrize("profile", PROFILES)
def test_the_rendering_is_the_golden_one(chart: Chart, profile: str) -> None:
    kept = (GOLDEN / f"{profile}.yaml").read_text(encoding="utf-8")
    assert golden(chart, profile) == kept, "the rendering changed; look at it, then `python -m infra.helm golden`"


@pytest.mark.parametrize("profile", PROFILES)
def test_helm_lint_finds_nothing(chart: Chart, profile: str) -> None:
    said = chart.run(
        "lint", "--strict", str(chart.folder), "--values", str(chart.folder / "profiles" / f"{profile}.yaml")
    )
    assert "[WARNING]" not in said
    assert "[ERROR]" not in said


def test_helm_lint_finds_nothing_in_the_kinds(chart: Chart) -> None:
    assert "[WARNING]" not in chart.run("lint", "--strict", str(CRDS))


def test_it_packs(chart: Chart, tmp_path: Path) -> None:
    chart.run("package", str(chart.folder), "--destination", str(tmp_path))
    (packed,) = tmp_path.iterdir()
    assert chart.run("lint", str(packed))


def test_the_notes_say_what_to_do_next(chart: Chart) -> None:
    said = chart.run("install", "city", str(chart.folder), "--namespace=city", "--dry-run=client")
    notes = said.partition("NOTES:")[2]
    for wanted in ("port-forward", "helm test city", "city verify"):
        assert wanted in notes


def test_no_profile_but_the_trial_has_parts_of_one_operator(rendered: Rendered) -> None:
    for profile in PROFILES[1:]:
        assert "--trial" not in rendered(profile, "operator").text
    assert "--trial" in rendered("trial").text
