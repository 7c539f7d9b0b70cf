"""The `city` command: one program, and its argument says what it is.

Exit codes: 0 done and true, 1 a check failed, 2 wrong usage or unreadable input, 3 the environment (port, disk, missing part).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module

from citykit.errors import CityError, Damaged, EnvironmentFault, Unavailable

COMMANDS = (
    "run",
    "serve",
    "data",
    "verify",
    "log",
    "db",
    "ledger",
    "bus",
    "forecast",
    "token",
    "provision",
    "trial",
    "operator",
    "rollout",
    "bench",
    "settings",
)
DONE, FAILED, USAGE, ENVIRONMENT = 0, 1, 2, 3


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code."""
    parser = argparse.ArgumentParser(prog="city", description="A city whose every number can be checked.")
    subparsers = parser.add_subparsers(metavar="COMMAND", required=True)
    given = sys.argv[1:] if argv is None else argv
    for name in given[:1] if given[:1] and given[0] in COMMANDS else COMMANDS:  # a service need not load the demo
        import_module(f"services.commands.{name}").add(subparsers)
    arguments = parser.parse_args(given)
    try:
        return int(arguments.run(arguments))
    except KeyboardInterrupt:
        return DONE
    except BrokenPipeError:
        return DONE
    except CityError as error:
        print(f"city: {error.message}", file=sys.stderr)
        return _exit_code(error)
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        print(
            f"city: {error.strerror or error}{where}; nothing acknowledged is lost. Mend it, then start again",
            file=sys.stderr,
        )
        return ENVIRONMENT


def _exit_code(error: CityError) -> int:
    if isinstance(error, EnvironmentFault | Unavailable):
        return ENVIRONMENT
    return FAILED if isinstance(error, Damaged) else USAGE


if __name__ == "__main__":
    sys.exit(main())
