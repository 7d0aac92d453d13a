"""A whole sweep on the scripted engine: what is tried again, what is kept, and what runs a second time."""

# ruff: noqa: F401, F811 - the fixture is imported, and asked for by its name
from __future__ import annotations

import contextlib
import math
import re
import sqlite3
from dataclasses import replace
from typing import Any

import pytest
from openai_server import chunk, end, scripted_server, stream, usage
from sweep_runner import ONE_LOAD, Ended, statuses
from sweeping import PROMPT_TOKENS, WORDS, Program, label, program

from ollama_sweep.core.cell import Cell
from ollama_sweep.core.errors import EngineUnavailable
from ollama_sweep.core.generation import Generation
from ollama_sweep.engines.base import EngineInfo
from ollama_sweep.engines.fake import Engine
from ollama_sweep.machine import neighbours
from ollama_sweep.machine.neighbours import CoreTime
from ollama_sweep.run import loop, waiting

FIRST = label(512, 2)
CELLS = (FIRST, label(512, 4), label(1024, 2), label(1024, 4))
ATTEMPTS = "select number, status, reason, error, runs from attempts order by id"
ALL_OK = {(512, 2): "ok", (512, 4): "ok", (1024, 2): "ok", (1024, 4): "ok"}


@pytest.fixture(autouse=True)
def impatience(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same waiting, in hundredths of a second."""
    for module in (loop, waiting):
        monkeypatch.setattr(module, "FIRST_WAIT_S", 0.01)


def history(program: Program) -> list[tuple[int, str, str]]:
    return [(row["number"], row["status"], row["reason"]) for row in program.rows(sql=ATTEMPTS)]


def nothing_ran(program: Program, ended: Ended) -> None:
    """Nothing was created beside what the test wrote, and nothing was measured."""
    assert ended.stderr.count("error: ") == 1
    assert program.files() <= {"grid.yaml", "journal.txt"}
    assert not program.measured()


# A sweep from its beginning to its end


def test_every_cell_is_warmed_up_and_measured_three_times(program: Program) -> None:
    said = program("run", program.grid()).must().stdout
    assert program.measured() == dict.fromkeys(CELLS, 4)
    assert statuses(program.rows()) == ALL_OK
    for row in program.rows():
        assert (row["runs"], row["attempts"], row["flags"]) == (3, 1, "")
        assert row["prompt_eval_count"] == PROMPT_TOKENS
        assert (row["effective_num_ctx"], row["effective_num_batch"]) == (row["num_ctx"], row["num_batch"])
        exact = 400 * row["num_batch"] / (row["num_batch"] + 8) * (1 - row["num_ctx"] / 4e6)
        assert row["prompt_eval_rate"] == pytest.approx(exact)
    assert "0 of 4 cells already done, 4 to run" in said
    assert re.search(r"^Best: num_ctx 512 with num_batch 4: 133 tokens/s", said, re.MULTILINE)
    assert "Picture: heatmaps/grid/heatmap_highlighted.png" in said


def test_warm_ups_are_stored_apart_and_no_nonce_comes_twice(program: Program) -> None:
    program("run", program.grid(warmup=2, repeats=2)).must()
    program("run", program.grid("more", num_ctx=[2048])).must()
    runs = program.rows(
        sql="select part, number, warmup, nonce, believed from runs where attempt_id = 1 order by rowid"
    )
    assert [(run["part"], run["warmup"]) for run in runs] == [
        ("warmup 1", 1), ("warmup 2", 1), ("run 1", 0), ("run 2", 0),
    ]  # fmt: skip
    assert all(run["believed"] for run in runs)
    nonces = [run["nonce"] for run in program.rows(sql="select nonce from runs")]
    assert len(nonces) == 4 * 4 + 2 * 4
    assert len(set(nonces)) == len(nonces)
    assert all(re.fullmatch("[1-9][0-9]{7}", nonce) for nonce in nonces)


def test_each_prompt_begins_with_its_nonce(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[str] = []
    generate = Engine.generate

    def spy(self: Engine, cell: Cell, prompt: str, timeout_s: float) -> Generation:
        sent.append(prompt)
        return generate(self, cell, prompt, timeout_s)

    monkeypatch.setattr(Engine, "generate", spy)
    program("run", program.grid(num_ctx=512, num_batch=2)).must()
    nonces = [run["nonce"] for run in program.rows(sql="select nonce from runs order by rowid")]
    assert sent == [f"{nonce} {WORDS}" for nonce in nonces]


@pytest.mark.parametrize(
    ("order", "places"),
    [
        ("column-first", [(1, 2), (1, 4), (2, 2), (2, 4), (3, 2), (3, 4)]),
        ("row-first", [(1, 2), (2, 2), (3, 2), (1, 4), (2, 4), (3, 4)]),
        ("columns-bisected", [(1, 2), (1, 4), (3, 2), (3, 4), (2, 2), (2, 4)]),
    ],
)
def test_cells_are_measured_in_the_order_asked_for(order: str, places: list[tuple[int, int]], program: Program) -> None:
    program("run", program.grid(num_ctx=[1024, 2048, 3072], order=order)).must()
    assert [sorted(map(int, re.findall(r"\d+", name))) for name in program.events("prepare")] == [
        [num_batch, 1024 * num_ctx] for num_ctx, num_batch in places
    ]


def test_a_prompt_is_made_to_the_length_asked_for(program: Program) -> None:
    said = program("run", program.grid(prompt={"tokens": 400}, num_ctx=[402, 403])).must().stdout
    assert "Making a prompt of 400 tokens on m" in said
    assert {row["num_ctx"]: (row["status"], row["prompt_eval_count"]) for row in program.rows()} == {
        402: ("skipped", None),
        403: ("ok", 400),
    }
    counted = len(program.events("count"))
    assert "Making" not in program("run", program.grid(prompt={"tokens": 400}, num_ctx=[402, 403])).must().stdout
    assert len(program.events("count")) == counted


@pytest.mark.parametrize(("noise", "runs"), [(0, 2), (0.5, 9)])
def test_runs_are_repeated_until_they_agree(noise: float, runs: int, program: Program) -> None:
    program.script(noise=noise)
    program("run", program.grid(repeats={"min": 2, "max": 9, "until": "0.01%"})).must()
    assert {row["runs"] for row in program.rows()} == {runs}


def test_what_the_engine_really_used_is_flagged_and_said(program: Program) -> None:
    program.script(context_length=1024, spill_above=3000)
    said = program("run", program.grid(num_ctx=[1024, 2048], num_batch=[2, 4])).must().stdout
    assert {place: cell["flags"] for place, cell in program.cells().items()} == {
        (1024, 2): "",
        (1024, 4): "spilled",
        (2048, 2): "clamped,spilled",
        (2048, 4): "clamped,spilled",
    }
    assert "[clamped, spilled]" in said


# Failures are results


@pytest.mark.parametrize(
    ("step", "status", "reason", "words"),
    [
        ("oom", "oom", "host_oom", "OOM: ggml_aligned_malloc: insufficient memory"),
        ("cuda_oom", "oom", "cuda_oom", "CUDA OOM: cudaMalloc failed: out of memory"),
        ("resource", "resource", "cuda_resource", "CUDA resource allocation error: CUDA error"),
        ("timeout", "timeout", "run", "Timeout or no output: no answer in time"),
        ("truncated", "truncated", "prompt_cut", "Truncated: the engine read 4 prompt tokens instead of 9"),
    ],
)
def test_a_failure_that_would_come_again_is_final_at_once(
    step: str, status: str, reason: str, words: str, program: Program
) -> None:
    program.script(cells={FIRST: [step, "ok"]})
    said = program("run", program.grid(retries=5)).must().stdout
    row = program.rows()[0]
    assert (row["status"], row["reason"], row["attempts"], row["prompt_eval_rate"]) == (status, reason, 1, None)
    assert f"x {words}" in said
    assert statuses(program.rows()) == {**ALL_OK, (512, 2): status}
    assert program.events("prepare").count(FIRST) == 1
    assert program.events("release").count("failed") == 1
    table = (program.folder / "heatmaps/grid/results_table.csv").read_text()
    assert words.partition(":")[0] in table.splitlines()[1]


@pytest.mark.parametrize(
    ("step", "status", "reason"),
    [
        ("crashed", "crashed", "assert"),
        ("error", "error", "unknown"),
        ("no_statistics", "error", "no_statistics"),
        ("cached", "error", "not_believed"),
        ("bug", "error", "bug"),
    ],
)
def test_a_failure_that_may_pass_is_tried_again(step: str, status: str, reason: str, program: Program) -> None:
    program.script(cells={FIRST: [step, "ok"]})
    said = program("run", program.grid()).must().stdout
    assert statuses(program.rows()) == ALL_OK
    assert program.rows()[0]["attempts"] == 2
    assert history(program)[:2] == [(1, status, reason), (2, "ok", "")]
    assert "(tried again)" in said


def test_statistics_without_a_count_are_tried_again(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    generate, broken = Engine.generate, iter([True])

    def without_count(self: Engine, cell: Cell, prompt: str, timeout_s: float) -> Generation:
        found = generate(self, cell, prompt, timeout_s)
        return replace(found, prompt_eval_count=None) if next(broken, False) else found

    monkeypatch.setattr(Engine, "generate", without_count)
    program("run", program.grid()).must()
    assert history(program)[:2] == [(1, "parse_error", "count_missing"), (2, "ok", "")]


@pytest.mark.parametrize(("retries", "attempts"), [(0, 1), (1, 2), (3, 4)])
def test_retries_are_as_many_as_asked_for(retries: int, attempts: int, program: Program) -> None:
    program.script(cells={FIRST: ["crashed"]})
    program("run", program.grid(retries=retries)).must()
    row = program.rows()[0]
    assert (row["status"], row["attempts"]) == ("crashed", attempts)
    assert row["error"] == "GGML_ASSERT(n_tokens_all <= cparams.n_batch) failed"
    program("run", program.grid(retries=retries + 1)).must()
    assert program.rows()[0]["attempts"] == attempts


def test_the_engines_own_text_and_raw_output_are_kept(program: Program) -> None:
    program.script(cells={FIRST: ["cuda_oom"]})
    program("run", program.grid(num_ctx=512)).must()
    assert program.rows()[0]["error"] == "cudaMalloc failed: out of memory"
    kept = [(row["attempt_id"], row["part"]) for row in program.rows(sql="select * from raw_outputs")]
    assert sorted(kept) == [(1, "attempt"), (2, "run 1"), (2, "run 2"), (2, "run 3"), (2, "warmup 1")]


def test_three_bugs_in_a_row_stop_the_sweep_with_their_traceback(program: Program) -> None:
    program.script(cells={name: ["bug"] for name in CELLS})
    ended = program("run", program.grid())
    assert ended.returncode == 1
    assert "error: 3 cells in a row met a bug of this program. The last:\nTraceback" in ended.stderr
    assert "ZeroDivisionError: a scripted bug" in ended.stderr
    assert [row["reason"] for row in program.rows(sql=ATTEMPTS)] == ["bug"] * 6, "two attempts at each of three cells"
    assert all("ZeroDivisionError: a scripted bug" in row["error"] for row in program.rows(sql=ATTEMPTS))
    assert [row["status"] for row in program.rows()] == ["error", "error", "error", "pending"]


def test_cells_are_counted_and_not_their_attempts(program: Program) -> None:
    """Two cells with two attempts each met four bugs, which is not three cells."""
    program.script(cells={name: ["bug"] for name in CELLS[:2]})
    program("run", program.grid(retries=3)).must()
    assert [row["status"] for row in program.rows()] == ["error", "error", "ok", "ok"]
    assert [row["attempts"] for row in program.rows()] == [4, 4, 1, 1]


def test_bugs_with_a_good_cell_between_them_do_not_stop_the_sweep(program: Program) -> None:
    program.script(cells={CELLS[0]: ["bug"], CELLS[2]: ["bug"], CELLS[3]: ["bug"]})
    program("run", program.grid(retries=0)).must()
    assert [row["status"] for row in program.rows()] == ["error", "ok", "error", "error"]


def test_strict_says_that_something_is_not_as_it_should_be(program: Program) -> None:
    program.script(cells={FIRST: ["timeout"]})
    assert "error: 1 cells failed or carry a flag" in program("run", program.grid(), "--strict").must(6).stderr
    program.script()
    program("run", program.grid(), "--strict", "--retry", "timeout").must()


# An engine that is away


def test_an_engine_that_is_away_costs_no_cell(program: Program) -> None:
    program.script(cells={FIRST: ["unavailable", "unavailable", "ok"]})
    said = program("run", program.grid()).must().stdout
    assert statuses(program.rows()) == ALL_OK
    assert program.rows()[0]["attempts"] == 1
    assert history(program)[:3] == [(1, "interrupted", "engine_unavailable"), (2, "interrupted", "engine_unavailable"),
                                    (3, "ok", "")]  # fmt: skip
    assert said.count("could not connect to the fake server") == 2
    assert "The engine answers again" in said


def test_an_engine_that_stays_away_stops_the_sweep_and_is_blamed_on_no_cell(program: Program) -> None:
    program.script(cells={CELLS[1]: ["unavailable"]})
    ended = program("run", program.grid(), "--wait-engine", "50ms").must(5)
    assert ended.stderr == "error: could not connect to the fake server\n"
    assert [row["status"] for row in program.rows()] == ["ok", "pending", "pending", "pending"]
    assert {status for _, status, _ in history(program)} == {"ok", "interrupted"}
    program.script()
    program("run", program.grid()).must()
    assert program.measured() == dict.fromkeys(CELLS, 4)


class Down:
    """An engine whose first questions are refused."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, times: int) -> None:
        self.asked = 0
        describe = Engine.describe

        def refuse(engine: Engine) -> EngineInfo:
            self.asked += 1
            if self.asked <= times:
                raise EngineUnavailable("no server at 127.0.0.1:1")
            return describe(engine)

        monkeypatch.setattr(Engine, "describe", refuse)


def test_a_server_that_is_down_at_the_start_is_waited_for(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    down = Down(monkeypatch, 3)
    said = program("run", program.grid()).must().stdout
    assert said.count("no server at 127.0.0.1:1") == 3
    assert down.asked > 3
    assert statuses(program.rows()) == ALL_OK


def test_a_server_that_does_not_come_leaves_nothing_behind(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    Down(monkeypatch, 10**6)
    ended = program("run", program.grid(), "--wait-engine", "0.05").must(5)
    assert "error: no server at 127.0.0.1:1" in ended.stderr
    nothing_ran(program, ended)


def test_a_missing_model_is_not_waited_for_and_leaves_nothing_behind(program: Program) -> None:
    program.script(missing_models=["m"])
    ended = program("run", program.grid()).must(5)
    assert "error: m is not installed here. Run: ollama pull m" in ended.stderr
    assert "waiting" not in ended.stdout
    nothing_ran(program, ended)


# What fits


def test_cells_that_the_prompt_does_not_fit_are_skipped_and_said(program: Program) -> None:
    said = program("run", program.grid(num_ctx=[11, 12])).must().stdout
    assert "2 cells are skipped: the prompt does not fit their num_ctx" in said
    assert "0 of 4 cells already done, 2 to run" in said
    assert {(row["num_ctx"], row["status"], row["reason"]) for row in program.rows()} == {
        (11, "skipped", "does_not_fit"),
        (12, "ok", ""),
    }
    assert "Does not fit" in (program.folder / "heatmaps/grid/results_table.csv").read_text()
    assert "2 of 4 cells already done, 0 to run" in program("run", program.grid(num_ctx=[11, 12])).must().stdout


def test_where_no_cell_fits_nothing_is_created(program: Program) -> None:
    ended = program("run", program.grid(num_ctx=[10, 11])).must(2)
    assert re.search("the prompt has 9 tokens and needs num_ctx 12; the largest .*is 11, so no cell fits", ended.stderr)
    nothing_ran(program, ended)


# The second time


def test_a_finished_sweep_runs_nothing_again(program: Program) -> None:
    program("run", program.grid()).must()
    before = program.rows()
    said = program("run", program.grid()).must().stdout
    assert "4 of 4 cells already done, 0 to run" in said
    assert program.rows() == before
    assert sum(program.measured().values()) == 16
    assert program.events("count").count("m") == 1 + 16


@pytest.mark.parametrize(
    "keys",
    [
        {"timeout": "1h", "load_timeout": "5m", "retries": 9, "warmup": 5},
        {"repeats": 2},
        {"order": "shuffled"},
        {"num_batch": [4, 2], "num_ctx": [1024, 512]},
        {"prompt": {"text": WORDS}, "options": {"num_predict": 2}},
        {"num_ctx": {"start": 512, "end": 1024, "step": 512}},
    ],
    ids=str,
)
def test_what_is_not_identity_runs_nothing_again(keys: dict[str, Any], program: Program) -> None:
    program("run", program.grid()).must()
    program("run", program.grid(**keys)).must()
    assert sum(program.measured().values()) == 16


def test_a_grown_grid_runs_only_its_new_cells(program: Program) -> None:
    program("run", program.grid()).must()
    before = program.cells()
    said = program("run", program.grid(num_ctx=[256, 512, 1024], num_batch=[2, 3, 4])).must().stdout
    assert "Changed since the last run: num_ctx 256 is new (3 cells)" in said
    assert "Changed since the last run: num_batch 3 is new (3 cells)" in said
    assert "4 of 9 cells already done, 5 to run" in said
    assert set(program.measured().values()) == {4}
    assert len(program.measured()) == 9
    after = program.cells()
    unchanged = [name for name in before[512, 2] if name != "position"]
    assert all(after[place][name] == before[place][name] for place in before for name in unchanged)


def test_a_shrunk_grid_keeps_what_it_leaves_out(program: Program) -> None:
    program("run", program.grid()).must()
    said = program("run", program.grid(num_ctx=1024)).must().stdout
    assert "Changed since the last run: num_ctx 512 is gone (its cells are kept)" in said
    assert statuses(program.rows()) == {(1024, 2): "ok", (1024, 4): "ok"}
    assert "4 of 4 cells already done, 0 to run" in program("run", program.grid()).must().stdout
    assert sum(program.measured().values()) == 16


@pytest.mark.parametrize(
    ("keys", "what"),
    [
        ({"prompt": {"text": WORDS + " six"}}, "prompt"),
        ({"model": "other"}, "model"),
        ({"options": {"num_gpu": 3}}, "options"),
        ({"num_predict": 4}, "options"),
    ],
    ids=str,
)
def test_what_is_identity_is_seen_said_and_measured_again(keys: dict[str, Any], what: str, program: Program) -> None:
    program("run", program.grid()).must()
    said = program("run", program.grid(**keys)).must().stdout
    assert f"Changed since the last run: {what} changed: 4 cells will be measured again, the old ones are kept" in said
    assert "0 of 4 cells already done, 4 to run" in said
    assert program.measured() == dict.fromkeys(CELLS, 8)
    again = program("run", program.grid()).must().stdout
    assert "4 of 4 cells already done, 0 to run" in again
    assert f"{what} changed" in again
    assert "changed" not in program("run", program.grid()).must().stdout


def test_two_sweeps_that_share_a_cell_measure_it_once(program: Program) -> None:
    program("run", program.grid("one")).must()
    said = program("run", program.grid("two", num_ctx=[1024, 2048])).must().stdout
    assert "2 of 4 cells already done, 2 to run" in said
    assert set(program.measured().values()) == {4}
    shared = program.rows(
        sql="select sweep, prompt_eval_rate, cell from results where num_ctx = 1024 order by cell, sweep"
    )
    assert [row["sweep"] for row in shared] == ["one", "two"] * 2
    assert shared[0]["cell"] == shared[1]["cell"]
    assert shared[0]["prompt_eval_rate"] == shared[1]["prompt_eval_rate"]


def test_more_repeats_add_runs_only(program: Program) -> None:
    program.script(noise=0.2)
    program("run", program.grid(num_ctx=512, repeats=2)).must()
    first = program.rows(sql="select * from runs")
    said = program("run", program.grid(num_ctx=512, repeats=5)).must().stdout
    assert "2 of 2 cells already done, 0 to run, 2 to load once more" in said
    assert program.measured() == dict.fromkeys(CELLS[:2], 3 + 4)
    runs = program.rows(sql="""select runs.* from runs join attempts on attempts.id = attempt_id
        where cell_id = 1 and not warmup order by runs.rowid""")  # fmt: skip
    assert [run["number"] for run in runs] == [1, 2, 3, 4, 5]
    assert [run for run in program.rows(sql="select * from runs") if run in first] == first
    row = program.rows()[0]
    rates = [run["prompt_eval_rate"] for run in runs]
    assert (row["runs"], row["loads"], row["attempts"], row["looks"]) == (5, 2, 2, 0)
    assert (row["prompt_eval_rate_min"], row["prompt_eval_rate_max"]) == (min(rates), max(rates))
    of_two, of_three = math.sqrt(rates[0] * rates[1]), sorted(rates[2:])[1]
    assert row["prompt_eval_rate"] == pytest.approx(math.sqrt(of_two * of_three)), "each load says as much as the other"
    program("run", program.grid(num_ctx=512, repeats=3)).must()
    assert program.measured() == dict.fromkeys(CELLS[:2], 3 + 4)


def test_a_higher_timeout_runs_only_what_timed_out_under_the_lower_one(program: Program) -> None:
    program.script(cells={FIRST: ["timeout", "ok"], CELLS[1]: ["oom"]})
    program("run", program.grid(timeout=60)).must()
    program("run", program.grid(timeout=30)).must()
    assert program.rows()[0]["status"] == "timeout"
    assert program.events("prepare").count(FIRST) == 1
    said = program("run", program.grid(timeout=60), "--timeout", "2m").must().stdout
    assert "3 of 4 cells already done, 1 to run" in said
    assert statuses(program.rows()) == {**ALL_OK, (512, 4): "oom"}
    assert program.events("prepare").count(CELLS[1]) == 1


def test_failures_are_run_again_on_request_only_those_named(program: Program) -> None:
    program.script(cells={CELLS[0]: ["oom", "ok"], CELLS[1]: ["timeout", "ok"], CELLS[2]: ["resource", "ok"]})
    program("run", program.grid()).must()
    program("run", program.grid(), "--retry", "oom, resource").must()
    assert statuses(program.rows()) == {**ALL_OK, (512, 4): "timeout"}
    assert program.measured()[CELLS[3]] == 4


def test_memory_that_sufficed_once_and_not_another_time_is_flagged(program: Program) -> None:
    program.script(cells={CELLS[0]: ["oom", "ok"], CELLS[1]: ["timeout", "ok"]})
    program("run", program.grid()).must()
    assert program.cells()[512, 2]["flags"] == ""
    program("run", program.grid(), "--retry", "oom, timeout").must()
    found = {place: (row["status"], row["flags"]) for place, row in program.cells().items()}
    assert found == {**dict.fromkeys(found, ("ok", "")), (512, 2): ("ok", "unstable")}


def test_a_clock_that_was_held_down_is_a_flag_and_the_number_stays(program: Program) -> None:
    """A GPU whose driver says that heat slows it down (0x40)."""
    driver = program.folder / "bin" / "nvidia-smi"
    driver.parent.mkdir()
    driver.write_text(
        "#!/bin/sh\ncase $1 in *=index) echo 0;; *power.draw*) echo '0, 61.25, 1024, 0x0000000000000040';; esac\n",
        "utf-8",
    )
    driver.chmod(0o755)
    program.start("run", program.grid(), env={"PATH": f"{driver.parent}:/usr/bin:/bin"}).wait().must()
    for row in program.rows():
        assert (row["status"], row["flags"]) == ("ok", "throttled")
        assert row["throttled_s"] > 0
        tokens = (row["runs"] + 1) * (row["prompt_eval_count"] + row["eval_count"])
        assert row["energy_per_token_j"] == pytest.approx(row["energy_j"] / tokens)
        assert row["prompt_eval_rate"] > 0
    assert "throttled: the hardware lowered its clock" in program("best").must().stdout


def test_a_model_of_others_that_comes_after_the_load_flags_every_cell_that_it_stands_beside(program: Program) -> None:
    """Four runs a cell: it is there from the second run of the second cell on."""
    program.script(visitor_since=6)
    program("run", program.grid()).must()
    assert [(row["status"], row["flags"]) for row in program.rows()] == [("ok", ""), *[("ok", "shared_gpu")] * 3]
    assert "beside it: theirs" in program("explain", "num_ctx=512", "num_batch=4").must().stdout


def test_a_program_that_begins_to_compute_on_the_gpu_flags_the_cells_that_it_touched(program: Program) -> None:
    """From the third cell on a program of others is on the engine's GPU; the fake engine is the sweep's own process."""
    program.script(cells={CELLS[3]: ["timeout"]})
    driver = program.folder / "bin" / "nvidia-smi"
    driver.parent.mkdir()
    driver.write_text(
        f"""#!/bin/sh
case $1 in
*=index) echo 0;;
*power.draw*) echo '0, 61.25, 1024, 0x0000000000000000';;
*compute-apps*) echo "$PPID, /usr/bin/python3, 1024"
    [ "$(grep -c ^prepare {program.journal})" -lt 3 ] || echo '4194305, /usr/bin/blender, 2048';;
esac
""",
        "utf-8",
    )
    driver.chmod(0o755)
    environment = {**program.environment(), "PATH": f"{driver.parent}:/usr/bin:/bin"}
    program.start("run", program.grid(), env=environment).wait().must()
    assert [(row["status"], row["flags"]) for row in program.rows()] == [
        ("ok", ""), ("ok", ""), ("ok", "shared_gpu"), ("timeout", "shared_gpu"),
    ]  # fmt: skip
    assert [row["gpu_shared_s"] == 0 for row in program.rows()[:3]] == [True, True, False]
    assert "another program computed on the GPU for " in program("explain", "num_ctx=1024", "num_batch=2").must().stdout


def test_others_on_the_processor_during_the_runs_are_a_flag_and_a_number(
    program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the first cell others use half of all cores, in the second one a tenth; the engine itself uses the rest."""
    looks = iter([CoreTime(0, 0, 0), CoreTime(10, 10, 5), CoreTime(10, 10, 5), CoreTime(20, 20, 14)])
    monkeypatch.setattr(neighbours, "core_time", lambda pids: next(looks))
    with scripted_server() as server:
        server.chat(stream(chunk("Hello"), end(), usage(12, 2)))
        config = program.config(
            model="small-model",
            engine="openai",
            host=server.host,
            task="chat",
            temperature=[0.1, 0.9],
            repeats=1,
            **ONE_LOAD,
        )
        said = program("run", config).must().stdout
    assert [(row["flags"], row["others_cpu_share"]) for row in program.rows()] == [
        ("busy", pytest.approx(0.5)), ("", pytest.approx(0.1)),
    ]  # fmt: skip
    assert said.count("[busy]") == 1
    assert "50 %, and the limit is 20 %" in program("explain", "temperature=0.1").must().stdout


def test_a_newer_engine_is_said_and_measures_nothing_again(program: Program) -> None:
    program("run", program.grid()).must()
    program.script(version="2.0")
    said = program("run", program.grid(num_ctx=[512, 1024, 2048])).must().stdout
    assert "the engine was 1.0, now it is 2.0" in said
    assert "4 of 6 cells already done, 2 to run" in said
    segments = program.rows(sql="select segment_id, count(*) as cells from attempts group by segment_id")
    assert [row["cells"] for row in segments] == [4, 2]


@pytest.mark.parametrize("command", ["plan", "run"])
def test_a_database_that_was_begun_and_never_committed_to_is_begun_anew(command: str, program: Program) -> None:
    """The power was cut, or the process died, before its tables were there."""
    with contextlib.closing(sqlite3.connect(program.folder / "sweeps.db")) as begun:
        begun.execute("PRAGMA journal_mode = wal")
    assert "4 to run" in program(command, program.grid()).must().stdout
