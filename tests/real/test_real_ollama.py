"""The whole program against real Ollama servers and a real model, with llama-server's own log as the truth."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest
from ollama_fixture import VERSIONS, RealOllama, Servers, free_port, until
from real_sweeps import (
    LIMIT_AS,
    OPENING_TOKENS,
    PATIENCE_S,
    QUICK,
    assert_nothing_left,
    held_client,
    picture_table,
)
from sweep_runner import Sweep, statuses

pytestmark = [pytest.mark.real, pytest.mark.timeout(1800)]


def counts(sweep: Sweep) -> dict[str, int]:
    """What `status --json` counts."""
    found = json.loads(sweep("status", "--json").must().stdout)["counts"]
    return {status: number for status, number in found.items() if number}


# -- failures are results --------------------------------------------------------------------------------------------


def test_num_batch_1_is_a_crash_and_stands_in_the_picture(server: RealOllama, sweep: Sweep) -> None:
    config = sweep.config(num_ctx=[1024], num_batch=[1, 64], **QUICK)
    sweep("run", config, *server.sweep_options(), timeout_s=PATIENCE_S).must()
    crashed, beside = sweep.cells()[1024, 1], sweep.cells()[1024, 64]
    assert (crashed["status"], crashed["reason"], crashed["prompt_eval_rate"]) == ("crashed", "assert", None)
    assert "GGML_ASSERT" in crashed["error"]
    assert crashed["attempts"] == 2
    assert beside["status"] == "ok"
    assert counts(sweep) == {"crashed": 1, "ok": 1}
    assert picture_table(sweep)[1024, 1] == "Crashed"
    assert_nothing_left(server, sweep)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_real_memory_limit_is_an_oom(version: str, real_ollama: Servers, sweep: Sweep) -> None:
    server = real_ollama(version, limit_as=LIMIT_AS)
    config = sweep.config(
        num_ctx=[1024, 8192],
        num_batch=[64, 8192],
        exclude=["num_ctx == 1024 and num_batch == 8192", "num_ctx == 8192 and num_batch == 64"],
        **QUICK,
    )
    sweep("run", config, *server.sweep_options(), timeout_s=PATIENCE_S).must()
    cells = sweep.cells()
    assert statuses(cells.values()) == {(1024, 64): "ok", (8192, 8192): "oom"}
    assert cells[8192, 8192]["reason"] == "host_oom"
    assert cells[8192, 8192]["attempts"] == 1
    assert "insufficient memory" in cells[8192, 8192]["error"]
    assert picture_table(sweep)[8192, 8192] == "OOM"
    assert_nothing_left(server, sweep)


def test_what_has_no_memory_in_two_real_loads_leaves_larger_ones_out(real_ollama: Servers, sweep: Sweep) -> None:
    server = real_ollama(VERSIONS[0], limit_as=LIMIT_AS)
    small = [f"num_ctx {sign} 1024 and num_batch {other} 64" for sign, other in (("==", ">"), (">", "=="))]
    config = sweep.config(
        num_ctx=[1024, 8192, 8448], num_batch=[64, 8192, 8448], exclude=small, prune=True, **QUICK
    )  # fmt: skip
    said = sweep("run", config, *server.sweep_options(), timeout_s=PATIENCE_S).must().stdout
    assert "num_ctx 8192, num_batch 8192 ran out of memory in two fresh loads" in said
    cells = sweep.cells()
    assert (cells[1024, 64]["status"], cells[8192, 8192]["attempts"]) == ("ok", 2)
    others = [cells.pop(place) for place in ((8192, 8448), (8448, 8192), (8448, 8448))]
    assert sorted((cell["status"], cell["reason"]) for cell in others) == [
        ("oom", "host_oom"), ("skipped", "memory"), ("skipped", "memory"),
    ]  # fmt: skip
    assert picture_table(sweep)[8448, 8448] == "Left out (memory)"
    record = sweep.rows(
        sql="select distinct is_fresh, engine_version, memory_free_bytes > 0 as free from out_of_memory"
    )
    assert record == [{"is_fresh": 1, "engine_version": VERSIONS[0], "free": 1}]
    assert_nothing_left(server, sweep)


def test_one_load_serves_every_length_of_the_prompt(server: RealOllama, sweep: Sweep) -> None:
    """A longer prompt after a shorter one is read whole, and each rate is that of llama-server.

    An older version does not say what was cached, so that each run of prompts as short as these has its own load.
    """
    lengths = [40, 80, 160]
    once = {**QUICK, "control": "off", "second_look": "off"}
    config = sweep.config(**{**once, "prompt": {"tokens": lengths}, "num_ctx": [1024], "num_batch": [64]})
    start = server.log_size()
    sweep("run", config, *server.sweep_options(), timeout_s=PATIENCE_S).must()
    rows = sweep.rows()
    assert [(row["prompt_tokens"], row["status"]) for row in rows] == [(tokens, "ok") for tokens in lengths]
    is_told = server.version != "0.33.0"
    assert server.loads(start).count((1024, 64)) == 1 or not is_told
    reads = server.prompts(start)[1024, 64]
    assert len(reads) == len(rows)
    for row, read in zip(rows, reads, strict=True):
        assert row["prompt_tokens"] - 2 <= row["prompt_eval_count"] <= row["prompt_tokens"] + 2
        assert read.tokens >= row["prompt_eval_count"] - OPENING_TOKENS
        assert row["prompt_eval_rate"] == pytest.approx(read.rate, rel=0.03)
    assert_nothing_left(server, sweep)


# -- going on --------------------------------------------------------------------------------------------------------


def test_a_larger_grid_runs_only_the_new_cells(server: RealOllama, sweep: Sweep) -> None:
    config = sweep.config(num_ctx=[1024], num_batch=[64, 256], **QUICK)
    sweep("run", config, *server.sweep_options(), timeout_s=PATIENCE_S).must()
    before = sweep.rows(sql="select * from attempts")

    config = sweep.config(num_ctx=[1024, 2048], num_batch=[64, 128, 256], **QUICK)
    done = sweep("run", config, *server.sweep_options(), timeout_s=PATIENCE_S).must()
    assert "2 of 6 cells already done" in done.stdout
    assert sweep.rows(sql=f"select * from attempts where id <= {len(before)}") == before
    assert [row["attempts"] for row in sweep.rows()] == [1] * 6
    assert counts(sweep) == {"ok": 6}

    start = server.log_size()
    sweep("run", config, *server.sweep_options(), timeout_s=PATIENCE_S).must()
    assert len(sweep.rows(sql="select * from attempts")) == 6
    assert not set(server.prompts(start)) & set(sweep.cells()), "cells were measured again"


GRID: dict[str, Any] = {**QUICK, "num_ctx": [1024, 2048], "num_batch": [16, 64]}


def kill_in_mid_cell(sweep: Sweep, *words: str, env: dict[str, str] | None = None) -> list[dict[str, Any]]:
    """Run until a cell is finished and another one is being measured, then kill -9; the finished attempts."""
    started = sweep.start("run", *words, env=env)
    client = until("a finished cell and one that is held", lambda: held_client(sweep, started), PATIENCE_S)
    started.kill()
    assert started.wait().returncode == -signal.SIGKILL
    client.resume()
    assert len(sweep.rows(sql="select * from attempts where status = 'started'")) == 1
    return sweep.rows(sql="select * from attempts where status = 'ok'")


def assert_went_on(sweep: Sweep, finished: list[dict[str, Any]]) -> None:
    """The second run left finished cells alone, repeated the killed one and completed the grid."""
    after, done = sweep.rows(sql="select * from attempts order by id"), len(finished)
    assert [row for row in after if row["id"] in {old["id"] for old in finished}] == finished
    assert [row["status"] for row in after] == ["ok"] * done + ["interrupted"] + ["ok"] * (4 - done)
    assert after[done]["cell_id"] == after[done + 1]["cell_id"]
    assert set(statuses(sweep.rows()).values()) == {"ok"}


def test_kill_9_in_mid_cell_costs_that_cell_only(server: RealOllama, sweep: Sweep) -> None:
    digests = server.installed()
    words = [str(sweep.config(**GRID)), *server.sweep_options()]
    finished = kill_in_mid_cell(sweep, *words)
    assert len(server.installed()) == 2, "the killed run leaves its scratch model"
    done = sweep("run", *words, timeout_s=PATIENCE_S).must()
    assert f"{len(finished)} of 4 cells already done" in done.stdout
    assert_went_on(sweep, finished)
    assert server.installed() == digests
    assert_nothing_left(server, sweep)


@pytest.fixture
def own_server_words(real_ollama: Servers, small_model: Path) -> list[str]:
    """What makes the program start a server of its own, for a model that is a file."""
    return ["--engine", "ollama", "--ollama", str(real_ollama(VERSIONS[0]).binary), "--model", str(small_model)]


@pytest.fixture
def own_server_env(tmp_path: Path) -> dict[str, str]:
    """No server answers at the host; the models lie in the test's own folder."""
    (tmp_path / "home").mkdir()
    return {
        "HOME": str(tmp_path / "home"),
        "OLLAMA_MODELS": str(tmp_path / "models"),
        "OLLAMA_HOST": f"127.0.0.1:{free_port()}",
    }


def test_a_server_of_its_own_is_gone_after_kill_9_too(
    sweep: Sweep, own_server_words: list[str], own_server_env: dict[str, str]
) -> None:
    words = [str(sweep.config(**GRID)), *own_server_words]
    finished = kill_in_mid_cell(sweep, *words, env=own_server_env)
    sweep("run", *words, env=own_server_env, timeout_s=PATIENCE_S).must()
    assert_went_on(sweep, finished)
    assert sweep.left_running() == []
    left = [path for path in (sweep.folder / "models" / "manifests").rglob("*") if path.is_file()]
    assert left == [], "scratch models of the killed run or of this one"


def test_a_server_is_measured_without_a_program_here(
    real_ollama: Servers, sweep: Sweep, small_model: Path, tmp_path: Path
) -> None:
    """A sweep of a file, which is sent to the server and removed again, by `auto` and OLLAMA_HOST."""
    server = real_ollama("0.34.0")
    server.unload_all()
    config = sweep.config(model=str(small_model), num_ctx=[256, 512], num_batch=32, **QUICK)
    nothing_here = dict.fromkeys(("PATH", "XDG_CACHE_HOME", "HOME"), str(tmp_path / "empty"))
    ended = sweep("run", config, env={**nothing_here, "OLLAMA_HOST": server.host}).must()
    assert "the server is asked directly (engine ollama_http)" in ended.stdout
    assert [(row["engine"], row["status"]) for row in sweep.rows()] == [("ollama_http", "ok")] * 2
    assert_nothing_left(server, sweep)
