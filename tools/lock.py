"""Locks the requirements of `pyproject.toml` into both files, every version with its hashes. Called by `make lock`.

Versions already locked stay unless `--upgrade` is given.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence

from tools.bootstrap import find_uv, install_uv
from tools.project import ROOT

_OPTIONS = (
    "--universal",
    "--generate-hashes",
    "--no-header",
    "--quiet",
    "--python-version",
    "3.11",
    "--group",
    "build",
)
_FILES = {"requirements.lock": (), "requirements-dev.lock": ("--extra", "dev")}


def main(arguments: Sequence[str]) -> int:
    uv = find_uv() or install_uv()
    environment = {**os.environ, "UV_PYTHON_DOWNLOADS": "never"}
    for name, extra in _FILES.items():
        command = [uv, "pip", "compile", "pyproject.toml", *_OPTIONS, *extra, *arguments, "--output-file", name]
        code = subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode  # noqa: S603 - uv
        if code:
            return code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
