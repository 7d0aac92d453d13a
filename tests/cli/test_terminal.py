"""What a terminal is shown: other people's words stay as they are, numbers stay whole, and no terminal ends a sweep."""

from __future__ import annotations

import contextlib
import errno
import io
import re

import pytest

from ollama_sweep.cli.progress import Progress
from ollama_sweep.cli.tables import aligned, table
from ollama_sweep.core.cell import Cell
from ollama_sweep.core.events import CellStarted, Notice, RunFinished, SweepFinished, SweepStarted

ROWS = [
    ("NAME", "SIZE", "CAN"),
    ("[red]a[/red]", "4.7 GiB", "answer, embed"),
    (":smile:", "93.5 MiB", "cannot read \\[x] of it"),
]
SIZES = (("num_ctx", 512), ("num_batch", 2))
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Screen(io.StringIO):
    """A terminal that remembers what it was sent."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        return True

    def words(self) -> str:
        return ESCAPES.sub("", self.getvalue())


class Gone(Screen):
    """A terminal whose window was closed."""

    def write(self, text: str) -> int:
        raise OSError(errno.EIO, "Input/output error")


class Ascii(Screen):
    encoding = "ascii"


@pytest.fixture
def columns(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.setenv("TERM", "xterm")
    return monkeypatch


def measured(screen: Screen) -> Screen:
    """What a cell's events left on a screen."""
    tell = Progress(screen)
    cell = Cell(SIZES, "m", SIZES)
    for event in (
        SweepStarted("grid", 4, 1, seconds_left=75.0),
        CellStarted(cell, 1),
        RunFinished(cell, 2, warmup=False, rate=133.0),
        Notice("[bold]m[/bold] :smile: said ✗"),
        SweepFinished("grid", stopped=False),
    ):
        tell(event)
    tell.close()
    return screen


def test_on_paper_a_table_is_aligned_text() -> None:
    assert table(ROWS, left=3) == aligned(ROWS, left=3)


@pytest.mark.parametrize("width", [20, 30, 40, 80, 200])
def test_no_cell_of_a_table_is_cut_or_read_as_markup(width: int, columns: pytest.MonkeyPatch) -> None:
    columns.setenv("COLUMNS", str(width))
    with contextlib.redirect_stdout(Screen()):
        shown = [ESCAPES.sub("", line) for line in table(ROWS, left=1, indent="  ")]
    assert max(map(len, shown)) <= width
    for row in ROWS[1:]:
        for word in " ".join(row).split():
            assert any(word in line for line in shown), (word, shown)


def test_the_live_line_says_how_far_it_is_and_other_words_stay_as_they_are(columns: pytest.MonkeyPatch) -> None:
    columns.setenv("COLUMNS", "120")
    shown = measured(Screen()).words()
    assert "1/4" in shown
    assert "1 min 15 s left  num_ctx 512, num_batch 2  run 2, 133 tokens/s" in shown
    assert "[bold]m[/bold] :smile: said ✗\n" in shown


@pytest.mark.parametrize("width", ["1", "5", "20", "80"])
def test_the_live_line_is_never_wider_than_the_terminal(width: str, columns: pytest.MonkeyPatch) -> None:
    columns.setenv("COLUMNS", width)
    lines = [line for line in re.split(r"[\r\n]+", measured(Screen()).words()) if "[bold]" not in line]
    assert max(map(len, lines)) <= int(width)


def test_the_cursor_is_never_left_hidden(columns: pytest.MonkeyPatch) -> None:
    sent = measured(Screen()).getvalue()
    assert sent.rfind("\x1b[?25h") > sent.rfind("\x1b[?25l")
    assert "\x1b[?25l\x1b[?25h" in sent, "a killed program could not bring it back"


def test_in_ascii_the_live_line_is_ascii(columns: pytest.MonkeyPatch) -> None:
    assert measured(Ascii()).getvalue().isascii()


def test_a_dumb_terminal_gets_the_lines_of_a_file(columns: pytest.MonkeyPatch) -> None:
    columns.setenv("TERM", "dumb")
    sent = measured(Screen()).getvalue()
    assert "\x1b" not in sent
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d  \[bold\]m\[/bold\] :smile: said ✗\n", sent)


def test_a_terminal_that_is_gone_ends_no_sweep(columns: pytest.MonkeyPatch) -> None:
    measured(Gone())
