"""An archive of the classes a broker loads (JEP 350), made once: a start from it costs half the processor time. Called by `make up` and the tests."""

from __future__ import annotations

import os
import tempfile
from dataclasses import replace
from pathlib import Path

from infra.kafka.broker import archive_file, programs
from infra.native import Native

_DUMP_S = 180.0
"""The archive is written while the broker ends."""


def ensure_archive(cache: Path) -> None:
    """Starts and stops a broker on a throw-away folder, unless the archive is there. Without it brokers only start more slowly.

    Raises:
        EnvironmentFault: the broker does not start at all.
    """
    path = archive_file(cache)
    if path.exists():
        return
    part = path.with_suffix(f".{os.getpid()}")
    with tempfile.TemporaryDirectory() as folder:
        program = replace(programs(cache, Path(folder))[0], stop_s=_DUMP_S)
        java, *rest = program.argv
        broker = Native(replace(program, argv=[java, f"-XX:ArchiveClassesAtExit={part}", *rest]), Path(folder))
        broker.start()
        try:
            broker.wait()
        finally:
            broker.stop()
    if part.exists():
        part.replace(path)
