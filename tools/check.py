"""`make check`: every rule that a program can hold. Edits nothing; says at the end what failed.

`python -m tools.check [NAME...]` runs only the checks named.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from tools import gen, imports, protos, readme, released, shape, words
from tools.project import CODE, ROOT, SOURCES, python_files

Check = Callable[[], list[str]]
_BIN = Path(sys.executable).parent


def program(*command: str) -> list[str]:
    """What an installed program finds; nothing when it is content."""
    done = subprocess.run(  # noqa: S603 - locked programs, our own arguments
        [str(_BIN / command[0]), *command[1:]], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if done.returncode == 0:
        return []
    return (done.stdout + done.stderr).strip().splitlines() or [f"{command[0]} failed with exit code {done.returncode}"]


def formatting() -> list[str]:
    found = program("ruff", "format", "--check", "--output-format", "concise", ".")
    return [*found, "run `make fix`"] if found else []


CHECKS: dict[str, Check] = {
    "format": formatting,
    "lint": partial(program, "ruff", "check", "--output-format", "concise", "."),
    "types": partial(program, "mypy", *SOURCES),
    "architecture": partial(program, "lint-imports"),
    "imports": imports.check,
    "shape": shape.check,
    "protos": protos.check,
    "generated code": gen.check,
    "released events": released.check,
    "words": words.check,
    "documents": readme.check,
}


def main(names: Sequence[str]) -> int:
    unknown = [name for name in names if name not in CHECKS]
    if unknown:
        print(f"no check {unknown[0]!r}; there are {', '.join(CHECKS)}", file=sys.stderr)
        return 2
    failed = [name for name in names or CHECKS if not holds(name, CHECKS[name])]
    if not names or "shape" in names:
        print(shape.report(shape.functions(python_files(*CODE))))
    print(f"failed: {', '.join(failed)}" if failed else "all checks hold")
    return 1 if failed else 0


def holds(name: str, check: Check) -> bool:
    """Runs one check and prints what it finds."""
    started = time.monotonic()
    found = check()
    print(f"{'FAIL' if found else 'ok  '} {name} ({time.monotonic() - started:.1f} s)", flush=True)
    for line in found:
        print(f"    {line}")
    return not found


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
