"""Debian's chromium through playwright, and a page that notes what went wrong in it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, Request, expect, sync_playwright

from tests.system.fakes import FakeCity
from tests.system.serving import fake_city_in_thread

expect.set_options(timeout=20_000)
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@dataclass
class Seen:
    """What a page did besides showing itself."""

    page: Page
    errors: list[str] = field(default_factory=list)
    hosts: set[str] = field(default_factory=set)

    def note(self, message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"}:
            self.errors.append(message.text)

    def request(self, request: Request) -> None:
        self.hosts.add(request.url.split("/")[2])


Open = Callable[..., Seen]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium. Without it these tests are skipped, but never under CI=true.

    Closed with the module: its event loop would be in the way of the tests after it.
    """
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        reason = "no chromium here: apt-get install chromium"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield started
        started.close()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[tuple[str, FakeCity]]:
    with fake_city_in_thread(tmp_path) as found:
        yield found


@pytest.fixture
def visit(browser: Browser) -> Iterator[Open]:
    """Opens an address in a browser of its own: width, colour scheme and motion as asked."""
    contexts: list[Any] = []

    def open_page(url: str, width: int = 1440, scheme: Any = "light", motion: Any = "no-preference") -> Seen:
        context = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme=scheme, reduced_motion=motion, accept_downloads=True
        )
        contexts.append(context)
        context.set_default_timeout(20_000)
        seen = Seen(context.new_page())
        seen.page.on("console", seen.note)
        seen.page.on("pageerror", lambda error: seen.errors.append(str(error)))
        seen.page.on("request", seen.request)
        seen.page.goto(url)
        return seen

    yield open_page
    for context in contexts:
        context.close()
