"""Holds the documents to the program: every `make` target and every `city` command and option they show exists.

Called by `make check`. Looks at fenced blocks and at code spans of every Markdown file.
"""

from __future__ import annotations

import contextlib
import functools
import io
import re
import subprocess
import sys

from services.__main__ import main as city
from tools.project import ROOT, tracked

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)
_SPAN = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
_COMMAND = re.compile(r"^(?:\$ )?(?:\w+=\S+ )*(?:\.venv/bin/)?(make|city)\b(.*)$")
_TARGET = re.compile(r"^([a-z-]+):", re.MULTILINE)
_CHOICE = re.compile(r"^    ([a-z][a-z-]*)(?=\s|$)", re.MULTILINE)  # how argparse lists subcommands
_SHELL = frozenset({"", "sh", "bash", "console", "shell", "text"})
_HELP_TIMEOUT_S = 60


def check() -> list[str]:
    """A line per command that a reader could not type."""
    lines = []
    for path in tracked():
        if path.suffix == ".md":
            text = path.read_text(encoding="utf-8")
            name = path.relative_to(ROOT).as_posix()
            lines += [f"{name}: `{shown}`: {what}" for shown in commands(text) if (what := wrong(shown))]
    return lines


def commands(text: str) -> list[str]:
    """The make and city commands a document shows, in order, each once."""
    blocks = [block for language, block in _FENCE.findall(text) if language in _SHELL]
    spans = _SPAN.findall(_FENCE.sub("", text))
    shown = [line.split(" #")[0].strip() for block in blocks for line in block.splitlines()] + spans
    return list(dict.fromkeys(line for line in shown if _COMMAND.match(line)))


def wrong(command: str) -> str | None:
    """What is wrong with a command, or None."""
    match = _COMMAND.match(command)
    if match is None:
        return None
    words = re.sub(r"[\[\]|]", " ", match[2]).split()
    return wrong_make(words) if match[1] == "make" else wrong_city(words)


def wrong_make(words: list[str]) -> str | None:
    targets = set(_TARGET.findall((ROOT / "Makefile").read_text(encoding="utf-8")))
    unknown = [word for word in words if re.fullmatch(r"[a-z][a-z-]*", word) and word not in targets]
    return f"no target {unknown[0]!r} in the Makefile" if unknown else None


def wrong_city(words: list[str]) -> str | None:
    if not words or not re.fullmatch(r"[a-z-]+", words[0]):
        return None
    text = usage(words[0])
    if text is None:
        return f"there is no command {words[0]!r}"
    path, help_ = words[:1], text
    while choices := set(_CHOICE.findall(help_)):
        word = next(iter(words[len(path) :]), "")
        if word not in choices:
            if re.fullmatch(r"[a-z][a-z-]+", word):
                return f"{' '.join(path)} has no {word!r}; it has {', '.join(sorted(choices))}"
            break
        path.append(word)
        help_ = usage(*path) or ""
        text += help_
    known = set(re.findall(r"--[a-z][a-z-]*", text))
    unknown = [word for word in re.findall(r"--[a-z][a-z-]*", " ".join(words)) if word not in known]
    return f"{words[0]} has no option {unknown[0]}" if unknown else None


@functools.cache
def usage(*words: str) -> str | None:
    """What `city WORDS --help` prints, or None where there is no such command."""
    if words[0] == "verify":
        return verifier_usage()
    output = io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(io.StringIO()):
        try:
            code = city([*words, "--help"])
        except SystemExit as stopped:
            code = int(stopped.code or 0)
    return output.getvalue() if code == 0 else None


def verifier_usage() -> str:
    """The verifier is a program of its own; `city verify` passes everything on to it."""
    command = [sys.executable, "-m", "verifier", "--help"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=_HELP_TIMEOUT_S).stdout  # noqa: S603 - our own program
