"""A program that is forked for a test is what a child of its own would be."""

# ruff: noqa: F401, F811 - the fixture is imported, and asked for by its name
from __future__ import annotations

import os
import subprocess
import sys

import forked
import psutil
import pytest
from ollama_fixture import MARK, clean_environment, until
from sweep_runner import Ended
from sweeping import Program, program

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="nothing is forked here")


@pytest.mark.parametrize("is_forked", [True, False])
def test_it_has_words_environment_folder_and_group(
    is_forked: bool, program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not is_forked:
        monkeypatch.setattr(forked, "_server", lambda: None)
    gate = program.folder / "gate"
    program.script(gate=str(gate))
    started = program.start("run", program.grid(), env=program.environment())
    until("it measures", lambda: program.measured() or None)
    process = psutil.Process(started.pid)
    assert (process.ppid() != os.getpid()) == is_forked
    assert process.cmdline() == [sys.executable, str(program.file), "run", str(program.grid())]
    assert process.environ() == {**clean_environment(), **program.environment(), MARK: program.mark}
    assert process.cwd() == str(program.folder)
    assert os.getpgid(started.pid) == os.getpgid(0)
    assert program.left_running() == [" ".join(process.cmdline())]
    gate.touch()
    assert "1/4" in started.wait().must().stdout
    assert not program.left_running()


def test_it_says_the_same_and_ends_with_the_same_code(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    def said() -> list[Ended]:
        commands = ("--version", "status", "run --help", "no")
        return [program.start(*words.split(), env=program.environment()).wait() for words in commands]

    found = said()
    monkeypatch.setattr(forked, "_server", lambda: None)
    assert found == said()
    assert [ended.returncode for ended in found] == [0, 2, 0, 2]


@pytest.mark.parametrize("changed", [{"TZ": "Asia/Tokyo"}, {"LARGE": "x" * forked.ROOM_BYTES}], ids=min)
def test_what_a_fork_cannot_have_is_a_child_of_its_own(changed: dict[str, str], program: Program) -> None:
    started = program.start("--version", env={**program.environment(), **changed})
    assert psutil.Process(started.pid).ppid() == os.getpid()
    started.wait().must()


def test_a_wait_has_its_end(program: Program) -> None:
    program.script(gate=str(program.folder / "gate"))
    started = program.start("run", program.grid(), env=program.environment())
    with pytest.raises(subprocess.TimeoutExpired):
        started.wait(timeout_s=0.01)
