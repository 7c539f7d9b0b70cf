"""Progress bars on standard error, one line a piece of work; plain lines where there is no terminal."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn


class Bars:
    """`report(what, done, total)` moves the bar of `what`, made when first named."""

    def __init__(self, display: Progress | None, console: Console | None) -> None:
        self._display = display
        self._console = console
        self._tasks: dict[str, TaskID] = {}
        self._said: dict[str, int] = {}

    def report(self, what: str, done: int, total: int) -> None:
        """`total` 0 means unknown."""
        if self._display is not None:
            if what not in self._tasks:
                self._tasks[what] = self._display.add_task(what, total=total or None)
            self._display.update(self._tasks[what], completed=done, total=total or None)
        elif self._console is not None:
            self._line(what, done, total)

    def say(self, text: str) -> None:
        """A line above the bars."""
        if self._display is not None:
            self._display.console.print(text, highlight=False, soft_wrap=True)
        elif self._console is not None:
            self._console.print(text, highlight=False, soft_wrap=True)

    def _line(self, what: str, done: int, total: int) -> None:
        """Without a terminal: a line at every quarter."""
        quarter = 4 * done // total if total else 0
        if self._said.get(what, -1) < quarter:
            self._said[what] = quarter
            self.say(f"{what}: {done}/{total}")


@contextlib.contextmanager
def progress(*, quiet: bool = False) -> Iterator[Bars]:
    """Bars for the block."""
    console = Console(file=sys.stderr)
    if quiet:
        yield Bars(None, None)
    elif not console.is_terminal:
        yield Bars(None, console)
    else:
        columns = (TextColumn("{task.description:<34}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(*columns, console=console) as display:
            yield Bars(display, console)
