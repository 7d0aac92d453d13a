"""One contract for every engine: the scripted, one of another package, the embedded, real Ollamas of two versions."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import plain_engine
import psutil
import pytest
import recording_maker
from book import Book
from ollama_fixture import MODEL, VERSIONS, Servers, script_output, until

from ollama_sweep import engines
from ollama_sweep.core import judge
from ollama_sweep.core.cell import Cell
from ollama_sweep.core.errors import CellFailed, EngineMissing
from ollama_sweep.core.generation import EMBED, Generation, Vectors
from ollama_sweep.core.options import Options, Scalar
from ollama_sweep.core.outcome import Flag, Run, Status, Summary
from ollama_sweep.engines.base import READ_AGAIN, Engine, EngineSettings, Kept
from ollama_sweep.machine.clocks import FastClock
from ollama_sweep.plan import prompts

QUESTION = "Name three rivers."
TEXT = "Name the three largest rivers of the world and the seas that they flow into. " * 18
"""Long beside the few tokens of a chat template that stand before the nonce, which every engine keeps cached; and too
long for the smallest context that llama.cpp makes, where counting is quick, because it ends with a refusal.
"""
OPENING_TOKENS = 8
MISSING = "no-such-model:1b"
SYSTEM = (
    'You are a "careful" teacher of geography.\nAnswer in one short sentence, and never with a list. Name the river, '
    "the sea that it flows into, and one town on its way."
)
"""Longer than what the small model's own template says where there is no system prompt."""
ROWS = ["The film was long.", "I liked the music of it.", "Never again!", "A quiet story.", "Who wrote this?"]
TIMEOUT_S = 240.0
SCRIPTED = ("fake", "fake_swap", "plain")
REPLAYED = "replay"
"""It makes nothing, holds nothing and has no texts: what is asked of those is not asked of it."""


@dataclass
class Subject:
    """An engine under the contract.

    `loads` are the processes that hold what is loaded now, `starts` counts the loads so far; `world` must be as before
    in the end. `embedder` is a model for embeddings, and `model` is none.
    """

    name: str
    model: str
    embedder: str
    settings: EngineSettings
    loads: Callable[[], list[int]] = list
    starts: Callable[[], int] = lambda: 0
    world: Callable[[], object] = lambda: None
    script: Callable[..., object] = lambda **script: None
    strike: Callable[[], object] | None = None
    """Ends the process that has the model; None where num_batch 1 does that by itself."""
    book: Book = field(default_factory=Book)
    made: list[Engine] = field(default_factory=list)

    def make(self) -> Engine:
        engine = engines.load(self.name, replace(self.settings, ledger=self.book))
        self.made.append(engine)
        return engine

    def cell(self, num_ctx: int = 256, num_batch: int = 32, num_predict: int = 2, **more: Scalar) -> Cell:
        """One thread: two that wait for each other are slow where other tests keep the cores busy."""
        place: Options = (("num_ctx", num_ctx), ("num_batch", num_batch))
        options = {**dict(place), "num_predict": num_predict, "num_thread": 1, **more}
        return Cell(place, self.model, tuple(sorted(options.items())))


def workers(name: str) -> list[int]:
    """The processes of an engine that holds the model itself."""
    found = []
    for child in psutil.Process(os.getpid()).children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if child.status() != psutil.STATUS_ZOMBIE and f"engines.{name}.worker" in " ".join(child.cmdline()):
                found.append(child.pid)
    return found


@pytest.fixture(
    params=[
        "fake",
        "fake_swap",
        "plain",
        REPLAYED,
        pytest.param("llamacpp", marks=pytest.mark.real),
        pytest.param(f"libllama {VERSIONS[0]}", marks=pytest.mark.real),
        *(pytest.param(f"ollama {version}", marks=pytest.mark.real) for version in VERSIONS),
        pytest.param(f"ollama_http {VERSIONS[0]}", marks=pytest.mark.real),
        pytest.param(f"ollama_http {VERSIONS[1]}", marks=[pytest.mark.real, pytest.mark.slow]),
    ]
)
def subject(request: pytest.FixtureRequest) -> Iterator[Subject]:
    """Every engine in turn; whatever a test leaves open is closed."""
    kind, _, version = str(request.param).partition(" ")
    maker = {
        "fake": fake,
        "fake_swap": fake,
        "plain": plain,
        REPLAYED: replay,
        "llamacpp": llamacpp,
        "libllama": libllama,
    }.get(kind, ollama)
    made: Subject = maker(request, version, kind)
    yield made
    for engine in made.made:
        engine.close()


@pytest.fixture(scope="session")
def embedding_model() -> Path:
    """The small model as one for embeddings."""
    return script_output("get_model", "--variant", "embedding")


def fake(request: pytest.FixtureRequest, version: str, name: str) -> Subject:
    write: Callable[..., Path] = request.getfixturevalue("fake_script")

    def script(**given: object) -> object:
        return write(missing_models=[MISSING], not_embedding=["m"], dimension=576, **given)

    script()
    return Subject(name, "m", "e", EngineSettings(), script=script)


def replay(request: pytest.FixtureRequest, version: str, name: str) -> Subject:
    """A recording of the cells that are asked about here."""
    if request.node.get_closest_marker("makes_something"):
        pytest.skip("a recording makes nothing, holds nothing and has no texts")
    short, long = (len(f"12345678 {text}".split()) for text in (QUESTION, TEXT))
    file: Path = request.getfixturevalue("tmp_path") / "contract.jsonl"
    file.write_text(
        recording_maker.of_cells(
            {(512, 128, 2): long, (512, 128, 6): long, (256, 16, 2): short, (256, 32, 2): short, (1024, 128, 2): long},
            crashed=(256, 1, 2),
            num_thread=1,
        ),
        "utf-8",
    )
    return Subject(name, "m", "e", EngineSettings(recording=str(file), clock=FastClock()))


def plain(request: pytest.FixtureRequest, version: str, name: str) -> Subject:
    """A plain class of another package, found by its entry point."""
    folder: Path = request.getfixturevalue("tmp_path")
    plain_engine.add_package(folder, plain="plain_engine")
    request.getfixturevalue("monkeypatch").syspath_prepend(str(folder))
    return fake(request, version, name)


def llamacpp(request: pytest.FixtureRequest, version: str, name: str) -> Subject:
    pytest.importorskip("xllamacpp")
    model, embedder = (str(request.getfixturevalue(fixture)) for fixture in ("small_model", "embedding_model"))
    return Subject(name, model, embedder, EngineSettings(), loads=partial(workers, name), world=partial(workers, name))


def libllama(request: pytest.FixtureRequest, version: str, name: str) -> Subject:
    """Beside an Ollama: that is where the library and the rendering come from."""
    beside = ollama(request, version, name)
    loads = partial(workers, name)

    def strike() -> None:
        for pid in loads():
            psutil.Process(pid).kill()

    def world() -> object:
        return loads(), beside.world()

    return replace(beside, loads=loads, starts=lambda: 0, strike=strike, world=world, made=[], book=Book())


def ollama(request: pytest.FixtureRequest, version: str, name: str) -> Subject:
    servers: Servers = request.getfixturevalue("real_ollama")
    server = servers(version)
    return Subject(
        name,
        MODEL,
        str(request.getfixturevalue("embedding_model")),
        EngineSettings(host=f"http://{server.host}", ollama=str(server.binary)),
        loads=server.runner_pids,
        starts=lambda: server.log_text().count('msg="starting llama-server"'),
        world=lambda: (server.installed(), server.ps()),
    )


def measure(engine: Engine, cell: Cell, expected: int | None, text: str = QUESTION) -> Run:
    """One run as a sweep makes and judges it."""
    nonce = prompts.new_nonce()
    generation = engine.generate(cell, prompts.with_nonce(nonce, text), TIMEOUT_S)
    says_again(engine, generation)
    return judge.judge_run(generation, number=1, warmup=False, nonce=nonce, expected_tokens=expected, scores={})


def says_again(engine: Engine, found: Generation, *, fresh: bool = True, embeds: bool = False) -> None:
    """What is kept of a run has every number of it but those of a clock here, where its engine reads it again."""
    kept = Kept(found.raw, engine.describe().version, fresh=fresh, embeds=embeds)
    again = engine.read_again(kept)
    assert {name: getattr(found, name) for name in again} == again
    if engine.describe().name != "plain":
        known = {name for name in READ_AGAIN if getattr(found, name) is not None}
        assert known - set(again) <= {"client_duration_s", "ttft_s"}


def counted(engine: Engine, subject: Subject, text: str = QUESTION) -> int:
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
        assert abs((run.prompt_eval_count or 0) - tokens) <= judge.NONCE_TOLERANCE
        assert (run.cached_count or 0) <= OPENING_TOKENS
        assert (run.prompt_eval_rate or 0) > 0
        assert 1 <= (run.eval_count or 0) <= 2
        assert (run.eval_duration_s or 0) > 0
        assert run.client_duration_s >= (run.prompt_eval_duration_s or 0)
        assert run.raw
    longer = subject.cell(num_ctx=512, num_batch=128, num_predict=6)
    assert longer.load_key == cell.load_key
    again = engine.prepare(longer)
    assert (again.num_ctx, again.num_batch, again.size_bytes) == (512, 128, effective.size_bytes)
    if engine.describe().version != "0.33.0":  # there each run may get a fresh runner
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
    assert cell.num_ctx < tokens < 500
    engine.prepare(cell)
    with pytest.raises(CellFailed) as caught:
        measure(engine, cell, tokens, TEXT)
    assert caught.value.status == Status.TRUNCATED
    assert caught.value.error
    engine.release(failed=True)
    fitting = subject.cell(num_ctx=1024, num_batch=128)
    assert engine.prepare(fitting).num_ctx == 1024
    assert abs((measure(engine, fitting, tokens, TEXT).prompt_eval_count or 0) - tokens) <= judge.NONCE_TOLERANCE


def test_a_crash_takes_its_cell_and_nothing_else(subject: Subject) -> None:
    broken, sound = subject.cell(num_batch=1), subject.cell()
    subject.script(cells={broken.label(): ["crashed"]})
    engine = subject.make()
    tokens = counted(engine, subject)

    def crash() -> None:
        engine.prepare(broken)
        if subject.strike:
            subject.strike()
        measure(engine, broken, tokens)

    with pytest.raises(CellFailed) as caught:
        crash()
    assert caught.value.status == Status.CRASHED
    assert caught.value.error
    assert caught.value.raw
    engine.release(failed=True)
    until("nothing is loaded", lambda: not subject.loads())
    engine.prepare(sound)
    assert abs((measure(engine, sound, tokens).prompt_eval_count or 0) - tokens) <= judge.NONCE_TOLERANCE


@pytest.mark.makes_something
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


@pytest.mark.makes_something
def test_what_a_dead_session_left_is_cleared_by_the_next(subject: Subject) -> None:
    before = subject.world()
    dead = subject.make()
    dead.prepare(subject.cell())
    left = list(subject.book.open.values())
    assert left
    engine = subject.make()
    said = [engine.clear(leftover) for leftover in left]
    assert any(line and line.split()[0] in ("Removed", "Ended", "Unloaded") for line in said)
    until("nothing is loaded", lambda: not subject.loads())
    assert subject.world() == before


# -- tasks: answers, system prompts, embeddings ------------------------------------------------------------------------


@pytest.mark.makes_something
def test_the_first_piece_of_an_answer_comes_before_the_last(subject: Subject) -> None:
    engine, cell = subject.make(), subject.cell(num_predict=12, temperature=0.0, seed=1)
    engine.prepare(cell)
    found = engine.generate(cell, QUESTION, TIMEOUT_S, fresh=False)
    assert 0 < (found.ttft_s or 0) <= found.client_duration_s
    assert found.chunk_count is None or 1 < found.chunk_count <= (found.eval_count or 0)
    assert (found.chunk_count is None) == (subject.name == "ollama"), "`ollama run` does not show its pieces"
    assert found.text.strip()
    says_again(engine, found, fresh=False)
    assert 1 < (found.eval_count or 0) <= 12
    assert (found.vectors, found.is_estimated) == (None, False)


@pytest.mark.makes_something
def test_a_system_prompt_stands_before_the_question(subject: Subject) -> None:
    engine, plain = subject.make(), subject.cell(num_ctx=512)
    told = replace(plain, system=SYSTEM)
    lengths = [engine.count_tokens(subject.model, QUESTION, system=system) for system in ("", SYSTEM)]
    assert (lengths[1] or 0) > (lengths[0] or 0) + 10
    read = []
    for cell in (plain, told, plain):
        engine.prepare(cell)
        read.append(engine.generate(cell, QUESTION, TIMEOUT_S, fresh=False).prompt_eval_count)
    assert read == [lengths[0], lengths[1], lengths[0]]


@pytest.mark.makes_something
def test_cells_that_differ_in_their_task_only_share_a_load(subject: Subject) -> None:
    engine = subject.make()
    first = subject.cell(num_ctx=512)
    others = [
        subject.cell(num_ctx=512, num_predict=7),
        subject.cell(num_ctx=512, temperature=0.1, top_k=3),
        replace(subject.cell(num_ctx=512), system=SYSTEM),
    ]
    effective = engine.prepare(first)
    starts, loads = subject.starts(), subject.loads()
    engine.generate(first, QUESTION, TIMEOUT_S, fresh=False)
    for cell in others:
        assert engine.prepare(cell) == effective, "each cell of a load names the time that the load took"
        engine.generate(cell, QUESTION, TIMEOUT_S, fresh=False)
    assert (subject.starts(), subject.loads()) == (starts, loads)


@pytest.mark.makes_something
def test_what_is_left_to_the_engine_is_its_own_choice(subject: Subject) -> None:
    engine, cell = subject.make(), subject.cell(num_ctx=0, num_batch=0)
    effective = engine.prepare(cell)
    assert (effective.num_ctx or 0) >= 4096
    assert (effective.num_batch or 0) >= 512
    flags = judge.flags_of(cell, Summary(), effective, prompt_tokens=None, has_gpu=False)
    assert Flag.CLAMPED not in flags
    absent = replace(cell, options=tuple(pair for pair in cell.options if pair[1] != 0))
    assert engine.prepare(absent).num_ctx == effective.num_ctx


def needs_embeddings(subject: Subject) -> None:
    if EMBED not in engines.facts(subject.name).kinds:
        pytest.skip("this engine makes no embeddings, and a sweep that asks it for some is refused")


@pytest.mark.makes_something
def test_an_embedding_model_among_others(subject: Subject) -> None:
    needs_embeddings(subject)
    engine, plain = subject.make(), subject.cell()
    engine.prepare(plain)
    before = subject.loads()
    cell = replace(plain, model=subject.embedder)
    effective = engine.prepare(cell)
    assert (effective.num_ctx, effective.num_batch, effective.others_loaded) == (256, 32, ())
    assert (effective.load_duration_s or 0) > 0
    until("the model before is unloaded", lambda: not set(before) & set(subject.loads()))
    loads, starts = subject.loads(), subject.starts()
    for batch_size in (2, 16):
        found = engine.embed(cell, ROWS, batch_size, TIMEOUT_S)
        assert found.vectors == Vectors(5, 576, "float32")
        assert len(ROWS) <= (found.prompt_eval_count or 0) < 100
        assert found.client_duration_s > 0
        says_again(engine, found, embeds=True)
        assert (found.text, found.eval_count, found.prompt_eval_duration_s) == ("", None, None)
    assert (subject.loads(), subject.starts()) == (loads, starts)
    engine.prepare(plain)
    until("the embedding model is unloaded", lambda: not set(loads) & set(subject.loads()))
    assert engine.generate(plain, "Hello", TIMEOUT_S).eval_count


def test_a_model_without_embeddings_says_so(subject: Subject) -> None:
    engine, cell = subject.make(), subject.cell()
    engine.prepare(cell)
    with pytest.raises(CellFailed) as caught:
        engine.embed(cell, ROWS, 2, TIMEOUT_S)
    assert (caught.value.status, caught.value.reason) == (Status.ERROR, "cannot_embed")
    assert "embed" in caught.value.error
    assert engine.generate(cell, "Hello", TIMEOUT_S).eval_count, "the next one is answered"


@pytest.mark.makes_something
def test_a_text_too_long_to_embed_is_refused_and_never_cut_in_silence(subject: Subject) -> None:
    if subject.name in SCRIPTED:
        pytest.skip("the scripted engine has no longest text")
    needs_embeddings(subject)
    engine, cell = subject.make(), replace(subject.cell(), model=subject.embedder)
    engine.prepare(cell)
    with pytest.raises(CellFailed) as caught:
        engine.embed(cell, [ROWS[0], "word " * 100], 2, TIMEOUT_S)
    assert (caught.value.status, caught.value.reason) == (Status.TRUNCATED, "does_not_fit")


@pytest.mark.makes_something
def test_an_embedding_model_generates_nothing(subject: Subject) -> None:
    if subject.name in SCRIPTED:
        pytest.skip("the scripted engine's models do both")
    needs_embeddings(subject)
    engine, cell = subject.make(), replace(subject.cell(), model=subject.embedder)
    engine.prepare(cell)
    assert engine.count_tokens(subject.embedder, "Hello") is None
    engine.prepare(cell)
    with pytest.raises(CellFailed) as caught:
        engine.generate(cell, "Hello", TIMEOUT_S)
    assert (caught.value.status, caught.value.reason) == (Status.ERROR, "capability")


@pytest.mark.makes_something
def test_two_models_are_counted_and_measured_in_turn(subject: Subject) -> None:
    """The scratch model and its runner are those of another model each time."""
    engine = subject.make()
    other = subject.embedder if EMBED in engine.kinds else subject.model
    for model in (subject.model, subject.embedder, subject.model):
        engine.count_tokens(model, "Hello")
    for model in (other, subject.model):
        cell = replace(subject.cell(), model=model)
        assert engine.prepare(cell).others_loaded == ()
        engine.release(failed=False)
        until("nothing is loaded", lambda: not subject.loads())


@pytest.mark.makes_something
def test_the_processes_that_hold_the_model(subject: Subject) -> None:
    engine = subject.make()
    engine.prepare(subject.cell())
    found = engine.processes()
    assert found
    assert all(psutil.pid_exists(pid) for pid in found)
    assert set(subject.loads()) <= set(found)
    engine.close()
    until("nothing is loaded", lambda: not subject.loads())


def test_every_engine_in_the_package_is_under_the_contract() -> None:
    covered = {"fake", "fake_swap", "libllama", "llamacpp", "ollama", "ollama_http", REPLAYED}
    others = {"lmstudio", "openai", "sentence_transformers"}
    """What these can do depends on the server or the library behind them; they have suites of their own."""
    assert covered <= set(engines.known()) <= covered | others
