"""Two sweeps measured in turns: the order A B B A, their keys, going on at each place, and what is said of them."""

# ruff: noqa: F401, F811 - the fixture is imported, and asked for by its name
from __future__ import annotations

import re
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml
from sweeping import GRID, Program, json_of, label, program

from ollama_sweep.core.errors import ConfigError, Stopped
from ollama_sweep.core.events import CellFinished, CellStarted, Event, OnHold
from ollama_sweep.plan.load import load
from ollama_sweep.run import loop
from ollama_sweep.run.control import ask_to_continue, ask_to_pause
from ollama_sweep.run.session import measure
from ollama_sweep.run.stopping import Stopping
from ollama_sweep.store.writer import Store

PLACES = [label(num_ctx, num_batch) for num_ctx in (512, 1024) for num_batch in (2, 4)]
IN_TURNS = [f"{arm} {place}" for place, arms in zip(PLACES, ("ab", "ba", "ab", "ba"), strict=True) for arm in arms]
"""A B B A A B B A."""
THREADS = {"num_thread": [1, 2]}
MADE = """select substr(sweeps.name, -1) || ' num_ctx ' || num_ctx || ', num_batch ' || num_batch as load
    from attempts join sweeps on sweeps.id = sweep_id join cells on cells.id = cell_id
    where attempts.status = 'ok' and {} order by attempts.id"""
KEYS = "select key from cells order by key"


def made(program: Program, where: str = "purpose is null or purpose = 'pair'") -> list[str]:
    return [row["load"] for row in program.rows(sql=MADE.format(f"({where})"))]


def file(program: Program, stem: str, **keys: Any) -> Path:
    """A sweep file whose sweep may have another name."""
    path = program.folder / f"{stem}.yaml"
    path.write_text(yaml.safe_dump({**GRID, **keys}, sort_keys=False), "utf-8")
    return path


def twice(program: Program, **keys: Any) -> tuple[Path, Path]:
    """Two files of equal sweeps, but for these keys of the second."""
    return file(program, "one", name="grid"), file(program, "two", **{"name": "grid", **keys})


def test_the_loads_of_both_arms_take_turns_and_the_run_ends_with_their_comparison(program: Program) -> None:
    config = program.grid(pair=THREADS, passes=2, control=2)
    planned = json_of(program("plan", config, "--json"))
    assert (planned["first"], planned["cells"], planned["matched"]) == (IN_TURNS, 8, 4)
    said = program("run", config).must().stdout
    assert made(program) == IN_TURNS
    assert re.findall(r"\d/8  ([ab])  (num_ctx \d+, num_batch \d+): ", said) == [
        (load[0], load[2:]) for load in IN_TURNS
    ]
    passes = made(program, "purpose = 'pass'")
    assert [load[0] for load in passes] == list("abbaabba")
    assert [load[2:] for load in passes[::2]] == [load[2:] for load in passes[1::2]]
    compared = program("compare", "grid.a", "grid.b").must().stdout.splitlines()
    for words in ("Over all: ", "Cells: ", "Turns: ", "Note: A and B are the pair grid, measured in turns"):
        (line,) = [line for line in compared if line.startswith(words)]
        assert line.encode("ascii", "replace") in said.encode("ascii", "replace").splitlines()
    assert program("run", config).must().stdout.count("8/8") == 0, "nothing is left to do"
    assert len(made(program, "true")) == len(program.rows(sql="select 1 from attempts")), "no load was repeated"


def test_keys_are_those_of_plain_sweeps_and_the_arm_is_part_only_where_they_would_be_one(program: Program) -> None:
    program("run", program.grid(pair=THREADS)).must()
    for threads in (1, 2):
        program("run", program.grid(f"plain{threads}", num_thread=threads), "--db", "plain.db").must()
    assert program.rows(sql=KEYS) == program.rows("plain.db", KEYS)

    program("run", "--pair", *twice(program), "--db", "same.db").must()
    of_one = {row["key"] for row in program.rows("same.db", KEYS)}
    program("run", program.grid("plain"), "--db", "one.db").must()
    assert len(of_one) == 8
    assert not of_one & {row["key"] for row in program.rows("one.db", KEYS)}
    again = program("run", "--pair", *twice(program), "--db", "same.db").must().stdout
    assert again.count("4 of 4 cells already done, 0 to run") == 2


@pytest.fixture
def here(program: Program, monkeypatch: pytest.MonkeyPatch) -> Program:
    """The program whose sweeps may be measured from Python."""
    monkeypatch.chdir(program.folder)
    for name, value in program.environment().items():
        monkeypatch.setenv(name, value)
    return program


def test_it_goes_on_at_each_place_of_the_order(here: Program) -> None:
    spec = load(here.grid(pair=THREADS, repeats=1, warmup=0))
    for cells in (1, 2, 3, 6):
        db = here.folder / f"{cells}.db"
        for rest in (cells, None):
            stopping, left = Stopping(), [rest]

            def listen(event: Event, stopping: Stopping = stopping, left: list[int | None] = left) -> None:
                if isinstance(event, CellFinished) and left[0] is not None:
                    left[0] -= 1
                    if not left[0]:
                        stopping.stop()

            try:
                ended = measure(spec, db, listeners=[listen], stopping=stopping)
            except Stopped:
                assert rest == cells
            else:
                assert rest is None
                assert [arm.counts for arm in ended.arms] == [{"ok": 4}, {"ok": 4}]
        loads = [row["load"] for row in here.rows(db.name, MADE.format("true"))]
        assert loads == IN_TURNS, cells


def test_a_pause_holds_both_arms_with_nothing_loaded_and_keeps_the_order(here: Program) -> None:
    db, seen, loads = here.folder / "sweeps.db", Counter[str](), []

    def listen(event: Event) -> None:
        seen[type(event).__name__] += 1
        if isinstance(event, CellFinished) and seen["CellFinished"] == 3:
            ask_to_pause(db)
        if isinstance(event, OnHold):
            journal = here.journal.read_text("utf-8").splitlines()
            loads.append([line.partition("\t")[0] for line in journal if line.startswith(("prepare", "release"))][-1])
            ask_to_continue(db)

    measure(load(here.grid(pair=THREADS)), db, listeners=[listen])
    assert (seen["OnHold"], seen["GoingOn"], loads) == (1, 1, ["release"])
    assert made(here) == IN_TURNS


def test_a_stop_at_once_costs_the_cell_at_hand_and_no_turn(here: Program) -> None:
    spec, db, stopping, begun = load(here.grid(pair=THREADS)), here.folder / "sweeps.db", Stopping(), Counter[str]()

    def listen(event: Event) -> None:
        begun["cells"] += isinstance(event, CellStarted)
        if begun["cells"] == 3:
            stopping.stop(now=True)

    with pytest.raises(Stopped):
        measure(spec, db, listeners=[listen], stopping=stopping)
    assert made(here) == IN_TURNS[:2]
    measure(spec, db)
    assert made(here) == IN_TURNS
    assert here.rows(sql="select * from ledger") == []


def test_an_arm_whose_engine_is_away_is_waited_for_or_ends_the_run_and_its_turn_stays(
    program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "FIRST_WAIT_S", 0.01)
    config = program.grid(pair=THREADS)
    program.script(cells={PLACES[1]: ["unavailable"]})
    ended = program("run", config, "--wait-engine", "50ms").must(5)
    assert ended.stderr == "error: could not connect to the fake server\n"
    assert made(program) == IN_TURNS[:2]
    program.script(cells={PLACES[3]: ["unavailable", "unavailable", "ok"]})
    said = program("run", config).must().stdout
    assert said.count(": b: could not connect to the fake server") == 2
    assert said.count("b: The engine answers again") == 2
    assert ": a: could not connect" not in said
    assert made(program) == IN_TURNS
    assert program.rows(sql="select * from ledger") == []


@pytest.mark.parametrize("point", ["after_begin:2", "before_finish:3"])
def test_a_death_in_the_middle_costs_the_cell_at_hand(point: str, program: Program) -> None:
    config = program.grid(pair=THREADS)
    died = program.start("run", config, env={**program.environment(), "SWEEP_CRASH_AT": point}).wait()
    assert died.returncode == -signal.SIGKILL, died
    program("run", config).must()
    assert made(program) == IN_TURNS
    assert program.rows(sql="select * from ledger") == []
    assert program.rows(sql="select 1 from attempts where finished_at is null") == []


def test_what_another_sweep_has_measured_is_measured_again_in_its_turn(program: Program) -> None:
    program("run", program.grid("before", num_thread=1)).must()
    before = len(program.rows(sql="select 1 from attempts"))
    said = program("run", program.grid(pair=THREADS)).must().stdout
    assert "4 of 4 cells already done, 0 to run, 4 to load once more" in said
    assert made(program)[before:] == IN_TURNS
    assert "0 to run\n" in program("run", program.grid(pair=THREADS)).must().stdout
    assert len(made(program)) == before + 8


def test_files_whose_grids_differ_take_turns_where_they_meet(program: Program) -> None:
    files = twice(program, num_ctx=[2048, 1024, 512], num_batch=[4, 2], num_thread=2)
    program("run", "--pair", *files).must()
    loads = made(program)
    assert [load for load in loads if "2048" not in load] == IN_TURNS
    assert [load[0] for load in loads if "2048" in load] == ["b", "b"]


def test_its_name_means_both_sweeps_and_who_needs_one_says_so(program: Program) -> None:
    config = program.grid(pair=THREADS)
    program("run", config).must()
    status = json_of(program("status", config, "--json"))
    assert (status["pair"], status["done"], [arm["sweep"] for arm in status["arms"]]) == (
        "grid",
        8,
        ["grid.a", "grid.b"],
    )
    assert program("status", "grid").must().stdout == program("status").must().stdout
    assert [one["sweep"] for one in json_of(program("best", "grid", "--json"))["sweeps"]] == ["grid.a", "grid.b"]
    assert [one["sweeps"][0]["sweep"] for one in json_of(program("report", "--json"))["reports"]] == [
        "grid.a",
        "grid.b",
    ]
    assert "Arm b: num_thread 2" in program("watch").must().stdout
    for words in (["explain", "0"], ["compare", str(config), "grid.a"], ["best", "-o", "tuned"]):
        refused = program(*words).must(2)
        assert refused.stderr == "error: grid is a pair of two sweeps; name one of them: grid.a or grid.b\n"


def test_no_other_sweep_takes_the_place_of_an_arm_and_one_run_measures_at_a_time(program: Program) -> None:
    config = program.grid(pair=THREADS)
    program("run", config).must()
    for refused, why in (
        (program.grid("grid.a"), "grid.a is arm a of the pair grid, which is measured as a whole"),
        (file(program, "more", name="grid.a", pair=THREADS), ""),
    ):
        ended = program("run", refused, *([] if why else ["--db", "new.db"]))
        assert ended.returncode == (2 if why else 0)
        assert why in ended.stderr
    program("run", file(program, "other", name="two.b")).must()
    assert "no arm of a pair; give the pair another name" in program("run", config, "--set", "name=two").must(2).stderr
    with Store.open(program.folder / "sweeps.db"):
        assert "Already running" in program("run", config).must(3).stderr


def test_a_pair_that_is_none_is_one_line_and_makes_nothing(program: Program) -> None:
    bad: dict[str, Any] = {
        "pair: write one key with two values": {},
        "pair.num_thread: two values are wanted, such as [x, y]; one value is given": {"num_thread": 1},
        "such as [x, y]; 1 given": {"num_thread": [1]},
        "such as [x, y]; 3 given": {"num_thread": [1, 2, 3]},
        "both values are 1.0; the arms of a pair differ": {"num_thread": [1, 1.0]},
        "timeout 10m and timeout 600 are the same": {"timeout": ["10m", 600]},
        "unknown key pair.num_thred. Did you mean num_thread?": {"num_thred": [1, 2]},
        "pair.num_ctx: num_ctx is also given": {"num_ctx": [512, 1024]},
        "pair.options.num_thread is the same key as num_thread": {**THREADS, "options.num_thread": [1, 2]},
        "pair.pair: a pair has no pair inside it": {"pair": [1, 2]},
        "pair.name: the arms of a pair are called NAME.a and NAME.b": {"name": ["x", "y"]},
        "pair.order: both arms are measured in one order": {"order": ["row-first", "shuffled"]},
        "the arms have no task in common": {"task": ["chat", "prompt_eval"]},
        "num_thread: has no value": {"num_thread": [None, 2]},
        "arm a varies seed (1, 2) and the other does not": {"seed": [[1, 2], 3]},
    }
    for words, pair in bad.items():
        refused = program("run", program.grid(pair=pair)).must(2)
        assert words in refused.stderr
        assert len(refused.stderr.splitlines()) == 1, refused.stderr
    own: dict[str, Any] = {
        "model": [["m"], ["n"]],
        "prompt": [{"text": "a"}, {"text": "b"}],
        "num_ctx": [512, 1024],
        "engine": ["fake", "ollama"],
    }
    for name, values in own.items():
        refused = program("run", program.grid("grid", **{name: None, "pair": {name: values}})).must(2)
        assert len(refused.stderr.splitlines()) == 1, refused.stderr
    one, two = twice(program)
    pair = program.grid(pair=THREADS)
    calls: list[list[str | Path]] = [
        ["--pair", one, one],
        ["--pair", one, pair],
        ["--pair", one, program.folder / "none.yaml"],
        [pair, "--pair", one, two],
        [pair, "--scan"],
        [pair, "--within", "1h"],
        [pair, "--set", "num_thread=3"],
        ["--pair", one, program.grid("third", num_ctx=2048)],
    ]
    for call in calls:
        refused = program("run", *call).must(2)
        assert len(refused.stderr.splitlines()) == 1, refused.stderr
    assert {name for name in program.files() if not name.endswith(".yaml")} <= {"journal.txt", "heatmaps"}


def test_from_python_it_is_one_sweep_with_two_arms() -> None:
    keys = {**GRID, "pair": {"prompt.tokens": [5, 6]}, "prompt": None, "num_predict": 3}
    with pytest.raises(ConfigError, match="different prompts"):
        load(**{name: value for name, value in keys.items() if value is not None})
    spec = load(**{**GRID, "pair": {"flash_attention": [True, False]}, "server": "managed"}, name="x")
    assert (spec.name, [arm.name for arm in spec.arms]) == ("x", ["x.a", "x.b"])
    assert [dict(arm.server) for arm in spec.arms] == [{"flash_attention": True}, {"flash_attention": False}]
