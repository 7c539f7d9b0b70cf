"""The state directory of a process: who holds it, and its socket. Used by `citykit.run`'s callers."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from citykit.errors import EnvironmentFault

_SOCKET_PATH_MAX = 100


@contextlib.contextmanager
def locked(state: Path) -> Iterator[None]:
    """Holds the state directory for this process.

    Raises:
        EnvironmentFault: another process holds it, or it cannot be written.
    """
    try:
        state.mkdir(parents=True, exist_ok=True)
        file = (state / "lock").open("a+", encoding="utf-8")
    except OSError as error:
        raise EnvironmentFault(
            f"the state directory {state} cannot be written ({error.strerror}); name another with --state"
        ) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.seek(0)
            raise EnvironmentFault(
                f"a city already runs on {state} (process {file.read().strip() or 'unknown'});"
                " stop it first, or name another directory with --state"
            ) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def socket_path(state: Path) -> Path:
    """Unix socket paths are limited to 107 bytes, so a deep state directory is named by a hash under /tmp."""
    path = (state / "city.sock").resolve()
    if len(str(path)) > _SOCKET_PATH_MAX:
        digest = hashlib.sha256(str(path).encode()).hexdigest()[:16]
        return Path(os.environ.get("TMPDIR", "/tmp")) / f"city-{digest}.sock"  # noqa: S108 - name is a hash of our state
    return path
