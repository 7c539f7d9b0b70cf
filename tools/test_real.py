"""`make test-real`: the tests that need Kafka, PostgreSQL, a ledger, Node or Go, and the coverage of what only they run.

`python -m tools.test_real [PYTEST ARGUMENTS]`; `--parts` prints which files only these tests run. Each folder of tests/real starts its own
parts; a table at the end says what ran on what, and what was not run and why. Exit codes: pytest's; 4 where coverage is under its floor.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence

from tools.project import ROOT

REAL = (
    "citykit/bus/kafka/*",
    "citykit/store/postgres/*",
    "citykit/ledger/channel/*",
    "citykit/ledger/devpeer/*",
    "infra/*",
)
"""Adapters and parts that need what `make test` does without."""
FLOOR = 80
LIMIT_S = 1_200
"""On two quiet cores. Told, not judged: tests never time."""
WORKERS = "2"
"""Processes that share the files out: much of the time is spent waiting for parts to start."""
_DATA = ".coverage.real"
_COVERAGE = 4


def main(arguments: Sequence[str]) -> int:
    if list(arguments) == ["--parts"]:
        print(",".join(REAL))
        return 0
    began = time.monotonic()
    environment = {**os.environ, "COVERAGE_FILE": str(ROOT / _DATA)}

    def coverage(*words: str) -> int:
        command = [sys.executable, "-m", "coverage", *words]
        return subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode  # noqa: S603 - our own words

    workers = os.environ.get("WORKERS") or WORKERS
    chosen = list(arguments) or [
        "tests/real",
        "-n",
        workers,
        "--dist",
        "loadfile",
        "--no-loadscope-reorder",
        "--durations=15",
    ]
    coverage("erase")
    code = coverage("run", "-m", "pytest", *chosen)
    coverage("combine", "--quiet")
    print(f"coverage of adapters and parts (floor {FLOOR} % where everything ran):")
    floor = [] if arguments or "FABRIC_BIN" not in os.environ else [f"--fail-under={FLOOR}"]
    thin = coverage("report", f"--include={','.join(REAL)}", "--skip-covered", *floor)
    took_s = time.monotonic() - began
    print(f"make test-real: {took_s:.0f} s (limit {LIMIT_S} s)")
    if took_s > LIMIT_S:
        print("it took longer than it may on a quiet machine: see the slowest tests above", file=sys.stderr)
    return code or (_COVERAGE if thin else 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
