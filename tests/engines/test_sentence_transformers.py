"""The engine `sentence_transformers`: through a tiny stand-in of the package, and with the real one where it is."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from book import Book
from ollama_fixture import until

from ollama_sweep import engines
from ollama_sweep.core.cell import Cell
from ollama_sweep.core.errors import CellFailed, ConfigError, EngineMissing, EngineUnavailable
from ollama_sweep.core.outcome import Status
from ollama_sweep.engines import base
from ollama_sweep.engines.base import EngineSettings
from ollama_sweep.engines.sentence_transformers.engine import Engine

IS_INSTALLED = importlib.util.find_spec("sentence_transformers") is not None
TIMEOUT_S = 60.0
STAND_IN = """
import json, os, pathlib, signal, time
print("a line on stdout that no answer is")

class Vectors:
    def __init__(self, rows, dimension, dtype):
        self.shape, self.dtype = (rows, dimension), dtype

class First:
    hooks = []

    def register_forward_hook(self, hook):
        self.hooks.append(hook)
        return self

    def remove(self):
        self.hooks.clear()

class SentenceTransformer:
    max_seq_length = 8192
    children = staticmethod(lambda: iter([First()]))

    def __init__(self, path, device=None, trust_remote_code=False):
        self.script = json.loads((pathlib.Path(path) / "script.json").read_text())
        self.device = self.script.get("lies_on", device)
        if "load_error" in self.script:
            raise RuntimeError(self.script["load_error"])
        if self.script.get("needs_code") and not trust_remote_code:
            raise ValueError("requires you to execute the configuration file; set trust_remote_code=True")

    def encode(self, texts, batch_size, show_progress_bar, convert_to_numpy):
        if "boom" in texts:
            os.kill(os.getpid(), signal.SIGSEGV)
        if "wait" in texts:
            time.sleep(600)
        if "large" in texts:
            raise RuntimeError("CUDA out of memory. Tried to allocate 20.00 GiB")
        for _ in range(0, len(texts), batch_size):
            for hook in First.hooks:
                hook(None, None, None)
        return Vectors(len(texts), self.script.get("dimension", 4), self.script.get("dtype", "float32"))
"""
TORCH = """
class cuda:
    is_available = staticmethod(lambda: False)
    synchronize = empty_cache = staticmethod(lambda: None)
class backends:
    mps = cuda
class version:
    hip = None
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package of this name that this process and its children find first."""
    folder = tmp_path / "packages"
    folder.mkdir()
    (folder / "sentence_transformers.py").write_text(STAND_IN, "utf-8")
    (folder / "torch.py").write_text(TORCH, "utf-8")
    (folder / "huggingface_hub.py").write_text("def snapshot_download(name):\n    raise OSError('not in the cache')\n")
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setenv("PYTHONPATH", str(folder))


@pytest.fixture
def book() -> Book:
    return Book()


@pytest.fixture
def engine(package: None, book: Book) -> Iterator[Engine]:
    made = engines.load("sentence_transformers", EngineSettings(ledger=book))
    assert isinstance(made, Engine)
    with closing(made):
        yield made


def is_gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def model(folder: Path, **script: object) -> Cell:
    folder.mkdir(exist_ok=True)
    (folder / "script.json").write_text(json.dumps(script), "utf-8")
    (folder / "config.json").write_text('{"model_type": "bert", "max_position_embeddings": 512}', "utf-8")
    return Cell((), str(folder), (("num_predict", 1),), task="embeddings")


@pytest.mark.skipif(IS_INSTALLED, reason="the package is installed here")
def test_without_the_package_the_extra_is_named() -> None:
    with pytest.raises(EngineMissing, match=r"Run: pip install 'ollama-sweep\[embeddings\]'"):
        Engine(EngineSettings()).describe()


def test_rows_are_embedded(engine: Engine, book: Book, tmp_path: Path) -> None:
    cell = model(tmp_path / "m", dimension=5)
    assert engine.describe().name == "sentence_transformers"
    assert (engine.prepare(cell).load_duration_s or 0) > 0
    pids = engine.processes()
    found = engine.embed(cell, ["a", "b", "c"], 2, TIMEOUT_S)
    assert found.vectors is not None
    assert (found.vectors.rows, found.vectors.dimension, found.vectors.dtype) == (3, 5, "float32")
    assert found.client_duration_s > 0
    engine.prepare(cell)
    assert engine.processes() == pids
    assert len(book.open) == 1
    engine.close()
    assert (engine.processes(), book.open) == ((), {})
    assert not psutil.pid_exists(pids[0])


@pytest.mark.parametrize(
    ("lies_on", "hip", "device"),
    [("cpu", None, "cpu"), ("cuda:1", None, "cuda"), ("cuda:0", "6.2", "rocm")],
)
def test_the_device_and_the_type_are_those_that_were_used(
    engine: Engine, tmp_path: Path, lies_on: str, hip: str | None, device: str
) -> None:
    """`cuda` is also what torch calls the GPUs of AMD."""
    (tmp_path / "packages" / "torch.py").write_text(TORCH.replace("hip = None", f"hip = {hip!r}"), "utf-8")
    cell = model(tmp_path / "m", lies_on=lies_on, dtype="float16")
    engine.prepare(cell)
    vectors = engine.embed(cell, ["a", "b"], 2, TIMEOUT_S).vectors
    assert vectors is not None
    assert (vectors.device, vectors.dtype) == (device, "float16")
    assert str(vectors) == f"2 x 4 float16 on {device}"


@pytest.mark.parametrize("dimension", [-4, 0.5, "many", 99_999_999_999])
def test_what_the_process_says_and_cannot_be_is_its_cells(engine: Engine, tmp_path: Path, dimension: object) -> None:
    cell = model(tmp_path / "wild", dimension=dimension)
    engine.prepare(cell)
    with pytest.raises(CellFailed) as caught:
        engine.embed(cell, ["a", "b"], 16, TIMEOUT_S)
    assert (caught.value.status, caught.value.reason) == (Status.PARSE_ERROR, "bad_value")
    assert caught.value.error.startswith("dimension: ")


def test_a_slow_request_says_how_far_it_is(package: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "EVERY_S", 0.0)
    said: list[str] = []
    cell = model(tmp_path / "m")
    with closing(Engine(EngineSettings(say=said.append))) as engine:
        engine.prepare(cell)
        for _ in range(2):
            vectors = engine.embed(cell, ["row"] * 5, 2, TIMEOUT_S).vectors
            assert vectors is not None
            assert vectors.rows == 5
    assert said == ["Embedding: 2 of 5 rows", "Embedding: 4 of 5 rows"] * 2


def test_a_quick_request_says_nothing_and_a_slow_one_a_line_now_and_then() -> None:
    said: list[str] = []
    seconds = iter([0.0, 4.0, 11.0, 12.0, 30.0, 60.0])
    done = base.RowsDone(said.append, 100, lambda: next(seconds))
    for rows in (16, 32, 48, 64, 100):
        done(rows)
    assert said == ["Embedding: 32 of 100 rows", "Embedding: 64 of 100 rows"]


def test_another_model_gets_a_fresh_process(engine: Engine, tmp_path: Path) -> None:
    first, second = model(tmp_path / "a"), model(tmp_path / "b", dimension=7)
    engine.prepare(first)
    pids = engine.processes()
    engine.prepare(second)
    assert engine.processes() != pids
    assert not psutil.pid_exists(pids[0])
    vectors = engine.embed(second, ["x"], 16, TIMEOUT_S).vectors
    assert vectors is not None
    assert vectors.dimension == 7


@pytest.mark.parametrize(
    ("text", "status", "reason"),
    [
        ("boom", Status.CRASHED, "runner_died"),
        ("large", Status.OOM, "cuda_oom"),
        ("wait", Status.TIMEOUT, "run"),
    ],
)
def test_a_failure_takes_its_cell_and_nothing_else(
    engine: Engine, book: Book, tmp_path: Path, text: str, status: Status, reason: str
) -> None:
    cell = model(tmp_path / "m")
    engine.prepare(cell)
    with pytest.raises(CellFailed) as caught:
        engine.embed(cell, [text], 16, 1.0 if text == "wait" else TIMEOUT_S)
    assert (caught.value.status, caught.value.reason) == (status, reason)
    engine.release(failed=True)
    assert book.open == {}
    engine.prepare(cell)
    assert engine.embed(cell, ["fine"], 16, TIMEOUT_S).vectors is not None


def test_a_model_that_does_not_load_is_its_cells(engine: Engine, tmp_path: Path) -> None:
    with pytest.raises(CellFailed) as caught:
        engine.prepare(model(tmp_path / "m", load_error="CUDA out of memory"))
    assert caught.value.status is Status.OOM
    with pytest.raises(CellFailed, match="trust_remote_code") as caught:
        engine.prepare(model(tmp_path / "n", needs_code=True))
    assert (caught.value.status, caught.value.reason) == (Status.ERROR, "load")


def test_code_of_a_model_runs_only_when_that_was_asked_for(package: None, tmp_path: Path) -> None:
    with closing(Engine(EngineSettings(extra={"trust_remote_code": "yes"}))) as engine:
        engine.prepare(model(tmp_path / "m", needs_code=True))


def test_a_model_that_is_not_here_is_not_fetched(engine: Engine) -> None:
    with pytest.raises(EngineMissing, match=r"thenlper/gte-large is not on this machine \(not in the cache\)"):
        engine.model_info("thenlper/gte-large")


def test_the_digest_is_that_of_the_files(engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    name = model(tmp_path / "m").model
    first = engine.model_info(name)
    assert (first.family, first.context_length, first.capabilities) == ("bert", 512, ("embedding",))
    assert engine.model_info(name) == first
    model(tmp_path / "m", dimension=6)
    assert engine.model_info(name).digest != first.digest


def test_no_text_is_generated(engine: Engine, tmp_path: Path) -> None:
    assert engine.kinds == {"embed"}
    with pytest.raises(CellFailed, match="only embeds"):
        engine.generate(model(tmp_path / "m"), "Hello", TIMEOUT_S)


def test_unknown_settings_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"device: cuba is unknown; write cuda, mps or cpu\. Did you mean cuda\?"):
        Engine(EngineSettings(extra={"device": "cuba"}))
    with pytest.raises(ConfigError, match="max_seq_length: 0 is no length"):
        Engine(EngineSettings(extra={"max_seq_length": "0"}))


def test_what_a_dead_session_left_is_ended(engine: Engine, book: Book, tmp_path: Path) -> None:
    engine.prepare(model(tmp_path / "m"))
    (pid,) = engine.processes()
    (left,) = book.open.values()
    assert "Ended" in str(Engine(EngineSettings()).clear(left))
    until("the process is gone", lambda: is_gone(pid))
    assert Engine(EngineSettings()).clear(left) is None
    with pytest.raises(EngineUnavailable, match="another engine made it"):
        engine.clear(replace(left, kind="scratch_model"))
    with pytest.raises(CellFailed):
        engine.embed(model(tmp_path / "m"), ["a"], 1, TIMEOUT_S)


def test_the_process_ends_with_its_parent(engine: Engine, tmp_path: Path) -> None:
    engine.prepare(model(tmp_path / "m"))
    (pid,) = engine.processes()
    assert engine._worker is not None
    assert engine._worker._child.stdin is not None
    engine._worker._child.stdin.close()
    until("the process has ended", lambda: is_gone(pid))


@pytest.mark.real
@pytest.mark.filterwarnings("default")
@pytest.mark.skipif(not IS_INSTALLED, reason="sentence-transformers is not installed (pip install '.[embeddings]')")
def test_the_real_package(tmp_path: Path, book: Book) -> None:
    """A model of two layers with random weights, made on the fly."""
    from sentence_transformers import SentenceTransformer, models
    from transformers import BertConfig, BertModel, BertTokenizerFast

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghijklmnopqrstuvwxyz"]
    (tmp_path / "vocab.txt").write_text("\n".join(words), "utf-8")
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    bert = BertModel(BertConfig(vocab_size=len(words), max_position_embeddings=128, **shape))
    for part in (bert, BertTokenizerFast(str(tmp_path / "vocab.txt"))):
        part.save_pretrained(tmp_path / "bert")
    transformer = models.Transformer(str(tmp_path / "bert"), max_seq_length=128)
    SentenceTransformer(modules=[transformer, models.Pooling(32)], device="cpu").save(str(tmp_path / "tiny"))
    cell = Cell((), str(tmp_path / "tiny"), ())
    with closing(Engine(EngineSettings(ledger=book, extra={"device": "cpu"}))) as engine:
        assert engine.describe().version != "unknown"
        assert engine.model_info(cell.model).size_bytes
        engine.prepare(cell)
        found = engine.embed(cell, ["a b c", "d e f g"] * 50, 16, TIMEOUT_S)
    assert found.vectors is not None
    assert str(found.vectors) == "100 x 32 float32 on cpu"
    assert book.open == {}
