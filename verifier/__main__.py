"""`python -m verifier BUNDLE... --trust TRUST.json [--json] [--earlier CHECKPOINT]`.

Exit codes: 0 everything holds, 1 a check failed, 2 wrong usage or a file that cannot be read.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from verifier.bundle import Report, check_bundle
from verifier.canonical import Unreadable, decode
from verifier.trust import Trust, read_trust

FILE_MAX = 64 * 1024 * 1024
HOLDS, FAILS, UNREADABLE = 0, 1, 2


def main(argv: Sequence[str] | None = None) -> int:
    """Checks each bundle and says what was found."""
    parser = argparse.ArgumentParser(prog="city verify", description="Check proof bundles offline.")
    parser.add_argument("bundles", nargs="+", type=Path, metavar="BUNDLE")
    parser.add_argument(
        "--trust", type=Path, required=True, help="keys to check with; get the file from elsewhere than the server"
    )
    parser.add_argument("--earlier", type=Path, help="a checkpoint kept from before; the log must continue it")
    parser.add_argument("--json", action="store_true", help="one JSON document")
    arguments = parser.parse_args(argv)
    try:
        trust = read_trust(decode(_read(arguments.trust).rstrip(b"\n"), "the trust file"))
        earlier = _read(arguments.earlier).decode("utf-8", "replace") if arguments.earlier else None
        reports = [(path, _check(path, trust, earlier)) for path in arguments.bundles]
    except Unreadable as error:
        _print(f"city verify: {error}", sys.stderr)
        return UNREADABLE
    _say(reports, as_json=arguments.json)
    return HOLDS if all(report.ok for _, report in reports) else FAILS


def _check(path: Path, trust: Trust, earlier: str | None) -> Report:
    data = _read(path)
    try:
        json.loads(data)
    except (ValueError, RecursionError):
        raise Unreadable(f"{path} is no JSON; fetch the bundle again") from None
    return check_bundle(data, trust, earlier)


def _read(path: Path) -> bytes:
    try:
        if path.stat().st_size > FILE_MAX:
            raise Unreadable(f"{path} is larger than {FILE_MAX} bytes; a bundle is smaller")
        return path.read_bytes()
    except OSError as error:
        raise Unreadable(f"{path} cannot be read: {error.strerror}") from None


def _say(reports: list[tuple[Path, Report]], *, as_json: bool) -> None:
    if as_json:
        bundles = [
            {"file": str(path), "ok": report.ok, "steps": [vars_of(step) for step in report.steps]}
            for path, report in reports
        ]
        print(json.dumps({"ok": all(report.ok for _, report in reports), "bundles": bundles}))
        return
    for path, report in reports:
        _print(str(path))
        for step in report.steps:
            _print(f"  {'ok  ' if step.ok else 'FAIL'} {step.name:<21} {step.detail}")
        for note in report.notes:
            _print(f"  note {note}")
        _print(f"  {'everything holds' if report.ok else 'DOES NOT HOLD'}")


def _print(line: str, to: TextIO | None = None) -> None:
    """One line and no more: a text of the bundle must not be able to forge a line, or steer the terminal."""
    stream = to or sys.stdout
    shown = "".join(one if one.isprintable() else ascii(one)[1:-1] for one in line)
    encoding = stream.encoding or "ascii"
    print(shown.encode(encoding, "backslashreplace").decode(encoding), file=stream)


def vars_of(step: object) -> dict[str, object]:
    """A step as the JSON output has it."""
    return {"step": getattr(step, "name"), "ok": getattr(step, "ok"), "detail": getattr(step, "detail")}  # noqa: B009 - plain names


if __name__ == "__main__":
    sys.exit(main())
