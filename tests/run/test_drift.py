"""The control cell: what the machine's drift does to the cells that follow, and to the sweep."""

# ruff: noqa: F401, F811 - the fixture is imported, and asked for by its name
from __future__ import annotations

import json
import signal
from collections.abc import Mapping
from typing import Any

import pytest
from sweeping import Program, program

from ollama_sweep.run import drift
from ollama_sweep.store.writer import Store

CELLS: Mapping[str, Any] = {"num_ctx": [512, 1024, 2048], "num_batch": [2, 4], "warmup": 0, "repeats": 1, "control": 2}
CONTROLS = "select drift from controls order by id"


def flags(program: Program) -> list[str]:
    return [row["flags"] for row in program.rows()]


def test_a_steady_machine_has_no_flags(program: Program) -> None:
    said = program("run", program.grid(**CELLS)).must().stdout
    assert "control cell num_ctx 512, num_batch 2: +0.0% since the first time, within 3 %" in said
    assert flags(program) == [""] * 6
    assert [row["drift"] for row in program.rows(sql=CONTROLS)] == [pytest.approx(0)] * 3


def test_cells_after_a_drift_of_5_percent_carry_the_flag(program: Program) -> None:
    program.script(slows={"after": 2, "factor": 0.95})
    said = program("run", program.grid(**CELLS)).must().stdout
    assert "control cell num_ctx 512, num_batch 2: -5.0% since the first time, beyond 3 %" in said
    assert flags(program) == ["", "", *["drifted"] * 4]


def test_beyond_8_percent_the_sweep_pauses_and_looks_again(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drift, "PAUSE_S", 0.0)
    program.script(slows={"after": 2, "factor": 0.9})
    said = program("run", program.grid(**{**CELLS, "num_ctx": [512, 1024]})).must().stdout
    assert said.count("looking again in 0 min (--no-pause goes on)") == 2 * drift.MOST_PAUSES
    assert len(program.rows(sql=CONTROLS)) == 2 * (drift.MOST_PAUSES + 1)


def test_no_pause_goes_on_with_flags(program: Program) -> None:
    program.script(slows={"after": 2, "factor": 0.9})
    said = program("run", program.grid(**CELLS), "--no-pause").must().stdout
    assert "On hold" not in said
    assert flags(program) == ["", "", *["drifted"] * 4]


def test_the_control_cells_own_result_stays_what_it_was(program: Program) -> None:
    program.script(slows={"after": 2, "factor": 0.95})
    program("run", program.grid(**CELLS)).must()
    first = program.rows()[0]
    assert first["attempts"] == 1
    assert first["prompt_eval_rate"] == pytest.approx(400 * 2 / 10 * (1 - 512 / 4e6))


def test_status_says_how_far_the_machine_has_drifted(program: Program) -> None:
    program.script(slows={"after": 2, "factor": 0.95})
    program("run", program.grid(**CELLS)).must()
    assert "Drift: -5.0 % at the last control" in program("status").must().stdout
    assert json.loads(program("status", "--json").must().stdout)["drift"] == pytest.approx(-0.05)


def test_the_report_has_the_drift_of_the_whole_sweep(program: Program) -> None:
    program.script(slows={"after": 3, "factor": 0.95})
    program("run", program.grid(**CELLS)).must()
    line = "Drift of grid: -5.0 % at the last of 3 control measurements (-5.0 % to +0.0 %)"
    assert line in program("report").must().stdout
    found = json.loads(program("report", "--json").must().stdout)["drift"]["grid"]
    assert found == {"measurements": 3, "last": pytest.approx(-0.05), "lowest": pytest.approx(-0.05), "highest": 0.0}


def test_a_sweep_without_a_prompt_rate_says_once_that_nothing_is_watched(program: Program) -> None:
    keys = {"task": ["chat"], "num_ctx": [1024, 2048, 4096], "num_batch": [64], "prompt": None, "control": 1}
    said = program("run", program.grid(**{**CELLS, **keys})).must().stdout
    assert said.count("Drift is not watched: no cell of this sweep has measured the prompt's rate") == 1


def test_off_measures_no_control(program: Program) -> None:
    program("run", program.grid(**{**CELLS, "control": "off"})).must()
    assert program.rows(sql=CONTROLS) == []


def test_a_sweep_that_was_killed_has_rates_without_the_drift_as_far_as_its_last_control(program: Program) -> None:
    program.script(slows={"after": 3, "factor": 0.9})
    config = program.grid(**{**CELLS, "control": 1})
    env = {**program.environment(), "SWEEP_CRASH_AT": "before_begin:6"}
    died = program.start("run", config, "--no-pause", env=env).wait()
    assert died.returncode == -signal.SIGKILL, died
    rows = program.rows()
    assert sum(row["prompt_eval_rate"] is not None for row in rows) == 5
    corrected = [row["prompt_eval_rate_corrected"] for row in rows]
    assert [rate is not None for rate in corrected] == [True] * 5 + [False]
    assert max(corrected[:5:2]) / min(corrected[:5:2]) < 1.08, "as measured 1.11"


def test_all_loads_are_corrected_anew_at_ever_fewer_controls(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    made, correct = [0], Store.correct

    def counted(store: Store, sweep_id: int) -> None:
        made[0] += 1
        correct(store, sweep_id)

    monkeypatch.setattr(Store, "correct", counted)
    monkeypatch.setattr(drift, "MORE_TO_CORRECT", 2.0)
    program("run", program.grid(**{**CELLS, "num_ctx": [512, 1024, 2048, 4096], "control": 1})).must()
    assert made == [5], "at 2, 4, 8 and 16 loads, and at the end"
