"""`completion`: what shells read, and what they are offered; a shell's question makes and breaks nothing."""

# ruff: noqa: F401, F811 - the fixture is imported, and asked for by its name
from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
from click.shell_completion import get_completion_class
from ollama_fixture import clean_environment, skip_outside_ci
from sweeping import Program, program

from ollama_sweep.cli import COMMANDS, PROGRAM, cli
from ollama_sweep.cli.completing import SHELLS


def offered(program: Program, *words: str) -> list[str]:
    """What bash is offered for the last word of a line."""
    made = get_completion_class("bash")
    assert made is not None
    asked = made(cli, {}, PROGRAM, "_OLLAMA_SWEEP_COMPLETE")
    with contextlib.chdir(program.folder), warnings.catch_warnings():
        warnings.simplefilter("error")
        return [asked.format_completion(item) for item in asked.get_completions(list(words[:-1]), words[-1])]


@pytest.fixture
def measured(program: Program) -> Program:
    for name in ("first", "second", "$(touch x)"):
        config = program.grid()
        config.write_text(f"{config.read_text('utf-8')}\nname: {name!r}\n", "utf-8")
        program("run", config).must()
    return program


@pytest.mark.parametrize("shell", SHELLS)
def test_each_shell_can_read_its_script(shell: str, program: Program) -> None:
    said = program("completion", shell).must().stdout
    assert f"_OLLAMA_SWEEP_COMPLETE={shell}_complete" in said
    there = shutil.which(shell)
    if there is None:
        skip_outside_ci(f"{shell} is not on this computer")
    subprocess.run([there, "-n", "/dev/stdin"], input=said, text=True, check=True, capture_output=True)


def test_bash_completes_a_word(measured: Program) -> None:
    """The whole way: the script of `completion`, the shell's own function, the program as it is installed."""
    bash = shutil.which("bash")
    if bash is None:
        skip_outside_ci("bash is not on this computer")
    asked = f"""{measured("completion", "bash").must().stdout}
compopt() {{ :; }}
COMP_WORDS=(ollama-sweep status fi) COMP_CWORD=2
_ollama_sweep_completion "$1"
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
    program = Path(sys.executable).parent / PROGRAM
    done = subprocess.run(
        [bash, "-c", asked, "bash", str(program)],
        cwd=measured.folder, env=clean_environment(), text=True, check=True, capture_output=True,
    )  # fmt: skip
    assert (done.stdout.splitlines(), done.stderr) == (["first"], "")


def test_fish_says_all_that_a_command_is_for(program: Program) -> None:
    fish = shutil.which("fish")
    if fish is None:
        skip_outside_ci("fish is not on this computer")
    asked = f"{program('completion', 'fish').must().stdout}\ncomplete --do-complete '{PROGRAM} stat'"
    environment = clean_environment()
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
    done = subprocess.run(
        [fish, "--no-config", "-c", asked],
        cwd=program.folder, env=environment, text=True, check=True, capture_output=True,
    )  # fmt: skip
    assert done.stdout == "status\tCounts, the running cell, rate, time left.\n"


def test_without_a_shell_one_line_names_them(program: Program) -> None:
    said = program("completion").must(2).stderr.splitlines()
    assert said[1] == "error: Missing argument '{bash|zsh|fish}'. Choose from: bash, zsh, fish"
    assert len(said) == 3


def test_commands_and_options(program: Program) -> None:
    assert offered(program, "") == [f"plain,{name}" for name in COMMANDS]
    assert offered(program, "completion", "") == [f"plain,{shell}" for shell in SHELLS]
    assert "plain,--metric" in offered(program, "best", "--")
    assert offered(program, "status", "--db", "") == ["file,"]
    assert offered(program, "plot", "heatmap", "--out", "") == ["dir,"]
    assert program.files() == set()


def test_names_of_sweeps_and_only_such_as_mean_nothing_to_a_shell(measured: Program) -> None:
    for command in ("status", "run", "export", "compare", "plot heatmap", "explain 1 --sweep"):
        assert offered(measured, *command.split(), "") == ["file,", "plain,second", "plain,first"], command
    assert offered(measured, "status", "fir") == ["file,fir", "plain,first"]
    assert offered(measured, "status", "--db", "other.db", "") == ["file,"]


def test_metrics_dimensions_keys_engines_and_plots(program: Program) -> None:
    assert "plain,prompt_eval_rate" in offered(program, "best", "--metric", "")
    assert offered(program, "plot", "grid", "--x", "num_b") == ["plain,num_batch"]
    assert offered(program, "run", "--set", "quiet") == ["plain,quiet_hours="]
    assert offered(program, "run", "--engine", "libl") == ["plain,libllama"]
    assert offered(program, "plot", "drif") == ["plain,drift"]


@pytest.mark.parametrize("content", [b"", b"no database", b"SQLite format 3\0" + bytes(200)])
def test_a_database_that_cannot_be_read_has_no_names(content: bytes, program: Program) -> None:
    (program.folder / "sweeps.db").write_bytes(content)
    assert offered(program, "status", "") == ["file,"]
    assert program.files() == {"sweeps.db"}
