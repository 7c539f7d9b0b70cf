"""Generates `gen/` from `protos/`: messages, gRPC stubs and their types. Called by `make gen`, and checked by `make check`.

The same protos and the same locked generators give the same bytes; files whose proto is gone are removed.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import google.rpc
import grpc_tools

ROOT = Path(__file__).resolve().parent.parent
PROTOS = ROOT / "protos"
GEN = ROOT / "gen"
PACKAGE = "city"
_INIT = '"""Generated from protos/ by `make gen`; never edited."""\n'


def main(arguments: Sequence[str]) -> int:
    if "--check" in arguments:
        return report(check())
    with tempfile.TemporaryDirectory() as folder:
        made = generate(PROTOS, Path(folder))
    write(made, GEN)
    print(f"gen/: {len(made)} files from {len(proto_files(PROTOS))} protos")
    return 0


def check() -> list[str]:
    """What `make gen` would change, a line each; nothing when gen/ is up to date."""
    with tempfile.TemporaryDirectory() as folder:
        lines = differences(generate(PROTOS, Path(folder)), tree(GEN))
    return [*lines, "run `make gen` and commit what it changes"] if lines else []


def proto_files(protos: Path) -> list[str]:
    return sorted(path.relative_to(protos).as_posix() for path in protos.rglob("*.proto"))


def generate(protos: Path, folder: Path) -> dict[str, bytes]:
    """Path below gen/ -> content. ValueError when a proto is wrong; protoc has said what on standard error."""
    names = proto_files(protos)
    if names:
        _protoc(protos, folder, names)
    made = tree(folder)
    made[f"{PACKAGE}/__init__.py"] = _INIT.encode()
    made[f"{PACKAGE}/py.typed"] = b""
    return made


def _protoc(protos: Path, folder: Path, names: Sequence[str]) -> None:
    includes = [
        protos,
        Path(grpc_tools.__file__).parent / "_proto",
        Path(next(iter(google.rpc.__path__))).parent.parent,
    ]
    outputs = [f"--{name}_out={folder}" for name in ("python", "grpc_python", "mypy", "mypy_grpc")]
    command = [sys.executable, "-m", "grpc_tools.protoc", *(f"-I{path}" for path in includes), *outputs, *names]
    plugins = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    done = subprocess.run(command, env={**os.environ, "PATH": plugins}, stderr=subprocess.PIPE, text=True, check=False)  # noqa: S603 - our own arguments
    if done.returncode:
        raise ValueError(f"protoc refuses the protos:\n{done.stderr}")


def tree(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, without what Python leaves there."""
    paths = [path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(paths)}


def differences(made: dict[str, bytes], found: dict[str, bytes]) -> list[str]:
    """Which files differ, a line each."""
    missing = [f"missing: gen/{name}" for name in made.keys() - found.keys()]
    stale = [f"no longer generated: gen/{name}" for name in found.keys() - made.keys()]
    changed = [f"out of date: gen/{name}" for name in made.keys() & found.keys() if made[name] != found[name]]
    return sorted(missing + stale + changed)


def report(lines: Sequence[str]) -> int:
    for line in lines:
        print(line)
    return 1 if lines else 0


def write(made: dict[str, bytes], gen: Path) -> None:
    found = tree(gen)
    for name in found.keys() - made.keys():
        (gen / name).unlink()
    for name, content in made.items():
        if found.get(name) != content:
            (gen / name).parent.mkdir(parents=True, exist_ok=True)
            (gen / name).write_bytes(content)


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except ValueError as error:
        sys.exit(str(error))
