"""The embedded engine's own process: real loads, crashes and hangs, and who ends it."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import psutil
import pytest
from blobs import install
from blobs import installed as installed  # a fixture
from llamacpp_cells import WAIT_S, make_cell
from llamacpp_cells import needs_xllamacpp as needs_xllamacpp  # a fixture
from ollama_fixture import ONE_ARENA, until

from ollama_sweep.core.cell import Cell
from ollama_sweep.core.errors import CellFailed
from ollama_sweep.core.ledger import Leftover
from ollama_sweep.core.outcome import Status
from ollama_sweep.engines.base import EngineSettings
from ollama_sweep.engines.llamacpp.engine import Engine

PROMPT = "The quick brown fox jumps over the lazy dog. " * 3


class Ledger:
    """Remembers what is there."""

    def __init__(self) -> None:
        self.there: dict[int, str] = {}
        self.recorded: list[str] = []

    def record(self, kind: str, name: str, details: Mapping[str, str]) -> int:
        assert kind == "process"
        self.recorded.append(name)
        self.there[len(self.recorded)] = name
        return len(self.recorded)

    def settle(self, number: int) -> None:
        del self.there[number]


@pytest.fixture
def ledger() -> Ledger:
    return Ledger()


@pytest.fixture
def engine(needs_xllamacpp: None, ledger: Ledger) -> Iterator[Engine]:
    made = Engine(EngineSettings(ledger=ledger))
    yield made
    made.close()
    assert ledger.there == {}


def child_of(engine: Engine) -> psutil.Process:
    assert engine._child is not None
    return psutil.Process(engine._child.pid)


def kill(process: psutil.Process) -> None:
    """Kill a child of ours and wait until it is dead, but leave its exit code to be fetched."""
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)


def prepare_fails(engine: Engine, cell: Cell) -> tuple[str, str]:
    with pytest.raises(CellFailed) as caught:
        engine.prepare(cell)
    assert caught.value.error
    return caught.value.status, caught.value.reason


def generate_fails(engine: Engine, cell: Cell, prompt: str = PROMPT, timeout_s: float = WAIT_S) -> tuple[str, str]:
    with pytest.raises(CellFailed) as caught:
        engine.generate(cell, prompt, timeout_s)
    assert caught.value.error
    return caught.value.status, caught.value.reason


def measures(engine: Engine, cell: Cell, prompt: str = PROMPT) -> int:
    """A cell that works: the number of prompt tokens."""
    effective = engine.prepare(cell)
    assert (effective.num_ctx, effective.num_batch) == (cell.num_ctx, min(cell.num_batch, cell.num_ctx))
    found = engine.generate(cell, prompt, WAIT_S)
    assert found.prompt_eval_count
    assert found.cached_count == 0
    return found.prompt_eval_count


@pytest.mark.real
def test_a_cell_from_load_to_release(engine: Engine, small_model: Path, ledger: Ledger) -> None:
    cell = make_cell(small_model, 1024, 256, temperature=0.0)
    tokens = engine.count_tokens(str(small_model), PROMPT)
    assert engine.count_tokens(str(small_model), "Hi") == 31
    effective = engine.prepare(cell)
    assert (effective.num_ctx, effective.num_batch, effective.size_vram_bytes) == (1024, 256, 0)
    assert effective.size_bytes
    assert effective.size_bytes > small_model.stat().st_size
    process = child_of(engine)
    first, again = (engine.generate(cell, PROMPT, WAIT_S) for _ in range(2))
    for run in (first, again):
        assert (run.prompt_eval_count, run.cached_count, run.eval_count) == (tokens, 0, 2)
        assert run.prompt_eval_duration_s
        assert run.printed_rate == pytest.approx((tokens or 0) / run.prompt_eval_duration_s, rel=0.01)
        assert run.ttft_s
        assert run.ttft_s <= run.client_duration_s
    assert first.text == again.text != ""
    assert engine.prepare(cell) == effective
    assert child_of(engine).pid == process.pid
    assert len(ledger.recorded) == 2
    engine.release(failed=False)
    assert not process.is_running()
    assert ledger.there == {}


@pytest.mark.real
def test_what_is_known_of_the_model(engine: Engine, small_model: Path) -> None:
    info = engine.model_info(str(small_model))
    assert (info.family, info.parameter_size, info.quantization) == ("llama", "134.52M", "Q4_1")
    assert (info.context_length, info.kv_bytes_per_token) == (8192, 23040)
    assert info.size_bytes == small_model.stat().st_size
    assert engine.describe().name == "llamacpp"


@pytest.mark.real
def test_more_context_than_the_model_was_trained_for(engine: Engine, small_model: Path) -> None:
    effective = engine.prepare(make_cell(small_model, 1 << 20, 64))
    assert effective.num_ctx == 8192


@pytest.mark.real
def test_a_batch_of_one_crashes_its_cell_alone(engine: Engine, small_model: Path) -> None:
    assert prepare_fails(engine, make_cell(small_model, 512, 1)) == (Status.CRASHED, "assert")
    engine.release(failed=True)
    assert measures(engine, make_cell(small_model, 512, 64)) > 40


@pytest.mark.real
@pytest.mark.parametrize("num_ctx", [256, 300])
def test_a_prompt_that_does_not_fit_is_not_cut(engine: Engine, small_model: Path, num_ctx: int) -> None:
    """300 is rounded up to 512 by llama.cpp, so the prompt of about 390 tokens runs; it still does not fit 300."""
    cell = make_cell(small_model, num_ctx, 64)
    assert engine.prepare(cell).num_ctx == num_ctx
    assert generate_fails(engine, cell, PROMPT * 12) == (Status.TRUNCATED, "does_not_fit")
    assert engine.generate(cell, "Hi", WAIT_S).prompt_eval_count == 31


@pytest.mark.real
def test_a_memory_limit(needs_xllamacpp: None, small_model: Path) -> None:
    if shutil.which("prlimit") is None:
        pytest.skip("prlimit is not there")
    limited = Engine(EngineSettings(extra={"worker_prefix": ONE_ARENA + "prlimit --as=750000000"}))
    assert prepare_fails(limited, make_cell(small_model, 8192, 8192)) == (Status.OOM, "host_oom")
    limited.close()


@pytest.mark.real
def test_a_stopped_child_is_a_timeout_and_the_next_cell_is_right(engine: Engine, small_model: Path) -> None:
    cell = make_cell(small_model, 512, 64)
    engine.prepare(cell)
    stopped = child_of(engine)
    stopped.suspend()
    assert generate_fails(engine, cell, timeout_s=0.2) == (Status.TIMEOUT, "run")
    assert not stopped.is_running()
    engine.release(failed=True)
    assert measures(engine, cell) > 40


@pytest.mark.real
def test_a_load_that_takes_too_long(needs_xllamacpp: None, small_model: Path) -> None:
    hurried = Engine(EngineSettings(load_timeout_s=0.001))
    assert prepare_fails(hurried, make_cell(small_model, 512, 64)) == (Status.TIMEOUT, "load")
    hurried.close()


@pytest.mark.real
def test_a_killed_child(engine: Engine, small_model: Path) -> None:
    cell = make_cell(small_model, 512, 64)
    engine.prepare(cell)
    kill(child_of(engine))
    assert generate_fails(engine, cell) == (Status.CRASHED, "killed")
    engine.release(failed=True)
    engine.prepare(cell)
    kill(child_of(engine))
    assert measures(engine, cell) > 40


@pytest.mark.real
def test_what_arrives_while_the_child_works_does_not_end_it(engine: Engine, small_model: Path) -> None:
    """The signal of a request's own arrival may come when the child is at work already."""
    engine.prepare(make_cell(small_model, 512, 64))
    child = engine._child
    assert child is not None
    request = json.dumps({"generate": {"prompt": PROMPT, "n_predict": 2}})
    child._worker.send(request)
    until("it is at work", lambda: "processing task" in child.log or not child.is_alive, pause_s=0.002)
    child._worker.send(request)
    answers = [child._worker.receive(WAIT_S) for _ in range(2)]
    assert all(answer and "timings" in answer for answer in answers)


class Stop(BaseException):
    """What a signal handler raises."""


@pytest.mark.real
def test_a_run_that_is_stopped_leaves_no_child(
    engine: Engine, small_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cell = make_cell(small_model, 512, 64)
    engine.prepare(cell)
    stopped = child_of(engine)
    stopped.suspend()
    assert engine._child is not None
    receive = engine._child._worker.receive

    def stop(number: int, frame: object) -> None:
        raise Stop

    def receive_and_be_stopped(timeout_s: float) -> str | None:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        return receive(timeout_s)

    monkeypatch.setattr(engine._child._worker, "receive", receive_and_be_stopped)
    before = signal.signal(signal.SIGALRM, stop)
    try:
        with pytest.raises(Stop):
            engine.generate(cell, PROMPT, WAIT_S)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert not stopped.is_running()
    engine.release(failed=True)
    assert measures(engine, cell) > 40


@pytest.mark.real
def test_an_installed_name_is_read_from_its_blob(engine: Engine, small_model: Path, installed: Path) -> None:
    digest = hashlib.sha256(small_model.read_bytes()).hexdigest()
    install(installed, "registry.ollama.ai/library/smol/latest", {"system": b"Answer with one word and nothing else."})
    manifest = installed / "manifests/registry.ollama.ai/library/smol/latest"
    layers = json.loads(manifest.read_text())["layers"]
    layers.append({"mediaType": "application/vnd.ollama.image.model", "digest": f"sha256:{digest}"})
    manifest.write_text(json.dumps({"layers": layers}))
    (installed / "blobs" / f"sha256-{digest}").symlink_to(small_model)
    tokens = engine.count_tokens("smol", "Hi")
    assert tokens != engine.count_tokens(str(small_model), "Hi")
    assert measures(engine, make_cell("smol", 512, 64), "Hi") == tokens


@pytest.mark.real
def test_what_a_dead_session_left_is_ended(engine: Engine, small_model: Path, ledger: Ledger) -> None:
    engine.prepare(make_cell(small_model, 512, 64))
    left = child_of(engine)
    said = Engine(EngineSettings()).clear(Leftover(1, "process", ledger.recorded[-1], {}))
    name = f"{Path(sys.executable).name} ollama_sweep.engines.llamacpp.worker"
    assert said == f"Ended a left-over {name} (pid {left.pid}) of the previous session"
    assert not left.is_running() or left.status() == psutil.STATUS_ZOMBIE
    assert engine.clear(Leftover(1, "process", "llamacpp-nobody", {})) is None


PARENT = """
import os, sys, threading, time
from ollama_sweep.core.cell import Cell
from ollama_sweep.engines.base import EngineSettings
from ollama_sweep.engines.llamacpp.engine import Engine

model, phase = sys.argv[1:]
engine = Engine(EngineSettings())
cell = Cell((), model, (("num_batch", 64), ("num_ctx", 8192), ("num_predict", -1), ("num_thread", 1)))

def work():
    engine.prepare(cell)
    if phase == "run":
        engine.generate(cell, "word " * 7000, 600)

threading.Thread(target=work, daemon=True).start()
awaited = {"load": "loading model", "idle": "model loaded", "run": "processing task"}[phase]
while engine._child is None or awaited not in engine._child.log:
    time.sleep(0.002)
print(engine._child.pid, flush=True)
sys.stdin.read()
"""


@pytest.mark.real
@pytest.mark.usefixtures("needs_xllamacpp")
@pytest.mark.parametrize("phase", ["load", "idle", "run"])
def test_the_child_ends_when_its_parent_is_killed(small_model: Path, phase: str) -> None:
    command = [sys.executable, "-c", PARENT, str(small_model), phase]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        parent.kill()
        gone, alive = psutil.wait_procs([child], timeout=WAIT_S)
    assert gone == [child]
    assert alive == []
