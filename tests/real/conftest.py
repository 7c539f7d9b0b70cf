"""What ran on what, and what was not run and why: a table at the end of every run over the real parts. Nothing is skipped in silence."""

from __future__ import annotations

import os
import shutil
from collections import Counter, defaultdict
from pathlib import Path

import psutil
import pytest

LONGEST = ("_on_postgres.py", "test_real_city.py", "test_faults.py")
_SAID = {"passed": "passed", "failed": "FAILED", "error": "FAILED", "skipped": "not run"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The long files begin first, so that two processes end at about the same time. A file's tests stay in one process: its parts start once."""
    items.sort(key=lambda item: not item.nodeid.partition("::")[0].endswith(LONGEST))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """A row for each file, or class where it has any: those are named by what they run on."""
    rows: dict[str, Counter[str]] = defaultdict(Counter)
    reasons: dict[str, set[str]] = defaultdict(set)
    seconds: Counter[str] = Counter()
    for kind, said in _SAID.items():
        for report in terminalreporter.stats.get(kind, ()):
            row = _row(report.nodeid)
            rows[row][said] += 1
            if said == "not run":
                reasons[str(report.longrepr[-1])].add(row)
    for reports in terminalreporter.stats.values():
        for report in reports:
            if hasattr(report, "duration"):
                seconds[_row(report.nodeid)] += round(report.duration, 1)
    out = terminalreporter
    out.section("what ran on what")
    for row in sorted(rows):
        counts = ", ".join(f"{count} {said}" for said, count in sorted(rows[row].items()))
        out.write_line(f"{row:64} {seconds[row]:6.0f} s  {counts}")
    for reason, concerned in sorted(reasons.items()):
        out.write_line(f"not run: {', '.join(sorted(concerned))}: {reason.removeprefix('Skipped: ')}")
    out.write_line(f"on: {_machine()}")


def _row(nodeid: str) -> str:
    file, *names = nodeid.removeprefix("tests/real/").split("::")
    return f"{file} {names[0]}" if len(names) > 1 else file


def _machine() -> str:
    tools = [name for name in ("java", "mvn", "node", "go", "promtool") if shutil.which(name)]
    fabric = os.environ.get("FABRIC_BIN")
    memory_gib = psutil.virtual_memory().total / 2**30
    has = f"FABRIC_BIN={Path(fabric).name}" if fabric else "no FABRIC_BIN"
    return f"{os.cpu_count()} cores, {memory_gib:.0f} GiB; {', '.join(tools)}; {has}"
