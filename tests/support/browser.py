"""A real browser for the live page: Debian's Chromium, driven by playwright, with axe-core to look for barriers."""

from __future__ import annotations

import contextlib
import importlib.util
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ollama_fixture import skip_outside_ci

WIDTHS = (390, 1024, 1920)
PAPER = 718
"""An A4 page without its margins, in the pixels of a style sheet."""
NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run",
         "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage"]  # fmt: skip

OF_COLOURS = ("color-contrast", "link-in-text-block")
"""The rules of axe-core that look at colours."""
PATIENCE_S = 120.0
"""How long a page is waited for, however busy the machine is."""


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """The browser; each test opens pages of its own. Skips, or in CI fails, where there is none."""
    program = next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        skip_outside_ci("chromium is not installed")
    if importlib.util.find_spec("playwright") is None:
        skip_outside_ci("playwright is not installed")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        found = play.chromium.launch(executable_path=program, args=FLAGS)
        yield found
        found.close()


@contextlib.contextmanager
def opened(
    browser: Any, url: str, *, width: int = 1280, dark: bool = False, patience_s: float = PATIENCE_S
) -> Iterator[Any]:
    """A page in a window of its own. Whatever it says on its console, or asks of anybody else, fails the test."""
    context = browser.new_context(
        viewport={"width": width, "height": 900}, color_scheme="dark" if dark else "light", locale="en-GB",
        timezone_id="Asia/Tokyo",
    )  # fmt: skip
    context.set_default_timeout(1000 * patience_s)
    page, complaints, here = context.new_page(), list[str](), "/".join(url.split("/")[:3])
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda said: complaints.append(said.text) if said.type in ("error", "warning") else None)
    page.on("request", lambda asked: complaints.append(asked.url) if not asked.url.startswith(here) else None)
    page.goto(url)
    yield page
    assert not complaints
    context.close()


def barriers(page: Any, *rules: str) -> list[str]:
    """What axe-core finds on a page, its folded parts opened; by all of its rules, or by these."""
    spec = importlib.util.find_spec("axe_playwright_python")
    if spec is None or spec.origin is None:
        skip_outside_ci("axe-playwright-python, which carries axe-core, is not installed")
    page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    if not page.evaluate("'axe' in window"):
        page.evaluate((Path(spec.origin).parent / "axe.min.js").read_text("utf-8"))
    only = {"runOnly": list(rules)} if rules else {}
    found = page.evaluate("(words) => axe.run(document, words)", {"resultTypes": ["violations"], **only})["violations"]
    return [f"{one['id']}: {one['nodes'][0]['html'][:200]}" for one in found]


def too_wide(page: Any) -> int:
    """By how many pixels the page is wider than its window."""
    return int(page.evaluate("document.documentElement.scrollWidth - window.innerWidth"))


def misfits(page: Any) -> list[str]:
    """At which widths the page is wider than its window."""
    found = []
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 900})
        if (more := too_wide(page)) > 0:
            found.append(f"at {width} px by {more}")
    return found


def broken_words(page: Any) -> list[str]:
    """Words of tables that a phone breaks in the middle, though they are short."""
    page.set_viewport_size({"width": WIDTHS[0], "height": 900})
    page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    return list(page.evaluate((Path(__file__).parent / "broken.js").read_text("utf-8")))


def barriers_in_both(page: Any) -> list[str]:
    """What axe-core finds in light, and in dark, where only the colours are others."""
    found = []
    for scheme, rules in (("light", ()), ("dark", OF_COLOURS)):
        page.emulate_media(color_scheme=scheme)
        found += [f"{scheme}: {barrier}" for barrier in barriers(page, *rules)]
    return found


def lost_on_paper(page: Any) -> list[str]:
    """What a printed page cuts off, has as a control, or prints on a dark ground; its folded parts opened."""
    page.set_viewport_size({"width": PAPER, "height": 1000})
    page.emulate_media(media="print")
    page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    return list(page.evaluate((Path(__file__).parent / "paper.js").read_text("utf-8")))
