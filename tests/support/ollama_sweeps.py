"""Sweeps on a scripted `ollama`: its fixture, how they are run, and what may be left of them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from ollama_fixture import END_S, free_port
from scripted_ollama import MODEL, ScriptedOllama
from sweep_runner import ONE_LOAD, Ended
from sweeping import Program

from ollama_sweep.engines.ollama import programs, server
from ollama_sweep.run import loop, waiting

TEXT = "one two three four five"


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits as long as ever in their number, not in their length."""
    for module in (loop, waiting):
        monkeypatch.setattr(module, "FIRST_WAIT_S", 0.01)
    monkeypatch.setattr(server, "REST_S", 0.3)
    monkeypatch.setattr(programs, "POLL_S", 0.02)
    monkeypatch.setattr(server, "orphans", lambda: ())


@pytest.fixture
def ollama(tmp_path: Path) -> Iterator[ScriptedOllama]:
    made = ScriptedOllama(tmp_path / "ollama", free_port())
    made.serve()
    yield made
    made.kill()
    end_all(made)


def end_all(ollama: ScriptedOllama) -> None:
    """A server that a sweep has restarted is meant to outlive it, so it is ended here."""
    left = [found for found in psutil.process_iter(["cmdline"]) if str(ollama.binary) in (found.info["cmdline"] or ())]
    for running in left:
        with contextlib.suppress(psutil.NoSuchProcess):
            running.kill()
    psutil.wait_procs(left, timeout=END_S)


def grid(program: Program, **keys: Any) -> Path:
    given = {
        "num_ctx": [512],
        "num_batch": [64],
        "warmup": 0,
        "repeats": 1,
        "prompt": {"text": TEXT},
        **ONE_LOAD,
        **keys,
    }
    return program.config(**given)


def run(program: Program, ollama: ScriptedOllama, *words: str, **keys: Any) -> Ended:
    return program("run", grid(program, **keys), *ollama.options(), *words)


def history(program: Program) -> list[tuple[str, str]]:
    return [
        (row["status"], row["reason"]) for row in program.rows(sql="select status, reason from attempts order by id")
    ]


def shown(program: Program) -> str:
    """What a started command has said so far."""
    return "".join(file.read_text("utf-8", "replace") for file in program.folder.glob("output-*"))


def last_line(ended: Ended) -> str:
    return ended.stderr.strip().splitlines()[-1]


def check_nothing_left(program: Program, ollama: ScriptedOllama) -> None:
    assert ollama.models() == {f"{MODEL}:latest"}
    assert program.rows(sql="select * from ledger") == []
    assert program.left_running() == []
