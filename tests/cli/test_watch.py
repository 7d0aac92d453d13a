"""`watch` on a terminal of its own, and the small map that it draws."""

# ruff: noqa: F401, F811 - fixtures are imported, and asked for by their names
from __future__ import annotations

import math
import os
import termios
from pathlib import Path

import pytest
from detached_runs import call, detached, ended
from hypothesis import given, settings
from hypothesis import strategies as st
from ollama_fixture import until
from results_maker import Recipe, large, make, result
from sweeping import Program, label, program
from terminals import Terminal, gate, measuring, terminals
from watched import ESCAPES, last_frame, resize, shows, watching

from ollama_sweep.cli.map import Look, draw, height_of
from ollama_sweep.core.outcome import CellResult, Status
from ollama_sweep.core.surface.factor import Pair, factors
from ollama_sweep.core.surface.places import Place
from ollama_sweep.core.surface.scouted import Expected
from ollama_sweep.results.likely.scouted import ScoutedMap
from ollama_sweep.results.plots import PlotOptions, heatmap

# -- live ------------------------------------------------------------------------------------------------------------


def test_watch_follows_the_sweep_and_q_leaves_it_alone(program: Program, terminals: list[Terminal], gate: Path) -> None:
    running = detached(program, program.grid())
    measuring(program)
    terminal = watching(program, terminals)
    until("the running cell", lambda: shows(terminal, f"Now: {label(512, 2)}, for "))
    assert shows(terminal, "▶ now")
    assert shows(terminal, "q or Ctrl-C leaves, the sweep goes on")
    os.write(terminal.master, b"q")
    assert terminal.wait() == 0
    assert f"The sweep goes on (pid {running.pid})" in terminal.shown
    assert terminal.shown.count("\x1b[?1049h") == terminal.shown.count("\x1b[?1049l") == 1
    gate.touch()
    ended(running)
    assert {row["status"] for row in program.rows()} == {"ok"}


def test_ctrl_c_leaves_it_alone_as_well_and_the_keyboard_is_as_before(
    program: Program, terminals: list[Terminal], gate: Path
) -> None:
    running = detached(program, program.grid())
    terminal = watching(program, terminals)
    before = termios.tcgetattr(terminal.master)
    until("a frame", lambda: shows(terminal, "Sweep grid on fake"))
    terminal.press_ctrl_c()
    assert terminal.wait() == 0
    assert termios.tcgetattr(terminal.master) == before
    assert running.is_running()
    assert "Traceback" not in terminal.shown


def test_new_cells_appear_by_themselves(program: Program, terminals: list[Terminal], gate: Path) -> None:
    running = detached(program, program.grid())
    terminal = watching(program, terminals)
    until("the first frame", lambda: shows(terminal, "0 of 4 cells done"))
    gate.touch()
    until("the last cell", lambda: shows(terminal, "4 of 4 cells done"))
    until("the whole map", lambda: shows(terminal, "★ best") and not shows(terminal, "to do"))
    ended(running)
    os.write(terminal.master, b"q")
    assert terminal.wait() == 0
    assert "No sweep runs now" in terminal.shown


@pytest.mark.parametrize("size", [(20, 24), (20, 6), (12, 4), (200, 60), (1, 1)])
def test_every_size_of_terminal_is_survived(program: Program, terminals: list[Terminal], size: tuple[int, int]) -> None:
    program("run", program.grid(num_ctx=[512, 1024, 2048])).must()
    terminal = watching(program, terminals, size=size)
    until("a frame of this size", lambda: 0 < len(last_frame(terminal)) <= max(size[1], 2))
    if size[0] >= 20:
        until("no line is wider", lambda: all(len(line) <= size[0] for line in last_frame(terminal)))
        assert shows(terminal, "Sweep grid on fake")
    os.write(terminal.master, b"q")
    assert terminal.wait() == 0
    assert "Traceback" not in terminal.shown


def test_a_smaller_window_gets_a_smaller_picture(program: Program, terminals: list[Terminal]) -> None:
    program("run", program.grid(num_ctx=[512, 1024, 2048])).must()
    terminal = watching(program, terminals)
    until("the wide picture", lambda: shows(terminal, "batch\\ctx"))
    resize(terminal, 30, 20)
    until("the narrow picture", lambda: max(map(len, last_frame(terminal)), default=99) <= 30)
    os.write(terminal.master, b"q")
    assert terminal.wait() == 0


def test_without_a_terminal_it_prints_once_and_without_colours(program: Program) -> None:
    program("run", program.grid()).must()
    said = call(program, "watch").must().stdout
    assert "4 of 4 cells done" in said
    assert "★ best" in said
    assert "\x1b" not in said


def test_in_ascii_nothing_is_lost(program: Program) -> None:
    program.script(cells={label(512, 4): ["cuda_oom"]})
    program("run", program.grid()).must()
    said = call(program, "watch", PYTHONIOENCODING="ascii").must().stdout
    assert "* best" in said
    assert "x failed" in said
    assert said.isascii()


def test_wrong_words_are_one_line(program: Program, terminals: list[Terminal]) -> None:
    assert program("watch").must(2).stderr.startswith("error: no database at sweeps.db")
    program("run", program.grid()).must()
    assert "no sweep gird" in program("watch", "gird").must(2).stderr
    terminal = watching(program, terminals, "--metric", "nonsense")
    assert terminal.wait() == 2
    assert "\x1b[?1049l" in terminal.shown
    assert "error: " in terminal.shown.partition("\x1b[?1049l")[2]


# -- the map ---------------------------------------------------------------------------------------------------------


def the_map(results: list[CellResult], width: int, height: int, **look: bool) -> list[str]:
    return draw(heatmap.collect(results, PlotOptions())[0], Look(width, height, **look))


def test_values_stand_in_the_cells_where_there_is_room() -> None:
    lines = the_map([result(512, 2, 80.5), result(512, 4, 133.0), result(1024, 2, 81.5), result(1024, 4, None)], 60, 10)
    assert lines[0].split() == ["batch\\ctx", "512", "1024"]
    assert lines[1].split() == ["2", "80.5", "81.5"]
    assert lines[2].split() == ["4", "★", "133", "·"]
    assert lines[3] == "80.5 to 133 tokens/s, ★ best, · to do"


def test_without_room_a_digit_says_how_fast_a_cell_is() -> None:
    cells = [result(512 * column, 2, 100.0 * column) for column in range(1, 11)]
    lines = the_map(cells, 24, 10, ascii_only=True)
    assert lines[1].replace(" ", "") == "2012345678*"


def test_failures_and_the_running_cell_have_signs_of_their_own() -> None:
    failed, running, skipped = (
        result(512, batch, None, status=status)
        for batch, status in ((2, Status.OOM), (4, Status.STARTED), (8, Status.SKIPPED))
    )
    lines = the_map([failed, running, skipped], 50, 10)
    assert [line.split()[1] for line in lines[1:4]] == ["✗", "▶", "–"]
    assert lines[4] == "▶ now, ✗ failed, – skipped"
    assert "".join(the_map([failed, running, skipped], 50, 10, ascii_only=True)).isascii()


def likely(*others: CellResult) -> heatmap.HeatmapData:
    """Four measured cells, and a fifth that a scout puts at 250 tokens/s."""
    cells = [result(512 * column, 2, 100.0 * column) for column in range(1, 5)]
    cells.append(result(4096, 2, None, row={"position": 4}))
    both_ways = [Pair(Place(at, 512, at), math.log(0.96)) for at in range(12)]
    scouted = ScoutedMap("grid.scout", (factors(both_ways),), {4: Expected(math.log(250), 0.02)}, 1)
    (data,) = heatmap.collect([*cells, *others], PlotOptions(predicts=True, scouted=scouted))
    return data


def test_a_scouted_cell_stands_in_brackets_and_a_line_has_the_factor() -> None:
    lines = draw(likely(), Look(79, 10))
    assert lines[1].split() == ["2", "100", "200", "300", "★", "400", "(250)"]
    assert lines[-1] == "(…) not measured, but scouted by context swap, times 0.960 ± 0.0 % (12 cells)"
    assert len(draw(likely(), Look(79, height_of(likely())))) == height_of(likely())


def test_without_room_a_scouted_cell_has_a_sign_of_its_own_with_and_without_colours() -> None:
    for coloured in (False, True):
        lines = draw(likely(), Look(24, 10, colour=coloured))
        assert "○" in lines[1]
        assert lines[-1].startswith("○ scouted by context")
    assert "o" in draw(likely(), Look(24, 10, ascii_only=True))[1]
    assert "".join(draw(likely(), Look(79, 10, ascii_only=True))).isascii()


def test_a_group_of_cells_is_what_was_measured_of_it() -> None:
    data = likely(*(result(512 * column, 2, None) for column in range(9, 60)))
    assert "○" not in "".join(draw(data, Look(12, 10))), "a scouted cell beside a measured one"


def test_a_grid_wider_than_the_terminal_is_drawn_in_groups() -> None:
    wide, narrow = the_map(large(), 120, 40), the_map(large(), 20, 8)
    assert len(wide) == 18
    assert len(narrow) <= 8
    assert all(len(line) <= 20 for line in narrow)
    assert "32768" in wide[0]
    assert "110592" in wide[0]


def test_colours_change_nothing_but_the_colours() -> None:
    plain, coloured = the_map(large(), 120, 40), the_map(large(), 120, 40, colour=True)
    assert "\x1b[48;5;" in "".join(coloured)
    for line, other in zip(plain, coloured, strict=True):
        assert len(ESCAPES.sub("", other)) >= len(line)


@pytest.mark.parametrize("results", [[], [result(512, 2, None)], [result(512, 2, None, status=Status.OOM)]])
def test_a_map_of_nothing_measured_is_no_error(results: list[CellResult]) -> None:
    lines = the_map(results, 40, 10)
    assert lines == [] or len(lines) == 3


@settings(max_examples=40)
@given(st.integers(1, 70), st.integers(1, 40), st.integers(0, 130), st.integers(0, 50), st.booleans(), st.booleans())
def test_no_map_is_larger_than_its_place(
    columns: int, rows: int, width: int, height: int, colour: bool, ascii_only: bool
) -> None:
    recipe = Recipe(range(1024, 1024 * (columns + 1), 1024), range(64, 64 * (rows + 1), 64))
    lines = the_map(make(recipe), width, height, colour=colour, ascii_only=ascii_only)
    assert len(lines) <= max(0, height)
    assert all(len(ESCAPES.sub("", line)) <= width for line in lines)
    assert not ascii_only or "".join(lines).isascii()
