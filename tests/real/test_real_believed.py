"""No believed wrong number on a real Ollama: what could spoil one, each with the flag, the second look or the status
that it gets, and llama-server's own log as the truth for what is believed.

A server that is killed in mid run, and what else can end or hang there, is in `test_real_faults`.
"""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import psutil
import pytest
from ollama_fixture import (
    MODEL,
    VERSIONS,
    PromptRead,
    RealOllama,
    Servers,
    is_answering,
    script_output,
    stand_still,
    until,
)
from real_sweeps import (
    OPENING_TOKENS,
    PATIENCE_S,
    PROMPT,
    QUICK,
    SHIPPED,
    assert_nothing_left,
    held_client,
    picture_table,
)
from sweep_runner import Sweep, statuses

from ollama_sweep.core.judge import BUSY_SHARE

pytestmark = [pytest.mark.real, pytest.mark.timeout(1800)]

CONTEXTS, BATCHES = [1024, 4096], [16, 128]
NEWEST = "0.34.0"
TRAINED = 8192
"""The training length of the small model."""

Log = dict[tuple[int, int], list[PromptRead]]
Cells = dict[tuple[int, int], dict[str, Any]]


def flags(row: dict[str, Any]) -> set[str]:
    return set(filter(None, row["flags"].split(",")))


def assert_believed_is_right(cells: Cells, log: Log, runs: int, *, effective: bool = False) -> None:
    """The median of each measured cell is that of llama-server's own lines for its last runs, within 3 %."""
    for (num_ctx, num_batch), row in cells.items():
        if row["prompt_eval_rate"] is not None:
            place = (row["effective_num_ctx"], num_batch) if effective else (num_ctx, num_batch)
            rates = [read.rate for read in log[place] if read.tokens >= row["prompt_eval_count"] - OPENING_TOKENS]
            assert row["prompt_eval_rate"] == pytest.approx(median(rates[-runs:]), rel=0.03), (place, rates)


# -- a sweep of four cells, and of two of them again -------------------------------------------------------------------


@dataclass(frozen=True)
class Twice:
    """Four cells, and two of them in another database afterwards on the same server, each with its part of the log.

    What is drawn does not hang on the version of the server, and takes as long as two cells: `picture` is of one only.
    """

    first: Cells
    first_log: Log
    again: Cells
    again_log: Log
    runs_again: list[dict[str, Any]]
    slowest_run_s: float
    table: dict[tuple[int, int], str]
    draws: bool
    picture: bytes


@pytest.fixture(scope="module")
def twice_by_version() -> dict[str, Twice]:
    return {}


@pytest.fixture(params=VERSIONS)
def twice(
    request: pytest.FixtureRequest, real_ollama: Servers, tmp_path: Path, twice_by_version: dict[str, Twice]
) -> Twice:
    """Measured at the first use for each version, which is in one process: these tests stand first of all."""
    version = str(request.param)
    if version not in twice_by_version:
        with contextlib.closing(Sweep(tmp_path)) as sweep:
            twice_by_version[version] = measure_twice(real_ollama(version), sweep)
    return twice_by_version[version]


def measure_twice(server: RealOllama, sweep: Sweep) -> Twice:
    keys = {**QUICK, "prompt": PROMPT, "warmup": 1, "repeats": 2}
    config = sweep.config(num_ctx=CONTEXTS, num_batch=BATCHES, **keys)
    start, sweep.draws = server.log_size(), (draws := server.version == NEWEST)
    sweep("run", config, *server.sweep_options(), timeout_s=PATIENCE_S).must()
    picture = (sweep.folder / "heatmaps" / "grid" / "heatmap_highlighted.png").read_bytes() if draws else b""
    middle, sweep.draws = server.log_size(), False
    again = ["--db", "again.db", "--out", "again", "--set", "repeats=1", "--set", f"num_ctx={CONTEXTS[:1]}"]
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
        draws=draws,
        picture=picture,
    )


def test_all_cells_are_measured_and_drawn(twice: Twice) -> None:
    assert twice.picture.startswith(b"\x89PNG") == twice.draws
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
    assert len(twice.again) == len(BATCHES)
    for place, row in twice.again.items():
        reads = twice.again_log[place]
        assert row["status"] == "ok"
        assert all(read.tokens >= row["prompt_eval_count"] - OPENING_TOKENS for read in reads), f"{place}: {reads}"
        assert row["prompt_eval_rate"] == pytest.approx(reads[-1].rate, rel=0.03), place
    for run in twice.runs_again:
        assert (run["cached_count"] or 0) <= OPENING_TOKENS, run


# -- what could spoil a number ----------------------------------------------------------------------------------------


def test_a_prompt_that_is_mostly_cached_gives_no_number(real_ollama: Servers, sweep: Sweep) -> None:
    """A long SYSTEM text stands before the number that makes a prompt new, so it stays cached from run to run."""
    server = real_ollama(NEWEST)
    (sweep.folder / "long.modelfile").write_text(f'FROM {MODEL}\nSYSTEM """{SHIPPED[:800]}"""\n', "utf-8")
    keys = {**QUICK, "modelfile": "long.modelfile", "warmup": 1, "repeats": 2, "num_ctx": [1024], "num_batch": [64]}
    config = sweep.config(**keys)
    start = server.log_size()
    sweep("run", config, *server.sweep_options(), timeout_s=PATIENCE_S).must()
    (row,) = sweep.rows()
    assert (row["status"], row["reason"], row["prompt_eval_rate"]) == ("error", "not_believed", None)
    assert "cached" in flags(row)
    runs = sweep.rows(sql="select * from runs where believed = 0")
    read = {found.tokens for found in server.prompts(start)[1024, 64]}
    assert runs
    assert {run["prompt_eval_count"] - run["cached_count"] for run in runs} <= read
    assert_nothing_left(server, sweep)


def test_a_prompt_that_fits_one_context_only_skips_the_other(server: RealOllama, sweep: Sweep) -> None:
    config = sweep.config(**{**QUICK, "prompt": {"text": SHIPPED[:1600]}, "num_ctx": [256, 1024], "num_batch": [64]})
    sweep("run", config, *server.sweep_options(), timeout_s=PATIENCE_S).must()
    skipped, fits = sweep.cells()[256, 64], sweep.cells()[1024, 64]
    assert (skipped["status"], skipped["reason"], skipped["attempts"]) == ("skipped", "does_not_fit", 0)
    assert fits["status"] == "ok"
    assert picture_table(sweep)[256, 64] == "Does not fit"
    assert "does not fit" in sweep("plan", config, *server.sweep_options()).must().stdout


def test_a_context_above_the_training_length_and_a_batch_above_the_context_are_flagged(
    real_ollama: Servers, sweep: Sweep
) -> None:
    server = real_ollama(NEWEST)
    above = 2 * TRAINED
    config = sweep.config(**QUICK, num_ctx=[1024, above], num_batch=[16, 2048])
    start = server.log_size()
    sweep("run", config, *server.sweep_options(), timeout_s=PATIENCE_S).must()
    cells = sweep.cells()
    assert {place: (row["effective_num_ctx"], row["effective_num_batch"]) for place, row in cells.items()} == {
        (1024, 16): (1024, 16), (1024, 2048): (1024, 1024), (above, 16): (TRAINED, 16), (above, 2048): (TRAINED, 2048),
    }  # fmt: skip
    assert {place: flags(row) & {"clamped", "unfilled"} for place, row in cells.items()} == {
        (1024, 16): set(), (1024, 2048): {"clamped", "unfilled"}, (above, 16): {"clamped"},
        (above, 2048): {"clamped", "unfilled"},
    }  # fmt: skip
    assert_believed_is_right(cells, server.prompts(start), 1, effective=True)
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


@pytest.fixture
def other_model(real_ollama: Servers, tmp_path: Path) -> Iterator[str]:
    """Another model on the server, by the name under which other programs use it."""
    server, name = real_ollama(NEWEST), "theirs"
    modelfile = tmp_path / "Theirs"
    modelfile.write_text(f"FROM {script_output('get_model', '--variant', 'wide')}\n", "utf-8")
    assert server.command("create", name, "-f", str(modelfile)).returncode == 0
    yield name
    server.command("rm", name)


def test_a_client_with_a_model_of_its_own_is_seen_in_mid_cell_and_the_cell_is_looked_at_again(
    real_ollama: Servers, other_model: str, sweep: Sweep
) -> None:
    """It comes after the load of the second cell: that one is flagged, not the first one. Once it has gone, a second
    look gives a number without the flag; it is asked for that cell alone, for with both the faster one may take it."""
    server = real_ollama(NEWEST)
    config = sweep.config(**{**QUICK, "num_ctx": [1024], "num_batch": [16, 64], "repeats": 4})
    words = ["run", str(config), *server.sweep_options()]
    started = sweep.start(*words)
    client = until("a finished cell and one that is held", lambda: held_client(sweep, started), PATIENCE_S)
    server.load(other_model)
    client.resume()
    started.wait(PATIENCE_S).must()
    cells = sweep.cells()
    assert statuses(cells.values()) == {(1024, 16): "ok", (1024, 64): "ok"}
    assert [flags(cells[1024, batch]) & {"shared_gpu"} for batch in (16, 64)] == [set(), {"shared_gpu"}]
    explained = sweep("explain", "num_batch=64").must().stdout
    assert f"{other_model}:latest" in explained.partition("beside it: ")[2]
    assert re.search(r"own words, run \d:\n  total duration: ", explained), "without the spinner and its escapes"

    server.unload_all()
    only = ("--set", "num_batch=[64]", "--set", "second_look=100%", "--second-look")
    sweep(*words, *only, timeout_s=PATIENCE_S).must()
    looked = sweep.rows(sql="select distinct num_batch from further_loads join cells on cells.id = cell_id")
    assert looked == [{"num_batch": 64}]
    assert "shared_gpu" not in flags(sweep.cells()[1024, 64])
    server.command("rm", other_model)
    assert_nothing_left(server, sweep)


def test_a_client_of_the_same_load_is_seen_on_a_server_that_answers_two_at_once(
    real_ollama: Servers, sweep: Sweep
) -> None:
    """It asks from the load of the second cell to the end of the sweep; it has a slot of its own and a share of the
    speed."""
    server = real_ollama(NEWEST, num_parallel=2)
    options = {"num_ctx": 1024, "num_batch": 64, "num_thread": 1, "num_predict": 50}
    config = sweep.config(**{**QUICK, "num_ctx": [1024], "num_batch": [16, 64], "repeats": 2})
    start = server.log_size()
    started = sweep.start("run", str(config), *server.sweep_options(), "--engine", "ollama_http")
    until("the load of the second cell", lambda: (2 * 1024, 64) in server.loads(start), PATIENCE_S)
    while started.is_running():
        server.post("/api/generate", model=MODEL, prompt="Tell a story.", stream=False, options=options)
    started.wait(PATIENCE_S).must()
    cells = sweep.cells()
    assert statuses(cells.values()) == {(1024, 16): "ok", (1024, 64): "ok"}
    assert [flags(cells[1024, batch]) & {"shared_gpu"} for batch in (16, 64)] == [set(), {"shared_gpu"}]
    assert "beside it: requests of others to this model" in sweep("explain", "num_batch=64").must().stdout
    server.unload_all()


def test_a_client_of_the_same_model_with_other_options_costs_loads_and_no_number(
    real_ollama: Servers, sweep: Sweep
) -> None:
    """The server takes our load away for it and loads ours again for the next run, which is read alone."""
    server = real_ollama(NEWEST)
    config = sweep.config(**{**QUICK, "num_ctx": [1024], "num_batch": [16, 64], "repeats": 4})
    start = server.log_size()
    started = sweep.start("run", str(config), *server.sweep_options())
    client = until("a finished cell and one that is held", lambda: held_client(sweep, started), PATIENCE_S)
    server.post(
        "/api/generate", model=MODEL, prompt="Say yes.", stream=False, options={"num_ctx": 512, "num_predict": 2}
    )
    client.resume()
    started.wait(PATIENCE_S).must()
    assert set(statuses(sweep.rows()).values()) == {"ok"}
    assert_believed_is_right(sweep.cells(), server.prompts(start), 4)
    server.unload_all()
    assert_nothing_left(server, sweep)


HOGS = 2 * (psutil.cpu_count() or 1)
SPIN = [sys.executable, "-c", "while True: pass"]
ATTEMPTS = (
    "select attempts.id, num_batch, attempts.status from attempts join cells on cells.id = cell_id order by attempts.id"
)
BELIEVED = """select num_ctx, num_batch, runs.prompt_eval_rate from runs join attempts on attempts.id = runs.attempt_id
    join cells on cells.id = cell_id where believed = 1"""
SHARES = """select attempts.id, attempts.flags, value from attempts
    join scores on attempt_id = attempts.id and part = 'attempt' and name = 'others_cpu_share'"""


@contextlib.contextmanager
def hogs() -> Iterator[None]:
    """Programs of others that compute for ever; they are no children of the sweep."""
    running = [subprocess.Popen(SPIN) for _ in range(HOGS)]
    try:
        seen = [psutil.Process(hog.pid) for hog in running]
        until("all of them compute", lambda: all(process.cpu_times().user > 0 for process in seen))
        yield
    finally:
        for hog in running:
            hog.kill()
            hog.wait()


def test_a_processor_hog_beside_a_third_of_the_cells_is_flagged_and_looked_at_again(
    real_ollama: Servers, sweep: Sweep
) -> None:
    """The cell is held until they compute. Of the others telemetry says by itself whether somebody was beside them."""
    server = real_ollama(NEWEST)
    batches = [8, 16, 32]
    keys = {**QUICK, "prompt": PROMPT, "repeats": 6, "num_ctx": [1024], "num_batch": batches, "second_look": "100%"}
    config, start = sweep.config(**keys), server.log_size()
    started = sweep.start("run", config, *server.sweep_options())
    client = until("a finished cell and one that is held", lambda: held_client(sweep, started), PATIENCE_S)
    with hogs():
        client.resume()
        until("it has ended", lambda: sweep.rows_now(ATTEMPTS)[1]["status"] != "started", PATIENCE_S)
    started.wait(PATIENCE_S).must()
    assert {row["status"] for row in sweep.rows()} == {"ok"}
    seen = {row["id"]: row for row in sweep.rows(sql=SHARES)}
    for row in seen.values():
        assert ("busy" in flags(row)) == (row["value"] > BUSY_SHARE), row
    attempts = sweep.rows(sql=ATTEMPTS)
    assert "busy" in flags(seen[attempts[1]["id"]])
    assert len(attempts) > len(batches), "second looks, as many as fit into the time"
    log = server.prompts(start)
    for row in sweep.rows(sql=BELIEVED):
        rates = [read.rate for read in log[row["num_ctx"], row["num_batch"]]]
        assert any(row["prompt_eval_rate"] == pytest.approx(rate, rel=0.03) for rate in rates), row
    assert_nothing_left(server, sweep)
