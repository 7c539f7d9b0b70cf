"""Compiles Python files with the image's own interpreter, so that the result does not depend on the machine's. Nothing but the interpreter is run.

The compiled files are of the unchecked kind (PEP 552): they hold no time, and the image's files never change. Called by the builder.
"""

from __future__ import annotations

import posixpath
import subprocess
from collections.abc import Mapping
from pathlib import Path

from citykit.errors import EnvironmentFault
from infra.image import tree
from infra.image.tree import Entry

_LOADER = "lib/x86_64-linux-gnu/ld-linux-x86-64.so.2"
_PYTHON = "usr/bin/python3.11"
_LIBRARIES = ("lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu")
_TAG = "cpython-311"
_COMPILE_S = 600
# One process, files in one order: what is written depends on what was interned before. A file that is no Python 3.11 is left as it is.
_SCRIPT = """\
import os, py_compile, sys, warnings
warnings.simplefilter("ignore")
for path in sys.stdin.read().splitlines():
    folder, name = os.path.split(path)
    target = os.path.join("out", folder, "__pycache__", name[:-3] + ".cpython-311.pyc")
    os.makedirs(os.path.dirname(target), exist_ok=True)
    try:
        py_compile.compile(os.path.join("files", path), target, "/" + path, doraise=True,
                           invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)
    except (py_compile.PyCompileError, ValueError):
        continue
"""


def compiled(files: Mapping[str, Entry], interpreter: Mapping[str, Entry], room: Path) -> list[Entry]:
    """The compiled form of every Python file, beside it in `__pycache__`.

    Args:
        files: by path.
        interpreter: the tree with Debian's Python and its libraries.
        room: an empty folder to work in.

    Raises:
        EnvironmentFault: this machine cannot run the image's programs.
    """
    sources = sorted(path for path, entry in files.items() if path.endswith(".py") and entry.kind == tree.FILE)
    tree.write_folder(interpreter, _fresh(room / "python"))
    tree.write_folder(tree.merged([("", (files[path] for path in sources))]), _fresh(room / "files"))
    _run(room, "\n".join(sources))
    return [one for path in sources if (one := _entry(room, path)) is not None]


def _fresh(folder: Path) -> Path:
    folder.mkdir()
    return folder


def _entry(room: Path, source: str) -> Entry | None:
    folder, name = posixpath.split(source)
    path = posixpath.join(folder, "__pycache__", f"{name.removesuffix('.py')}.{_TAG}.pyc")
    made = room / "out" / path
    return tree.file(path, made.read_bytes()) if made.exists() else None


def command(python: Path) -> list[str]:
    """How the image's interpreter is called where it lies: by its own loader, with its own libraries."""
    loader = [str(python / _LOADER), "--library-path", ":".join(str(python / path) for path in _LIBRARIES)]
    return [*loader, str(python / _PYTHON)]


def _run(room: Path, sources: str) -> None:
    python = room / "python"
    argv = [*command(python), "-S", "-s", "-P", "-c", _SCRIPT]
    environment = {"PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        done = subprocess.run(  # noqa: S603 - the interpreter that was checked by hash
            argv,
            cwd=room,
            env=environment,
            input=sources,
            capture_output=True,
            text=True,
            timeout=_COMPILE_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise EnvironmentFault(
            f"the image's Python cannot be run here: {error}; images are built on Linux on x86-64"
        ) from None
    if done.returncode:
        raise EnvironmentFault(f"the image's Python could not compile: {done.stderr.strip()[-500:]}")
