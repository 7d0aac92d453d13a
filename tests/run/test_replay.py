"""A sweep that is recorded and replayed: the same map, by a clock of its own, and never taken for a measured one."""

from __future__ import annotations

import gzip
import json
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import recording_maker as maker
from ollama_fixture import ROOT
from sweeping import Program
from sweeping import program as program

from ollama_sweep.core.outcome import Status
from ollama_sweep.core.recording.model import Recording
from ollama_sweep.core.recording.reading import read
from ollama_sweep.core.recording.writing import packed, written

REAL = sorted((ROOT / "tests" / "data" / "recordings").glob("*.jsonl.gz"))
CONTEXTS, BATCHES = [1024, 2048, 4096], [32, 64, 128]
PLAIN: dict[str, Any] = {"warmup": 1, "repeats": 3, "control": "off", "second_look": "off"}


def replay(program: Program, found: Recording | Path, name: str = "again", **keys: Any) -> Path:
    """A sweep file that replays a recording as it was."""
    file = found if isinstance(found, Path) else program.folder / f"{name}.jsonl.gz"
    if isinstance(found, Recording):
        file.write_bytes(packed(written(found)))
    whole = read(file.read_bytes(), "f")
    options = dict(whole.cells[0].options)
    grid = {axis: list(values) for axis, values in whole.dimensions.items()}
    given = {"num_predict": options["num_predict"], "prompt": {"tokens": whole.prompt_tokens}, **grid, **PLAIN}
    return program.config(name, **{**given, "engine": "replay", "recording": str(file), **keys})


def small(**more: Any) -> Recording:
    return maker.recording(CONTEXTS, BATCHES, **more)


def failures(found: Recording) -> int:
    return sum(load.status is not Status.OK for cell in found.cells for load in cell.loads)


def results(program: Program, sweep: str) -> list[dict[str, Any]]:
    return program.rows(sql=f"select * from results where sweep = '{sweep}' order by position")


def moments(program: Program) -> list[datetime]:
    """The beginning and the end of each attempt, in the order in which they were made."""
    rows = program.rows(sql="select started_at, finished_at from attempts where finished_at is not null order by id")
    return [datetime.fromisoformat(row[name]) for row in rows for name in ("started_at", "finished_at")]


def test_a_report_of_a_replayed_sweep_says_so_and_has_no_modelfile(program: Program) -> None:
    program("run", replay(program, small())).must()
    program("report", "--html", "r.html").must()
    page = (program.folder / "r.html").read_text("utf-8")
    for said in (page.partition('id="data"')[0], program("report", "--md").must().stdout):
        assert "nothing of it was measured here" in said
        assert "A Modelfile with the values" not in said


def test_what_was_measured_comes_again_and_stays_apart(program: Program) -> None:
    program.script(noise=0.05, oom_above=2048, cells={"num_ctx 512, num_batch 2": ["crashed", "ok"]})
    measured = program.grid("first", prompt={"tokens": 9})
    program("run", measured).must()
    output = program.folder / "first.jsonl"
    program("export", "first", "--format", "recording", "--remark", "as it was", "-o", output).must()
    whole = read(output.read_bytes(), "f")
    assert (whole.engine, whole.remark, len(whole.cells)) == ("fake", "as it was", 4)
    assert str(program.folder) not in output.read_text("utf-8")
    program("run", replay(program, output)).must()
    first, again = (
        program.rows(sql=f"select * from results where sweep = '{name}' order by position")
        for name in ("first", "again")
    )
    for one, other in zip(first, again, strict=True):
        for name in ("status", "reason", "flags", "runs", "attempts", "size_bytes"):
            assert one[name] == other[name], name
        assert (other["prompt_eval_rate"] or 0) == pytest.approx(one["prompt_eval_rate"] or 0, rel=1e-4)
        assert (other["engine"], other["cell"] == one["cell"]) == ("replay", False)
    assert {row["status"] for row in again} == {"ok", "oom"}
    assert "Replayed from the recording first of fake 1.0" in program("best", "again").must().stdout
    assert "Replayed" not in program("best", "first").must().stdout
    program("verify").must()


def test_maps_of_a_real_engine_ship_and_are_replayed_with_their_failures(program: Program) -> None:
    whole = [read(file.read_bytes(), file.name) for file in REAL]
    assert len(whole) >= 4
    assert all(len(one.measured) >= 60 and one.engine == "ollama" and one.remark for one in whole)
    assert all(file.stat().st_size < 200_000 for file in REAL)
    failing = max(zip(whole, REAL, strict=True), key=lambda pair: failures(pair[0]))
    program("run", replay(program, failing[1], repeats=2, retries=0)).must()
    found = program.cells()
    for cell in failing[0].cells:
        row, load = found[cell.num_ctx or 0, cell.num_batch or 0], cell.loads[0]
        assert (row["status"], row["reason"]) == (load.status, load.reason)
    assert {"oom", "ok"} <= {row["status"] for row in found.values()}


def test_hours_pass_at_once_and_are_stored(program: Program) -> None:
    slow = small(load_s=5400.0, run_s=300.0, spill_above=200_000)
    program("run", replay(program, slow, cooldown="1h", timeout="2h", load_timeout="3h")).must()
    begun = moments(program)
    assert begun == sorted(begun)
    assert begun[0] >= datetime.fromisoformat(slow.recorded_at)
    took = [(end - start).total_seconds() for start, end in zip(begun[::2], begun[1::2], strict=True)]
    assert took == pytest.approx([cell.loads[0].seconds for cell in slow.cells], abs=0.1)
    assert all((later - end).total_seconds() >= 3599 for end, later in zip(begun[1:-1:2], begun[2::2], strict=True))
    rows = program.rows()
    assert {row["flags"] for row in rows} == {"", "spilled"}
    said = program("status", "--json").must()
    assert json.loads(said.stdout)["replays"].startswith("the recording made of ollama 0.34.0")


def test_what_takes_longer_than_is_allowed_is_a_timeout(program: Program) -> None:
    program("run", replay(program, small(load_s=90, run_s=30), timeout="20s")).must()
    assert {row["status"] for row in program.rows()} == {"timeout"}
    program("run", replay(program, small(load_s=90, run_s=30), "load", load_timeout="20s")).must()
    rows = results(program, "load")
    assert {(row["status"], row["reason"]) for row in rows} == {("timeout", "load")}


@pytest.mark.parametrize("place", ["before_finish", "after_finish"])
def test_a_replay_that_was_killed_goes_on_and_its_clock_never_goes_back(program: Program, place: str) -> None:
    made = small(loads=2)
    config = replay(program, made, passes=2)
    killed = program.start("run", config, env={"SWEEP_CRASH_AT": f"{place}:5"}).wait()
    assert killed.returncode != 0
    before = moments(program)[-1]
    program("run", config).must()
    after = moments(program)
    assert after == sorted(after)
    assert after[-1] > before
    measured = {place: row["prompt_eval_rate"] for place, row in program.cells().items()}
    for cell in made.cells:
        rates = sorted(run.prompt_eval_rate or 0 for load in cell.loads for run in load.measured)
        assert rates[0] <= measured[cell.num_ctx or 0, cell.num_batch or 0] <= rates[-1]
    loads = program.rows(sql="select cell_id, count(*) as n from attempts where status = 'ok' group by cell_id")
    assert {row["n"] for row in loads} == {2}


def test_a_seed_draws_the_loads_anew_and_is_a_sweep_of_its_own(program: Program) -> None:
    made, found = small(loads=5, noise=0.2), {}
    for seed in (None, 1, 2):
        name = f"seed-{seed}"
        program("run", replay(program, made, name, **({} if seed is None else {"recording_seed": seed}))).must()
        found[seed] = results(program, name)
    assert len({tuple(row["cell"] for row in rows) for rows in found.values()}) == 3
    assert len({tuple(row["prompt_eval_rate"] for row in rows) for rows in found.values()}) == 3


def test_what_only_looks_knows_a_replay(program: Program) -> None:
    config = replay(program, small())
    plan = program("plan", config).must()
    assert "9 cells" in plan.stdout
    assert not (program.folder / "sweeps.db").exists()
    looked = program("doctor", config)
    assert "9 of 9 cells were measured" in looked.stdout
    program("run", config).must()
    assert "replay" in program("watch").must().stdout
    program("explain", "num_ctx=1024", "num_batch=32", "--sweep", "again").must()


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"recording": None}, "recording is missing; add it or use --recording FILE"),
        ({"recording": "nowhere.jsonl"}, "nowhere.jsonl: cannot be read: No such file"),
        ({"recording": "cut.jsonl"}, "cut.jsonl: holds 2 of 9 cells: it is cut off"),
        ({"num_ctx": [1024, 8192]}, "num_ctx 8192 is not in the recording, which has 1024, 2048, 4096"),
        ({"num_predict": 5}, "num_predict 5 is not in the recording, which has 2"),
        ({"num_thread": 2}, "num_thread 2 is not in the recording, where it was not set"),
        ({"prompt": {"tokens": 500}}, "a prompt of 500 tokens is not in the recording, whose prompt has 1000"),
        ({"num_batch": None}, "the recording varies num_batch (32, 64, 128): say which"),
        ({"task": "chat"}, "a recording holds no answers, so chat cannot be replayed"),
    ],
)
def test_another_grid_and_an_unsound_file_are_one_line(program: Program, keys: dict[str, Any], words: str) -> None:
    text = written(small())
    (program.folder / "cut.jsonl").write_text("\n".join(text.splitlines()[:3]), "utf-8")
    config = replay(program, small(), **keys)
    lines = [line for line in config.read_text("utf-8").splitlines() if not line.endswith(": null")]
    config.write_text("\n".join(lines), "utf-8")
    for command in ("run", "plan"):
        refused = program(command, config)
        assert refused.returncode == 2, refused.stderr
        (line,) = [line for line in refused.stderr.splitlines() if line.startswith("error")]
        assert words in line
    assert not (program.folder / "sweeps.db").exists()


def test_a_sweep_without_raw_runs_or_with_questions_is_not_recorded(program: Program) -> None:
    old = program.folder / "old.json"
    row = {"num_ctx": 512, "num_batch": 2, "prompt_eval_rate": 5.0, "timestamp": None, "error": None}
    old.write_text(json.dumps({"results": [row]}), "utf-8")
    program("import", old).must()
    refused = program("export", "--format", "recording")
    assert (refused.returncode, "has no raw runs" in refused.stderr) == (2, True)
    program("run", program.grid("asks", task=["prompt_eval", "chat"], tasks={"chat": {"num_predict": 5}})).must()
    refused = program("export", "asks", "--format", "recording")
    assert (refused.returncode, "has the task chat" in refused.stderr) == (2, True)
    assert program("export", "--remark", "x").returncode == 2


def test_a_recording_may_be_packed(program: Program) -> None:
    program("run", replay(program, small())).must()
    for name in ("plain.jsonl", "packed.jsonl.gz"):
        program("export", "--format", "recording", "-o", program.folder / name).must()
    packed_bytes = (program.folder / "packed.jsonl.gz").read_bytes()
    assert gzip.decompress(packed_bytes) == (program.folder / "plain.jsonl").read_bytes()
    program("run", "--recording", program.folder / "plain.jsonl", replay(program, small(), "second")).must()


def test_a_recording_alone_makes_no_replay(program: Program) -> None:
    config = program.grid(recording="nowhere.jsonl")
    for command in ("plan", "run"):
        done = program(command, config).must()
        assert "recording is only for `engine: replay`; the engine fake measures" in done.stdout + done.stderr


def test_a_pair_of_grids_that_meet_in_part_draws_another_load_each_time(program: Program) -> None:
    made = small(loads=2, noise=0.2)
    files = [
        replay(program, made, name, num_ctx=sizes, passes=2)
        for name, sizes in (("one", CONTEXTS[:2]), ("two", CONTEXTS[1:]))
    ]
    program("run", "--pair", *files).must()
    rates = program.rows(
        sql="""select count(*) as loads, count(distinct log_median) as drawn
        from attempts join load_values on attempt_id = attempts.id and metric = 'prompt_eval_rate' group by cell_id"""
    )
    assert rates == [{"loads": 2, "drawn": 2}] * 12
