"""Refuses a contract whose code could answer differently on two peers: clocks, randomness, floats, the outside world, order of sets.

A check on the source of the contract's module and of the modules of its own service that it imports; run when a ledger registers it.
"""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from citykit.errors import InvalidArgument

_MODULES = {
    "time": "a clock", "datetime": "a clock", "random": "randomness", "secrets": "randomness", "uuid": "randomness",
    "os": "the environment", "io": "files", "pathlib": "files", "shutil": "files", "tempfile": "files",
    "socket": "the network", "http": "the network", "urllib": "the network", "subprocess": "the outside world",
    "threading": "threads", "asyncio": "threads", "multiprocessing": "threads", "statistics": "floats", "cmath": "floats",
    "locale": "the environment", "platform": "the environment", "zoneinfo": "the machine's time zones", "decimal": "a context",
    "numpy": "floats", "sys": "the environment",
}  # fmt: skip
_ALLOWED_FROM = {("datetime", "date"), ("datetime", "timedelta")}
"""Pure calendar arithmetic; `today` and `now` are refused by name below."""
_CALLS = {
    "float": "a float", "hash": "the process's hash seed", "id": "a memory address", "open": "files", "input": "the outside world",
    "globals": "global state", "eval": "code from data", "exec": "code from data", "__import__": "code from data", "set": "the order of a set",
    "vars": "global state",
}  # fmt: skip
_ATTRIBUTES = {
    "now": "a clock",
    "today": "a clock",
    "utcnow": "a clock",
    "urandom": "randomness",
    "monotonic": "a clock",
}
_HINTS = {
    "a clock": "take tx.time instead",
    "randomness": "derive it from tx.id",
    "the order of a set": "sort it: sorted(...)",
}


@dataclass(frozen=True, order=True)
class Fault:
    """One thing a contract may not do."""

    file: str
    line: int
    what: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line} {self.what}"


def require_deterministic(contract: object) -> None:
    """Checks the contract's module and those of its own package it imports.

    Raises:
        InvalidArgument: naming the first faults, each with file, line and what to do instead.
    """
    faults = sorted(
        {
            fault
            for path in own_sources(contract)
            for fault in faults_in(path.read_text(encoding="utf-8"), "/".join(path.parts[-3:]))
        }
    )
    if faults:
        shown = "; ".join(str(fault) for fault in faults[:5])
        raise InvalidArgument(
            f"the contract {getattr(contract, 'name', '?')} is not deterministic: {shown}", reason="contract-refused"
        )


def own_sources(contract: object) -> list[Path]:
    """The files of the contract's module and of the modules of its own service that it imports, directly or not; sorted."""
    module = inspect.getmodule(type(contract))
    found: set[Path] = set()
    _gather(Path(inspect.getsourcefile(type(contract)) or ""), (module.__package__ if module else "") or "", found)
    return sorted(found)


def faults_in(source: str, file: str) -> list[Fault]:
    """Every fault in one source text."""
    tree = ast.parse(source)
    return sorted({Fault(file, getattr(node, "lineno", 0), what) for node in ast.walk(tree) for what in _judge(node)})


def _gather(path: Path, package: str, seen: set[Path]) -> None:
    if path in seen or not path.exists():
        return
    seen.add(path)
    for name in _own_imports(ast.parse(path.read_text(encoding="utf-8")), package):
        loaded = sys.modules.get(name)
        if loaded is not None and getattr(loaded, "__file__", None):
            _gather(Path(str(loaded.__file__)), package, seen)


def _own_imports(tree: ast.AST, package: str) -> Iterator[str]:
    top = package.split(".domain", maxsplit=1)[0]
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith(top) and top:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if top and alias.name.startswith(top))


def _judge(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (_reads(_MODULES[root]) for alias in node.names if (root := alias.name.split(".")[0]) in _MODULES)
    elif isinstance(node, ast.ImportFrom):
        yield from _judge_from(node)
    elif isinstance(node, ast.Constant) and isinstance(node.value, float | complex):
        yield f"uses a float ({node.value}): count in the smallest unit"
    elif isinstance(node, ast.BinOp | ast.AugAssign) and isinstance(node.op, ast.Div):
        yield "divides with /: use // and say how it rounds"
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in _CALLS:
        yield _reads(f"{_CALLS[node.func.id]}")
    elif isinstance(node, ast.Attribute) and node.attr in _ATTRIBUTES:
        yield _reads(_ATTRIBUTES[node.attr])
    elif isinstance(node, ast.Set | ast.SetComp):
        yield _reads("the order of a set")
    elif isinstance(node, ast.Global | ast.Nonlocal):
        yield "changes global state: keep state on the ledger"


def _judge_from(node: ast.ImportFrom) -> Iterator[str]:
    root = (node.module or "").split(".")[0]
    for alias in node.names:
        if root in _MODULES and (root, alias.name) not in _ALLOWED_FROM:
            yield _reads(_MODULES[root])


def _reads(what: str) -> str:
    hint = _HINTS.get(what, "a contract sees only its arguments and the ledger")
    return f"reads {what}: {hint}"
