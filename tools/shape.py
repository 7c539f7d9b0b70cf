"""The shape of the code: the same files in every service, names that say something, files of a readable length.

Called by `make check`; `python -m tools.shape` prints the length report as well.
"""

from __future__ import annotations

import ast
import statistics
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from services.registry import SERVICES
from tools.project import CODE, ROOT, python_files

FILE_LINES_MAX = 450
FUNCTION_LINES_LOOK = 60
EMPTY_NAMES = frozenset({"utils", "util", "helpers", "helper", "common", "manager", "base"})
REQUIRED = frozenset(
    {"README.md", "__init__.py", "domain", "contract", "app", "events", "store", "migrations", "api", "main"}
)
OPTIONAL = {"bench": "the figures it must reach, for `city bench`", "check": "the self-check of what it stores"}
NOT_SERVICES = {"commands": "the `city` command", "demo": "the demo city"}
# A service that is not of the usual shape: what it lacks, what it has besides, and why.
LACKS = {"gateway": frozenset({"domain", "contract", "events", "store", "migrations"})}  # it keeps no state and no rule
BESIDES = {"gateway": frozenset({"page"})}  # the dashboard's files


@dataclass(frozen=True)
class Function:
    where: str
    name: str
    lines: int


def check() -> list[str]:
    """A line per departure from the shape."""
    folders = {path.name for path in (ROOT / "services").iterdir() if path.is_dir() and not path.name.startswith("__")}
    unlisted = sorted(folders - set(SERVICES) - set(NOT_SERVICES))
    lines = [
        f"services/{name}: no service of services/registry.py and not named in tools/shape.py" for name in unlisted
    ]
    for name in SERVICES:
        lines += service(name, ROOT / "services" / name)
        if name not in LACKS and not (ROOT / "protos" / "city" / name / "v1").is_dir():
            lines.append(f"services/{name}: protos/city/{name}/v1/ is missing")
    return lines + names(python_files(*CODE)) + lengths(python_files(*CODE, "tests"))


def service(name: str, folder: Path) -> list[str]:
    """What a service's folder lacks or has too much."""
    if not folder.is_dir():
        return [f"services/{name}: listed in services/registry.py but not there"]
    found = parts(path for path in folder.iterdir() if path.name != "__pycache__")
    required = REQUIRED - LACKS.get(name, frozenset())
    allowed = required | OPTIONAL.keys() | BESIDES.get(name, frozenset())
    missing = [f"services/{name}: {part} is missing; every service has it" for part in sorted(required - found)]
    extra = [f"services/{name}/{part}: no file of a service; move it into one" for part in sorted(found - allowed)]
    return missing + extra


def parts(paths: Iterable[Path]) -> set[str]:
    """`domain.py` and `domain/` are the same part."""
    return {path.name if path.name == "__init__.py" else path.name.removesuffix(".py") for path in paths}


def names(paths: Iterable[Path]) -> list[str]:
    """Files whose names say nothing."""
    return [
        f"{path.relative_to(ROOT)}: a name must say what is inside; {', '.join(sorted(EMPTY_NAMES))} do not"
        for path in paths
        if EMPTY_NAMES & set(path.stem.split("_"))
    ]


def lengths(paths: Iterable[Path]) -> list[str]:
    """Files too long to read in one go."""
    counted = [(path, path.read_text(encoding="utf-8").count("\n")) for path in paths]
    return [
        f"{path.relative_to(ROOT)}: {count} lines, {FILE_LINES_MAX} at most"
        for path, count in counted
        if count > FILE_LINES_MAX
    ]


def functions(paths: Iterable[Path]) -> list[Function]:
    """Every function with its length in lines, signature and docstring included."""
    return [
        Function(f"{path}:{node.lineno}", node.name, (node.end_lineno or node.lineno) - node.lineno + 1)
        for path in paths
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]


def report(found: list[Function]) -> str:
    """Median, ninth decile and the functions to look at, longest first."""
    sizes = [function.lines for function in found]
    deciles = statistics.quantiles(sizes, n=10)
    head = f"{len(sizes)} functions: median {statistics.median(sizes):.0f} lines, nine in ten up to {deciles[8]:.0f}"
    long = sorted((f for f in found if f.lines > FUNCTION_LINES_LOOK), key=lambda f: -f.lines)
    return "\n".join([head, *(f"  {f.lines:4d} lines  {f.where} {f.name}" for f in long)])


if __name__ == "__main__":
    problems = check()
    print(report(functions(python_files(*CODE))))
    print("\n".join(problems) or "the shape holds")
    sys.exit(1 if problems else 0)
