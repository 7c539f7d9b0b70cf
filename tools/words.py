"""What may not stand in the project's files: download addresses, this machine's paths, left-overs. Called by `make check`."""

from __future__ import annotations

import re
from pathlib import Path

from tools.project import ROOT, text_files

# Folders that say nothing about a machine: a checkout there would forbid too much.
_PLAIN_FOLDERS = frozenset({"/", "/tmp", "/home", "/Users", "/srv", "/opt", "/usr/src", "/mnt", "/var/tmp"})  # noqa: S108 - names, not files

PATTERNS = {
    "a download address; versions and hashes are enough": re.compile(
        r"index[-_]url\s*=\s*http|\"resolved\":|registry\s*=\s*http|python[h]osted|\bpypi[.]org|registry[.]npmjs"
        r"|https?://(?![^/\s]*\.(?:test|example|invalid)/)[^\s\"]*\.(?:whl|tar\.gz|tgz|jar|crate)\b"
    ),
    "a left-over to finish": re.compile(r"\b(?:TOD[O]|FIXM[E]|XX[X]|HAC[K])\b"),
    "a path of one machine": re.compile(r"(?<![\w.])/(?:home|Users)/[a-z][\w-]*/|(?<![\w.])/roo[t]/"),
}


def check() -> list[str]:
    """A line per place."""
    patterns = PATTERNS | machine(ROOT, Path.home())
    return [line for name, text in text_files() for line in findings(name, text, patterns)]


def machine(root: Path, home: Path) -> dict[str, re.Pattern[str]]:
    """The pattern of this machine's own folders, where they are telling."""
    folders = sorted({str(folder) for folder in (root, root.parent, home)} - _PLAIN_FOLDERS)
    told = "|".join(re.escape(folder) for folder in folders)
    return {"a path of this machine": re.compile(rf"(?<![\w.])(?:{told})/")} if told else {}


def findings(name: str, text: str, patterns: dict[str, re.Pattern[str]]) -> list[str]:
    return [
        f"{name}:{number}: {what}: {found[0]}"
        for number, line in enumerate(text.splitlines(), start=1)
        for what, pattern in patterns.items()
        if (found := pattern.search(line))
    ]
