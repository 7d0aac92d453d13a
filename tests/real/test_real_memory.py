"""Memory by loads alone, and cells that are the same configuration, on a real Ollama; its log is the truth."""

from __future__ import annotations

import json
from collections import Counter

import pytest
from ollama_fixture import MODEL, Servers, until
from real_sweeps import LIMIT_AS, PATIENCE_S, QUICK
from sweep_runner import Sweep

pytestmark = [pytest.mark.real, pytest.mark.timeout(1800)]

VERSION = "0.34.0"
COUNTING = (256, 64)


def test_a_scan_finds_what_fits_into_limited_memory(real_ollama: Servers, sweep: Sweep) -> None:
    server = real_ollama(VERSION, limit_as=LIMIT_AS)
    contexts, batches = [1024, 8192], [64, 1024, 8192]
    config = sweep.config(num_ctx=contexts, num_batch=batches, **QUICK)
    start = server.log_size()
    done = sweep("run", config, *server.sweep_options(), "--scan", "--json", timeout_s=PATIENCE_S).must()
    (found,) = json.loads(done.stdout)["scan"]
    loads = Counter(load for load in server.loads(start) if load != COUNTING)
    assert len(loads) == found["loads"] <= len(contexts) + len(batches)
    assert set(loads.values()) <= {1, 2}
    assert server.prompts(start).keys() <= {COUNTING}
    assert server.ps() == []
    until("the last llama-server has ended", lambda: not server.runner_pids())
    assert set(server.installed()) == {f"{MODEL}:latest"}
    assert sweep.rows(sql="select * from attempts") == []
    assert {row["result"] for row in sweep.rows(sql="select result from scans")} == {"fits", "oom"}
    fits = {one["num_ctx"]: one["fits"] or 0 for one in found["columns"]}

    sweep("run", config, *server.sweep_options(), timeout_s=PATIENCE_S).must()
    found_oom = {place for place, row in sweep.cells().items() if row["status"] == "oom"}
    assert found_oom == {(ctx, batch) for ctx in contexts for batch in batches if batch > fits[ctx]}


def test_what_the_training_length_makes_the_same_is_measured_once(real_ollama: Servers, sweep: Sweep) -> None:
    server = real_ollama(VERSION)
    config = sweep.config(num_ctx=[1024, 8192, 16384], num_batch=[64, 2048], **QUICK, reuse_duplicates=True)
    start = server.log_size()
    sweep("run", config, *server.sweep_options(), timeout_s=PATIENCE_S).must()
    loads = Counter(load for load in server.loads(start) if load != COUNTING)
    assert {num_ctx for num_ctx, _ in loads} == {1024, 8192}
    assert len(loads) == 4
    assert set(loads.values()) == {1}
    cells = sweep.cells()
    for batch in (64, 2048):
        original, copy = cells[8192, batch], cells[16384, batch]
        assert copy["prompt_eval_rate"] == original["prompt_eval_rate"] > 0
        assert {"reused", "clamped"} <= set(copy["flags"].split(","))
        assert (copy["effective_num_ctx"], copy["attempts"]) == (8192, 0)
        assert "reused" not in original["flags"]
