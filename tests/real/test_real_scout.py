"""`run --scout` on a real Ollama: its own library scouts, then its own server measures; killed between both."""

from __future__ import annotations

import json

import pytest
from ollama_fixture import MODEL, VERSIONS, Servers, until
from real_sweeps import PATIENCE_S, QUICK, assert_nothing_left
from sweep_runner import Sweep

pytestmark = [pytest.mark.real, pytest.mark.timeout(1800)]

CELLS = """select sweeps.name, cells.engine, num_ctx, num_batch, cells.status, prompt_eval_count, attempts.flags
    from plan join sweeps on sweeps.id = plan.sweep_id join cells on cells.id = plan.cell_id
    join attempts on attempts.id = cells.attempt_id order by sweeps.name, position"""


def test_a_grid_is_scouted_by_ollamas_library_and_confirmed_by_its_server(real_ollama: Servers, sweep: Sweep) -> None:
    server = real_ollama(VERSIONS[0])
    config = sweep.config(
        "grid", **{**QUICK, "model": MODEL, "num_ctx": [256, 384, 512, 1024], "num_batch": [16, 32, 64, 128]},
        engine="ollama", interim="off",
    )  # fmt: skip
    words = ["run", str(config), *server.sweep_options()]
    started = sweep.start(*words, "--scout", "--goal", "best", env={"SWEEP_CRASH_AT": "scouted"})
    until("it dies between both", lambda: not started.is_running(), PATIENCE_S)
    scouted = sweep.rows(sql=CELLS)
    assert {(row["name"], row["engine"]) for row in scouted} == {("grid.scout", "libllama")}

    sweep(*words, timeout_s=PATIENCE_S).must()
    rows = sweep.rows(sql=CELLS)
    assert [row for row in rows if row["name"] == "grid.scout"] == scouted, "nothing is scouted twice"
    own = [row for row in rows if row["name"] == "grid"]
    assert {row["engine"] for row in own} == {"ollama"}
    assert 6 <= len(own) <= 16
    assert len({row["prompt_eval_count"] for row in rows if row["status"] == "ok"}) == 1, "the same work both ways"
    status = json.loads(sweep("status", "--json").must().stdout)
    assert status["scouted"]["sweep"] == "grid.scout"
    assert status["goal"]["ended"]
    best = json.loads(sweep("best", "--json").must().stdout)["best"]
    assert (best["num_ctx"], best["num_batch"]) in {(row["num_ctx"], row["num_batch"]) for row in own}
    assert_nothing_left(server, sweep)
