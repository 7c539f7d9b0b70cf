"""`python -m infra.observability NAME=HOST:PORT...`: a Prometheus server that watches those processes, until Ctrl-C."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from citykit.errors import EnvironmentFault
from infra.native import Native
from infra.observability.prometheus import Target, install, program

PORT = 9090


def main(words: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m infra.observability", description="watch processes of the city")
    parser.add_argument("targets", nargs="+", type=target, metavar="NAME=HOST:PORT", help="a process to scrape")
    parser.add_argument("--state", type=Path, default=Path(".prometheus"), help="where its data is kept")
    parser.add_argument("--port", type=int, default=PORT, help=f"where it serves (default {PORT})")
    arguments = parser.parse_args(words)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _stop)
    try:
        serve(arguments.state.resolve(), arguments.targets, arguments.port)
    except EnvironmentFault as fault:
        print(fault, file=sys.stderr)
        return 3
    return 0


def serve(state: Path, targets: Sequence[Target], port: int) -> None:
    """Until a signal; then the server is stopped too.

    Raises:
        EnvironmentFault: there is no server, or it does not start.
    """
    install(state)
    server = Native(program(state, targets, port), state)
    try:
        server.start()
        server.wait()
        print(f"Prometheus: http://127.0.0.1:{port}/", flush=True)
        while True:
            signal.pause()
    except _Stopped:
        return
    finally:
        server.stop()


class _Stopped(BaseException):
    """Somebody asked for the end."""


def _stop(_number: int, _frame: object) -> None:
    raise _Stopped


def target(text: str) -> Target:
    name, _, address = text.partition("=")
    if not name or not address.rpartition(":")[2].isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is no target; write city=127.0.0.1:9464")
    return Target(name, address)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
