"""One sweep on its own real Ollama meets every sudden end and every hang, and still ends with right numbers."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import psutil
import pytest
from ollama_fixture import ROOT, PromptRead, Servers, is_answering, prompts_by_load, stand_still, until
from sweep_runner import ONE_LOAD, Started, Sweep

pytestmark = [pytest.mark.real, pytest.mark.timeout(1800)]

PROMPT = {"text": (ROOT / "prompts" / "p.txt").read_text("utf-8")[:160]}
PATIENCE_S = 400.0
TIMEOUT_S = 20
"""Of one run, which takes a second on one thread; several threads on a busy machine wait for one another."""
LONG_ENOUGH_S = 2.0
CLIENT, RUNNER, SERVER, SWEEP = "ollama run", "llama-server", "ollama serve", "sweep.py"
FAULTS = [
    (signal.SIGKILL, CLIENT),
    (signal.SIGKILL, RUNNER),
    (signal.SIGKILL, SERVER),
    (signal.SIGSTOP, RUNNER),
    (signal.SIGSTOP, CLIENT),
    (signal.SIGSTOP, SERVER),
    (signal.SIGSTOP, SWEEP),
]
READING = """select cells.num_ctx, cells.num_batch, attempts.id from attempts join cells on cells.id = cell_id
    where finished_at is null"""


@dataclass
class Saboteur:
    """Strikes once in each cell, in the cells' order, while a prompt is being read."""

    sweep: Sweep
    log: ServerLog
    struck: int = 0

    def strike(self, started: Started) -> None:
        """Wait for the next cell that was not struck yet, and let the next fault happen in it.

        The runner stands still from the moment it reads until the fault has happened, however quick it is.
        """
        number, name = FAULTS[self.struck]
        seen = {row["num_ctx"] for row in self.sweep.rows_now(FINISHED)}
        runner = until("the next cell is measured", lambda: self._held_runner(started, seen), PATIENCE_S)
        victim = until(f"{name} is there", lambda: self._find(started, name), PATIENCE_S)
        os.kill(victim.pid, number)
        if (number, name) != (signal.SIGSTOP, RUNNER):
            with contextlib.suppress(psutil.NoSuchProcess):
                runner.resume()
        self.struck += 1
        if name == SWEEP:
            stopped = time.monotonic()
            until("the client ended unseen", lambda: self._find(started, CLIENT) is None, PATIENCE_S)
            until("the stop is long enough to count", lambda: time.monotonic() > stopped + LONG_ENOUGH_S)
            victim.send_signal(signal.SIGCONT)
        until(
            "the fault was noticed",
            lambda: len(self.sweep.rows_now(ENDED)) > self.struck - 1 or None,
            PATIENCE_S,
        )

    def _held_runner(self, started: Started, seen: set[int]) -> psutil.Process | None:
        """The runner of the next cell, once it was stopped in a run.

        Before its request has come is too early: a runner that dies then is just replaced by Ollama.
        """
        if not self._is_reading(started, seen):
            return None
        runner = self._find(started, RUNNER)
        if runner is None or not stand_still(runner):
            return None
        if self._is_reading(started, seen):
            return runner
        runner.resume()
        return None

    def _is_reading(self, started: Started, seen: set[int]) -> bool:
        assert started.is_running(), started.wait().stderr
        now = self.sweep.rows_now(READING)
        is_next = bool(now) and now[0]["num_ctx"] not in seen and self._find(started, CLIENT) is not None
        return is_next and is_answering(self.log.newest())

    @staticmethod
    def _find(started: Started, name: str) -> psutil.Process | None:
        program = psutil.Process(started.pid)
        if name == SWEEP:
            return program
        for process in program.children(recursive=True):
            if name in _command(process):
                return process
        return None


FINISHED = "select distinct cells.num_ctx from attempts join cells on cells.id = cell_id where finished_at is not null"
ENDED = "select id from attempts where status not in ('ok', 'started')"


def _command(process: psutil.Process) -> str:
    try:
        words = process.cmdline()
    except psutil.Error:
        return ""
    return " ".join([Path(words[0]).name, *words[1:]]) if words else ""


class ServerLog:
    """The logs of the servers that sweeps start for themselves; an open file outlives its folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._files: dict[Path, TextIO] = {}

    def environment(self) -> dict[str, str]:
        """What a sweep needs to write them here, with the times of llama-server."""
        return {"TMPDIR": str(self.folder), "OLLAMA_DEBUG": "1"}

    def is_there(self) -> bool:
        """Open what is new; whether something was."""
        new = [path for path in self.folder.glob("ollama-sweep-*/ollama-serve.log") if path not in self._files]
        new.sort(key=lambda path: path.stat().st_ctime_ns)
        self._files.update((path, path.open(encoding="utf-8", errors="replace")) for path in new)
        return bool(new)

    def newest(self) -> str:
        """What the server that was started last has written so far."""
        self.is_there()
        (*_, last) = self._files
        return last.read_text("utf-8", "replace") if last.exists() else ""

    def prompts(self) -> dict[tuple[int, int], list[PromptRead]]:
        """What llama-server read, by num_ctx and num_batch; the files are closed."""
        text = ""
        for file in self._files.values():
            with file:
                text += file.read()
        return prompts_by_load(text)


@pytest.fixture
def own(real_ollama: Servers, sweep: Sweep) -> Iterator[list[str]]:
    """Options of a sweep that starts a server of its own from the private build, with models in the test's folder."""
    server = real_ollama("0.34.0")
    yield ["--ollama", str(server.binary)]
    assert sweep.left_running() == []


def test_every_fault_in_one_sweep(own: list[str], small_model: Path, sweep: Sweep, tmp_path: Path) -> None:
    contexts = [256 * number for number in range(4, 4 + len(FAULTS) + 1)]
    config = sweep.config(
        model=str(small_model), prompt=PROMPT, num_ctx=contexts, num_batch=[8], warmup=0, repeats=3,
        num_thread=1, timeout=TIMEOUT_S, retries=2, server="managed", engine="ollama", **ONE_LOAD,
    )  # fmt: skip
    log = ServerLog(tmp_path)
    saboteur = Saboteur(sweep, log)

    def start(*more: str) -> Started:
        begun = sweep.start("run", config, *own, *more, env=log.environment())
        until("the sweep's own server writes its log", log.is_there, PATIENCE_S)
        return begun

    started = start()
    for _ in FAULTS:
        saboteur.strike(started)
    until("the last cell is measured", lambda: is_held_in(sweep, contexts[-1], started), PATIENCE_S)
    started.kill(signal.SIGKILL)
    started.wait()
    before = sweep.rows(sql="select * from attempts where status <> 'started' order by id")

    said = start().wait(PATIENCE_S).must()
    assert sweep.rows(sql="select * from attempts order by id")[: len(before)] == before
    assert f"{len(FAULTS)} of {len(contexts)} cells already done" in said.stdout
    by_context = {row["num_ctx"]: row for row in sweep.rows()}
    expected = ["ok", "ok", "ok", "timeout", "timeout", "timeout", "ok", "ok"]
    assert [by_context[num_ctx]["status"] for num_ctx in contexts] == expected
    first = {row["num_ctx"]: row["reason"] for row in reversed(sweep.rows(sql=HISTORY))}
    assert [first[num_ctx] for num_ctx in contexts[:3]] == ["killed", "runner_died", "engine_died"]
    assert first[contexts[6]] == "suspended"

    start("--retry", "timeout").wait(PATIENCE_S).must()
    assert {row["status"] for row in sweep.rows()} == {"ok"}
    assert {row["prompt_eval_count"] for row in sweep.rows()} == {by_context[contexts[0]]["prompt_eval_count"]}
    assert all(row["effective_num_ctx"] == row["num_ctx"] for row in sweep.rows())
    assert sweep.rows(sql="select * from ledger") == []
    seen = log.prompts()
    for row in sweep.rows():
        rates = [read.rate for read in seen[row["num_ctx"], 8] if read.tokens > row["prompt_eval_count"] // 2]
        assert any(row["prompt_eval_rate"] == pytest.approx(rate, rel=0.03) for rate in rates), (row, rates)


HISTORY = """select cells.num_ctx, attempts.reason from attempts join cells on cells.id = cell_id
    where attempts.status <> 'ok' order by attempts.id"""


def is_held_in(sweep: Sweep, num_ctx: int, started: Started) -> bool:
    """Whether the sweep stands still in the middle of the cell of this context."""
    program = psutil.Process(started.pid)
    if not reads(sweep, num_ctx) or not stand_still(program):
        return False
    if not reads(sweep, num_ctx):
        program.resume()
        return False
    return True


def reads(sweep: Sweep, num_ctx: int) -> bool:
    """Whether an attempt at this context is under way."""
    return any(row["num_ctx"] == num_ctx for row in sweep.rows_now(READING))
