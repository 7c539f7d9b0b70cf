"""Prints the table of the matrix, and what was run on what, at the end of the run."""

from __future__ import annotations

import shutil
from collections import defaultdict

import pytest

from tests.real.conformance.parts import Parts, install, versions

Cells = dict[tuple[str, str], dict[str, str]]
_ORDER = ("ours", "node", "go").index


@pytest.fixture(scope="session")
def parts() -> Parts:
    """The official parts, installed."""
    missing = [name for name in ("node", "npm", "go") if shutil.which(name) is None]
    if missing:
        pytest.skip(f"not run: no {', '.join(missing)} on the PATH; the official parts need Node 20 with npm, and Go")
    return install()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """A table for each kind of peer: a row for each client, a column for each shim. What cells are called travels with their reports."""
    peers, lacks = _outcomes(terminalreporter)
    for peer, cells in sorted(peers.items()):
        _print(terminalreporter, peer, cells)
    for what, why in sorted(lacks.items()):
        terminalreporter.write_line(f"  n/a: {what}: {why}")
    if peers:
        said = ", ".join(f"{name} {version}" for name, version in versions().items())
        terminalreporter.write_line(f"  official parts: {said}")


def _print(out: pytest.TerminalReporter, peer: str, cells: Cells) -> None:
    out.section(f"conformance: client (row) x shim (column), on: {peer}")
    shims = sorted({shim for _, shim in cells}, key=_ORDER)
    out.write_line(f"{'':8}" + "".join(f"{shim:>28}" for shim in shims))
    for client in sorted({client for client, _ in cells}, key=_ORDER):
        out.write_line(f"{client:8}" + "".join(f"{_cell(cells[client, shim]):>28}" for shim in shims))
    for (client, shim), scenarios in sorted(cells.items()):
        failed = [name for name, said in scenarios.items() if said == "FAILED"]
        if failed:
            out.write_line(f"  {client} x {shim}: FAILED {', '.join(failed)}")


def _outcomes(reporter: pytest.TerminalReporter) -> tuple[dict[str, Cells], dict[str, str]]:
    peers: dict[str, Cells] = defaultdict(lambda: defaultdict(dict))
    lacks: dict[str, str] = {}
    for report in (one for reports in reporter.stats.values() for one in reports if getattr(one, "when", "") == "call"):
        properties = dict(report.user_properties)
        if "cell" not in properties:
            continue
        peer, client, shim, scenario = str(properties["cell"]).split("/")
        if report.passed and "lacks" in properties:
            lacks[scenario] = str(properties["lacks"])
        said = "FAILED" if not report.passed else "n/a" if "lacks" in properties else "green"
        peers[peer][client, shim][scenario] = said
    return peers, lacks


def _cell(scenarios: dict[str, str]) -> str:
    counts = {said: list(scenarios.values()).count(said) for said in ("green", "n/a", "FAILED")}
    return ", ".join(f"{count} {said}" for said, count in counts.items() if count)
