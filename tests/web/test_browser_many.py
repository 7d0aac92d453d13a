"""The map of very many cells in a real browser: into a tile and down to a cell, by keys, mouse and links."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import many_cells
import pytest
from browser import barriers_in_both, opened, too_wide
from browser import chromium as chromium  # a fixture
from served import Served, serving
from sweeping import Program
from sweeping import program as program  # a fixture


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The page of 14,400 cells."""
    with contextlib.closing(Program(tmp_path_factory.mktemp("many"))) as program:
        many_cells.fill(program.folder, 120)
        with serving(program, "--port", "0") as served:
            yield served


def into_a_tile_and_a_cell(page: Any) -> None:
    """With the keyboard alone from the map to a cell's own page, and back again."""
    assert 1000 < page.locator(".cell").count() <= 2500
    page.locator('.cell[tabindex="0"]').focus()
    page.keyboard.press("Home")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowDown")
    assert page.evaluate("document.activeElement.dataset.at") == "1,1"
    assert "measured" in page.locator(".detail").inner_text()
    page.keyboard.press("Enter")
    page.wait_for_url("**/*across=*")
    page.wait_for_selector("nav.part")
    assert 1 < page.locator(".cell[data-link]").count() <= 2500
    page.locator('.cell[tabindex="0"]').focus()
    page.keyboard.press("End")
    said = page.locator(".detail").inner_text()
    page.keyboard.press("Enter")
    page.wait_for_url("**/cell?*at=*")
    assert said.split(":")[0] in page.locator("h2").first.inner_text()
    page.go_back()
    page.get_by_role("link", name="All of the map").click()
    page.wait_for_selector(".cell[data-zoom]")


def test_a_tile_is_entered_and_left_with_keys(found: Served, chromium: Any) -> None:
    with opened(chromium, found.url) as page:
        into_a_tile_and_a_cell(page)


def test_a_tile_is_entered_by_a_double_click_and_by_the_link_below(found: Served, chromium: Any) -> None:
    with opened(chromium, found.url) as page:
        page.locator('.cell[data-at="2,3"]').dblclick()
        page.wait_for_selector("nav.part")
        page.get_by_role("link", name="One right").click()
        page.wait_for_url("**/*across=*")
        page.get_by_role("link", name="Five times as much").click()
        page.wait_for_selector("nav.part")
    with opened(chromium, found.url, width=390) as page:
        page.locator('.cell[data-at="2,3"]').click()
        page.get_by_role("link", name="Show this part of the map by itself").click()
        page.wait_for_selector("nav.part")
        assert "num_ctx" in page.locator("nav.part span").inner_text()


def test_a_value_is_chosen_by_writing_it(found: Served, chromium: Any) -> None:
    with opened(chromium, found.url) as page:
        page.locator("details.look summary").click()
        page.locator('input[name="only.num_ctx"]').fill("4096")
        page.get_by_role("button", name="Show").click()
        page.wait_for_url("**/*only.num_ctx=4096*")
        assert page.locator(".cell[data-link]").count() == 120


@pytest.mark.parametrize("width", [390, 1920])
@pytest.mark.parametrize("path", ["", "?across=2048..4096&down=16..40"], ids=["map", "part"])
def test_it_fits_and_has_no_barrier(found: Served, chromium: Any, width: int, path: str) -> None:
    with opened(chromium, found.url + path, width=width) as page:
        assert too_wide(page) <= 0
        assert barriers_in_both(page) == []


@pytest.mark.slow
def test_a_million_cells_are_looked_at(program: Program, chromium: Any) -> None:
    many_cells.fill(program.folder, 1000)
    with serving(program, "--port", "0") as found, opened(chromium, found.url, patience_s=120) as page:
        assert "1,000,000 cells" in page.locator("#verdict").inner_text()
        into_a_tile_and_a_cell(page)
        assert too_wide(page) <= 0
