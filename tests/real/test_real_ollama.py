"""The whole program against real Ollama servers and a real model, with llama-server's own log as the truth."""

from __future__ import annotations

import contextlib
import csv
import json
import signal
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import psutil
import pytest
from ollama_fixture import (
    MODEL,
    ROOT,
    VERSIONS,
    PromptRead,
    RealOllama,
    Servers,
    free_port,
    is_answering,
    stand_still,
    until,
)
from sweep_runner import ONE_LOAD, Started, Sweep, statuses

pytestmark = [pytest.mark.real, pytest.mark.timeout(1800)]

SHIPPED = (ROOT / "prompts" / "p.txt").read_text("utf-8")
PROMPT = {"text": SHIPPED.partition("\n\n")[0]}
"""Many times longer than what stays cached, and shorter than the one that ships."""
OPENING_TOKENS = 8
"""So much of the chat template stands before the nonce, at most, and stays cached."""
SHORT = {"text": "Name the three largest rivers of the world and the seas that they flow into. " * 2}
QUICK: dict[str, Any] = {"prompt": SHORT, "warmup": 0, "repeats": 1, "num_thread": 1, **ONE_LOAD}
"""One thread: two that wait for each other are slow where other tests keep the cores busy."""
CONTEXTS, BATCHES = [1024, 4096], [16, 128]
LIMIT_AS = 500_000_000
"""Between what a runner takes with num_ctx 1024 and num_batch 64 (285 MB) and with 8192 of both (811 MB)."""
PATIENCE_S = 900.0
"""How long a sweep may take on a machine that is busy with other work; an idle one needs about a minute."""

Log = dict[tuple[int, int], list[PromptRead]]
Cells = dict[tuple[int, int], dict[str, Any]]


def picture_table(sweep: Sweep, name: str = "grid") -> dict[tuple[int, int], str]:
    """The picture as a table, by (num_ctx, num_batch)."""
    with (sweep.folder / "heatmaps" / name / "results_table.csv").open(newline="", encoding="utf-8") as file:
        head, *body = csv.reader(file)
    return {(int(num_ctx), int(row[0])): cell for row in body for num_ctx, cell in zip(head[1:], row[1:], strict=True)}


def counts(sweep: Sweep) -> dict[str, int]:
    """What `status --json` counts."""
    found = json.loads(sweep("status", "--json").must().stdout)["counts"]
    return {status: number for status, number in found.items() if number}


def assert_nothing_left(server: RealOllama, sweep: Sweep) -> None:
    """No scratch model, no loaded model, no process."""
    assert set(server.installed()) == {f"{MODEL}:latest"}
    assert server.ps() == []
    assert sweep.left_running() == []
    until("the last llama-server has ended", lambda: not server.runner_pids())


# -- a sweep of four cells, twice ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Twice:
    """The same four cells in two databases, one after the other on one server, each with its part of the log."""

    first: Cells
    first_log: Log
    again: Cells
    again_log: Log
    runs_again: list[dict[str, Any]]
    slowest_run_s: float
    table: dict[tuple[int, int], str]
    picture: bytes


@pytest.fixture(scope="module")
def twice_by_version() -> dict[str, Twice]:
    return {}


@pytest.fixture(params=VERSIONS)
def twice(
    request: pytest.FixtureRequest, real_ollama: Servers, tmp_path: Path, twice_by_version: dict[str, Twice]
) -> Twice:
    """Measured at the first use for each version."""
    version = str(request.param)
    if version not in twice_by_version:
        with contextlib.closing(Sweep(tmp_path)) as sweep:
            twice_by_version[version] = measure_twice(real_ollama(version), sweep)
    return twice_by_version[version]


def measure_twice(server: RealOllama, sweep: Sweep) -> Twice:
    keys = {**QUICK, "prompt": PROMPT, "warmup": 1, "repeats": 2}
    config = sweep.config(num_ctx=CONTEXTS, num_batch=BATCHES, **keys)
    start, sweep.draws = server.log_size(), True
    sweep("run", config, *server.sweep_options(), timeout_s=PATIENCE_S).must()
    middle, sweep.draws = server.log_size(), False
    picture = sweep.folder / "heatmaps" / "grid" / "heatmap_highlighted.png"
    again = ["--db", "again.db", "--out", "again", "--set", "repeats=1"]
    sweep("run", config, *server.sweep_options(), *again, timeout_s=PATIENCE_S).must()
    assert_nothing_left(server, sweep)
    runs = sweep.rows(sql="select * from runs")
    return Twice(
        first=sweep.cells(),
        first_log=server.prompts(start, middle),
        again=sweep.cells("again.db"),
        again_log=server.prompts(middle),
        runs_again=sweep.rows("again.db", "select * from runs"),
        slowest_run_s=max(run["client_duration_s"] for run in runs),
        table=picture_table(sweep),
        picture=picture.read_bytes(),
    )


def test_all_cells_are_measured_and_drawn(twice: Twice) -> None:
    assert twice.picture.startswith(b"\x89PNG")
    assert set(statuses(twice.first.values()).values()) == {"ok"}
    assert set(twice.first) == {(num_ctx, num_batch) for num_ctx in CONTEXTS for num_batch in BATCHES}
    for place, row in twice.first.items():
        assert row["runs"] == 2
        assert row["effective_num_ctx"] == row["num_ctx"]
        assert row["size_bytes"] > 90_000_000
        assert row["load_duration_s"] > 0
        assert float(twice.table[place]) == pytest.approx(row["prompt_eval_rate"], rel=1e-4)


def test_median_rates_agree_with_the_log_of_llama_server(twice: Twice) -> None:
    for place, row in twice.first.items():
        warmup, *measured = twice.first_log[place]
        assert len(measured) == 2, f"{place}: {warmup}, {measured}"
        assert row["prompt_eval_rate"] == pytest.approx(median(read.rate for read in measured), rel=0.03), place


def test_the_same_sweep_again_is_not_inflated(twice: Twice) -> None:
    for place, row in twice.again.items():
        reads = twice.again_log[place]
        assert row["status"] == "ok"
        assert all(read.tokens >= row["prompt_eval_count"] - OPENING_TOKENS for read in reads), f"{place}: {reads}"
        assert row["prompt_eval_rate"] == pytest.approx(reads[-1].rate, rel=0.03), place
    for run in twice.runs_again:
        assert (run["cached_count"] or 0) <= OPENING_TOKENS, run


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


def test_a_stopped_runner_is_a_timeout_and_the_next_cell_is_right(
    twice: Twice, request: pytest.FixtureRequest, real_ollama: Servers, sweep: Sweep
) -> None:
    """It has runs enough that one of them is under way when it is stopped, on any machine."""
    server = real_ollama(request.node.callspec.params["twice"])
    timeout_s = max(10, round(2 * twice.slowest_run_s))
    config = sweep.config(**{**QUICK, "num_ctx": [1024], "num_batch": [16, 64], "repeats": 8})
    start = server.log_size()
    started = sweep.start("run", config, *server.sweep_options(), "--timeout", str(timeout_s))
    runner = until("it stands still in a run", lambda: stopped_in_a_run(server, start), PATIENCE_S, 0.01)
    started.wait(PATIENCE_S).must()

    stopped, following = sweep.cells()[1024, 16], sweep.cells()[1024, 64]
    assert (stopped["status"], stopped["attempts"], following["status"]) == ("timeout", 1, "ok")
    assert picture_table(sweep)[1024, 16] == "Timeout or no output"
    (timed_out,) = sweep.rows(
        sql="select *, julianday(finished_at) - julianday(started_at) as days from attempts where status = 'timeout'"
    )
    assert timeout_s - 1 < timed_out["days"] * 86400
    reads = server.prompts(start)[1024, 64]
    assert all(read.tokens >= following["prompt_eval_count"] - OPENING_TOKENS for read in reads)
    assert following["prompt_eval_rate"] == pytest.approx(median(read.rate for read in reads), rel=0.03)
    assert not runner.is_running()
    assert_nothing_left(server, sweep)


def stopped_in_a_run(server: RealOllama, start: int) -> psutil.Process | None:
    """The runner, once it was stopped while it answered."""

    def is_in_a_run() -> bool:
        return is_answering(server.log_text(start), "-c 1024", "-b 16")

    for runner in map(psutil.Process, server.runner_pids() if is_in_a_run() else ()):
        if stand_still(runner):
            if is_in_a_run():
                return runner
            runner.resume()
    return None


def test_a_prompt_that_fits_one_context_only_skips_the_other(server: RealOllama, sweep: Sweep) -> None:
    config = sweep.config(**{**QUICK, "prompt": {"text": SHIPPED[:1600]}, "num_ctx": [256, 1024], "num_batch": [64]})
    sweep("run", config, *server.sweep_options(), timeout_s=PATIENCE_S).must()
    skipped, fits = sweep.cells()[256, 64], sweep.cells()[1024, 64]
    assert (skipped["status"], skipped["reason"], skipped["attempts"]) == ("skipped", "does_not_fit", 0)
    assert fits["status"] == "ok"
    assert picture_table(sweep)[256, 64] == "Does not fit"
    assert "does not fit" in sweep("plan", config, *server.sweep_options()).must().stdout


def test_one_load_serves_every_length_of_the_prompt(server: RealOllama, sweep: Sweep) -> None:
    """A longer prompt after a shorter one is read whole, and each rate is that of llama-server.

    An older version does not say what was cached, so that each run of prompts as short as these has its own load.
    """
    lengths = [60, 120, 240]
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
