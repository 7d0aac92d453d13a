"""`measure`: a sweep measured by a program in Python, also beside its main thread, and ended by a method."""

# ruff: noqa: F401, F811 - the fixture is imported, and asked for by its name
from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sweeping import Program, label, program

from ollama_sweep.core.errors import ConfigError, DatabaseInUse, Stopped, SweepError
from ollama_sweep.core.events import CellFinished, CellStarted, Event, Notice, RunFinished, SweepFinished, SweepStarted
from ollama_sweep.core.outcome import Status
from ollama_sweep.plan.config import load_spec
from ollama_sweep.plan.setups import with_tasks
from ollama_sweep.plan.spec import SweepSpec
from ollama_sweep.run.session import Session, SessionOptions, measure
from ollama_sweep.run.stopping import Stopping

FIRST, SECOND = label(512, 2), label(512, 4)
GIVE_UP_S = 120.0
"""Longer than anything here takes: a test that hangs ends."""


@pytest.fixture
def here(program: Program, monkeypatch: pytest.MonkeyPatch) -> Program:
    """Its folder and its scripted engine, for code that is called in this process."""
    monkeypatch.chdir(program.folder)
    for name, value in program.environment().items():
        monkeypatch.setenv(name, value)
    return program


@pytest.fixture
def worker() -> Iterator[ThreadPoolExecutor]:
    """A thread beside the main one."""
    with ThreadPoolExecutor(1) as pool:
        yield pool


def spec_of(program: Program, **keys: Any) -> SweepSpec:
    return load_spec(program.grid(**keys), {})


def statuses(program: Program) -> list[str]:
    return [row["status"] for row in program.rows()]


# -- to its end ------------------------------------------------------------------------------------------------------


def test_it_measures_every_cell_prints_nothing_and_writes_the_database_only(
    here: Program, capfd: pytest.CaptureFixture[str]
) -> None:
    ended = measure(spec_of(here))
    assert ended.counts == {Status.OK: 4}
    assert ended.sweep is not None
    assert ended.sweep.name == "grid"
    assert statuses(here) == ["ok"] * 4
    assert capfd.readouterr() == ("", "")
    assert {name for name in here.files() if not name.startswith("sweeps.db")} == {"grid.yaml", "journal.txt"}


def test_listeners_hear_the_sweep_in_order(here: Program) -> None:
    heard: list[Event] = []
    measure(spec_of(here, num_ctx=[512], num_batch=[2], warmup=0, repeats=1), listeners=[heard.append])
    kinds = [type(event) for event in heard if not isinstance(event, Notice)]
    assert kinds == [SweepStarted, CellStarted, RunFinished, CellFinished, SweepFinished]
    assert "0 of 1 cells already done, 1 to run" in [event.text for event in heard if isinstance(event, Notice)]


def test_a_sweep_that_run_has_begun_is_gone_on_with(here: Program) -> None:
    here("run", here.grid(num_ctx=[512])).must()
    measure(spec_of(here))
    assert here.measured() == {label(ctx, batch): 4 for ctx in (512, 1024) for batch in (2, 4)}


def test_it_goes_on_with_the_same_call_and_measures_nothing_twice(here: Program) -> None:
    measure(spec_of(here), "own.db")
    before = here.measured()
    assert measure(spec_of(here), "own.db").counts == {Status.OK: 4}
    assert here.measured() == before


def test_failures_are_run_again_where_they_are_named(here: Program) -> None:
    here.script(cells={FIRST: ["cuda_oom", "ok"]})
    assert measure(spec_of(here)).counts == {Status.OK: 3, Status.OOM: 1}
    assert measure(spec_of(here), options=SessionOptions(retry=["oom"])).counts == {Status.OK: 4}


@pytest.mark.parametrize(
    ("keys", "options", "said"),
    [
        ({"engine": "olama"}, {}, "engine: unknown engine olama. Known: "),
        ({}, {"retry": ["omm"]}, "retry: omm is not a failure. Allowed: "),
    ],
)
def test_a_mistake_is_one_line_and_nothing_is_made(
    keys: dict[str, str], options: dict[str, list[str]], said: str, here: Program
) -> None:
    with pytest.raises(ConfigError) as error:
        measure(spec_of(here, **keys), options=SessionOptions(retry=options.get("retry", ())))
    assert str(error.value).startswith(said)
    assert "Did you mean" in str(error.value)
    assert here.files() == {"grid.yaml"}


# -- beside the main thread ------------------------------------------------------------------------------------------


def test_it_works_beside_the_main_thread_and_leaves_signals_alone(here: Program, worker: ThreadPoolExecutor) -> None:
    spec, before = spec_of(here), signal.getsignal(signal.SIGINT)
    seen: list[object] = []
    ended = worker.submit(measure, spec, listeners=[lambda event: seen.append(signal.getsignal(signal.SIGINT))])
    assert ended.result(GIVE_UP_S).counts == {Status.OK: 4}
    assert set(seen) == {before}


class Paused:
    """Listens, and holds the sweep at the first event of a kind until the test lets it go."""

    def __init__(self, kind: type[Event]) -> None:
        self._kind = kind
        self.is_there, self.goes_on = threading.Event(), threading.Event()

    def __call__(self, event: Event) -> None:
        if isinstance(event, self._kind) and not self.goes_on.is_set():
            self.is_there.set()
            assert self.goes_on.wait(GIVE_UP_S)


def test_another_thread_stops_it_after_its_cell_and_the_same_call_goes_on(
    here: Program, worker: ThreadPoolExecutor
) -> None:
    spec, stopping, paused = spec_of(here), Stopping(), Paused(CellFinished)
    running = worker.submit(measure, spec, listeners=[paused], stopping=stopping)
    assert paused.is_there.wait(GIVE_UP_S)
    stopping.stop()
    paused.goes_on.set()
    with pytest.raises(Stopped, match="stopped; everything measured is saved"):
        running.result(GIVE_UP_S)
    assert statuses(here) == ["ok", "pending", "pending", "pending"]

    assert measure(spec).counts == {Status.OK: 4}
    assert here.measured()[FIRST] == 4


def test_another_thread_stops_it_now_and_the_cell_is_measured_again(here: Program, worker: ThreadPoolExecutor) -> None:
    gate = here.folder / "gate"
    here.script(gate=str(gate))
    spec, stopping, begun = spec_of(here), Stopping(), threading.Event()

    def listen(event: Event) -> None:
        if isinstance(event, CellStarted):
            begun.set()

    running = worker.submit(measure, spec, listeners=[listen], stopping=stopping)
    assert begun.wait(GIVE_UP_S)
    stopping.stop(now=True)
    with pytest.raises(Stopped):
        running.result(GIVE_UP_S)
    assert [(row["status"], row["reason"]) for row in here.rows(sql="select status, reason from attempts")] == [
        ("interrupted", "stopped")
    ]

    gate.touch()
    assert measure(spec).counts == {Status.OK: 4}


def test_a_listener_may_stop_the_session_it_listens_to(here: Program) -> None:
    session: Session

    def listen(event: Event) -> None:
        if isinstance(event, CellFinished):
            session.stop()

    session = Session(with_tasks(spec_of(here)), here.folder / "sweeps.db", SessionOptions(), [listen])
    ended = session.run()
    assert str(ended.stopped) == "stopped; everything measured is saved"
    assert ended.counts == {Status.OK: 1, Status.PENDING: 3}


@pytest.mark.parametrize("now", [False, True])
def test_one_that_is_stopped_before_it_begins_measures_nothing(now: bool, here: Program) -> None:
    stopping = Stopping()
    stopping.stop(now=now)
    with pytest.raises(Stopped):
        measure(spec_of(here), stopping=stopping)
    assert not here.measured()
    assert (here.folder / "sweeps.db").exists() is not now


def test_stop_of_another_terminal_does_not_end_the_program_around_it(here: Program, worker: ThreadPoolExecutor) -> None:
    spec, paused = spec_of(here), Paused(CellFinished)
    running = worker.submit(measure, spec, listeners=[paused])
    assert paused.is_there.wait(GIVE_UP_S)
    try:
        refused = here("stop").must(3).stderr
        with pytest.raises(DatabaseInUse, match=f"Already running: pid {os.getpid()}"):
            measure(spec)
    finally:
        paused.goes_on.set()
    assert refused == (
        f"error: pid {os.getpid()} is another program that measures in a thread; only it can stop the sweep\n"
    )
    assert running.result(GIVE_UP_S).counts == {Status.OK: 4}


# -- in the main thread ----------------------------------------------------------------------------------------------


def test_ctrl_c_in_the_main_thread_ends_it_after_the_cell(here: Program) -> None:
    before = signal.getsignal(signal.SIGINT)

    def press(event: Event) -> None:
        if isinstance(event, CellStarted):
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(Stopped) as stopped:
        measure(spec_of(here), listeners=[press])
    assert stopped.value.exit_code == 130
    assert statuses(here) == ["ok", "pending", "pending", "pending"]
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize("kind", [CellStarted, RunFinished, CellFinished])
def test_a_listener_that_fails_ends_the_sweep_and_costs_no_cell(kind: type[Event], here: Program) -> None:
    def fail(event: Event) -> None:
        if isinstance(event, kind):
            raise ZeroDivisionError("a mistake of its own")

    with pytest.raises(SweepError, match=rf"a listener failed at {kind.__name__} \(ZeroDivisionError: a mistake of"):
        measure(spec_of(here), listeners=[fail])
    assert measure(spec_of(here)).counts == {Status.OK: 4}
    assert not here.rows(sql="select * from attempts where status = 'error'")
