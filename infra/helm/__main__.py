"""`python -m infra.helm facts | golden`: brings what is generated from the code, and the golden renderings, up to date."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from citykit.errors import CityError
from infra.helm.facts import generated
from infra.helm.golden import GOLDEN, PROFILES, golden
from infra.helm.rendering import Chart, installed
from infra.native import cache_folder

_ACTS = ("facts", "golden")


def main(arguments: Sequence[str]) -> int:
    if len(arguments) != 1 or arguments[0] not in _ACTS:
        print(f"python -m infra.helm {' | '.join(_ACTS)}", file=sys.stderr)
        return 2
    try:
        _facts() if arguments[0] == "facts" else _golden()
    except CityError as error:
        print(error.message, file=sys.stderr)
        return 3
    return 0


def _facts() -> None:
    for path, text in generated().items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        print(path)


def _golden() -> None:
    chart = Chart(installed(cache_folder()))
    GOLDEN.mkdir(parents=True, exist_ok=True)
    for profile in PROFILES:
        path = GOLDEN / f"{profile}.yaml"
        path.write_text(golden(chart, profile), encoding="utf-8")
        print(path)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
