"""The context swap: which library is used, what is refused, and what a child does, with a library of nothing."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import forked
import psutil
import pytest
import tiny_llama
from book import Book
from gguf_maker import STRING, U32, gguf
from ollama_fixture import until
from sweep_runner import ONE_LOAD, Sweep

from ollama_sweep.core.cell import Cell
from ollama_sweep.core.errors import CellFailed, ConfigError, EngineMissing
from ollama_sweep.core.finding import Finding
from ollama_sweep.core.options import Options, Scalar
from ollama_sweep.core.outcome import Status
from ollama_sweep.engines.base import EngineSettings, Kept
from ollama_sweep.engines.libllama import engine as engine_of_libllama
from ollama_sweep.engines.libllama import library
from ollama_sweep.engines.libllama.child import SwapChild
from ollama_sweep.engines.libllama.engine import Engine
from ollama_sweep.engines.libllama.library import Backend
from ollama_sweep.engines.libllama.look import SwapLook
from ollama_sweep.engines.libllama.native import pieces_of
from ollama_sweep.engines.libllama.rendering import MARKER, Rendering
from ollama_sweep.engines.shared.look import Asked
from ollama_sweep.machine.computer import free_memory_bytes
from ollama_sweep.machine.processor import computing_cores
from ollama_sweep.plan.config import load_spec

PROMPT = "a prompt of 100 bytes".ljust(100, ".")
MODEL = gguf(
    [
        ("general.architecture", STRING, "llama"),
        ("llama.context_length", U32, 4096),
        ("llama.block_count", U32, 2),
        ("llama.attention.head_count_kv", U32, 1),
        ("llama.attention.key_length", U32, 64),
        ("llama.attention.value_length", U32, 64),
    ]
)


@dataclass
class Swap:
    """Engines on a tiny library and a model that is a head only, on a computer without Ollama."""

    library: Path
    model: Path
    book: Book = field(default_factory=Book)
    said: list[str] = field(default_factory=list)
    made: list[Engine] = field(default_factory=list)

    def engine(self, path: Path | None = None, *, load_timeout_s: float = 60.0) -> Engine:
        settings = EngineSettings(
            libllama=str(path or self.library), ledger=self.book, say=self.said.append, load_timeout_s=load_timeout_s
        )
        self.made.append(Engine(settings))
        return self.made[-1]

    def cell(self, num_ctx: int = 1024, num_batch: int = 32, server: Options = (), **more: Scalar) -> Cell:
        place: Options = (("num_ctx", num_ctx), ("num_batch", num_batch))
        options = {**dict(place), "num_predict": 3, "num_thread": 2, **more}
        return Cell(place, str(self.model), tuple(sorted(options.items())), server=server)

    def children(self) -> list[psutil.Process]:
        """Those that live; one may end while it is looked at."""
        found = []
        for one in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                if one.status() != psutil.STATUS_ZOMBIE and not forked.is_server(one.cmdline()):
                    found.append(one)
        return found


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama.built(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def no_ollama(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a program nor a server that the person has named."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    for name in ("OLLAMA_HOST", "TINY_FAULT", "TINY_FITS", "TINY_GPU"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def swap(tiny: Path, tmp_path: Path, no_ollama: None) -> Iterator[Swap]:
    (tmp_path / "tiny.gguf").write_bytes(MODEL)
    made = Swap(tiny, tmp_path / "tiny.gguf")
    yield made
    for engine in made.made:
        engine.close()
    assert made.book.open == {}
    assert made.children() == []


# -- one model, many contexts ------------------------------------------------------------------------------------------


def test_each_cell_is_a_new_context_in_one_process(swap: Swap) -> None:
    engine = swap.engine()
    assert engine.describe().version.startswith("0.0-tiny")
    assert swap.said == [f"Library: {swap.library} (named by --libllama), 0.0-tiny (of an unknown build)"]
    assert engine.count_tokens(str(swap.model), PROMPT) == 100
    (child,) = swap.children()
    for num_ctx, num_batch, used in ((1024, 32, (1024, 32)), (1000, 64, (1000, 64)), (256, 512, (256, 256)),
                                     (99999, 16, (4096, 16))):  # fmt: skip
        cell = swap.cell(num_ctx, num_batch)
        effective = engine.prepare(cell)
        assert (effective.num_ctx, effective.num_batch) == used
        assert (effective.size_bytes, effective.size_vram_bytes) == (3 << 20, 0)
        assert engine.prepare(cell) == effective
        found = engine.generate(cell, PROMPT, 60)
        assert (found.prompt_eval_count, found.eval_count, found.cached_count) == (100, 3, 0)
        assert found.text == "aba"
        again = engine.read_again(Kept(found.raw))
        assert {name: getattr(found, name) for name in again} == again
    assert swap.children() == [child]
    assert engine.processes() == (child.pid,)
    engine.release(failed=False)
    assert swap.children() == []


def test_a_prompt_is_read_as_llama_server_reads_it(swap: Swap) -> None:
    """In pieces of num_batch, and only its last token has an output."""
    engine, cell = swap.engine(), swap.cell(num_batch=32)
    engine.prepare(cell)
    engine.generate(cell, PROMPT, 60)
    child = engine._child
    assert child is not None

    def decoded() -> list[str]:
        return [line for line in child.log.rpartition("=== generate")[2].splitlines() if "decoded" in line]

    until("the log has arrived", lambda: len(decoded()) == 1 + 4 + 2)
    assert decoded()[1:5] == ["I decoded 32, outputs 0", "I decoded 32, outputs 0", "I decoded 32, outputs 0",
                        "I decoded 4, outputs 1"]  # fmt: skip
    engine.prepare(swap.cell(1000))
    with pytest.raises(CellFailed, match="the prompt has 1000 tokens, num_ctx is 1000") as caught:
        engine.generate(swap.cell(1000), PROMPT * 10, 60)
    assert caught.value.status is Status.TRUNCATED


@pytest.mark.parametrize(
    ("count", "n_batch", "checkpoints", "ends"),
    [
        (100, 32, False, [32, 64, 96, 100]),
        (64, 32, False, [32, 64]),
        (3, 512, False, [3]),
        (100, 32, True, [32, 64, 68, 96, 100]),
        (100, 512, True, [96, 100]),
        (1000, 512, True, [488, 996, 1000]),
        (2, 512, True, [2]),
    ],
)
def test_the_pieces_of_a_prompt(count: int, n_batch: int, checkpoints: bool, ends: list[int]) -> None:
    assert pieces_of(count, n_batch, n_batch, checkpoints=checkpoints) == ends


# -- memory ------------------------------------------------------------------------------------------------------------


def test_a_context_without_memory_costs_no_load(swap: Swap, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TINY_FITS", "2048")
    engine = swap.engine()
    engine.prepare(swap.cell(1024))
    before = swap.children()
    for num_ctx in (4096, 3000):
        with pytest.raises(CellFailed, match="failed to allocate buffer for kv cache") as caught:
            engine.prepare(swap.cell(num_ctx))
        assert caught.value.status is Status.OOM
        engine.release(failed=True)
    engine.prepare(swap.cell(2048))
    assert swap.children() == before


def test_after_a_failed_allocation_on_a_gpu_the_child_is_a_new_one(swap: Swap, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TINY_FITS", "2048")
    monkeypatch.setenv("TINY_GPU", "1")
    engine = swap.engine()
    engine.prepare(swap.cell(1024))
    before = swap.children()
    with pytest.raises(CellFailed):
        engine.prepare(swap.cell(4096))
    assert swap.children() == []
    engine.release(failed=True)
    engine.prepare(swap.cell(2048))
    assert swap.children() != before


def test_what_the_estimate_puts_above_the_free_memory_is_not_tried(swap: Swap, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = swap.engine()
    engine.prepare(swap.cell(1024))
    monkeypatch.setattr(engine_of_libllama, "free_memory_bytes", lambda: 1_000_000)
    engine.prepare(swap.cell(512))
    with pytest.raises(CellFailed, match=r"the KV cache takes 2\.0 MiB, and .* are free: not tried") as caught:
        engine.prepare(swap.cell(4096))
    assert (caught.value.status, caught.value.reason) == (Status.OOM, "host_oom")
    engine.release(failed=False)
    monkeypatch.setattr(engine_of_libllama, "free_memory_bytes", lambda: 100)
    with pytest.raises(CellFailed, match=r"the weights take .* not tried"):
        engine.prepare(swap.cell(512))


def test_the_child_goes_first_when_memory_is_short(swap: Swap, monkeypatch: pytest.MonkeyPatch) -> None:
    free = 8 << 30
    monkeypatch.setattr(engine_of_libllama, "free_memory_bytes", lambda: free)
    engine = swap.engine()
    engine.prepare(swap.cell())
    (child,) = swap.children()
    assert Path(f"/proc/{child.pid}/oom_score_adj").read_text().strip() == "1000"
    soft, _ = child.rlimit(psutil.RLIMIT_AS)
    assert 0 < soft < child.memory_info().vms + free


def test_the_memory_of_a_container_counts(tmp_path: Path) -> None:
    (tmp_path / "memory.max").write_text("5000000\n")
    (tmp_path / "memory.current").write_text("3000000\n")
    (tmp_path / "memory.stat").write_text("anon 1\ninactive_file 500000\n")
    assert free_memory_bytes(tmp_path) == 2_500_000
    (tmp_path / "memory.max").write_text("max\n")
    assert (free_memory_bytes(tmp_path) or 0) > 2_500_000


# -- faults ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("head", "begins with 512, 4096, 512, 1, not with 512, 2048, 512, 1: it is another layout"),
        ("read_back", "the structure does not read back: n_ubatch is 7, asked was 32"),
        ("threads", "the threads do not read back"),
        ("model", "the library does not load .*tiny.gguf: unknown model architecture: 'tiny'"),
    ],
)
def test_a_library_that_is_not_understood_is_refused_in_one_line(
    swap: Swap, monkeypatch: pytest.MonkeyPatch, fault: str, words: str
) -> None:
    monkeypatch.setenv("TINY_FAULT", fault)
    engine = swap.engine()

    def ask() -> None:
        engine.count_tokens(str(swap.model), PROMPT)
        engine.prepare(swap.cell())

    with pytest.raises(EngineMissing, match=words) as caught:
        ask()
    assert "\n" not in str(caught.value)
    assert str(caught.value).endswith("the ordinary way: --engine ollama")


def test_a_library_that_lacks_a_function_or_is_none(swap: Swap, tmp_path: Path) -> None:
    lacking = tiny_llama.built(tmp_path, "WITHOUT_DECODE")
    with pytest.raises(EngineMissing, match=r"libllama\.so has no function llama_decode; the ordinary way"):
        swap.engine(lacking).describe()
    (tmp_path / "text.so").write_text("no library")
    with pytest.raises(EngineMissing, match=r"text\.so cannot be loaded: .*; the ordinary way"):
        swap.engine(tmp_path / "text.so").describe()
    with pytest.raises(ConfigError, match=r"--libllama: .*none\.so is no file"):
        swap.engine(tmp_path / "none.so").describe()


def test_a_child_that_cannot_open_the_library_is_ended(swap: Swap, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SwapChild, "ask", lambda *_: {"failed": "out of memory"})
    with pytest.raises(EngineMissing, match="cannot be used: out of memory; the ordinary way"):
        swap.engine().describe()
    assert swap.children() == []


def test_a_gpu_backend_that_does_not_load_is_refused_in_one_line(swap: Swap) -> None:
    engine = swap.engine()
    engine._backend = Backend("/opt/cuda_v13/libggml-cuda.so")
    with pytest.raises(
        EngineMissing, match=r"libggml-cuda\.so does not load: libcublas.*cannot open.*; the ordinary way"
    ):
        engine.prepare(swap.cell())


@pytest.mark.parametrize(
    ("fault", "status", "reason"),
    [("assert", Status.CRASHED, "assert"), ("hang", Status.TIMEOUT, "run"), ("decode", Status.ERROR, "compute")],
)
def test_a_child_that_fails_takes_its_cell_and_the_next_one_is_measured(
    swap: Swap, monkeypatch: pytest.MonkeyPatch, fault: str, status: Status, reason: str
) -> None:
    monkeypatch.setenv("TINY_FAULT", fault)
    engine, cell = swap.engine(), swap.cell()
    engine.prepare(cell)
    with pytest.raises(CellFailed) as caught:
        engine.generate(cell, PROMPT, 0.5 if fault == "hang" else 60)
    assert (caught.value.status, caught.value.reason) == (status, reason)
    assert caught.value.error
    assert caught.value.raw
    assert swap.children() == []
    monkeypatch.delenv("TINY_FAULT")
    engine.release(failed=True)
    engine.prepare(cell)
    assert engine.generate(cell, PROMPT, 60).prompt_eval_count == 100


def test_a_child_that_was_killed_between_two_cells_is_started_again(swap: Swap) -> None:
    engine = swap.engine()
    engine.prepare(swap.cell())
    (child,) = swap.children()
    os.kill(child.pid, signal.SIGKILL)
    until("it is gone", lambda: not swap.children())
    engine.prepare(swap.cell())
    assert engine.generate(swap.cell(), PROMPT, 60).eval_count == 3


def test_a_library_that_was_updated_is_another_one(swap: Swap, tmp_path: Path) -> None:
    folder = shutil.copytree(swap.library.parent, tmp_path / "copy")
    engine = swap.engine(folder)
    before = engine.describe()
    engine.prepare(swap.cell())
    tiny_llama.of_build(folder / "libllama.so", 10761)
    os.utime(folder / "libllama.so", (1, 1))
    (folder / "libggml-cpu.so").write_text("another one")
    after = engine.describe()
    assert (after.version, swap.children() == []) == ("b10761", False)
    assert after.details["library_digest"] != before.details["library_digest"]


# -- what stands behind the head of a structure ----------------------------------------------------------------------


def test_further_settings_need_a_build_that_is_known_and_a_log_that_agrees(
    swap: Swap, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TINY_GPU", "1")
    folder = shutil.copytree(swap.library.parent, tmp_path / "known")
    tiny_llama.of_build(folder / "libllama.so", 10760)
    kinds: list[tuple[Options, dict[str, Scalar], str]] = [
        ((), {"num_gpu": 3}, "layers"),
        ((("kv_cache_type", "q8_0"),), {}, "cache"),
    ]
    unknown, trusted = swap.engine(), swap.engine(folder)
    assert trusted.describe().version == "b10760"
    for server, options, fault in kinds:
        monkeypatch.delenv("TINY_FAULT", raising=False)
        cell = swap.cell(1024, 32, server, **options)
        with pytest.raises(CellFailed, match="cannot be set with a library of a build that is not known") as refused:
            unknown.prepare(cell)
        assert refused.value.reason == "config"
        trusted.prepare(cell)
        trusted.release(failed=False)
        monkeypatch.setenv("TINY_FAULT", fault)
        with pytest.raises(CellFailed, match="the library's log does not say that it took"):
            trusted.prepare(cell)
        trusted.release(failed=True)
    monkeypatch.delenv("TINY_FAULT")
    trusted.prepare(swap.cell(server=(("flash_attention", True),)))
    with pytest.raises(CellFailed, match="unknown kv_cache_type q9_9"):
        trusted.prepare(swap.cell(server=(("kv_cache_type", "q9_9"),)))


# -- which library -----------------------------------------------------------------------------------------------------


@pytest.fixture
def program(tiny: Path, tmp_path: Path, no_ollama: None) -> Path:
    """An `ollama` as a release has it, reached by a link as in /usr/local/bin."""
    folder = tmp_path / "release"
    shutil.copytree(tiny.parent, folder / "lib" / "ollama")
    tiny_llama.of_build(folder / "lib" / "ollama" / "libllama.so", 10760)
    (folder / "bin").mkdir()
    (folder / "bin" / "ollama").write_text("#!/bin/sh\n")
    (folder / "bin" / "ollama").chmod(0o755)
    (tmp_path / "ollama").symlink_to(folder / "bin" / "ollama")
    return tmp_path / "ollama"


def test_the_library_is_ollamas_own_unless_the_person_names_one(
    program: Path, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = library.find(None, program)
    assert (own.origin, own.build, own.path.parent) == ("beside Ollama", 10760, tmp_path / "release" / "lib" / "ollama")
    assert library.difference(own, program) == ""
    named = library.find(str(tiny.parent), program)
    assert (named.path, named.build) == (tiny, 0)
    copy = tiny_llama.of_build(shutil.copytree(tiny.parent, tmp_path / "copy") / "libllama.so", 9999)
    (copy.parent / "libggml-cpu.so").write_text("another one")
    other = library.find(str(copy), program)
    assert library.difference(other, program) == "Ollama's own is b10760"
    assert other.digest != own.digest
    shutil.rmtree(tmp_path / "release" / "lib")
    monkeypatch.setattr(library, "WHEEL", "no_such_wheel")
    with pytest.raises(EngineMissing) as caught:
        library.find(None, program)
    assert "no libllama.so lies beside" in str(caught.value)
    assert "pip install 'ollama-sweep[libllama]'; the ordinary way: --engine ollama" in str(caught.value)


def test_doctor_names_the_library(program: Path, tiny: Path, tmp_path: Path) -> None:
    def found(**settings: str) -> Finding:
        look = SwapLook(EngineSettings(ollama=str(program), **settings), Asked("libllama"))  # type: ignore[arg-type]
        return next(one for one in look.findings(measures=True) if one.check == "libllama")

    assert found().text.endswith("libllama.so, beside Ollama, b10760")
    assert found().state == "ok"
    shutil.copytree(tiny.parent, tmp_path / "other")
    (tmp_path / "other" / "libggml-cpu.so").write_text("another one")
    other = found(libllama=str(tmp_path / "other"))
    assert (other.state, "Ollama's own is b10760" in other.text) == ("warning", True)
    assert found(libllama="/no/such/file").state == "bad"


def test_the_gpu_backends_below_a_library(tmp_path: Path) -> None:
    for name in ("cuda_v12/libggml-cuda.so", "cuda_v13/libggml-cuda.so", "cuda_v13/libggml-base.so",
                 "vulkan/libggml-vulkan.so", "rocm_v7_2/libggml-hip.so", "other/libggml-cpu-haswell.so",
                 "mlx/libmlx.so"):  # fmt: skip
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    found = [path.relative_to(tmp_path).as_posix() for path in library.gpu_backends(tmp_path)]
    assert found == ["cuda_v13/libggml-cuda.so", "cuda_v12/libggml-cuda.so", "rocm_v7_2/libggml-hip.so",
                     "vulkan/libggml-vulkan.so"]  # fmt: skip


# -- the rendering, the threads ----------------------------------------------------------------------------------------


def test_a_prompt_is_put_where_the_marker_stood() -> None:
    rendering = Rendering.of_marked(f"<|user|>\n{MARKER}<|end|>", "m")
    assert rendering.of(" Hello ") == "<|user|>\n Hello <|end|>"
    for text in ("no prompt at all", f"{MARKER} and {MARKER}"):
        with pytest.raises(EngineMissing, match="the template of m has the prompt"):
            Rendering.of_marked(text, "m")


def _cpus(root: Path, siblings: list[str], large: str = "") -> Path:
    for number, text in enumerate(siblings):
        place = root / f"sys/devices/system/cpu/cpu{number}/topology"
        place.mkdir(parents=True)
        (place / "thread_siblings").write_text(f"{text}\n")
    if large:
        (root / "sys/devices/cpu_core").mkdir(parents=True)
        (root / "sys/devices/cpu_core/cpus").write_text(f"{large}\n")
    return root


@pytest.mark.parametrize(
    ("siblings", "large", "cores"),
    [
        (["1", "2"], "", 2),
        (["5", "a", "5", "a"], "", 2),
        (["3", "3", "c", "c", "10", "20"], "0-3", 2),
        (["1", "2", "4"], "0,2", 2),
    ],
)
def test_as_many_threads_as_llama_server_takes(tmp_path: Path, siblings: list[str], large: str, cores: int) -> None:
    assert computing_cores(_cpus(tmp_path, siblings, large)) == cores


def test_only_the_command_line_names_a_library(program: Path, tmp_path: Path) -> None:
    text = "model: m\nnum_ctx: [512]\nnum_batch: [32]\nprompt: {text: a b}\n"
    (tmp_path / "a.yaml").write_text(text)
    (tmp_path / "b.yaml").write_text(text + "libllama: /tmp/code.so\n")
    assert load_spec(tmp_path / "a.yaml", {"libllama": "/opt/llama"}).libllama == "/opt/llama"
    assert load_spec(tmp_path / "a.yaml", {}).libllama is None
    for overrides in ({}, {"set": ("libllama=/tmp/code.so",)}):
        with pytest.raises(ConfigError, match="libllama"):
            load_spec(tmp_path / ("a.yaml" if overrides else "b.yaml"), overrides)


# -- a whole sweep -----------------------------------------------------------------------------------------------------


def test_a_sweep_on_a_named_library(swap: Swap, monkeypatch: pytest.MonkeyPatch, sweep: Sweep) -> None:
    """The digest stands in the surroundings, the numbers are made again, and the edge is found by contexts alone."""
    monkeypatch.setenv("TINY_FITS", "1024")
    config = sweep.config(
        model=str(swap.model), num_ctx=[512, 1024, 2048], num_batch=[32], prompt={"text": PROMPT}, repeats=2,
        engine="libllama", retries=0, **ONE_LOAD,
    )  # fmt: skip
    sweep("run", config, "--libllama", swap.library).must()
    assert {place[0]: row["status"] for place, row in sweep.cells().items()} == {512: "ok", 1024: "ok", 2048: "oom"}
    ((told,),) = (tuple(row.values()) for row in sweep.rows(sql="select fingerprint from segments"))
    assert json.loads(told)["library_digest"].startswith("sha256:")
    assert "libllama" in json.loads(told)["engine"]
    sweep("verify").must()
    said = sweep("run", config, "--libllama", swap.library, "--scan", "--db", "scan.db").must().stdout
    assert "Memory: fits up to num_ctx 1024 with num_batch 32 (scanned)" in said
    assert sweep.left_running() == []
