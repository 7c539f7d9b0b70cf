"""The golden renderings: each profile as it is rendered today, in the repository, so that a change of the chart shows what it changes.

`python -m infra.helm golden` writes them; a test compares.
"""

from __future__ import annotations

from infra.helm.facts import ROOT
from infra.helm.rendering import Chart

GOLDEN = ROOT / "tests" / "golden" / "helm"
PROFILES = ("trial", "small", "city", "region")


def golden(chart: Chart, profile: str) -> str:
    """The rendering of a profile, without the blanks at the ends of lines."""
    text = chart.render(profile).text
    return "".join(f"{line.rstrip()}\n" for line in text.splitlines() if line.strip())
