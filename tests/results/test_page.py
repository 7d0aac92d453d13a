"""The report as a page and as markdown: one file that asks for nothing, says all, and is steered by nobody's text."""

from __future__ import annotations

import base64
import errno
import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import compared
import older_database
import pytest
import store_helpers
from compared import Made
from sweeping import Program
from sweeping import program as program  # a fixture

from ollama_sweep.cli import repeating
from ollama_sweep.core.errors import StorageError
from ollama_sweep.core.metrics import metric
from ollama_sweep.core.outcome import Flag, Outcome, Status
from ollama_sweep.machine import files
from ollama_sweep.results.best import describe_best
from ollama_sweep.results.page import charts, gathering, making, markdown, tiles
from ollama_sweep.store.reader import Reader
from ollama_sweep.store.writer import Store

EVIL = (
    "<script>alert(1)</script> & \"'\x1b[31mred\u202eright\u202c ]]> --> </style>@octocat #12 `x` | "
    "/home/me/secret/m.gguf"
)
VOID = {"meta", "rect", "path", "img", "br", "circle", "input", "link"}


class Page(HTMLParser):
    """What a browser would make of it: elements with their attributes, texts, scripts."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.texts: list[str] = []
        self.scripts: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, "every element is closed where it was opened"

    def handle_data(self, data: str) -> None:
        inside = self.open[-1] if self.open else ""
        if inside != "style":
            (self.scripts if inside == "script" else self.texts).append(data)

    @property
    def said(self) -> str:
        return " ".join(" ".join(self.texts).split())

    @property
    def data(self) -> Any:
        return json.loads(self.scripts[0])


def rendered(*paths: Path) -> Page:
    """The page of the sweep that ran last, looked at: it asks for nothing and runs no script but its own."""
    found = [one for path in paths for one in making.read((), path, lambda reader, row, gathered: [])]
    content = making.page(found)
    page = Page(content.decode())
    assert not page.open
    check(page)
    return page


def check(page: Page) -> None:
    policy = next(str(of["content"]) for tag, of in page.elements if of.get("http-equiv") == "Content-Security-Policy")
    assert len(page.scripts) == 2
    digest = base64.b64encode(hashlib.sha256(page.scripts[1].encode()).digest()).decode()
    assert policy == f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; img-src data:"
    for tag, of in page.elements:
        assert tag not in ("link", "iframe", "object", "embed", "base", "form"), tag
        assert not [name for name in of if name.startswith("on")]
        for name in ("src", "href", "action", "poster", "xlink:href"):
            assert str(of.get(name) or "#").startswith(("data:", "#")), (tag, of)
    ids = [of["id"] for _, of in page.elements if "id" in of]
    assert len(ids) == len(set(ids))
    targets = [name for _, of in page.elements for name in str(of.get("aria-labelledby") or "").split()]
    assert set(targets) <= set(ids)


# -- what it says ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep of 16 cells with controls; one ran out of memory, one spilled."""
    path = tmp_path_factory.mktemp("page") / "sweeps.db"
    special = {15: store_helpers.failed(), 14: compared.ok([90.0, 91.0, 92.0], Flag.SPILLED)}
    return compared.save(path, Made("whole", special=special, controls=5))


def test_the_verdict_comes_first_in_the_words_of_best(finished: Path) -> None:
    page = rendered(finished)
    with Reader.open(finished) as reader:
        row = reader.sweep("whole")
        sentence = describe_best(list(reader.results(row.sweep_id)), None, reader.spreads(row.sweep_id)).splitlines()[0]
    assert sentence.startswith("Best: num_ctx ")
    assert page.said.index(sentence) < page.said.index("What was measured")
    assert "Sweep whole" in page.said[: page.said.index(sentence)]


def test_everything_stands_in_it(finished: Path) -> None:
    page = rendered(finished)
    for words in (
        "a machine", "Settings", "Spreads", "runs ±", "loads ±", "CUDA OOM", "part of the model sits on the CPU",
        "Cells without a number", "CUDA error",
    ):  # fmt: skip
        assert words in page.said, words
    cells = [of for tag, of in page.elements if tag == "g" and str(of.get("class")).startswith("cell ")]
    assert len(cells) == 16
    assert [of["tabindex"] for of in cells].count("0") == 1, "one stop of the tab key, arrows go on from there"
    assert sum("failed" in str(of["class"]) for of in cells) == 1
    assert any(tag == "img" and of.get("alt") for tag, of in page.elements)
    (data,) = page.data["sweeps"]
    assert len(data["cells"]) == data["cells_total"] == 16
    at = {name: place for place, name in enumerate(data["columns"])}
    assert {row[at["status"]] for row in data["cells"]} == {"ok", "oom"}
    assert data["spreads"]["prompt_eval_rate"]["loads_df"] >= 3


def test_the_same_input_gives_the_same_bytes(finished: Path) -> None:
    first, second = (making.page(making.read((), finished, lambda *given: [])) for _ in range(2))
    assert first == second


def test_several_sweeps_have_a_part_each(finished: Path, tmp_path: Path) -> None:
    other = compared.save(tmp_path / "b.db", Made("other", contexts=(1024,), batches=(64,)))
    page = rendered(finished, other)
    assert [of["href"] for tag, of in page.elements if tag == "a"] == ["#content", "#s1", "#s2"]


def test_a_sweep_that_had_no_file_is_repeated_from_one_of_its_name(tmp_path: Path) -> None:
    path = tmp_path / "sweeps.db"
    with Store.open(path) as store:
        header = replace(store_helpers.header(), config_path="")
        sweep = store.register_sweep(header, store_helpers.grid((1024, 2048)), timeout_s=1, repeats_minimum=1,
                                     retry=frozenset())  # fmt: skip
        store_helpers.measure(store, sweep, compared.ok([100.0, 101.0]))
    ((_, repeats),) = making.read((), path, repeating.repeats)
    runs = [line for repeat in repeats for line in repeat.commands if line.startswith("ollama-sweep run")]
    assert [line.split(" --")[0] for line in runs] == ["ollama-sweep run s.yaml"] * 2


# -- every sweep ----------------------------------------------------------------------------------------------------


def waiting(path: Path) -> None:
    with Store.open(path) as store:
        store_helpers.register(store, store_helpers.grid((1024, 2048)))


def empty(path: Path) -> None:
    with Store.open(path) as store:
        store.register_sweep(store_helpers.header(), [], timeout_s=1, repeats_minimum=1, retry=frozenset())


SWEEPS: dict[str, tuple[Callable[[Path], object], str]] = {
    "one cell": (lambda path: compared.save(path, Made("one", contexts=(1024,), batches=(64,))), "Best: num_ctx 1024"),
    "all failed": (
        lambda path: compared.save(path, Made("bad", special=dict.fromkeys(range(16), store_helpers.failed()))),
        "No cell has a number: CUDA OOM (16).",
    ),
    "nothing measured": (waiting, "The sweep is not finished: 0 of 4 cells are done."),
    "empty": (empty, "The sweep has no cells."),
}


@pytest.mark.parametrize("name", SWEEPS)
def test_every_sweep_has_a_page_and_markdown(name: str, tmp_path: Path) -> None:
    make, words = SWEEPS[name]
    path = tmp_path / "sweeps.db"
    make(path)
    assert words in rendered(path).said
    assert words.split(":")[0] in markdown.markdown(making.read((), path, lambda *given: []))


@pytest.mark.parametrize("older", [older_database.SCHEMA_2, older_database.SCHEMA_4], ids=str)
def test_databases_of_earlier_versions_are_read_as_they_are(older: older_database.Older, tmp_path: Path) -> None:
    older_database.lay_out(tmp_path, older)
    path = tmp_path / "sweeps.db"
    before = path.read_bytes()
    with Reader.open(path) as reader:
        names = [row.name for row in reader.sweeps()]
    found = making.read(names, path, lambda *given: [])
    check(Page(making.page(found[:2]).decode()))
    assert len(markdown.markdown(found).encode()) <= markdown.MOST_BYTES
    assert path.read_bytes() == before


def test_a_sweep_that_runs_says_what_it_does_now(tmp_path: Path) -> None:
    path = tmp_path / "sweeps.db"
    with Store.open(path) as store:
        sweep = store_helpers.register(store, store_helpers.grid((1024, 2048)))
        store_helpers.measure(store, sweep)
        cell = store.next_pending(sweep)
        assert cell is not None
        store.begin_attempt(sweep, cell.cell_id, timeout_s=60)
        page = rendered(path)
    assert "The sweep runs: 1 of 4 cells are done. Now: num_ctx 1024, num_batch 128." in page.said


def test_very_many_cells_are_shown_in_tiles_and_that_is_said(tmp_path: Path) -> None:
    path = tmp_path / "sweeps.db"
    with Store.open(path) as store:
        cells = store_helpers.grid(range(1024, 1024 + 64 * 60, 64), range(8, 8 + 8 * 50, 8))
        sweep = store_helpers.register(store, cells)
        for _ in range(3):
            store_helpers.measure(store, sweep)
    page = rendered(path)
    shown = [of for tag, of in page.elements if tag == "g" and str(of.get("class")).startswith("cell ")]
    assert 1000 < len(shown) <= gathering.MOST_CELLS
    assert "3,000 cells are more than a page can show one by one" in page.said
    assert "each tile holds up to" in page.said
    (data,) = page.data["sweeps"]
    assert data["cells_total"] == 3000 > data["cells_shown"] == len(data["cells"])


def test_words_at_the_axes_of_a_chart_are_round_and_leave_each_other_room() -> None:
    points = [charts.Dot(at * 1e8, 266 + at, 266 + at, 266 + at, "") for at in range(1, 10)]
    ticks = [(point.x, f"{point.x / 2**20:.1f} MiB") for point in points] + [(1.02e8, "97.3 MiB")]
    made = charts.chart("c", "t", ("memory", "speed"), points, (metric("prompt_eval_rate"), ""), ticks=ticks)
    assert [tick.text for tick in made.up] == ["268", "270", "272", "274"]
    assert 3 <= len(made.across) < len(ticks)
    for one, other in pairwise(made.across):
        assert other.at - one.at > 5.5 * (len(one.text) + len(other.text)) / 2
    same = [charts.Dot(at, 92.5 + at * 1e-13, 92.5, 92.5, "") for at in (0, 1)]
    made = charts.chart("c", "t", ("num_ctx", "speed"), same, (metric("prompt_eval_rate"), ""))
    assert [tick.text for tick in made.up] == [str(value) for value in range(84, 101, 2)]
    memory = [charts.Dot(at, at * 2**20, at * 2**20, at * 2**20, "") for at in (100, 900)]
    made = charts.chart("c", "t", ("s", "memory"), memory, (metric("peak_rss_bytes"), ""))
    assert [tick.text for tick in made.up] == ["200.0 MiB", "400.0 MiB", "600.0 MiB", "800.0 MiB"]


@pytest.mark.parametrize(("columns", "rows"), [(1000, 1000), (100_000, 1), (1, 2501), (39, 16), (1, 1)])
def test_tiles_are_never_too_many(columns: int, rows: int) -> None:
    wide, high = tiles.tile_size(columns, rows, 2500)
    assert -(-columns // wide) * -(-rows // high) <= 2500
    assert (wide, high) == (1, 1) or columns * rows > 2500


# -- text of others --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Names, errors and settings that would like to be read as something else."""
    path = tmp_path_factory.mktemp("evil") / "sweeps.db"
    cells = [store_helpers.planned((("num_ctx", 1024), ("num_batch", n), ("kv", EVIL)), model=EVIL) for n in (64, 128)]
    header = replace(store_helpers.header("e<b>vil", dimensions=("num_ctx", "num_batch", "kv")), machine=EVIL,
                     spec={"model": EVIL, EVIL: [EVIL]})  # fmt: skip
    with Store.open(path) as store:
        sweep = store.register_sweep(header, cells, timeout_s=1, repeats_minimum=1, retry=frozenset())
        store_helpers.measure(store, sweep, compared.ok([100.0, 101.0]))
        store_helpers.measure(store, sweep, Outcome(Status.ERROR, "unknown", EVIL, raw=EVIL))
    return path


def test_text_of_others_is_text_on_a_page(hostile: Path) -> None:
    page = rendered(hostile)
    assert "<script>alert(1)</script>" in page.said
    assert "\\x1b[31mred\\u202eright" in page.said
    for text in (*page.texts, *(str(value) for _, of in page.elements for value in of.values())):
        assert not set(text) & set("\x1b\u202e\u202c")
    (data,) = page.data["sweeps"]
    assert data["settings"]["model"] == EVIL, "for machines it stays what it was"


def test_text_of_others_is_text_in_markdown_and_no_path_is_in_it(hostile: Path) -> None:
    text = markdown.markdown(making.read((), hostile, lambda *given: []))
    assert "\\<script\\>alert(1)\\</script\\>" in text
    assert not re.search(r"(?<!\\)<(?!!-- -->)", text), "no HTML but a comment that parts what would be a link"
    assert "@<!-- -->octocat" in text
    assert "#<!-- -->12" in text
    assert "\\`x\\`" in text
    assert "/home/me" not in text
    assert "m.gguf" in text
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert all(line.endswith(" |") for line in rows)
    assert not set(text) & set("\x1b\u202e\u202c")


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("open /home/me/models/x.gguf: no such file", "open x.gguf: no such file"),
        ("in ~/models/x.gguf", "in x.gguf"),
        ("/x/y.gguf", "y.gguf"),
        (r"C:\\Users\\me\\x.gguf failed", "x.gguf failed"),
        ("POST http://127.0.0.1:11434/api/generate", "POST http<!-- -->://127.0.0.1:11434/api/generate"),
        ("12 tokens/s and 3/4", "12 tokens/s and 3/4"),
        ("num_ctx 4096", "num_ctx 4096"),
        ("# no head", "\\# no head"),
        ("1. no list", "1\\. no list"),
        ("_not_ *this* [x](y)", "\\_not\\_ \\*this\\* \\[x\\](y)"),
    ],
)
def test_what_markdown_would_read_is_escaped_and_paths_lose_their_folders(said: str, shown: str) -> None:
    assert markdown.escaped(said) == shown


def test_an_analysis_of_several_lines_keeps_them_in_markdown(finished: Path) -> None:
    text = markdown.markdown(making.read((), finished, lambda *given: []), analysis=["One.\n\n# Two", "Note: three"])
    assert text.endswith("## Analysis by a model\n\nOne.\n\n\\# Two\n\nNote: three\n")


def test_markdown_has_a_limit_and_says_what_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "sweeps.db"
    with Store.open(path) as store:
        cells = store_helpers.grid(range(1024, 1024 + 64 * 40, 64), range(8, 8 + 8 * 40, 8))
        sweep = store_helpers.register(store, cells)
        store_helpers.measure(store, sweep)
    text = markdown.markdown(making.read((), path, lambda *given: []))
    assert 40_000 < len(text.encode()) <= markdown.MOST_BYTES
    assert text.startswith("## Sweep s\n\n**Best: ")
    assert text.endswith("_Left out, because an issue has no room for it: the end of Cells._\n")


# -- the command -----------------------------------------------------------------------------------------------------


@pytest.fixture
def measured(program: Program, finished: Path) -> Program:
    (program.folder / "sweeps.db").write_bytes(finished.read_bytes())
    return program


def test_the_page_is_written_and_named(measured: Program) -> None:
    assert measured("report", "--html", "new/r.html").must().stdout == "new/r.html\n"
    page = Page((measured.folder / "new/r.html").read_text("utf-8"))
    check(page)
    assert "ollama-sweep run configs/whole.yaml --db again.db" in page.said
    said = json.loads(measured("report", "--html", "new/r.html", "--force", "--json").must().stdout)
    assert said == {"sweeps": ["whole"], "files": ["new/r.html"]}


def test_a_page_is_printed_where_its_file_is_a_dash(measured: Program) -> None:
    before = measured.files()
    said = measured("report", "--html", "-").must().stdout
    assert measured.files() == before
    measured("report", "--html", "r.html").must()
    assert said == (measured.folder / "r.html").read_text("utf-8")


def test_markdown_is_printed_and_nothing_else(measured: Program) -> None:
    before = measured.files()
    text = measured("report", "--md").must().stdout
    assert text.startswith("## Sweep whole\n\n**Best: ")
    assert "ollama-sweep run " in text
    assert measured.files() == before


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--html", "there.html"], 2, "there.html: exists; use --force"),
        (["--html", "folder"], 2, "folder: is a folder, not a file"),
        (["--html", "there.html/x.html"], 2, "there.html is not a folder"),
        (["--html", "a\0b"], 2, "no name can hold the character U+0000"),
        (["--html", "/proc/no/r.html"], 4, "/proc/no/r.html"),
        (["nowhere", "--html", "r.html"], 2, "has no sweep nowhere"),
        (["--db", "none.db", "--html", "r.html"], 2, "no database at none.db"),
        (["--md", "--json"], 2, "--md: give one of --md and --json"),
        (["--html", "-", "--json"], 2, "--html: a page on the terminal goes without --json"),
        (["--html", "-", "--out", "results"], 2, "--html: a page on the terminal goes without --out"),
        (["--md", "--html", "r.html"], 2, "--md: give one of --md and --html"),
    ],
)
def test_a_mistake_is_one_line_and_nothing_is_written(
    words: list[str], code: int, message: str, measured: Program
) -> None:
    (measured.folder / "there.html").write_text("mine")
    (measured.folder / "folder").mkdir()
    before = measured.files()
    said = measured("report", *words).must(code)
    assert message in said.stderr
    assert said.stderr.count("\n") == 1
    assert said.stdout == ""
    assert measured.files() == before
    assert (measured.folder / "there.html").read_text() == "mine"


def test_on_a_full_disk_the_old_page_stays(measured: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*given: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    (measured.folder / "r.html").write_text("old")
    before = measured.files()
    monkeypatch.setattr(files, "_write_through", full)
    said = measured("report", "--html", "r.html", "--force").must(StorageError.exit_code)
    assert said.stderr.count("\n") == 1
    assert (measured.folder / "r.html").read_text() == "old"
    assert measured.files() == before


def test_a_pair_has_a_part_for_each_of_its_sweeps(program: Program) -> None:
    config = program.grid(pair={"num_thread": [1, 2]}, num_ctx=[512], repeats=1, warmup=0)
    program("run", config).must()
    for name in ("grid", str(config), None):
        given = [name] if name else []
        program("report", *given, "--html", "r.html", "--force").must()
        page = Page((program.folder / "r.html").read_text("utf-8"))
        check(page)
        assert [one["sweep"] for one in page.data["sweeps"]] == ["grid.a", "grid.b"]
        text = program("report", *given, "--md").must().stdout
        assert re.findall(r"^## Sweep (.*)$", text, re.MULTILINE) == ["grid.a", "grid.b"]


def test_files_and_costs_of_a_report_go_with_a_page(program: Program) -> None:
    config = program.grid(task=["prompt_eval", "chat"], num_ctx=[512], num_batch=[2], repeats=1, warmup=0)
    program("run", config).must()
    said = program("report", "--html", "r.html", "--cost-per-token", "0.001", "--out", "results").must()
    assert said.stdout.splitlines()[0] == "r.html"
    assert any(line.startswith("results/") for line in said.stdout.splitlines())
    page = Page((program.folder / "r.html").read_text("utf-8"))
    check(page)
    assert "Task chat" in page.said
    assert "cost:" in page.said
