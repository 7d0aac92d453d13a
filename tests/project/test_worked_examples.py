"""The examples of docs/architecture.md as they stand there: an engine, a task, a plot, a command are one file each."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from ollama_fixture import ROOT, clean_environment
from sweep_runner import Sweep

PAGE = (ROOT / "docs" / "architecture.md").read_text("utf-8")
EXAMPLES = dict(re.findall(r"^```\w+\n# (\S+)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL))
"""By the name of their file."""
MODULES = ("toy_engine.py", "toy_task.py", "toy_plot.py")
LONGEST = 40


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sweep]:
    """A sweep of the toy engine and the toy task, which a package beside ours adds."""
    folder = tmp_path_factory.mktemp("toy")
    for name in (*MODULES, "toy.yaml"):
        (folder / name).write_text(EXAMPLES[name], "utf-8")
    info = folder / "toy-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: toy\nVersion: 1.0\n", "utf-8")
    (info / "entry_points.txt").write_text(EXAMPLES["entry_points.txt"], "utf-8")
    with closing(Sweep(folder)) as sweep:
        sweep("run", "toy.yaml", env=path_of(sweep)).must()
        yield sweep


def path_of(sweep: Sweep) -> dict[str, str]:
    """The package of the toys can be found."""
    return {"PYTHONPATH": str(sweep.folder)}


def test_the_examples_are_short() -> None:
    lengths = {name: len(EXAMPLES[name].splitlines()) for name in (*MODULES, "hello.py")}
    assert {name: length for name, length in lengths.items() if not 20 <= length <= LONGEST} == {}


def test_the_toy_engine_measures(measured: Sweep) -> None:
    rows = [row for row in measured.rows() if row["task"] == "prompt_eval"]
    assert [(row["engine"], row["status"], row["num_batch"], row["flags"]) for row in rows] == [
        ("toy", "ok", 2, ""),
        ("toy", "ok", 4, ""),
    ]
    assert [row["prompt_eval_rate"] for row in rows] == pytest.approx([200, 400])


def test_the_toy_task_judges_and_its_own_number_is_a_column(measured: Sweep) -> None:
    rows = [row for row in measured.rows() if row["task"] == "toy"]
    assert [(row["status"], row["answers"]) for row in rows] == [("ok", 6), ("ok", 6)]
    assert all(0 < row["score"] <= row["best_score"] < 1 for row in rows)


def test_a_mistake_in_an_option_of_the_toy_task_has_its_line(measured: Sweep) -> None:
    config = measured.folder / "wrong.yaml"
    config.write_text(EXAMPLES["toy.yaml"].replace("letters", "leters"), "utf-8")
    said = measured("run", config, env=path_of(measured)).must(2).stderr
    assert "wrong.yaml:8: tasks.toy: unknown option leters" in said
    assert "Did you mean letters?" in said


def test_the_toy_plot_draws(measured: Sweep) -> None:
    path = measured("plot", "toy", env=path_of(measured)).must().stdout.strip()
    assert path.endswith("toy.png")
    assert (measured.folder / path).read_bytes().startswith(b"\x89PNG")
    listed = measured("plot", "--list", env=path_of(measured)).must().stdout
    assert "How quickly each num_batch reads the prompt" in listed


def test_doctor_and_models_know_the_toy_engine(measured: Sweep) -> None:
    env = {**path_of(measured), "OLLAMA_HOST": "127.0.0.1:1"}
    assert "toy 1.0 would measure (in this process)" in measured("doctor", "toy.yaml", env=env).must().stdout
    said = measured("models", "--engine", "toy", env=env).must().stdout
    assert said == "No model is installed for toy 1.0 at in this process\n"


def test_a_command_is_one_file_on_a_copy_of_the_package(measured: Sweep, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "ollama_sweep", tmp_path / "ollama_sweep", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "sweep.py", tmp_path)
    (tmp_path / "ollama_sweep" / "cli" / "commands" / "hello.py").write_text(EXAMPLES["hello.py"], "utf-8")

    def call(*words: str) -> str:
        argv = [sys.executable, str(tmp_path / "sweep.py"), *words]
        env = clean_environment()
        done = subprocess.run(argv, cwd=measured.folder, env=env, check=True, capture_output=True, text=True)
        return done.stdout

    assert call("hello") == "Hello, toy!\n"
    assert call("hello", "--json") == '["toy"]\n'
    assert re.search(r"^  hello +Greet the sweeps of a database\.$", call("--help"), re.MULTILINE)
    assert "Say hello to every sweep." in call("hello", "--help")
