"""What may not stand in the project's files."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools import words

HOST = "files.python" + "hosted.org"
LATER = "TO" + "DO"


@pytest.mark.parametrize(
    "line",
    [
        f"see https://{HOST}/x",
        "--index-" + "url = https://mirror",
        '"resolved"' + ': "https://mirror/x"',
        "curl https://example.org/a-1.0" + ".tar.gz",
        f"# {LATER}: later",
        "open('/ho" + "me/someone/city')",
    ],
)
def test_refused(line: str) -> None:
    found = words.findings("docs/a.md", f"fine\n{line}\n", words.PATTERNS)
    assert len(found) == 1
    assert found[0].startswith("docs/a.md:2: ")


@pytest.mark.parametrize(
    "line",
    [
        "GET /home",
        "https://index.test/a" + ".whl",
        "https://example.org/page",
        "the archive greykite-1.1.0.whl",
        "/var/lib/city",
    ],
)
def test_allowed(line: str) -> None:
    assert words.findings("docs/a.md", line, words.PATTERNS) == []


def test_this_machines_folders_are_refused_where_they_tell_something() -> None:
    patterns = words.machine(Path("/data/projects/city"), Path("/people/ada"))
    assert words.findings("a.md", "cd /data/projects/city/docs", patterns)
    assert words.findings("a.md", "cat /people/ada/notes", patterns)
    assert not words.findings("a.md", "cat /data/other/notes", patterns)
    assert not words.machine(Path("/"), Path("/tmp"))
