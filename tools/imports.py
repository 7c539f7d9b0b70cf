"""The import rules that are allow-lists: what a domain, a contract, the verifier and the bootstrap may import at all.

import-linter holds the rest (`.importlinter`). Called by `make check`.
"""

from __future__ import annotations

import ast
import sys
from dataclasses import dataclass
from pathlib import Path

from tools.project import ROOT, python_files


@dataclass(frozen=True)
class Rule:
    """`where` is a pattern of files below the root, `{own}` in `allowed` the service's own package."""

    where: str
    allowed: tuple[str, ...]
    why: str


RULES = (
    Rule("services/*/domain.py", ("{own}.domain",), "a domain is pure: the standard library and itself"),
    Rule("services/*/domain/**", ("{own}.domain",), "a domain is pure: the standard library and itself"),
    Rule(
        "services/*/contract.py",
        ("{own}.domain", "citykit.ledger.contract", "citykit.merkle"),
        "a contract runs on every peer: its own domain, the contract API and pure Merkle hashing",
    ),
    Rule("verifier/**", ("verifier", "cryptography"), "the verifier shares no code with what it checks"),
    Rule(
        "citykit/ledger/fabric/**",
        ("citykit.ledger.fabric", "cryptography", "fabric_protos", "google", "greenlet", "grpc", "hpack"),
        "a library fit to be released alone: nothing of the city, and few others",
    ),
    Rule("tools/bootstrap.py", (), "it runs before anything is installed"),
)


def check() -> list[str]:
    """A line per import that no rule allows."""
    return [
        line
        for path in python_files("citykit", "services", "verifier", "tools")
        for line in findings(path.relative_to(ROOT))
    ]


def findings(path: Path, root: Path = ROOT) -> list[str]:
    """The forbidden imports of one file, given relative to the root."""
    rules = [rule for rule in RULES if matches(path, rule.where)]
    if not rules:
        return []
    tree = ast.parse((root / path).read_text(encoding="utf-8"))
    own = ".".join(path.parts[:2])
    return [
        f"{path}:{line}: imports {module}; {rule.why}"
        for line, module in imported(tree)
        for rule in rules
        if not permitted(module, tuple(name.format(own=own) for name in rule.allowed))
    ]


def matches(path: Path, pattern: str) -> bool:
    """`folder/**` is everything below a folder, `*` one name."""
    if not pattern.endswith("/**"):
        return path.match(pattern)
    folder = pattern.removesuffix("/**")
    return any(parent.as_posix() != "." and parent.match(folder) for parent in path.parents)


def imported(tree: ast.Module) -> list[tuple[int, str]]:
    """(line, module) of every import, in functions too; `from a import b` counts as a.b, which may be a module."""
    found: list[tuple[int, str]] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            start = "." * node.level + (node.module or "")
            found += [(node.lineno, f"{start}.{alias.name}") for alias in node.names]
    return found


def permitted(module: str, allowed: tuple[str, ...]) -> bool:
    standard = module.partition(".")[0] in sys.stdlib_module_names
    return standard or any(module == name or module.startswith(f"{name}.") for name in allowed)
