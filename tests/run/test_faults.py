"""What happens to a sweep from outside: its database, its disk, its computer, its limits, its children."""

# ruff: noqa: F401, F811 - the fixture is imported, and asked for by its name
from __future__ import annotations

import contextlib
import functools
import os
import re
import resource
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from ollama_fixture import END_S, until
from store_helpers import stranger
from sweep_runner import Started, statuses
from sweeping import Program, label, program

from ollama_sweep.core import judge
from ollama_sweep.core.cell import Cell
from ollama_sweep.core.generation import Generation
from ollama_sweep.core.outcome import Effective
from ollama_sweep.engines.fake import Engine
from ollama_sweep.machine import clocks, process
from ollama_sweep.run import loop, session, waiting
from ollama_sweep.run.stopping import Stopping
from ollama_sweep.store import attempts
from ollama_sweep.store.reader import Reader
from ollama_sweep.store.transactions import Guarding
from ollama_sweep.store.writer import Store

FIRST, SECOND, THIRD, FOURTH = label(512, 2), label(512, 4), label(1024, 2), label(1024, 4)
ATTEMPTS = "select status, reason from attempts order by id"
ALL_OK = {(512, 2): "ok", (512, 4): "ok", (1024, 2): "ok", (1024, 4): "ok"}


def history(program: Program) -> list[tuple[str, str]]:
    return [(row["status"], row["reason"]) for row in program.rows(sql=ATTEMPTS)]


def finished(said: str) -> int:
    """How many cells the person was told of."""
    return len(re.findall(r"\d+/\d+  num_ctx \d+, num_batch \d+: ", said))


def check_whole(program: Program) -> None:
    with contextlib.closing(sqlite3.connect(program.folder / "sweeps.db")) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []


def before_each_cell(monkeypatch: pytest.MonkeyPatch, action: Callable[[Cell], object]) -> None:
    """Something happens whenever the engine is asked to prepare a cell."""
    prepare = Engine.prepare

    def act(engine: Engine, cell: Cell) -> Effective:
        action(cell)
        return prepare(engine, cell)

    monkeypatch.setattr(Engine, "prepare", act)


def in_the_first_cell(program: Program) -> tuple[Started, Path]:
    """A sweep whose first run waits for this file."""
    gate = program.folder / "gate"
    program.script(gate=str(gate))
    sweep = program.start("run", program.grid(), env=program.environment())
    until("the first cell runs", lambda: bool(program.events("generate")))
    return sweep, gate


@pytest.fixture
def opened_with(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """`opened_with(guarding=…)`: how the program opens its database from now on."""

    def change(**values: object) -> None:
        for name, value in values.items():
            monkeypatch.setitem(Store.open.__func__.__kwdefaults__, name, value)  # type: ignore[attr-defined]

    return change


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk is waited for so many hundredths of a second as it is seconds else."""
    monkeypatch.setattr(loop, "DISK_WAIT_S", 0.01)
    monkeypatch.setattr(session, "Execution", functools.partial(loop.Execution, wait_disk_s=0.1))


# The computer


def test_a_reboot_is_told_from_a_death(program: Program, opened_with: Callable[..., None]) -> None:
    died = program.start(
        "run", program.grid(), env={**program.environment(), "SWEEP_CRASH_AT": "after_prepare:2"}
    ).wait()
    assert died.returncode == -signal.SIGKILL
    opened_with(boot_id=lambda: "another boot")
    program("run", program.grid()).must()
    assert history(program) == [("ok", ""), ("interrupted", "reboot"), *[("ok", "")] * 3]
    assert statuses(program.rows()) == ALL_OK
    assert program.events("clear") == ["fake-scratch"]


def test_a_suspended_computer_costs_the_attempt_and_is_no_timeout(
    program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While it sleeps one clock stands still and the other does not."""
    slept = [0.0]
    monkeypatch.setattr(
        clocks,
        "time",
        SimpleNamespace(
            CLOCK_BOOTTIME=7, clock_gettime=lambda which: time.monotonic() + slept[0], monotonic=time.monotonic
        ),
    )

    def sleep_once(cell: Cell) -> None:
        if cell.label() == SECOND and not slept[0]:
            slept[0] += 3600

    before_each_cell(monkeypatch, sleep_once)
    said = program("run", program.grid(timeout=60)).must().stdout
    assert history(program) == [("ok", ""), ("discarded", "suspended"), *[("ok", "")] * 3]
    assert statuses(program.rows()) == ALL_OK
    assert [row["attempts"] for row in program.rows()] == [1, 1, 1, 1]
    assert "the computer was suspended meanwhile" in said


@pytest.mark.parametrize(("seconds", "way"), [(7200, "forward by 2"), (-7200, "back by 2"), (5, "")])
def test_a_clock_that_somebody_sets_is_said_once(
    seconds: float, way: str, program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    ahead = [0.0]
    now = SimpleNamespace(now=lambda zone: datetime.now(zone) + timedelta(seconds=ahead[0]))
    monkeypatch.setattr(clocks, "datetime", now)

    def set_once(cell: Cell) -> None:
        if cell.label() == SECOND:
            ahead[0] = seconds

    before_each_cell(monkeypatch, set_once)
    said = program("run", program.grid()).must().stdout
    assert said.count("the computer's clock was set") == bool(way)
    assert f"clock was set {way}" in said or not way
    assert statuses(program.rows()) == ALL_OK


def test_a_program_that_was_stopped_costs_the_attempt_and_is_no_timeout(program: Program) -> None:
    """Ctrl-Z, SIGSTOP: the clocks go on, and what was measured meanwhile is nothing."""
    sweep, gate = in_the_first_cell(program)
    child = psutil.Process(sweep.pid)
    child.send_signal(signal.SIGSTOP)
    until("it is stopped", lambda: child.status() == psutil.STATUS_STOPPED)
    stopped = time.monotonic()
    gate.touch()
    until("the stop is long enough to count", lambda: time.monotonic() > stopped + clocks.LONG_S + 2 * clocks.BEAT_S)
    child.send_signal(signal.SIGCONT)
    said = sweep.wait().must().stdout
    assert history(program) == [("discarded", "suspended"), *[("ok", "")] * 4]
    assert statuses(program.rows()) == ALL_OK
    assert "this program was stopped meanwhile" in said


def test_sigcont_without_a_stop_costs_nothing(program: Program) -> None:
    """As a terminal sends it that is closed."""
    sweep, gate = in_the_first_cell(program)
    psutil.Process(sweep.pid).send_signal(signal.SIGCONT)
    gate.touch()
    sweep.wait().must()
    assert history(program) == [("ok", "")] * 4


def test_a_bug_of_ours_costs_the_cell_and_not_what_the_engine_said(
    program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    true_judge, judged = judge.judge_run, iter(range(1000))

    def stumble(*values: Any, **named: Any) -> Any:
        if next(judged) == 0:
            raise IndexError("list index out of range")
        return true_judge(*values, **named)

    monkeypatch.setattr(judge, "judge_run", stumble)
    program("run", program.grid()).must()
    assert history(program) == [("error", "parser"), *[("ok", "")] * 4]
    with Reader.open(program.folder / "sweeps.db") as reader:
        raw = reader.raw_outputs(1)
        (attempt, *_) = reader.attempts(program.rows(sql="select key from cells order by id limit 1")[0]["key"])
    assert "list index out of range" in attempt.error
    assert any("prompt eval rate" in text for text in raw.values()), raw


def test_no_memory_left_while_measuring_is_no_result(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(cell: Cell) -> None:
        if cell.label() == SECOND:
            raise MemoryError

    before_each_cell(monkeypatch, fail)
    ended = program("run", program.grid()).must(1)
    assert ended.stderr == "error: no memory left; everything measured is saved. Go on with the same command\n"
    assert history(program) == [("ok", ""), ("started", "")]
    monkeypatch.undo()
    program("run", program.grid()).must()
    assert history(program) == [("ok", ""), ("interrupted", "died"), *[("ok", "")] * 3]


def test_a_driver_that_no_longer_answers_is_left_alone_and_said_once(program: Program) -> None:
    """`nvidia-smi` answers the first time and fails from then on."""
    driver = program.folder / "bin" / "nvidia-smi"
    driver.parent.mkdir()
    driver.write_text(
        "#!/bin/sh\ncase $1 in *power.draw*) ;; *=index) echo 0; exit ;; *) exit 9 ;; esac\necho asked >> asked.txt\n"
        "test $(wc -l < asked.txt) = 1 && echo '0, 61.25, 1024, 0x0'\n",
        "utf-8",
    )
    driver.chmod(0o755)
    environment = {**program.environment(), "PATH": f"{driver.parent}:/usr/bin:/bin"}
    ended = program.start("run", program.grid(), env=environment).wait().must()
    assert statuses(program.rows()) == ALL_OK
    said = ended.stdout + ended.stderr
    assert said.count("nvidia-smi no longer answers; what it measured is unknown from now on") == 1
    assert (program.folder / "asked.txt").read_text() == "asked\n" * 2
    assert [row["peak_vram_bytes"] for row in program.rows()] == [1024 * 2**20, None, None, None]


# The disk


def filled(program: Program, opened_with: Callable[..., None], cells: int = 2, **keys: Any) -> Guarding:
    """The database may not grow any more once so many cells are in it."""
    program("run", program.grid(num_ctx=512, num_batch=[2, 4][:cells], **keys)).must()
    (pages,) = program.rows(sql="select page_count from pragma_page_count")[0].values()
    guarding = Guarding(max_pages=pages + 2)
    opened_with(guarding=guarding)
    return guarding


LARGE: Mapping[str, Any] = {"num_ctx": list(range(512, 522)), "num_batch": [2, 4], "control": "off"}
LARGE_THIRD = label(513, 2)


def test_a_disk_that_stays_full_ends_the_sweep_with_everything_safe(
    program: Program, opened_with: Callable[..., None], impatient: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    program("run", program.grid(**LARGE), "--db", "other.db").must()
    program.journal.unlink()
    filled(program, opened_with)
    ended = program("run", program.grid(**LARGE)).must(4)
    safe = program.rows(sql="select count(*) as n from cells where status = 'ok'")[0]["n"]
    assert re.match(
        rf"error: No space for the database \(sweeps\.db\)\. {safe} cells are safe\. "
        "Free space and run: ollama-sweep run",
        ended.stderr,
    )
    assert "waiting 0.01 s: No space for the database (sweeps.db)" in ended.stdout
    check_whole(program)
    measured = program.measured()
    monkeypatch.undo()
    said = program("run", program.grid(**LARGE)).must().stdout
    assert f"{safe} of 20 cells already done" in said
    again = program.measured() - measured
    assert len(again) == 20 - safe
    check_whole(program)


def test_a_pair_whose_disk_stays_full_goes_on_in_its_turns(
    program: Program, opened_with: Callable[..., None], impatient: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair: Mapping[str, Any] = {"pair": {"num_thread": [1, 2]}}
    filled(program, opened_with, **pair)
    assert "Free space and run: ollama-sweep run" in program("run", program.grid(**LARGE, **pair)).must(4).stderr
    check_whole(program)
    stored = len(history(program))
    assert 4 <= stored < 40
    monkeypatch.undo()
    program("run", program.grid(**LARGE, **pair)).must()
    check_whole(program)
    loads = program.rows(
        sql="""select substr(sweeps.name, -1) as arm, num_ctx, num_batch from attempts
        join sweeps on sweeps.id = sweep_id join cells on cells.id = cell_id where attempts.status = 'ok'
        order by attempts.id"""
    )
    assert "".join(load["arm"] for load in loads) == "abba" * 10
    assert [load | {"arm": "b"} for load in loads[::2]] == [load | {"arm": "b"} for load in loads[1::2]]


def test_a_full_disk_is_waited_for_and_the_sweep_goes_on(
    program: Program, opened_with: Callable[..., None], impatient: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    guarding = filled(program, opened_with)

    def free(seconds: float, stopping: object) -> None:
        object.__setattr__(guarding, "max_pages", None)

    monkeypatch.setattr(loop, "pause", free)
    said = program("run", program.grid(**LARGE)).must().stdout
    assert said.count("No space for the database") == 1
    assert set(statuses(program.rows()).values()) == {"ok"}
    assert set(program.measured().values()) == {4}
    assert history(program) == [("ok", "")] * 20


def test_a_stop_is_heard_while_a_full_disk_is_waited_for(
    program: Program, opened_with: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(program, opened_with)

    def stop(seconds: float, stopping: Stopping) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        waiting.pause(seconds, stopping)

    monkeypatch.setattr(loop, "pause", stop)
    ended = program("run", program.grid(**LARGE)).must(143)
    assert "everything measured is saved" in ended.stderr
    check_whole(program)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of three megabytes."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(folder)]
    done = subprocess.run(mount, check=False, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"only root can make a small disk: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_real_disk_that_is_full_and_then_freed(
    small_disk: Path, tmp_path: Path, impatient: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    ballast = small_disk / "ballast"

    def fill(cell: Cell) -> None:
        if cell.label() == LARGE_THIRD:
            with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
                while file.write(bytes(4096)):
                    pass

    before_each_cell(monkeypatch, fill)
    with contextlib.closing(Program(tmp_path)) as program:
        words = ("run", program.grid(**LARGE), "--db", small_disk / "sweeps.db")
        ended = program(*words).must(4)
        done = finished(ended.stdout)
        assert 2 <= done < 20
        assert f"{done} cells are safe. Free space and run: ollama-sweep run" in ended.stderr
        assert "No space for the database" in ended.stderr
        assert "waiting 0.01 s: No space" in ended.stdout
        before = program.measured()
        ballast.unlink()
        before_each_cell(monkeypatch, lambda cell: None)
        said = program(*words).must().stdout
        assert f"{done} of 20 cells already done, {20 - done} to run" in said
        again = program.measured() - before
        assert len(again) == 20 - done


# The database


def test_a_database_that_was_replaced_is_left_alone_and_the_cell_is_saved(
    program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    program("run", program.grid("other"), "--db", "other.db").must()
    other = program.folder / "other.db"
    before = other.read_bytes()

    def replace(cell: Cell) -> None:
        if cell.label() == THIRD:
            other.replace(program.folder / "sweeps.db")

    before_each_cell(monkeypatch, replace)
    ended = program("run", program.grid()).must(4)
    assert "error: sweeps.db was deleted or replaced while the sweep ran. Nothing was written to it" in ended.stderr
    (saved,) = program.folder.glob("sweeps.db.rescued-*.json")
    assert f"The cell at hand was saved to {saved.name}" in ended.stderr
    assert saved.stat().st_size > 100
    assert (program.folder / "sweeps.db").read_bytes() == before
    assert finished(ended.stdout) == 2


def test_a_strangers_write_is_waited_for(program: Program) -> None:
    sweep, gate = in_the_first_cell(program)
    with stranger(program.folder / "sweeps.db") as other:
        other.execute("BEGIN IMMEDIATE")
        gate.touch()
        until("it says so", lambda: "waiting for the database" in said(sweep))
        assert finished(said(sweep)) == 0
        other.execute("ROLLBACK")
    ended = sweep.wait().must()
    assert ended.stdout.count("waiting for the database: another program is writing to sweeps.db") == 1
    assert statuses(program.rows()) == ALL_OK


def test_ctrl_c_twice_ends_the_wait_for_a_strangers_write_and_saves_the_cell(program: Program) -> None:
    sweep, gate = in_the_first_cell(program)
    with stranger(program.folder / "sweeps.db") as other:
        other.execute("BEGIN IMMEDIATE")
        gate.touch()
        until("it says so", lambda: "waiting for the database" in said(sweep))
        sweep.kill(signal.SIGINT)
        until("it is heard", lambda: "Stopping after this cell" in said(sweep))
        sweep.kill(signal.SIGINT)
        ended = sweep.wait().must(130)
        other.execute("ROLLBACK")
    (saved,) = program.folder.glob("sweeps.db.rescued-*.json")
    assert f"The cell at hand was saved to {saved.name}" in ended.stderr
    program("run", program.grid()).must()
    assert statuses(program.rows()) == ALL_OK


def said(sweep: Started) -> str:
    """What a running child has said until now."""
    return sweep._files[0].read_text("utf-8", "replace")


# Limits


@pytest.mark.parametrize("more", [-3, 0])
def test_too_many_open_files_end_the_sweep_with_the_limit_named(more: int, program: Program) -> None:
    """Somebody lowers the limit while a cell runs; or a leak comes near to it."""
    sweep, gate = in_the_first_cell(program)
    child = psutil.Process(sweep.pid)
    limit = child.num_fds() + more
    child.rlimit(resource.RLIMIT_NOFILE, (limit, limit))
    gate.touch()
    ended = sweep.wait()
    assert ended.returncode in (4, 5), ended
    assert "Traceback" not in ended.stderr
    assert f"too many open files (the limit is {limit}). Raise it, for example: ulimit -n 4096" in ended.stderr
    done = program.rows(sql="select count(*) as n from cells where status = 'ok'")[0]["n"]
    assert done >= finished(ended.stdout)
    program("run", program.grid()).must()
    assert statuses(program.rows()) == ALL_OK
    assert {status for status, _ in history(program)} <= {"ok", "interrupted"}


def test_no_memory_left_rolls_back_and_keeps_what_was_saved(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    store_parts, cells = attempts._store_parts, iter((False, True))

    def fail(*values: Any) -> None:
        store_parts(*values)
        if next(cells):
            raise MemoryError

    monkeypatch.setattr(attempts, "_store_parts", fail)
    ended = program("run", program.grid()).must(1)
    assert ended.stderr == "error: no memory left; everything measured is saved. Go on with the same command\n"
    assert history(program) == [("ok", ""), ("started", "")]
    assert program.rows(sql="select count(*) as n from runs") == [{"n": 4}]
    check_whole(program)
    monkeypatch.undo()
    said = program("run", program.grid()).must().stdout
    assert "1 of 4 cells already done, 3 to run" in said
    assert history(program) == [("ok", ""), ("interrupted", "died"), *[("ok", "")] * 3]


# Children


class Unkillable(subprocess.Popen[bytes]):
    """A child that nothing ends, as one that sleeps in a driver: no wait for it returns."""

    left: list[Unkillable]

    def __init__(self, *words: Any, **options: Any) -> None:
        super().__init__(*words, **options)
        Unkillable.left.append(self)

    def wait(self, timeout: float | None = None) -> int:
        raise subprocess.TimeoutExpired(self.args, timeout or 0)

    def poll(self) -> None:
        return None


def test_a_child_that_cannot_be_ended_ends_the_sweep(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    generate, Unkillable.left = Engine.generate, []
    monkeypatch.setattr(subprocess, "Popen", Unkillable)
    for name in ("GRACE_S", "UNKILLABLE_S", "DRAIN_S"):
        monkeypatch.setattr(process, name, 0.01)

    def with_child(engine: Engine, cell: Cell, prompt: str, timeout_s: float) -> Generation:
        if cell.label() == SECOND:
            process.run(["sleep", "600"], timeout_s=0.05)
        return generate(engine, cell, prompt, timeout_s)

    monkeypatch.setattr(Engine, "generate", with_child)
    ended = program("run", program.grid()).must(5)
    (child,) = Unkillable.left
    assert ended.stderr == f"error: pid {child.pid} cannot be ended; the GPU may need a reset or the machine a reboot\n"
    assert history(program) == [("ok", ""), ("interrupted", "stuck")]
    assert program.events("prepare") == [FIRST, SECOND]
    monkeypatch.undo()
    subprocess.Popen.wait(child, END_S)
    program("run", program.grid()).must()
    assert statuses(program.rows()) == ALL_OK
