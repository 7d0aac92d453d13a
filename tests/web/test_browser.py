"""The page in a real browser: it lives, is moved through by keys, has no barriers, and asks nobody else."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import store_helpers
from browser import barriers_in_both, broken_words, lost_on_paper, misfits, opened
from browser import chromium as chromium  # a fixture
from ollama_fixture import until
from served import Served, serving
from sweeping import Program
from sweeping import program as program  # a fixture

from ollama_sweep.core.outcome import Status
from ollama_sweep.store.writer import Store


@pytest.fixture
def db(program: Program) -> Path:
    """A sweep of eight cells, the first measured, the second out of memory."""
    path = program.folder / "sweeps.db"
    with Store.open(path) as store:
        store_helpers.register(store, store_helpers.grid([64, 128, 256, 512]))
        store_helpers.measure(store, 1)
        store_helpers.measure(store, 1, store_helpers.failed())
    return path


def test_a_commit_is_seen_and_the_cursor_stays(program: Program, db: Path, chromium: Any) -> None:
    with serving(program, "--port", "0") as found, Store.open(db) as store, opened(chromium, found.url) as page:
        page.wait_for_selector("body[data-stream=open]")
        page.locator('.cell[tabindex="0"]').focus()
        page.keyboard.press("End")
        page.keyboard.press("ArrowUp")
        at = page.evaluate("document.activeElement.dataset.at")
        assert at == "3,0"
        assert "num_ctx 512, num_batch 64" in page.locator(".detail").inner_text()
        store_helpers.measure(store, 1, store_helpers.ok(rate=77))
        page.wait_for_selector('.cell.measured[data-at="1,0"]')
        assert "77 tokens/s" in page.locator('.cell[data-at="1,0"] title').text_content()
        page.wait_for_function("document.querySelector('#progress').textContent.includes('3 of 8')")
        for _ in range(5):
            store_helpers.measure(store, 1)
        page.wait_for_function("document.querySelector('#verdict').textContent.includes('Best: num_ctx')")
        assert page.evaluate("document.activeElement.dataset.at") == at
        page.keyboard.press("Enter")
        page.wait_for_url("**/cell?*at=6")


def test_a_cell_that_is_looked_at_says_how_it_is_repeated(program: Program, db: Path, chromium: Any) -> None:
    with serving(program, "--port", "0") as found, opened(chromium, found.url) as page:
        page.locator('.cell[data-at="0,1"]').click()
        assert "CUDA error: out of memory" in page.locator(".detail").inner_text()
        page.wait_for_selector(".brief a")
        assert "ollama-sweep run" in page.locator(".brief").inner_text()
        page.locator(".brief a").click()
        page.wait_for_url("**/cell?*at=1")


def test_only_a_page_that_is_seen_listens(program: Program, db: Path, chromium: Any) -> None:
    hidden = """Object.defineProperty(document, 'hidden', {{configurable: true, get: () => {}}});
        document.dispatchEvent(new Event('visibilitychange'))"""
    with serving(program, "--port", "0") as found, opened(chromium, found.url) as page:
        page.wait_for_selector("body[data-stream=open]")
        page.evaluate(hidden.format("true"))
        until("nobody listens", lambda: "ollama_sweep_pages 0" in found.get("metrics").text)
        page.evaluate(hidden.format("false"))
        until("it listens again", lambda: "ollama_sweep_pages 1" in found.get("metrics").text)
        page.goto("about:blank")
        until("nobody listens", lambda: "ollama_sweep_pages 0" in found.get("metrics").text)
        page.goto(found.url)


def test_the_fifth_page_takes_the_stream_of_the_first_which_takes_it_back(
    program: Program, db: Path, chromium: Any
) -> None:
    with serving(program, "--port", "0") as found, opened(chromium, found.url) as first:
        first.wait_for_selector("body[data-stream=open]")
        others = [first.context.new_page() for _ in range(4)]
        for page in others:
            page.goto(found.url)
            page.wait_for_selector("body[data-stream=open]")
        first.wait_for_selector("body[data-stream=ended]")
        assert "take it back" in first.locator("#live").inner_text()
        first.locator("h1").click()
        others[0].wait_for_selector("body[data-stream=ended]")
        first.wait_for_selector("body[data-stream=open]")


KINDS = {
    "sweep": "", "cell": "cell?at=1", "sweeps": "sweeps", "log": "log", "ratio": "?against=other",
    "part": "?x=num_batch&y=num_ctx&status=oom", "predicted": "?predict=1",
}  # fmt: skip


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    """A sweep of 64 cells, most of them measured, and another one to be held against; they are looked at only."""
    with contextlib.closing(Program(tmp_path_factory.mktemp("two"))) as program:
        cells = store_helpers.grid(range(1024, 9216, 1024), range(16, 144, 16))
        others = [replace(cell, key=f"{cell.key}-other") for cell in cells]
        with Store.open(program.folder / "sweeps.db") as store:
            for name, plan, rate in (("other", others, 100.0), ("s", cells, 110.0)):
                number = store_helpers.register(store, plan, name)
                for at in range(48):
                    outcome = (
                        store_helpers.ok(rate + at % 8, flags=())
                        if at % 8 < 7
                        else store_helpers.failed(Status.TIMEOUT)
                    )
                    store_helpers.measure(store, number, outcome)
        yield program


@pytest.fixture(scope="module")
def page_of_two(two: Program) -> Iterator[Served]:
    """Their page, for all tests that only look at it."""
    with serving(two, "--port", "0") as found:
        yield found


@pytest.mark.parametrize("path", KINDS.values(), ids=KINDS)
def test_every_kind_of_page_fits_has_no_barrier_and_loses_nothing_on_paper(
    page_of_two: Served, chromium: Any, path: str
) -> None:
    with opened(chromium, page_of_two.url + path) as page:
        assert misfits(page) == []
        assert broken_words(page) == []
        assert barriers_in_both(page) == []
        assert lost_on_paper(page) == []


@pytest.mark.parametrize(
    "kind",
    ["no cell", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("one cell", "all failed")), "39 x 16"],
)
def test_every_kind_of_sweep_fits(program: Program, chromium: Any, kind: str) -> None:
    contexts, batches = (range(39), range(16)) if kind == "39 x 16" else ([64], [8])
    with Store.open(program.folder / "sweeps.db") as store:
        if kind != "no cell":
            store_helpers.register(store, store_helpers.grid(list(contexts), list(batches)))
            outcome = store_helpers.failed(Status.TIMEOUT, "run", "x" * 300) if kind == "all failed" else None
            store_helpers.measure(store, 1, outcome)
    with serving(program, "--port", "0") as found:
        for path in ("", "?page=2") if kind == "39 x 16" else ("",):
            with opened(chromium, found.url + path) as page:
                assert page.locator(".cell").count() == (0 if kind == "no cell" else len(contexts) * len(batches))
                assert misfits(page) == []
                assert broken_words(page) == []
                assert barriers_in_both(page) == []
                assert lost_on_paper(page) == []


def test_a_report_loses_nothing_on_paper_either(two: Program, chromium: Any) -> None:
    two("report", "--html", "page.html").must()
    with opened(chromium, (two.folder / "page.html").as_uri()) as page:
        assert misfits(page) == []
        assert lost_on_paper(page) == []


def test_times_are_those_of_the_reader(program: Program, db: Path, chromium: Any) -> None:
    with serving(program, "--port", "0") as found, opened(chromium, found.url + "sweeps") as page:
        time = page.locator("time").first
        said, moment = time.inner_text(), time.get_attribute("datetime")
        there = page.evaluate("(moment) => new Date(moment).toLocaleTimeString([], {hour: '2-digit'})", moment)
        assert f" {there[:2]}:" in said
        assert "UTC" in time.get_attribute("title")
