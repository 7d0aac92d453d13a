"""Several questions at once on a real Ollama: what the server was started for is what it runs at once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from ollama_fixture import script_output
from real_sweeps import PATIENCE_S
from sweep_runner import Sweep

pytestmark = [pytest.mark.real, pytest.mark.timeout(1800)]

QUESTIONS = 6


def test_a_server_runs_as_many_at_once_as_it_was_started_for(small_model: Path, sweep: Sweep) -> None:
    binary = script_output("get_ollama", "0.34.0")
    prompts = [{"id": f"q{n}", "category": "c", "prompt": f"Tell me of the number {n}."} for n in range(QUESTIONS)]
    (sweep.folder / "prompts").mkdir()
    (sweep.folder / "prompts" / "short.yaml").write_text(json.dumps({"version": 1, "prompts": prompts}))
    config = sweep.config(
        model=str(small_model), num_ctx=512, num_parallel=[1, 4], concurrency=[1, 4], server="managed",
        engine="ollama_http", num_thread=1, task="short", warmup=1, retries=0, control="off", second_look="off",
        tasks={"short": {"num_predict": 24, "temperature": 0, "repeats": 1}},
    )  # fmt: skip
    env = {"OLLAMA_MODELS": str(sweep.folder / "models")}
    sweep("run", config, "--ollama", binary, env=env, timeout_s=PATIENCE_S).must()
    rows = {(row["num_parallel"], row["concurrency"]): row for row in sweep.rows()}
    assert {place: (row["status"], row["answers"]) for place, row in rows.items()} == dict.fromkeys(
        [(1, 1), (1, 4), (4, 1), (4, 4)], ("ok", QUESTIONS)
    )
    served = {place: row["served_parallel"] for place, row in rows.items()}
    assert [served[place] for place in ((1, 1), (1, 4), (4, 1))] == [1, 1, 1]
    assert 2 <= served[4, 4] <= 4
    assert {place: row["effective_num_parallel"] for place, row in rows.items()} == {place: place[0] for place in rows}
    assert all(row["ttft_s_p50"] <= row["ttft_s_p95"] for row in rows.values())
    loads = sweep.rows(sql="select distinct load_duration_s from attempts")
    assert len(loads) == 2
    assert sweep.left_running() == []
