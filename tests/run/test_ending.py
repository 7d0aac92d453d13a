"""The end of a sweep: where its files go is tried first, results are said first, and pictures hold up nobody."""

# ruff: noqa: F401, F811 - the fixture is imported, and asked for by its name
from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import pytest
from ollama_fixture import until
from sweep_runner import Started
from sweeping import Program, json_of, program

from ollama_sweep.core.errors import StorageError
from ollama_sweep.results.plots import heatmap

SWEEPS = "select name from sweeps"
STUCK = "import time\nwhile True: time.sleep(1000)\n"


def test_where_the_files_go_is_tried_before_anything_is_measured(program: Program) -> None:
    folder = program.folder
    config = program.grid()
    (folder / "loop").symlink_to("loop")
    (folder / "nowhere").symlink_to("gone")
    os.mkfifo(folder / "fifo")
    (folder / "taken").mkdir()
    (folder / "taken/grid").write_text("a file")
    before = program.files()
    cases = {"grid.yaml": 2, "fifo": 2, "/dev/null": 2, "grid.yaml/x/y": 2, "n" * 300: 2, "nowhere": 2, "taken": 2,
             "loop": 4, "loop/x": 4, "/proc/x": 4}  # fmt: skip
    for out, code in cases.items():
        said = program("run", config, "--out", out).must(code).stderr
        assert said.startswith("error: --out: ")
        assert said.count("\n") == 1
        assert program.files() == before
    assert not program.measured()
    program("run", config, "--out", "new/folder").must()
    assert (folder / "new/folder/grid/results.csv").exists()


@pytest.mark.parametrize("failure", [ValueError("bad\nfigure"), StorageError("no space left")])
def test_a_picture_that_fails_costs_itself(failure: Exception, program: Program) -> None:
    program.draws = True
    with mock.patch.object(heatmap, "render", side_effect=failure):
        ended = program("run", program.grid(num_gpu=[0, 1]), "--json").must()
    told = ended.stdout[ended.stdout.index('{"sweep"') :]
    assert [Path(name).suffix for name in json.loads(told)["files"]] == [".csv"] * 3
    said = ended.stderr
    assert said.index("Best: ") < said.index("Warning: ")
    assert said.count("Warning: ") == 3
    assert "Again with: ollama-sweep heatmap grid\n" in said
    assert "Traceback" not in said
    assert {row["status"] for row in program.rows()} == {"ok"}


@pytest.fixture
def stuck(program: Program) -> dict[str, str]:
    """What a program needs whose drawing never ends."""
    program.draws = True
    (program.folder / "stuck").mkdir()
    (program.folder / "stuck/matplotlib.py").write_text(STUCK)
    return {**program.environment(), "PYTHONPATH": str(program.folder / "stuck")}


def drawing(program: Program, started: Started) -> None:
    """Wait until it draws, which `status` says."""
    until("it is registered", lambda: (program.folder / "sweeps.db").exists() and program.rows_now(SWEEPS) != [])
    until("it draws", lambda: json_of(program("status", "--json"))["waiting"] == "drawing the pictures")
    assert "\nDrawing the pictures\n" in program("status").must().stdout
    assert started.is_running()


WAYS: dict[str, tuple[Callable[[Program, Started], object], int]] = {
    "stop": (lambda program, started: program("stop").must(), 143),
    "stop --now": (lambda program, started: program("stop", "--now").must(), 143),
    "SIGTERM": (lambda program, started: started.kill(signal.SIGTERM), 143),
}


@pytest.mark.parametrize("way", WAYS)
def test_whoever_stops_a_sweep_whose_drawing_is_stuck_ends_it(
    way: str, program: Program, stuck: dict[str, str]
) -> None:
    stop, code = WAYS[way]
    started = program.start("run", program.grid(), env=stuck)
    drawing(program, started)
    stop(program, started)
    ended = started.wait().must(code)
    assert ended.stdout.index("Best: ") < ended.stdout.index("no picture is drawn any more")
    assert "everything is measured and saved" in ended.stderr
    assert {row["status"] for row in program.rows()} == {"ok"}
    assert (program.folder / "heatmaps/grid/results_table.csv").exists()
    assert program.left_running() == []


def test_interim_pictures_that_are_stuck_are_ended_as_well(program: Program, stuck: dict[str, str]) -> None:
    started = program.start("run", program.grid(interim=1), env=stuck)
    drawing(program, started)
    program("stop", "--now").must()
    ended = started.wait().must(143)
    assert "Go on with: ollama-sweep run" in ended.stderr
    assert [row["status"] for row in program.rows()] == ["ok", "pending", "pending", "pending"]
    assert program.left_running() == []
