"""A PostgreSQL server with a little file system for its tables, which something else can fill."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from infra.native import Native, Program, cache_folder, free_port
from infra.postgres import Admin, install, programs


@dataclass(frozen=True)
class SmallDisk:
    """Attributes:
    admin: of the server, whose services' tables come to lie on the little file system.
    ballast: what fills it, and is deleted again.
    """

    admin: Admin
    ballast: Path

    def fill(self) -> None:
        with pytest.raises(OSError, match="No space left"), self.ballast.open("wb", buffering=0) as ballast:
            while True:
                ballast.write(bytes(1 << 16))


@contextmanager
def running(program: Program, folder: Path) -> Iterator[Native]:
    native = Native(program, folder)
    native.start()
    try:
        native.wait()
        yield native
    finally:
        native.stop()


@contextmanager
def on_a_small_disk(folder: Path, services: Sequence[str], megabytes: int) -> Iterator[SmallDisk]:
    """A running server that makes the services' tables on a disk of that size."""
    install(cache_folder())
    disk, state, port = folder / "disk", folder / "server", free_port()
    disk.mkdir()
    [program] = programs(cache_folder(), state, port, services=services)
    with running(_mounted(program, disk, megabytes), state) as native:
        admin = Admin(port, state / "passwords")
        with admin.connect() as city:
            city.execute(f"CREATE TABLESPACE small LOCATION '{disk}/space'")
            for service in services:
                city.execute(f"GRANT CREATE ON TABLESPACE small TO city_{service}")
                city.execute(f"ALTER ROLE city_{service} SET default_tablespace = small")
        yield SmallDisk(admin, Path(f"/proc/{native.pid}/root{disk}/ballast"))


def _mounted(program: Program, folder: Path, megabytes: int) -> Program:
    """The same program with a file system of its own at `folder`, which vanishes with it."""
    if "--" not in program.argv:
        unshare = shutil.which("unshare")
        assert unshare, "this test needs unshare"
        program = replace(program, argv=(unshare, "--user", "--map-current-user", "--", *program.argv))
    at = list(program.argv).index("--")
    space: Sequence[str] = (*program.argv[:at], "--mount", "--keep-caps", "--")
    command = f'mount -t tmpfs -o size={megabytes}m,mode=700 tmpfs "{folder}" && mkdir "{folder}/space" && exec "$@"'
    return replace(program, argv=(*space, "sh", "-c", command, "sh", *program.argv[at + 1 :]))
