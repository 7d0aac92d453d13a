"""The kernel ended a process for want of memory: told from other deaths by its own counter."""

# ruff: noqa: F401, F811 - the fixture is imported, and asked for by its name
from __future__ import annotations

import functools
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from sweeping import Program, label, program

from ollama_sweep.engines import fake
from ollama_sweep.engines.shared.failures import classify
from ollama_sweep.run import attempt, session

FIRST = label(512, 2)
KILLED_AT_LOAD = "Error: 500 Internal Server Error: llama-server process has terminated: signal: killed"
KILLED_BEFORE_AN_ANSWER = 'POST predict: Post "http://127.0.0.1:39789/completion": EOF'
KILLED_IN_A_LOAD = 'Error: 500 Internal Server Error: do load request: Post "http://127.0.0.1:39789/load": EOF'
KILLED_IN_A_RUN = "Error: 500 Internal Server Error: an error was encountered while running the model: unexpected EOF"
ATTEMPTS = "select status, reason from attempts where cell_id = 1 order by id"


def died(program: Program, monkeypatch: pytest.MonkeyPatch, text: str, counter: Callable[[], int]) -> list[str]:
    """What the database says of the attempts at a cell whose process died with this text, the first time only."""
    monkeypatch.setitem(fake._FAILURES, "crashed", (*classify(text), text))
    monkeypatch.setattr(session, "Measuring", functools.partial(attempt.Measuring, oom_kills=counter))
    program.script(cells={FIRST: ["crashed", "ok"]})
    program("run", program.grid(num_ctx=512)).must()
    return [f"{row['status']} {row['reason']}".rstrip() for row in program.rows(sql=ATTEMPTS)]


@pytest.mark.parametrize("text", [KILLED_AT_LOAD, KILLED_IN_A_LOAD, KILLED_IN_A_RUN, KILLED_BEFORE_AN_ANSWER])
def test_a_death_that_the_kernel_counted_is_out_of_memory_and_final(
    text: str, program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = died(program, monkeypatch, text, lambda: 7 + len(program.events("generate")))
    assert found == ["oom host_oom"]
    row = program.rows()[0]
    assert (row["status"], row["attempts"], row["error"]) == ("oom", 1, text)
    assert "OOM" in (program.folder / "heatmaps/grid/results_table.csv").read_text()


@pytest.mark.parametrize(("text", "reason"), [(KILLED_AT_LOAD, "killed"), (KILLED_IN_A_RUN, "runner_died")])
def test_a_death_that_the_kernel_did_not_count_is_a_crash_and_tried_again(
    text: str, reason: str, program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert died(program, monkeypatch, text, lambda: 7) == [f"crashed {reason}", "ok"]


def test_a_crash_that_explains_itself_stays_one_whatever_else_the_kernel_ended(
    program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "GGML_ASSERT(n_tokens_all <= cparams.n_batch) failed"
    assert died(program, monkeypatch, text, lambda: len(program.events("generate"))) == ["crashed assert", "ok"]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has this counter")
def test_the_counter_is_the_kernels_own() -> None:
    (count,) = re.findall(r"^oom_kill (\d+)$", Path("/proc/vmstat").read_text("ascii"), re.MULTILINE)
    assert attempt.system_oom_kills() >= int(count)
