"""One contract for every engine: the scripted one, the embedded one, and real Ollamas of two versions."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from ollama_fixture import MODEL, VERSIONS, Servers, until

from ollama_sweep import engines, prompts, validity
from ollama_sweep.cells import Cell, Options, Run, Status
from ollama_sweep.engine import Engine, EngineSettings, Leftover
from ollama_sweep.errors import CellFailed, EngineMissing

SHORT = "Name the three largest rivers of the world and the seas that they flow into. " * 3
TEXT = SHORT * 7
"""Long beside the few tokens of a chat template that stand before the nonce, which every engine keeps cached."""
MISSING = "no-such-model:1b"
TIMEOUT_S = 240.0


@dataclass
class Book:
    """A ledger in memory."""

    open: dict[int, Leftover] = field(default_factory=dict)
    count: int = 0

    def record(self, kind: str, name: str, details: Mapping[str, str]) -> int:
        self.count += 1
        self.open[self.count] = Leftover(self.count, kind, name, details)
        return self.count

    def settle(self, number: int) -> None:
        del self.open[number]


@dataclass
class Subject:
    """An engine under the contract. `loads` is what is loaded now; `world` what must be as before in the end."""

    name: str
    model: str
    settings: EngineSettings
    loads: Callable[[], object] = lambda: None
    world: Callable[[], object] = lambda: None
    script: Callable[..., object] = lambda **script: None
    book: Book = field(default_factory=Book)
    made: list[Engine] = field(default_factory=list)

    def make(self) -> Engine:
        engine = engines.load(self.name, replace(self.settings, ledger=self.book))
        self.made.append(engine)
        return engine

    def cell(self, num_ctx: int = 256, num_batch: int = 32, num_predict: int = 2) -> Cell:
        """One thread: two that wait for each other are slow where other tests keep the cores busy."""
        place: Options = (("num_ctx", num_ctx), ("num_batch", num_batch))
        return Cell(place, self.model, tuple(sorted((*place, ("num_predict", num_predict), ("num_thread", 1)))))


def workers() -> list[int]:
    """The embedded engine's processes."""
    found = psutil.Process(os.getpid()).children(recursive=True)
    return [
        child.pid
        for child in found
        if child.status() != psutil.STATUS_ZOMBIE and "_llamacpp_worker" in " ".join(child.cmdline())
    ]


@pytest.fixture(
    params=[
        "fake",
        pytest.param("llamacpp", marks=pytest.mark.real),
        *(pytest.param(f"ollama {version}", marks=pytest.mark.real) for version in VERSIONS),
    ]
)
def subject(request: pytest.FixtureRequest) -> Iterator[Subject]:
    """Every engine in turn; whatever a test leaves open is closed."""
    kind, _, version = str(request.param).partition(" ")
    maker = {"fake": fake, "llamacpp": llamacpp, "ollama": ollama}[kind]
    made: Subject = maker(request, version)
    yield made
    for engine in made.made:
        engine.close()


def fake(request: pytest.FixtureRequest, version: str) -> Subject:
    script: Callable[..., Path] = request.getfixturevalue("fake_script")
    script(missing_models=[MISSING])
    return Subject("fake", "m", EngineSettings(), script=script)


def llamacpp(request: pytest.FixtureRequest, version: str) -> Subject:
    pytest.importorskip("xllamacpp")
    model = str(request.getfixturevalue("small_model"))
    return Subject("llamacpp", model, EngineSettings(), loads=workers, world=workers)


def ollama(request: pytest.FixtureRequest, version: str) -> Subject:
    servers: Servers = request.getfixturevalue("real_ollama")
    server = servers(version)
    settings = EngineSettings(host=f"http://{server.host}", ollama=str(server.binary))
    return Subject("ollama", MODEL, settings, loads=server.runner_pids, world=lambda: (server.installed(), server.ps()))


def measure(engine: Engine, cell: Cell, expected: int | None, text: str = SHORT) -> Run:
    """One run as a sweep makes and judges it."""
    nonce = prompts.new_nonce()
    generation = engine.generate(cell, prompts.with_nonce(nonce, text), TIMEOUT_S)
    return validity.judge_run(generation, number=1, warmup=False, nonce=nonce, expected_tokens=expected, scores={})


def counted(engine: Engine, subject: Subject, text: str = SHORT) -> int:
    tokens = engine.count_tokens(subject.model, prompts.with_nonce(prompts.new_nonce(), text))
    assert tokens is not None
    return tokens


def test_an_engine_says_what_it_is_and_what_it_knows_of_a_model(subject: Subject) -> None:
    engine = subject.make()
    info = engine.describe()
    assert info.name == subject.name
    assert info.version
    assert info.where
    assert engine.describe() == info
    found = engine.model_info(subject.model)
    assert found.name == subject.model
    assert found.digest.startswith("sha256:")
    assert found.quantization == "Q4_1"
    assert found.parameter_size
    assert found.context_length in (8192, 131072)
    assert found.kv_bytes_per_token == 23_040
    assert 90_000_000 < (found.size_bytes or 0) < 110_000_000
    assert engine.model_info(subject.model) == found


def test_a_missing_model_is_neither_fetched_nor_a_cells_fault(subject: Subject) -> None:
    engine, before = subject.make(), subject.world()
    with pytest.raises(EngineMissing, match=MISSING):
        engine.model_info(MISSING)
    assert subject.world() == before
    assert subject.book.open == {}


def test_a_cell_is_loaded_once_and_measured_without_a_cache(subject: Subject) -> None:
    engine, cell = subject.make(), subject.cell(num_ctx=512, num_batch=128)
    tokens = counted(engine, subject, TEXT)
    assert tokens < counted(engine, subject, TEXT + "And why?") <= tokens + 8
    effective = engine.prepare(cell)
    assert (effective.num_ctx, effective.num_batch, effective.others_loaded) == (512, 128, ())
    assert (effective.size_bytes or 0) > 90_000_000
    assert effective.size_vram_bytes is not None
    assert (effective.load_duration_s or 0) > 0
    loads = subject.loads()
    runs = [measure(engine, cell, tokens, TEXT) for _ in range(2)]
    for run in runs:
        assert (run.believed, run.doubt) == (True, "")
        assert abs((run.prompt_eval_count or 0) - tokens) <= validity.NONCE_TOLERANCE
        assert (run.cached_count or 0) <= tokens * validity.BELIEVED_CACHED_SHARE
        assert (run.prompt_eval_rate or 0) > 0
        assert 1 <= (run.eval_count or 0) <= 2
        assert (run.eval_duration_s or 0) > 0
        assert run.client_duration_s >= (run.prompt_eval_duration_s or 0)
        assert run.raw
    longer = subject.cell(num_ctx=512, num_batch=128, num_predict=6)
    assert longer.load_key == cell.load_key
    again = engine.prepare(longer)
    assert (again.num_ctx, again.num_batch, again.size_bytes) == (512, 128, effective.size_bytes)
    if (subject.name, engine.describe().version) != ("ollama", "0.33.0"):  # there each run may get a fresh runner
        assert subject.loads() == loads
    assert 2 < (measure(engine, longer, None).eval_count or 0) <= 6
    assert engine.prepare(subject.cell(num_batch=16)).num_batch == 16
    engine.release(failed=False)
    until("nothing is loaded", lambda: not subject.loads())
    tokens = counted(engine, subject)
    assert engine.prepare(subject.cell()).num_ctx == 256
    measure(engine, subject.cell(), tokens)


def test_a_prompt_too_long_for_its_context_is_refused_and_never_cut_in_silence(subject: Subject) -> None:
    subject.script(cells={subject.cell().label(): ["truncated"]})
    engine, cell = subject.make(), subject.cell()
    tokens = counted(engine, subject, TEXT)
    assert 300 < tokens < 500
    engine.prepare(cell)
    with pytest.raises(CellFailed) as caught:
        measure(engine, cell, tokens, TEXT)
    assert caught.value.status == Status.TRUNCATED
    assert caught.value.error
    engine.release(failed=True)
    fitting = subject.cell(num_ctx=1024, num_batch=128)
    assert engine.prepare(fitting).num_ctx == 1024
    assert abs((measure(engine, fitting, tokens, TEXT).prompt_eval_count or 0) - tokens) <= validity.NONCE_TOLERANCE


def test_a_crash_takes_its_cell_and_nothing_else(subject: Subject) -> None:
    broken, sound = subject.cell(num_batch=1), subject.cell()
    subject.script(cells={broken.label(): ["crashed"]})
    engine = subject.make()
    tokens = counted(engine, subject)

    def crash() -> None:
        engine.prepare(broken)
        measure(engine, broken, tokens)

    with pytest.raises(CellFailed) as caught:
        crash()
    assert caught.value.status == Status.CRASHED
    assert caught.value.error
    assert caught.value.raw
    engine.release(failed=True)
    until("nothing is loaded", lambda: not subject.loads())
    engine.prepare(sound)
    assert abs((measure(engine, sound, tokens).prompt_eval_count or 0) - tokens) <= validity.NONCE_TOLERANCE


def test_closing_leaves_nothing_and_may_be_done_twice(subject: Subject) -> None:
    before = subject.world()
    subject.make().close()
    engine = subject.make()
    engine.prepare(subject.cell())
    assert subject.book.open, "what is made is written down first"
    engine.close()
    assert subject.book.open == {}
    until("nothing is loaded", lambda: not subject.loads())
    assert subject.world() == before
    engine.close()


def test_what_a_dead_session_left_is_cleared_by_the_next(subject: Subject) -> None:
    before = subject.world()
    dead = subject.make()
    dead.prepare(subject.cell())
    left = list(subject.book.open.values())
    assert left
    engine = subject.make()
    said = [engine.clear(leftover) for leftover in left]
    assert any(line and ("Removed" in line or "Ended" in line) for line in said)
    until("nothing is loaded", lambda: not subject.loads())
    assert subject.world() == before


def test_every_engine_in_the_package_is_under_the_contract() -> None:
    covered: set[Any] = {"fake", "llamacpp", "ollama"}
    assert set(engines.known()) == covered
