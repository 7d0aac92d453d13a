"""What tests of sweeps on a real Ollama share: prompts, quick settings, and what they look at."""

from __future__ import annotations

import contextlib
import csv
from typing import Any

import psutil
from ollama_fixture import MODEL, ROOT, RealOllama, stand_still, until
from sweep_runner import ONE_LOAD, Started, Sweep

from ollama_sweep.core.outcome import Flag

SHIPPED = (ROOT / "prompts" / "p.txt").read_text("utf-8")
PROMPT = {"text": SHIPPED.partition("\n\n")[0]}
"""Many times longer than what stays cached, and shorter than the one that ships."""
OPENING_TOKENS = 8
"""So much of the chat template stands before the nonce, at most, and stays cached."""
SHORT = {"text": "Name the three largest rivers of the world and the seas that they flow into. " * 2}
QUICK: dict[str, Any] = {"prompt": SHORT, "warmup": 0, "repeats": 1, "num_thread": 1, **ONE_LOAD}
"""One thread: two that wait for each other are slow where other tests keep the cores busy."""
PATIENCE_S = 900.0
"""How long a sweep may take on a machine that is busy with other work; an idle one needs about a minute."""
LIMIT_AS = 500_000_000
"""Between what a runner takes with num_ctx 1024 and num_batch 64 (285 MB) and with 8192 of both (811 MB)."""

OF_THE_MACHINE = frozenset({Flag.BUSY, Flag.NOISY, Flag.SHARED_GPU, Flag.THROTTLED})
"""Flags that say what else the machine did meanwhile, which no test can know of every machine."""


def picture_table(sweep: Sweep, name: str = "grid") -> dict[tuple[int, int], str]:
    """The picture as a table, by (num_ctx, num_batch)."""
    with (sweep.folder / "heatmaps" / name / "results_table.csv").open(newline="", encoding="utf-8") as file:
        head, *body = csv.reader(file)
    return {(int(num_ctx), int(row[0])): cell for row in body for num_ctx, cell in zip(head[1:], row[1:], strict=True)}


def assert_nothing_left(server: RealOllama, sweep: Sweep) -> None:
    """No scratch model, no loaded model, no process."""
    assert set(server.installed()) == {f"{MODEL}:latest"}
    assert server.ps() == []
    assert sweep.left_running() == []
    until("the last llama-server has ended", lambda: not server.runner_pids())


def held_client(sweep: Sweep, started: Started) -> psutil.Process | None:
    """The `ollama run` of a cell after the first one; it stands still, so that its cell does not end."""
    assert started.is_running(), started.wait()
    if not sweep.rows_now("select id from attempts where status = 'ok'"):
        return None
    for process in psutil.Process(started.pid).children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if " run ollama-sweep-scratch" in " ".join(process.cmdline()) and stand_still(process):
                return process
    return None
