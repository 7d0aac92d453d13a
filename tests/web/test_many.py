"""The page of very many cells: tiles lead to their parts, filters, pages of the table, and the numbers of `best`."""

from __future__ import annotations

import html
import json
import re
from pathlib import Path

import httpx
import many_cells
import pytest
import store_helpers
from served import Asking, Page, asked, serving
from sweeping import Program
from sweeping import program as program  # a fixture

from ollama_sweep.store.writer import Store

SIDE = 80


@pytest.fixture
def db(program: Program) -> Path:
    """A finished sweep of 6,400 cells."""
    return many_cells.fill(program.folder, SIDE)


def zooms(page: str) -> list[str]:
    return [html.unescape(link).removeprefix(".") for link in re.findall(r'data-zoom="([^"]*)"', page)]


def test_a_tile_leads_to_its_part_and_that_to_cells(db: Path) -> None:
    client = asked(db)
    first = client.get("/").text
    links = zooms(first)
    assert 1000 < len(links) <= 1600
    part = client.get(links[0])
    page = Page(part.text)
    assert "A part of the map: num_ctx 2048 to 2560, num_batch 16 to 24." in page.said
    assert len(page.all("g", "data-link")) == 4
    assert "4 of 6,400 cells are chosen." in page.said
    cell = page.all("g", "data-link")[0]
    assert "num_ctx 2048, num_batch 16" in Page(client.get("/" + cell).text).said
    ways = dict(re.findall(r'<a href="([^"]*)">(All of the map|Five times as much|One right|One down)</a>', part.text))
    assert set(ways.values()) == {"All of the map", "Five times as much", "One right", "One down"}
    for link in ways:
        assert client.get("/" + html.unescape(link)).status_code == 200
    assert page.said.index("Best:") < page.said.index("4 of 6,400"), "the verdict is that of the sweep"


def test_a_link_that_names_a_part_there_is_not_is_named(db: Path) -> None:
    for link, words in (
        ("/?across=2048..2561", "there is no value 2561"),
        ("/?down=17", "there is no value 17"),
        ("/?page=65", "behind the last page, 64"),
        ("/?x=num_bach", "Did you mean num_batch?"),
        ("/?metric=promt_eval_rate", "Did you mean prompt_eval_rate?"),
    ):
        answer = asked(db).get(link)
        assert answer.status_code == 404, link
        assert words in Page(answer.text).said.lower() or words in Page(answer.text).said, link


def chosen(client: Asking, link: str) -> int:
    found = re.search(r"([\d,]+) of 6,400 cells are chosen", Page(client.get(link).text).said)
    assert found, link
    return int(found[1].replace(",", ""))


def test_dimensions_statuses_and_flags_are_chosen_as_of_few_cells(program: Program, db: Path) -> None:
    client = asked(db)
    counts = client.get("/api/status").json()["counts"]
    assert chosen(client, "/?status=oom") == counts["oom"]
    assert chosen(client, "/?status=ok") == counts["ok"]
    assert chosen(client, "/?only.num_ctx=2048") == SIDE
    assert chosen(client, "/?only.num_ctx=2048&only.num_batch=16") == 1
    assert chosen(client, "/?flag=spilled") < counts["ok"]
    assert "no cell has num_ctx 7" in Page(client.get("/?only.num_ctx=7").text).said.lower()
    assert chosen(client, "/?status=timeout") == 0
    turned = client.get("/?x=num_batch&y=num_ctx")
    assert "num_batch across, num_ctx down" in Page(turned.text).said
    assert zooms(turned.text)[0].startswith("/?x=num_batch&y=num_ctx&across=16..24&down=2048..2560")


def test_the_page_and_the_api_say_what_best_says(program: Program, db: Path) -> None:
    said = Page(asked(db).get("/").text).said
    lines = program("best").must().stdout.splitlines()
    assert lines[0] in said
    best = json.loads(program("best", "--json").must().stdout)
    found = asked(db).get("/api/best").json()
    for name in ("best", "best_of_each_num_ctx", "spreads", "warnings", "metric"):
        assert found[name] == best[name], name
    assert found["tied_cells"] == len(best["tied"])
    assert found["tied"] == best["tied"][: len(found["tied"])]
    for line in program("status").must().stdout.splitlines():
        assert line.strip() in said


def test_every_page_of_the_table_is_read_alone(db: Path) -> None:
    client = asked(db)
    for link, first in (("/?page=2", "2560"), ("/?status=oom&page=2", None), ("/?only.num_batch=16", "2048")):
        page = client.get(link).text
        body = page[page.index('<div id="cells"') :]
        rows = re.findall(r"<tr>(.*?)</tr>", body[body.index("<tbody>") :], re.DOTALL)
        assert 0 < len(rows) <= 100
        if first is not None:
            assert f">{first}<" in rows[0]


def test_several_combinations_have_a_map_each_and_a_tile_leads_into_one(tmp_path: Path) -> None:
    path = tmp_path / "sweeps.db"
    cells = [
        store_helpers.planned((("kv_cache_type", kind), ("num_ctx", 64 * at), ("num_batch", batch)))
        for kind in ("f16", "q8_0") for at in range(1, 41) for batch in range(8, 8 + 8 * 40, 8)
    ]  # fmt: skip
    with Store.open(path) as store:
        sweep_id = store_helpers.register(store, cells)
        store_helpers.measure(store, sweep_id)
        store_helpers.measure(store, sweep_id, store_helpers.failed())
    client = asked(path)
    page = client.get("/").text
    assert len(re.findall('<figure class="map"', page)) == 2
    links = [link for link in zooms(page) if "q8_0" in link]
    assert links
    part = client.get(links[0]).text
    assert len(re.findall('<figure class="map"', part)) == 1
    assert "kv_cache_type q8_0" in Page(part).said
    assert chosen_of(client, "/?only.kv_cache_type=f16") == 1600
    assert len(re.findall('<figure class="map"', client.get("/?x=kv_cache_type&only.num_ctx=64").text)) == 1


def chosen_of(client: Asking, link: str) -> int:
    return int(re.findall(r"([\d,]+) of 3,200 cells are chosen", Page(client.get(link).text).said)[0].replace(",", ""))


def test_an_open_page_hears_of_the_tile_whose_cell_has_changed(program: Program) -> None:
    path = program.folder / "sweeps.db"
    with Store.open(path) as store:
        cells = store_helpers.grid(range(64, 64 * 61, 64), range(8, 8 * 61, 8))
        sweep_id = store_helpers.register(store, cells)
        store_helpers.measure(store, sweep_id)
        with serving(program, "--port", "0") as found:
            assert "3,600 cells" in Page(found.get().text).said
            with httpx.stream("GET", f"{found.url}events", timeout=120) as answer:
                lines = answer.iter_lines()
                next(line for line in lines if line == "event: hello")
                store_helpers.measure(store, sweep_id, store_helpers.ok(rate=321))
                heard = next(line for line in lines if "s1-map0" in line and "321" in line)
            (tile,) = (one for one in json.loads(heard.removeprefix("data: ")) if "321" in one[2])
            assert tile[:2] == ["s1-map0", "0,0"]
            assert "num_ctx 64 to 128, num_batch 8 to 16: best 321 tokens/s of 2 measured" in Page(tile[2]).said
            assert "data-zoom" in tile[2]


def test_a_part_is_held_against_another_sweep(db: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ollama_sweep.web.many.MANY", 1000)
    many_cells.twin(db, "quicker", 1.25)
    client = asked(db)
    whole = client.get("/?sweep=quicker&against=grid")
    assert whole.status_code == 404
    assert "6,400 cells are too many for a ratio here, at most 1,000: choose a part of the map" in Page(whole.text).said
    part = Page(client.get("/?sweep=quicker&against=grid&across=2048..4608&down=16..56").text)
    assert "quicker against grid" in part.said
    assert "Judged by the loads of these cells alone; all of them: ollama-sweep compare grid quicker." in part.said
    assert "+25" in part.said
    assert "cannot tell: 36 cells" in part.said, "each was loaded once: how far loads differ is not known"
    assert "same: " not in part.said


def test_a_small_sweep_is_held_against_one_of_very_many_cells(db: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ollama_sweep.web.many.MANY", 1000)
    monkeypatch.setattr("ollama_sweep.results.pictures.MANY", 1000)
    many_cells.twin(db, "quicker", 1.25)
    with store_helpers.stranger(db) as connection:
        connection.execute("DELETE FROM plan WHERE sweep_id = 2 AND position >= 30")
        connection.execute("DELETE FROM status_counts WHERE sweep_id = 2")
        connection.execute("INSERT INTO status_counts (sweep_id, status, cells) VALUES (2, 'ok', 30)")
    page = Page(asked(db).get("/?sweep=quicker&against=grid").text)
    assert "cannot tell: 30 cells" in page.said
    assert "Judged by the loads of these cells alone" in page.said


def test_a_report_of_very_many_cells_has_the_verdict_of_best(program: Program, db: Path) -> None:
    program("report", "--html", "page.html").must()
    content = (program.folder / "page.html").read_text("utf-8")
    assert program("best").must().stdout.splitlines()[0] in html.unescape(content)
    assert "data-zoom" not in content
