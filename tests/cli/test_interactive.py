"""`run --interactive`: what a person at a terminal is asked, what is made of the answers, and when nothing is asked."""

from __future__ import annotations

import contextlib
import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import forked
import pytest
import yaml
from ollama_fixture import clean_environment, until
from sweep_runner import ONE_LOAD, stands_at
from sweeping import WORDS, Program

__all__ = ["program"]

from sweeping import program  # the fixture

TASKS, MODELS = "Which tasks", "Which models"
CTX, BATCH, SAVE = "num_ctx (", "num_batch (", "Save it as"
LONGEST_S = 120.0


class Person:
    """A person at a terminal of their own: sees everything that is printed, and types."""

    def __init__(self, program: Program, *words: str | Path) -> None:
        self._master, slave = pty.openpty()
        self._child = forked.child(
            [sys.executable, str(program.file), *map(str, words)],
            folder=program.folder,
            env={**clean_environment(), **program.environment(), "TERM": "dumb"},
            stdin=slave,
            stdout=slave,
            stderr=slave,
            on_terminal=True,
        )
        os.close(slave)
        self.seen = ""
        self._read = 0

    def wait_for(self, text: str) -> None:
        """Until this stands on the screen, after what was waited for before."""
        deadline = time.monotonic() + LONGEST_S
        while text not in self.seen[self._read :]:
            assert time.monotonic() < deadline, f"waited for {text!r}:\n{self.seen}"
            assert self._look(), f"ended before {text!r}:\n{self.seen}"
        self._read = self.seen.index(text, self._read) + len(text)

    def _look(self) -> bool:
        """Take what is new on the screen; false where the program has ended."""
        if not select.select([self._master], [], [], 0.1)[0]:
            return True
        try:
            new = os.read(self._master, 65536)
        except OSError:
            return False
        self.seen += new.decode("utf-8", "replace").replace("\r\n", "\n")
        return bool(new)

    def answer(self, question: str, text: str = "") -> None:
        """Wait for a question, then type the answer and Enter."""
        self.wait_for(question)
        self.wait_for(": ")
        os.write(self._master, f"{text}\n".encode())

    def press(self, question: str, key: bytes) -> None:
        """Wait for a question, then press a key alone."""
        self.wait_for(question)
        self.wait_for(": ")
        os.write(self._master, key)

    def interrupt(self, question: str) -> None:
        """Wait for a question, then Ctrl-C."""
        self.wait_for(question)
        self.wait_for(": ")
        self._wait_until_it_reads()
        self._child.send_signal(signal.SIGINT)

    def _wait_until_it_reads(self) -> None:
        """Python sees a signal that comes between the prompt and its read only after the next key, as at any prompt."""
        until("the program reads the terminal", lambda: stands_at(self._child.pid, 0))

    def end(self) -> int:
        """The exit code."""
        deadline = time.monotonic() + LONGEST_S
        while self._look():
            assert time.monotonic() < deadline, f"did not end:\n{self.seen}"
            if self._child.poll() is not None and not select.select([self._master], [], [], 0)[0]:
                break
        return self._child.wait(LONGEST_S)

    def close(self) -> None:
        if self._child.poll() is None:
            self._child.kill()
            self._child.wait(LONGEST_S)
        with contextlib.suppress(OSError):
            os.close(self._master)


@pytest.fixture
def person(program: Program) -> Iterator[list[Person]]:
    """People that a test lets sit down."""
    there: list[Person] = []
    yield there
    for one in there:
        one.close()


def sit_down(person: list[Person], program: Program, *words: str | Path) -> Person:
    person.append(Person(program, "run", *words))
    return person[-1]


def yaml_on(screen: str) -> dict[str, object]:
    """The sweep file that was shown."""
    text = screen.split("The same as a sweep file:\n\n")[1].split("\nSave it as")[0]
    found = yaml.safe_load(text)
    assert isinstance(found, dict)
    return found


def test_enter_at_every_question_measures(program: Program, person: list[Person]) -> None:
    program.script(models=["m", "n"])
    one = sit_down(person, program, "--interactive", "--engine", "fake")
    for question in (TASKS, MODELS, CTX, BATCH, SAVE):
        one.answer(question)
    assert one.end() == 0, one.seen
    assert "Machine: " in one.seen
    assert "How fast the model reads a prompt" in one.seen
    shown = {"name": "interactive", "engine": "fake", "model": "m", "task": "prompt_eval"}
    assert yaml_on(one.seen) == {**shown, "prompt": {"tokens": 1024}, "num_ctx": 4096, "num_batch": 512}
    (row,) = program.rows()
    assert (row["sweep"], row["model"], row["status"], row["num_ctx"]) == ("interactive", "m", "ok", 4096)


def test_numbers_and_names_and_a_file_to_keep(program: Program, person: list[Person]) -> None:
    program.script(models=["m", "n"])
    one = sit_down(person, program, "--interactive", "--engine", "fake")
    one.answer(TASKS, "prompt_eval")
    one.answer(MODELS, "2, m")
    one.answer(CTX, "512, 1024")
    one.answer(BATCH, "{start: 2, end: 4, factor: 2}")
    one.answer(SAVE, "kept.yaml")
    assert one.end() == 0, one.seen
    found = program.rows()
    assert {(row["model"], row["num_ctx"], row["num_batch"]) for row in found} == {
        (model, ctx, batch) for model in "mn" for ctx in (512, 1024) for batch in (2, 4)
    }
    assert {row["sweep"] for row in found} == {"interactive"}
    kept = program.folder / "kept.yaml"
    assert yaml.safe_load(kept.read_text("utf-8")) == yaml_on(one.seen)
    before = program.measured()
    program("run", kept).must()
    assert program.measured() == before, "the file is the same sweep, so nothing is measured again"


def test_the_file_gives_the_defaults(program: Program, person: list[Person]) -> None:
    program.script(models=["m", "n"])
    tasks = {"chat": {"num_predict": 5, "limit": 1}, "items": {"limit": 1}}
    given: dict[str, Any] = {
        "model": ["n", "m"],
        "task": ["prompt_eval", "chat", "items"],
        "tasks": tasks,
        "repeats": 2,
        "warmup": 0,
    }
    config = program.grid(**given)
    one = sit_down(person, program, config, "--interactive")
    one.answer(TASKS, "chat prompt_eval")
    for question in (MODELS, CTX, BATCH, SAVE):
        one.answer(question)
    assert one.end() == 0, one.seen
    assert yaml_on(one.seen) == {
        "engine": "fake",
        "model": ["n", "m"],
        "task": ["chat", "prompt_eval"],
        "tasks": {"chat": {"num_predict": 5, "limit": 1}},
        "prompt": {"text": WORDS},
        "num_ctx": [512, 1024],
        "num_batch": [2, 4],
        "repeats": 2,
        "warmup": 0,
        **ONE_LOAD,
    }
    assert {row["sweep"] for row in program.rows()} == {"grid"}
    assert {row["task"] for row in program.rows()} == {"chat", "prompt_eval"}


def test_sizes_are_not_asked_without_the_main_task(program: Program, person: list[Person]) -> None:
    one = sit_down(person, program, "--interactive", "--engine", "fake", "--set", "tasks.chat.limit=1")
    one.answer(TASKS, "chat")
    one.answer(MODELS)
    one.answer(SAVE)
    assert one.end() == 0, one.seen
    assert CTX not in one.seen
    assert [row["task"] for row in program.rows()] == ["chat"]


def test_a_wrong_answer_is_asked_again(program: Program, person: list[Person]) -> None:
    program.script(models=["mistral", "qwen"])
    one = sit_down(person, program, "--interactive", "--engine", "fake")
    one.answer(TASKS, "prompt_evl")
    one.wait_for("Did you mean prompt_eval?")
    one.answer(TASKS, "99")
    one.answer(TASKS)
    one.answer(MODELS, "mistrl")
    one.wait_for("Did you mean mistral?")
    one.answer(MODELS, "all, qwen")
    one.wait_for("all alone")
    one.answer(MODELS, "all")
    one.answer(CTX, "many")
    one.wait_for("write whole numbers")
    one.answer(CTX, "64")
    one.answer(BATCH, "8")
    one.answer(SAVE, "nowhere/x.yaml")
    one.wait_for("nowhere is no folder")
    one.answer(SAVE)
    assert one.end() == 0, one.seen
    assert [row["model"] for row in program.rows()] == ["mistral", "qwen"]
    assert "Traceback" not in one.seen


def test_data_that_a_task_lacks_is_asked_for(program: Program, person: list[Person]) -> None:
    (program.folder / "mine.csv").write_text("How much is 1+1?,1,2,3,4,B\n", "utf-8")
    one = sit_down(person, program, "--interactive", "--engine", "fake")
    one.answer(TASKS, "mmlu")
    one.wait_for("mmlu needs data")
    one.answer("Path of the data for mmlu", "gone.csv")
    one.wait_for("file not found")
    one.answer("Path of the data for mmlu", "mine_test.csv")
    one.wait_for("Did you mean mine.csv?")
    (program.folder / "mine.csv").rename(program.folder / "mine_test.csv")
    one.answer("Path of the data for mmlu", "mine_test.csv")
    one.answer(MODELS)
    one.answer(SAVE)
    assert one.end() == 0, one.seen
    assert [(row["task"], row["status"]) for row in program.rows()] == [("mmlu", "ok")]


@pytest.mark.parametrize("question", [TASKS, MODELS, CTX, SAVE])
@pytest.mark.parametrize("how", ["ctrl-c", "ctrl-d"])
def test_leaving_makes_nothing(program: Program, person: list[Person], question: str, how: str) -> None:
    one = sit_down(person, program, "--interactive", "--engine", "fake")
    questions = [TASKS, MODELS, CTX, BATCH, SAVE]
    for before in questions[: questions.index(question)]:
        one.answer(before)
    if how == "ctrl-c":
        one.interrupt(question)
    else:
        one.press(question, b"\x04")
    assert one.end() == 130
    assert one.seen.rstrip().endswith("error: stopped")
    assert "Traceback" not in one.seen
    assert program.files() <= {"journal.txt"}


@pytest.mark.parametrize("config", [True, False])
def test_without_a_terminal_nothing_is_asked(program: Program, config: bool) -> None:
    words = [program.grid()] if config else []
    before = program.files()
    ended = program("run", *words, "--interactive", "--engine", "fake").must(2)
    assert ended.stderr.startswith("error: --interactive: needs a terminal")
    assert ended.stdout == ""
    assert program.files() == before


def test_a_file_as_input_is_no_terminal(program: Program) -> None:
    """stdout may be a terminal while stdin is not: `run --interactive < answers`."""
    master, slave = pty.openpty()
    try:
        done = subprocess.run(
            [sys.executable, str(program.file), "run", "--interactive", "--engine", "fake"],
            cwd=program.folder,
            env={**clean_environment(), **program.environment()},
            stdin=subprocess.DEVNULL,
            stdout=slave,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            timeout=LONGEST_S,
        )
    finally:
        os.close(slave)
        os.close(master)
    assert done.returncode == 2
    assert "needs a terminal" in done.stderr


@pytest.mark.parametrize("option", ["--detach", "--json"])
def test_options_for_nobody_are_refused(program: Program, option: str) -> None:
    ended = program("run", program.grid(), "--interactive", option).must(2)
    assert f"not together with {option}" in ended.stderr
    assert "sweeps.db" not in program.files()
