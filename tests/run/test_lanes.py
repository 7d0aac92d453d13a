"""Several lanes measure one sweep: whoever is killed, nothing is lost and nothing is counted twice."""

# ruff: noqa: F401, F811 - the fixture is imported, and asked for by its name
from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest
from ollama_fixture import ROOT, clean_environment, until
from sweep_runner import Started
from sweeping import Program, json_of, label, program

from ollama_sweep.core.crashpoints import IN_LANE, LANE_POINTS, VARIABLE
from ollama_sweep.machine import computer, processor
from ollama_sweep.machine.computer import Gpu
from ollama_sweep.run.lanes.coordinator import Coordinator
from ollama_sweep.run.lanes.room import Room

LEASE_S = 10.0
RUNS = 3
"""A warm-up and two runs for each attempt that is finished."""
ATTEMPTS = """select cells.num_ctx, cells.num_batch, attempts.status, attempts.reason, attempts.purpose
    from attempts join cells on cells.id = cell_id order by attempts.id"""
TOGETHER = """select count(*) as cells, sum(ok) as ok from (
    select sum(status = 'ok') as ok from attempts where purpose is null group by cell_id)"""


def hosts(*names: str) -> list[Mapping[str, str]]:
    """Servers that a scripted engine never asks, so that only their names matter."""
    return [{"name": name, "host": f"127.0.0.1:{number}"} for number, name in enumerate(names, 1)]


def lanes(program: Program, *names: str, **keys: Any) -> Path:
    """A sweep over these lanes."""
    return program.grid(**{"hosts": hosts(*names), "warmup": 1, "repeats": 2, "interim": "off", **keys})


def room(program: Program, name: str) -> Room:
    return Room(program.folder / "sweeps.db.lanes" / name)


def start(program: Program, *words: str | Path, **env: str) -> Started:
    return program.start(*words, env={**program.environment(), **env})


def statuses_now(program: Program) -> dict[str, int]:
    rows = program.rows(sql="select status, count(*) as cells from cells group by 1")
    return {row["status"]: row["cells"] for row in rows}


def each_cell_once(program: Program, cells: int) -> None:
    """Every cell has one attempt that ended well, and its value."""
    assert program.rows(sql=TOGETHER) == [{"cells": cells, "ok": cells}]
    assert {row["status"] for row in program.rows()} == {"ok"}
    assert program.rows(sql="select * from attempts where finished_at is null") == []
    program("verify").must()


def nothing_left(program: Program, *names: str) -> None:
    """No process, nothing in an outbox, nothing in a ledger."""
    assert program.left_running() == []
    for name in names:
        assert room(program, name).outbox.names() == []
        assert room(program, name).ledger.leftovers() == []


@pytest.fixture
def gate(program: Program) -> Path:
    """A file without which no run ends."""
    file = program.folder / "gate"
    program.script(gate=str(file))
    return file


def both_measure(program: Program, cells: int = 2) -> None:
    until("every lane has a cell in hand", lambda: len(program.events("generate")) >= cells)


# -- measuring -------------------------------------------------------------------------------------------------------


def test_two_lanes_measure_every_cell_once_and_at_the_same_time(program: Program, gate: Path) -> None:
    running = start(program, "run", lanes(program, "a", "b", num_ctx=[512, 1024, 2048]))
    both_measure(program)
    assert statuses_now(program) == {"started": 2, "pending": 4}
    shown = [line for line in program("status").must().stdout.splitlines() if line.startswith("Lane ")]
    assert [line.partition(":")[0] for line in shown] == ["Lane a", "Lane b"]
    assert sorted(line.partition(": ")[2].partition(", for")[0] for line in shown) == [label(512, 2), label(512, 4)]
    gate.touch()
    said = running.wait().must().stdout
    assert "2 lanes: a, b" in said
    assert "6/6" in said
    assert "  a  num_ctx" in said
    assert "  b  num_ctx" in said
    each_cell_once(program, 6)
    assert set(program.measured().values()) == {RUNS}
    nothing_left(program, "a", "b")


def test_what_is_measured_is_what_one_process_measures(program: Program) -> None:
    program("run", program.grid("alone", interim="off", warmup=1, repeats=2)).must()
    program("run", lanes(program, "a", "b", num_ctx=[2048, 4096])).must()
    columns = "flags, runs, loads, effective_num_ctx, effective_num_batch, size_bytes, prompt_eval_count, attempts"
    sql = f"select distinct {columns} from results where sweep = ? and num_batch = 2 and num_ctx in (512, 2048)"
    alone, together = (program.rows(sql=sql.replace("?", f"'{name}'")) for name in ("alone", "grid"))
    for row in (alone[0], together[0]):
        del row["effective_num_ctx"], row["size_bytes"]
    assert alone == together


def test_a_finished_sweep_starts_no_lane(program: Program) -> None:
    config = lanes(program, "a", "b")
    program("run", config).must()
    prepared = program.events("prepare")
    assert "4 of 4 cells already done" in program("run", config).must().stdout
    assert program.events("prepare") == prepared


def test_controls_passes_and_a_second_look_are_measured_by_lanes(program: Program) -> None:
    config = lanes(program, "a", "b", control=2, passes=2, second_look="50%")
    program("run", config, "--no-pause").must()
    each_cell_once(program, 4)
    purposes = {row["purpose"]: row["n"] for row in program.rows(
        sql="select purpose, count(*) as n from attempts where status = 'ok' group by 1")}  # fmt: skip
    assert purposes["pass"] == 4
    assert purposes["control"] >= 2
    assert purposes["second_look"] >= 1
    assert len(program.rows(sql="select * from controls")) == purposes["control"]
    states = program.rows(sql="select distinct purpose, state from further_loads where state <> 'dropped'")
    assert {row["state"] for row in states} == {"done"}
    dropped = program.rows(sql="select distinct purpose from further_loads where state = 'dropped'")
    assert dropped in ([], [{"purpose": "second_look"}]), "a second look has a share of the time, a pass has all of it"


def test_questions_of_tasks_go_to_the_lanes_with_what_is_expected_of_the_answers(program: Program) -> None:
    asks = program.asks({"id": "q", "category": "c", "prompt": "say yes", "expect": {"facts": ["yes"]}}, num_predict=4)
    program.script(answers={"say yes": "yes"})
    program("run", lanes(program, "a", "b", task="items", tasks=asks, prompt=None)).must()
    assert {row["key_facts"] for row in program.rows()} == {1.0}
    each_cell_once(program, 4)


def test_a_failed_cell_is_tried_again_on_another_lane(program: Program) -> None:
    program.script(cells={label(512, 2): ["crashed", "ok"]})
    said = program("run", lanes(program, "a", "b", retries=1)).must().stdout
    tries = [line.split("  ")[2] for line in said.splitlines() if f"{label(512, 2)}:" in line and "/4" in line]
    assert sorted(tries) == ["a", "b"]
    rows = [row["status"] for row in program.rows(sql=ATTEMPTS) if (row["num_ctx"], row["num_batch"]) == (512, 2)]
    assert rows == ["crashed", "ok"]


def test_every_attempt_says_which_lane_measured_it(program: Program) -> None:
    program.script(noise=0.01)
    program("run", lanes(program, "a", "b", num_ctx=[512, 1024, 2048], control=1)).must()
    sql = """select lanes.name, attempts.started_at < until_at as waited_for, count(*) as n from attempts
        left join leases on attempt_id = attempts.id left join lanes on lanes.id = lane_id group by 1, 2 order by 1"""
    rows = program.rows(sql=sql)
    assert [(row["name"], row["waited_for"]) for row in rows] == [("a", 1), ("b", 1)]
    shown = json_of(program("status", "--json"))["lanes"]
    assert [(one["name"], one["state"], one["failed"]) for one in shown] == [("a", "ended", 0), ("b", "ended", 0)]
    assert sum(one["ok"] for one in shown) == sum(row["n"] for row in rows)
    assert all(0.9 < one["factor"]["factor"] < 1.1 and one["factor"]["loads"] >= 1 for one in shown)
    said = program("explain", "--sweep", "grid", "num_ctx=512", "num_batch=2").must().stdout
    assert "measured by lane " in said
    program("report", "--html", "page.html").must()
    page = (program.folder / "page.html").read_text("utf-8")
    assert "Lanes" in page
    assert "factor of its speed" in page


def test_more_lanes_than_cells_are_said_and_not_started(program: Program) -> None:
    said = program("run", lanes(program, "a", "b", "c", num_ctx=512)).must().stdout
    assert "c: has nothing to do: there are fewer cells than lanes" in said
    assert not room(program, "c").folder.exists()
    each_cell_once(program, 2)


def test_lanes_are_added_and_taken_away_between_runs(program: Program) -> None:
    program("run", lanes(program, "a", num_ctx=512)).must()
    said = program("run", lanes(program, "b", "c", num_ctx=[512, 1024, 2048])).must().stdout
    assert "2 of 6 cells already done, 4 to run" in said
    each_cell_once(program, 6)
    assert "surroundings changed" not in said


def test_without_the_keys_nothing_of_it_is_imported(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text("model: m\nengine: fake\nprompt: {text: a}\nnum_ctx: 512\nnum_batch: 2\n", "utf-8")
    code = (
        "import json, sys\n"
        "from ollama_sweep.cli import main\n"
        "sys.argv[1:] = ['run', 's.yaml']\n"
        "try:\n    main()\n"
        "finally:\n    print('\\n' + json.dumps([name for name in sys.modules if '.lanes' in name]))\n"
    )
    env = {**clean_environment(), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=env, check=True, capture_output=True, text=True
    )
    loaded = json.loads(done.stdout.splitlines()[-1])
    assert all(name.startswith("ollama_sweep.store.lanes") for name in loaded), loaded
    assert not (tmp_path / "sweeps.db.lanes").exists()


# -- whoever is killed -------------------------------------------------------------------------------------------------


def test_a_killed_attempt_process_costs_its_attempt(program: Program, gate: Path) -> None:
    running = start(program, "run", lanes(program, "a", "b"))
    both_measure(program)
    os.kill(room(program, "a").pid(), signal.SIGKILL)
    until("it is noticed", lambda: "ended by signal 9" in running.said)
    gate.touch()
    said = running.wait().must().stdout
    assert "a: Warning: the process that measured num_ctx 512, num_batch" in said
    died = [row for row in program.rows(sql=ATTEMPTS) if row["status"] == "interrupted"]
    assert [row["reason"] for row in died] == ["died"]
    each_cell_once(program, 4)
    nothing_left(program, "a", "b")


@pytest.mark.parametrize(
    ("point", "times", "died"),
    [
        ("after_prepare", 3, 1),
        ("after_warmup", 3, 1),
        ("after_run", 5, 1),
        ("before_hand_in", 3, 1),
        ("handed_in", 3, 0),
        ("after_release", 3, 0),
    ],
)
def test_an_attempt_process_that_dies_anywhere(point: str, times: int, died: int, program: Program) -> None:
    """On one lane, whose third attempt it is; the next process makes two."""
    ended = start(program, "run", lanes(program, "a"), **{IN_LANE: f"{point}:{times}"}).wait().must()
    interrupted = [row["reason"] for row in program.rows(sql=ATTEMPTS) if row["status"] == "interrupted"]
    assert interrupted == ["died"] * died, ended.stdout
    each_cell_once(program, 4)
    assert "Removed fake-scratch, left by the previous process" in ended.stdout
    nothing_left(program, "a")


def test_a_cell_that_kills_every_process_is_parked(program: Program) -> None:
    ended = start(program, "run", lanes(program, "a", num_ctx=512), **{IN_LANE: "after_prepare:1"}).wait().must()
    assert {(row["status"], row["reason"]) for row in program.rows()} == {("error", "parked")}
    assert [row["status"] for row in program.rows(sql=ATTEMPTS)] == ["interrupted"] * 6
    assert "num_ctx 512, num_batch 2: the sweep died 3 times in a row in this cell; it is left out" in ended.stdout
    assert "a: left out: its process ended 6 times in a row" in ended.stdout


@pytest.mark.parametrize(
    "point",
    ["before_begin", "after_begin", "order_written", "before_finish", "in_finish", "after_finish", "result_taken"],
)
@pytest.mark.parametrize("times", [1, 3])
def test_a_coordinator_that_dies_anywhere_goes_on_with_what_the_outboxes_hold(
    point: str, times: int, program: Program
) -> None:
    config = lanes(program, "a", "b")
    died = start(program, "run", config, **{VARIABLE: f"{point}:{times}"}).wait()
    assert died.returncode == -signal.SIGKILL, died
    unknown = "select count(*) as n from attempts where id not in (select attempt_id from leases)"
    assert program.rows(sql=unknown) == [{"n": 0}], "which lane measures an attempt is stored with its beginning"
    until("no lane is at work", lambda: not any(room(program, name).is_held() for name in "ab"))
    program("run", config).must()
    each_cell_once(program, 4)
    finished = [row for row in program.rows(sql=ATTEMPTS) if row["status"] == "ok"]
    assert len(finished) == 4
    nothing_left(program, "a", "b")


def test_attempts_outlive_their_coordinator(program: Program, gate: Path) -> None:
    config = lanes(program, "a", "b")
    running = start(program, "run", config)
    both_measure(program)
    running.kill()
    running.wait()
    gate.touch()
    until("both have handed in", lambda: all(room(program, name).outbox.names() for name in "ab"))
    until("both have ended", lambda: not any(room(program, name).is_held() for name in "ab"))
    said = program("run", config).must().stdout
    assert "Taken over, as measured while no run was there: 2 attempts" in said
    assert "2 of 4 cells already done, 2 to run" in said
    assert {row["status"] for row in program.rows(sql=ATTEMPTS)} == {"ok"}
    assert set(program.measured().values()) == {RUNS}
    each_cell_once(program, 4)


def test_a_run_goes_on_beside_what_is_still_measured(program: Program, gate: Path) -> None:
    """The new coordinator takes over what an earlier one has begun, without measuring it a second time."""
    config = lanes(program, "a", "b")
    first = start(program, "run", config)
    both_measure(program)
    first.kill()
    first.wait()
    second = start(program, "run", config)
    until("it has begun", lambda: "0 of 4 cells already done" in second.said)
    gate.touch()
    second.wait().must()
    assert {row["status"] for row in program.rows(sql=ATTEMPTS)} == {"ok"}
    assert set(program.measured().values()) == {RUNS}
    each_cell_once(program, 4)
    nothing_left(program, "a", "b")


def test_what_still_measures_and_dies_then_is_measured_again(program: Program, gate: Path) -> None:
    config = lanes(program, "a")
    first = start(program, "run", config)
    both_measure(program, 1)
    first.kill()
    first.wait()
    second = start(program, "run", config)
    until("it has begun", lambda: "0 of 4 cells already done" in second.said)
    os.kill(room(program, "a").pid(), signal.SIGKILL)
    gate.touch()
    said = second.wait().must().stdout
    assert "for an earlier run has died" in said
    each_cell_once(program, 4)


def test_a_lane_that_was_taken_away_hands_in_all_the_same(program: Program, gate: Path) -> None:
    first = start(program, "run", lanes(program, "a", "b"))
    both_measure(program)
    first.kill()
    first.wait()
    second = start(program, "run", lanes(program, "b"))
    until("it has begun", lambda: "0 of 4 cells already done" in second.said)
    gate.touch()
    second.wait().must()
    assert set(program.measured().values()) == {RUNS}
    each_cell_once(program, 4)


def test_a_run_in_one_process_waits_for_lanes_that_still_measure(program: Program, gate: Path) -> None:
    first = start(program, "run", lanes(program, "a"))
    both_measure(program, 1)
    first.kill()
    first.wait()
    alone = program.grid(warmup=1, repeats=2, interim="off")
    second = start(program, "run", alone)
    until("it waits", lambda: "lane a still measures num_ctx 512, num_batch 2" in second.said)
    gate.touch()
    said = second.wait().must().stdout
    assert "1 of 4 cells already done" in said
    assert set(program.measured().values()) == {RUNS}
    each_cell_once(program, 4)


def test_an_attempt_that_outlasts_its_lease_is_ended_and_the_cell_measured_again(
    program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Coordinator, "_lease_s", lambda self, cell: LEASE_S)
    program.script(cells={label(512, 4): ["hang", "ok"]})
    said = program("run", lanes(program, "a", "b")).must().stdout
    assert f"{label(512, 4)} takes longer than the {LEASE_S:.0f} s that it may" in said
    assert [row["reason"] for row in program.rows(sql=ATTEMPTS) if row["status"] == "interrupted"] == ["died"]
    each_cell_once(program, 4)
    nothing_left(program, "a", "b")


# -- stop and pause ----------------------------------------------------------------------------------------------------


def test_stop_waits_for_every_lane(program: Program, gate: Path) -> None:
    config = lanes(program, "a", "b")
    running = start(program, "run", config)
    both_measure(program)
    asked = start(program, "stop")
    until("it is heard", lambda: "Stopping after this cell" in running.said)
    gate.touch()
    assert running.wait().returncode == 128 + signal.SIGTERM
    asked.wait().must()
    assert sorted(row["status"] for row in program.rows()) == ["ok", "ok", "pending", "pending"]
    nothing_left(program, "a", "b")
    program("run", config).must()
    each_cell_once(program, 4)


def test_stop_now_cuts_every_lane_short(program: Program, gate: Path) -> None:
    """A request that the scripted engine holds back ends with the process that waits for it."""
    config = lanes(program, "a", "b")
    running = start(program, "run", config)
    both_measure(program)
    start(program, "stop", "--now").wait().must()
    assert running.wait().returncode == 128 + signal.SIGTERM
    assert {row["status"] for row in program.rows()} == {"pending"}
    assert [(row["status"], row["reason"]) for row in program.rows(sql=ATTEMPTS)] == [("interrupted", "stopped")] * 2
    nothing_left(program, "a", "b")
    gate.touch()
    program("run", config).must()
    each_cell_once(program, 4)


def test_a_pause_lets_no_lane_begin(program: Program, gate: Path) -> None:
    running = start(program, "run", lanes(program, "a", "b"))
    both_measure(program)
    program("pause").must()
    gate.touch()
    until("it is on hold", lambda: "On hold: paused" in running.said)
    until("both cells are done", lambda: statuses_now(program).get("ok") == 2)
    assert len(program.events("prepare")) == 2
    program("continue").must()
    running.wait().must()
    each_cell_once(program, 4)


# -- what is handed in -------------------------------------------------------------------------------------------------


def handed_files(program: Program, gate: Path, config: Path) -> list[Path]:
    """What two lanes have handed in and nobody has taken."""
    running = start(program, "run", config)
    both_measure(program)
    running.kill()
    running.wait()
    gate.touch()
    until("both have ended", lambda: not any(room(program, name).is_held() for name in "ab"))
    return [room(program, name).outbox.folder / room(program, name).outbox.names()[0] for name in "ab"]


def test_finished_attempts_are_for_their_owner_only(program: Program, gate: Path) -> None:
    for file in handed_files(program, gate, lanes(program, "a", "b")):
        assert file.stat().st_mode & 0o777 == 0o600
        assert file.parent.stat().st_mode & 0o777 == 0o700


def test_a_file_that_cannot_be_read_is_set_aside_and_its_cell_measured_again(program: Program, gate: Path) -> None:
    config = lanes(program, "a", "b")
    broken, _ = handed_files(program, gate, config)
    broken.write_text(broken.read_text("ascii").replace('"status":"ok"', '"status":"fine"'), "ascii")
    said = program("run", config).must()
    assert f'{broken}: Handed.outcome.status: "fine" is not one of' in said.stdout + said.stderr
    assert broken.with_name(f"{broken.name}.unreadable").exists()
    each_cell_once(program, 4)


def test_a_file_of_another_database_is_left_alone(program: Program, gate: Path) -> None:
    config = lanes(program, "a", "b")
    files = handed_files(program, gate, config)
    (program.folder / "sweeps.db").unlink()
    said = program("run", config).must()
    assert "1 finished attempt belongs to another database than" in said.stdout + said.stderr
    assert all(file.exists() for file in files)
    each_cell_once(program, 4)


def test_a_late_result_is_kept_and_never_counted(program: Program, gate: Path) -> None:
    """Its coordinator had given the attempt up: here, because nobody knew any more that it was measured."""
    config = lanes(program, "a", "b")
    files = handed_files(program, gate, config)
    held = [(file, file.read_bytes()) for file in files]
    for file in files:
        file.unlink()
    program("run", config).must()
    each_cell_once(program, 4)
    before = program.rows()
    for file, content in held * 2:
        file.write_bytes(content)
        program("run", config).must()
        assert not file.exists()
    late = [row for row in program.rows(sql=ATTEMPTS) if row["reason"] == "late"]
    assert [row["status"] for row in late] == ["discarded"] * 2
    assert program.rows() == before
    each_cell_once(program, 4)


def test_a_result_that_is_known_already_changes_nothing(program: Program, gate: Path) -> None:
    config = lanes(program, "a", "b")
    files = handed_files(program, gate, config)
    held = [(file, file.read_bytes()) for file in files]
    program("run", config).must()
    before = program.rows(), program.rows(sql=ATTEMPTS)
    for file, content in held:
        file.write_bytes(content)
    program("run", config).must()
    assert (program.rows(), program.rows(sql=ATTEMPTS)) == before
    nothing_left(program, "a", "b")


# -- GPUs of this computer -------------------------------------------------------------------------------------------


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two GPUs that nobody has, and two cores."""
    cards = tuple(Gpu("Scripted", 2**33, 2**33, "1.0") for _ in range(2))
    monkeypatch.setattr(computer, "gpus", lambda: cards)
    monkeypatch.setattr(processor, "cores_here", lambda: [(0,), (0,)])
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


@pytest.mark.usefixtures("two_gpus")
def test_each_gpu_is_a_lane_with_processors_of_its_own(program: Program) -> None:
    said = program("run", program.grid(gpus="all", interim="off")).must().stdout
    assert "2 lanes: gpu0, gpu1" in said
    each_cell_once(program, 4)
    posts = [json.loads(room(program, name).post.read_text("ascii")) for name in ("gpu0", "gpu1")]
    assert [post["lane"] for post in posts] == [
        {"name": f"gpu{number}", "gpu": number, "processors": [0]} for number in range(2)
    ]
    (segment,) = program.rows(sql="select fingerprint from segments")
    found = json.loads(segment["fingerprint"])
    assert found["processors"] == "1"
    assert "CUDA_VISIBLE_DEVICES" not in found


@pytest.mark.usefixtures("two_gpus")
@pytest.mark.parametrize(
    ("gpus", "said"),
    [
        ([0, 0], "gpus: GPU 0 is listed twice; two lanes on one GPU disturb each other"),
        ([0, 2], "gpus: GPU 2 is not there; there is 0, 1"),
        ("some", "gpus: write all, or a list of numbers like [0, 1]"),
        ([-1], "gpus must be 0 to 1023"),
        ([], "gpus: write all, or a list of numbers like [0, 1]"),
    ],
)
def test_wrong_numbers_of_gpus(gpus: object, said: str, program: Program) -> None:
    refused(program, said, gpus=gpus)


def refused(program: Program, said: str, *words: str, code: int = 2, **keys: Any) -> None:
    ended = program("run", program.grid(**keys), *words).must(code)
    assert said in ended.stderr
    assert len(ended.stderr.splitlines()) == 1
    assert not (program.folder / "sweeps.db").exists()
    assert not (program.folder / "sweeps.db.lanes").exists()


def test_a_computer_without_a_gpu_has_no_such_lanes(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(computer, "gpus", tuple)
    monkeypatch.setattr(computer, "gpu_trouble", lambda: "")
    refused(program, "gpus: there is no GPU here; servers elsewhere are named by hosts", gpus="all")


ONE = [{"name": "a", "host": "127.0.0.1:1"}]


@pytest.mark.parametrize(
    ("keys", "words", "said"),
    [
        ({"hosts": [*ONE, {**ONE[0]}]}, (), "hosts: a is named twice"),
        ({"hosts": [*ONE, {"name": "b", "host": "http://127.0.0.1:1"}]}, (),
         "hosts.b: http://127.0.0.1:1 is host a already; a server is one lane"),
        ({"hosts": [*ONE, {"name": "b", "host": "localhost:1"}]}, (),
         "hosts.b: http://localhost:1 is host a already; a server is one lane"),
        ({"hosts": [*ONE, {"name": "A", "host": "127.0.0.1:2"}]}, (),
         "hosts: a and A differ by capitals only; call one of them otherwise"),
        ({"hosts": [{**ONE[0], "prot": 1}]}, (), "hosts: unknown key prot; each one has a name and a host only"),
        ({"hosts": [{"name": "a", "host": "127.0.0.1:1/api"}]}, (),
         "hosts.a: 127.0.0.1:1/api has a path (/api), which this server has not; write http://127.0.0.1:1"),
        ({"hosts": ONE}, ("--cluster", "local:1"), "--cluster: --cluster says where this sweep is measured"),
        ({"engine": "openai"}, ("--cluster", "local:1"), "--cluster: the engine openai measures in one place only"),
        ({"hosts": [{"name": "a"}]}, (), "hosts: each one has a name and a host"),
        ({"hosts": "127.0.0.1:1"}, (), "hosts: write a list like"),
        ({"hosts": [{"name": "a b", "host": "x"}]}, (), "hosts.name: only letters, digits, _, - and ."),
        ({"hosts": [{"name": "a", "host": "gpu-box:11434"}]}, (), "hosts.a: gpu-box is another machine"),
        ({"hosts": [{"name": "a", "host": "http://me:pw@box"}]}, (), "put credentials into api_key_env"),
        ({"hosts": ONE, "host": "127.0.0.1:2"}, (), "host: hosts says where this sweep is measured; leave out one"),
        ({"hosts": ONE, "server": "managed"}, (), "server: hosts says where this sweep is measured; leave out one"),
        ({"hosts": ONE, "gpus": "all"}, (), "hosts: gpus says where this sweep is measured; leave out one"),
        ({"hosts": ONE, "wait_for_idle_gpu": True}, (), "wait_for_idle_gpu: the lanes themselves keep GPUs busy"),
        ({"hosts": ONE, "engine": "lmstudio"}, (), "hosts: the engine lmstudio measures in one place only"),
        ({"hosts": ONE}, ("--scan",), "--scan: --scan measures on one lane; leave it out, or hosts"),
        ({"hosts": ONE}, ("--scout",), "--scout: --scout measures on one lane; leave it out, or hosts"),
        ({"hosts": ONE, "pair": {"num_thread": [1, 2]}}, (), "a pair is measured in turns on one lane"),
    ],
)  # fmt: skip
def test_what_lanes_cannot_be(keys: dict[str, Any], words: tuple[str, ...], said: str, program: Program) -> None:
    refused(program, said, *words, **keys)


def test_lane_points_are_reached() -> None:
    sources = "\n".join(path.read_text("utf-8") for path in (ROOT / "ollama_sweep/run/lanes").rglob("*.py"))
    assert all(f'reached("{point}")' in sources for point in LANE_POINTS)


def test_a_process_of_a_lane_may_use_its_processors_only() -> None:
    mine = psutil.Process().cpu_affinity()
    code = (
        "import psutil\nfrom ollama_sweep.machine.processor import keep_to\n"
        f"keep_to([{mine[-1]}])\nprint(psutil.Process().cpu_affinity())"
    )
    words = [sys.executable, "-c", code]
    done = subprocess.run(words, cwd=ROOT, check=True, capture_output=True, text=True)
    assert json.loads(done.stdout) == [mine[-1]]
