"""The pages: the same words as the commands, every state in a link, and nobody else's text steers them."""

from __future__ import annotations

import os
import re
import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

import pytest
import served
import store_helpers
from served import Page, asked
from sweeping import GRID, Program
from sweeping import program as program  # a fixture

from ollama_sweep.core.outcome import Outcome, Status
from ollama_sweep.store.writer import Store

EVIL = "<script>alert(1)</script> & \"'\x1b[31mred\u202eright\u202c ]]> --> </pre> javascript:alert(1)"


@pytest.fixture
def db(program: Program) -> Path:
    """A sweep of four cells, one of them out of memory."""
    program.script(cells={"num_ctx 1024, num_batch 4": ["cuda_oom"]})
    program("run", program.config(**GRID)).must()
    return program.folder / "sweeps.db"


def said(db: Path, path: str, code: int = 200) -> str:
    answer = asked(db).get(path)
    assert answer.status_code == code, answer.text
    return Page(answer.text).said


def test_the_first_paint_says_what_best_and_status_say(program: Program, db: Path) -> None:
    words = said(db, "/")
    assert program("best").must().stdout.splitlines()[0] in words
    for line in program("status").must().stdout.splitlines():
        assert line.strip() in words
    assert "ollama-sweep run" in words


def test_every_cell_of_the_map_says_all_and_leads_to_its_page(program: Program, db: Path) -> None:
    page = Page(asked(db).get("/").text)
    links = page.all("g", "data-link")
    assert len(links) == 4
    failed = said(db, "/" + next(link for link in links if link.endswith("at=3")))
    told = re.sub(r"T(\d\d:\d\d:\d\d)\S*", r" \1 UTC", program("explain", "3").must().stdout)
    for line in told.splitlines():
        assert " ".join(line.split()).removeprefix("By hand:") in failed
    assert "cudaMalloc failed: out of memory" in failed


def test_every_time_can_be_shown_in_the_readers_zone(db: Path) -> None:
    for link in ("/", "/cell?at=0", "/sweeps"):
        page = Page(asked(db).get(link).text)
        times = page.all("time", "datetime")
        assert times
        assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d(:\d\d)?Z", time) for time in times)
        outside = re.sub(r"<time.*?</time>", "", asked(db).get(link).text)
        assert not re.search(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d", outside), link


def test_a_link_keeps_every_state(db: Path) -> None:
    words = said(db, "/?x=num_batch&y=num_ctx&metric=load_duration_s")
    assert "num_batch across, num_ctx down" in words
    only = Page(asked(db).get("/?only.num_ctx=1024&status=oom").text)
    assert len(only.all("g", "data-link")) == 1
    assert "1 of 4 cells are chosen" in only.said
    assert only.said.index("Best:") < only.said.index("1 of 4 cells are chosen"), "the verdict is that of the sweep"


def test_what_is_not_measured_yet_is_shown_as_it_is_likely_to_be_where_that_is_asked(tmp_path: Path) -> None:
    path = tmp_path / "sweeps.db"
    with Store.open(path) as store:
        sweep_id = store_helpers.register(store, store_helpers.grid([1024, 2048, 4096, 8192], [16, 32, 64, 128]))
        for at in range(11):
            store_helpers.measure(store, sweep_id, store_helpers.ok(100.0 + 10 * (at % 4) - at, flags=()))
    plain, asking = (Page(asked(path).get(link).text) for link in ("/", "/?predict=1"))
    assert ("predict", None) in [
        (a["name"], a.get("checked")) for tag, a in plain.elements if a.get("type") == "checkbox"
    ]
    assert "cell predicted" not in plain.all("g", "class")
    assert asking.all("g", "class").count("cell predicted") == 5
    assert "lighter: not measured, but predicted, assuming a smooth surface (5)" in asking.said
    assert "not measured, but predicted, assuming a smooth surface: 1" in asking.said, "the words of a cell"
    assert "checked" in next(a for tag, a in asking.elements if a.get("type") == "checkbox")
    cells = Page(asked(path).get("/api/cells").text).said
    assert cells.count('"pending"') == 5, "what is only likely is no row"


UNKNOWN = [
        ("/?sweep=gird", "sweeps.db has no sweep gird. Did you mean grid?"),
        ("/?metric=promt_eval_rate", "Did you mean prompt_eval_rate?"),
        ("/?x=num_bach", "Did you mean num_batch?"),
        ("/?x=num_batch&y=num_batch", "both across and down"),
        ("/?status=ooom", "Did you mean"),
        ("/?page=0", "whole number"),
        ("/?page=7", "behind the last page"),
        ("/?metrc=runs", "Did you mean metric?"),
        ("/cell?at=99", "at: sweep grid has no cell at position 99; there are 0 to 3"),
        ("/cell?at=9999", "at: sweep grid has no cell at position 9999; there are 0 to 3"),
        ("/?predict=2", "predict: 2 is none; write 1, or leave it out"),
        ("/cell?at=x", "whole number"),
        ("/cell", "at: is missing"),
        ("/?only.num_ctx=99", "no cell has num_ctx 99. There are 512, 1024."),
        ("/?only.num_batch=44", "Did you mean 4?"),
        ("/?against=gone", "no sweep gone"),
]  # fmt: skip


def test_an_unknown_word_in_a_link_is_named(db: Path) -> None:
    for link, words in UNKNOWN:
        assert words in said(db, link, 404), link


def test_a_sweep_is_shown_against_another_one(program: Program, db: Path) -> None:
    program.script(cells={"num_ctx 1024, num_batch 4": ["cuda_oom"]}, rate=200)
    program("run", program.config("half", **{**GRID, "num_predict": 3})).must()
    page = Page(asked(db).get("/?sweep=half&against=grid").text)
    assert "half against grid" in page.said
    assert "-50" in page.said


def test_all_sweeps_are_listed_and_lead_to_their_pages(program: Program, db: Path) -> None:
    program("run", program.config("a second & one", **GRID)).must()
    page = Page(asked(db).get("/sweeps").text)
    (link,) = [link for link in page.all("a", "href") if "second" in link]
    assert "Sweep a second & one" in said(db, "/" + link)
    assert "Sweep grid" in said(db, "/?sweep=grid")


def test_text_of_others_stays_text(tmp_path: Path) -> None:
    path = tmp_path / "evil.db"
    cells = [store_helpers.planned((("num_ctx", 64), ("num_batch", at)), model=EVIL) for at in (8, 16)]
    with Store.open(path) as store:
        sweep_id = store_helpers.register(store, cells, EVIL)
        store_helpers.measure(store, sweep_id, Outcome(Status.CRASHED, "assert", EVIL, raw=EVIL))
    for link in ("/", "/sweeps", "/cell?at=0", f"/?sweep={quote(EVIL)}"):
        answer = asked(path).get(link)
        page = Page(answer.text)
        assert all(source.startswith("static/") for source in page.all("script", "src"))
        assert [tag for tag, _ in page.elements].count("script") == 2
        assert "\x1b" not in answer.text
        assert "\u202e" not in answer.text
        assert not [link for link in page.all("a", "href") if link.startswith("javascript:")]


def test_reading_leaves_nothing_beside_the_database(db: Path) -> None:
    before = sorted(os.listdir(db.parent)), db.read_bytes()
    for link in ("/", "/sweeps", "/cell?at=0", "/log"):
        asked(db).get(link)
    assert (sorted(os.listdir(db.parent)), db.read_bytes()) == before


def test_a_database_that_goes_or_breaks_under_the_page_is_said(db: Path) -> None:
    client = asked(db)
    assert client.get("/").status_code == 200
    content = db.read_bytes()
    db.write_bytes(b"nonsense" * 1024)
    assert "not a SQLite database" in Page(client.get("/").text).said
    db.unlink()
    answer = client.get("/")
    assert answer.status_code == 503
    assert "no database" in Page(answer.text).said.lower()
    db.write_bytes(content)
    assert client.get("/").status_code == 200


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"", "is empty"), ("newer", "was made by a newer version of this program; update it"),
     ("another", "belongs to another program (tables: theirs)"), (b"nonsense" * 1024, "not a SQLite database")],
)  # fmt: skip
def test_a_database_that_is_replaced_under_the_page_is_said_and_is_no_mistake_of_who_asks(
    db: Path, content: bytes | str, words: str
) -> None:
    client = asked(db)
    assert client.get("/").status_code == 200
    db.unlink()
    if isinstance(content, bytes):
        db.write_bytes(content)
    else:
        with Store.open(db) if content == "newer" else closing(sqlite3.connect(db)):
            pass
        with closing(sqlite3.connect(db)) as other:
            other.execute("PRAGMA user_version = 9999" if content == "newer" else "CREATE TABLE theirs (a)")
    for link in ("/", "/sweeps", "/cell?at=0", "/?sweep=grid"):
        answer = client.get(link)
        assert answer.status_code == 503, link
        assert "The database cannot be read now" in Page(answer.text).said
        assert words in Page(answer.text).said
    answer = client.get("/api/status")
    assert answer.status_code == 503
    assert words in answer.json()["error"]
    assert "ollama_sweep_up 0" in client.get("/metrics").text


def test_an_address_that_there_is_not_is_said_in_a_line(db: Path) -> None:
    client = asked(db)
    for link, words in (
        ("/sweps", "Did you mean /sweeps?"),
        ("/a/b/<script>", "The page is at /"),
        ("/index.html", "/"),
    ):
        answer = client.get(link)
        assert answer.status_code == 404
        assert answer.headers["content-type"].startswith("text/plain")
        assert words in answer.text
        assert len(answer.text.splitlines()) == 1
    assert client.get("/api/stats").json()["error"].endswith("Did you mean /api/status?")
    assert client.get("/api/stats").status_code == 404
    assert "unknown word swep in the address. Did you mean sweep?" in client.get("/api/status?swep=x").json()["error"]


def test_a_mistake_of_the_program_is_said_in_a_line(db: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    client = asked(db, raises=False)

    def breaks(*given: object) -> object:
        raise KeyError("no such thing")

    monkeypatch.setattr("ollama_sweep.web.pages.all_sweeps", breaks)
    answer = client.get("/sweeps")
    assert answer.status_code == 500
    assert answer.text.startswith("A mistake of this program (KeyError)")
    assert len(answer.text.splitlines()) == 1


def test_a_database_without_a_sweep_is_said(tmp_path: Path) -> None:
    with Store.open(tmp_path / "new.db"):
        pass
    assert "No sweep was begun" in said(tmp_path / "new.db", "/")
    assert "No sweep was begun" in said(tmp_path / "new.db", "/sweeps")


@pytest.mark.parametrize("states", [[], ["cuda_oom"], ["timeout"]])
def test_one_cell_and_no_success_are_shown(program: Program, states: list[str]) -> None:
    program.script(cells={"num_ctx 512, num_batch 2": states} if states else {})
    program("run", program.config(**{**GRID, "num_ctx": [512], "num_batch": [2]})).must()
    page = Page(asked(program.folder / "sweeps.db").get("/").text)
    assert len(page.all("g", "data-link")) == 1
    assert served.HERE not in page.said
