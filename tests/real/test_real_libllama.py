"""The context swap on real libraries: Ollama's own beside a real server, and the one inside the wheel."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from book import Book
from ollama_fixture import MODEL, ONE_ARENA, VERSIONS, Servers, skip_outside_ci

from ollama_sweep import engines
from ollama_sweep.core.cell import Cell
from ollama_sweep.core.errors import CellFailed
from ollama_sweep.core.options import Options
from ollama_sweep.core.outcome import Status
from ollama_sweep.engines.base import EngineSettings
from ollama_sweep.engines.libllama.engine import Engine

pytestmark = pytest.mark.real
TEXT = "12345678 " + "Name the three largest rivers of the world. " * 8
SYSTEM = "You answer in one word."
WAIT_S = 60


def make_cell(model: str, num_ctx: int, num_batch: int, system: str = "") -> Cell:
    place: Options = (("num_ctx", num_ctx), ("num_batch", num_batch))
    options = {**dict(place), "num_predict": 2, "num_thread": 1}
    return Cell(place, model, tuple(sorted(options.items())), system=system)


def test_a_cell_has_the_tokens_that_ollama_counts(real_ollama: Servers) -> None:
    server = real_ollama(VERSIONS[0])
    settings = EngineSettings(host=f"http://{server.host}", ollama=str(server.binary), ledger=Book())
    swap, ollama = (engines.load(name, settings) for name in ("libllama", "ollama_http"))
    try:
        info = swap.describe()
        assert (info.version, info.details["library"]) == ("b10760", "beside Ollama")
        assert swap.model_info(MODEL).digest == ollama.model_info(MODEL).digest
        for system in ("", SYSTEM):
            read = []
            for engine in (ollama, swap):
                cell = make_cell(MODEL, 512, 32, system)
                effective = engine.prepare(cell)
                read.append((engine.generate(cell, TEXT, WAIT_S).prompt_eval_count, effective.num_ctx,
                             effective.num_batch, effective.size_vram_bytes))  # fmt: skip
                engine.release(failed=False)
            assert read[0] == read[1]
        assert server.ps() == [], "Ollama holds nothing while the swap measures"
    finally:
        swap.close()
        ollama.close()


def test_the_edge_of_memory_without_a_load(real_ollama: Servers) -> None:
    if shutil.which("prlimit") is None:
        skip_outside_ci("no prlimit to limit the memory with")
    server = real_ollama(VERSIONS[0])
    settings = EngineSettings(
        host=f"http://{server.host}",
        ollama=str(server.binary),
        extra={"worker_prefix": ONE_ARENA + "prlimit --as=600000000"},
    )
    engine = engines.load("libllama", settings)
    try:
        engine.prepare(make_cell(MODEL, 1024, 64))
        before = engine.processes()
        with pytest.raises(CellFailed, match="failed to allocate") as caught:
            engine.prepare(make_cell(MODEL, 8192, 8192))
        assert (caught.value.status, caught.value.reason) == (Status.OOM, "host_oom")
        engine.release(failed=True)
        assert engine.prepare(make_cell(MODEL, 8192, 64)).num_ctx == 8192
        assert engine.processes() == before
    finally:
        engine.close()


PARENT = """
import sys, threading, time
from ollama_sweep.core.cell import Cell
from ollama_sweep.engines.base import EngineSettings
from ollama_sweep.engines.libllama.engine import Engine

engine = Engine(EngineSettings())
options = (("num_batch", 64), ("num_ctx", 8192), ("num_predict", 2), ("num_thread", 1))
cell = Cell((), sys.argv[1], options)
engine.prepare(cell)
threading.Thread(target=engine.generate, args=(cell, "word " * 7000, 600), daemon=True).start()
while "=== generate" not in engine._child.log:
    time.sleep(0.002)
print(engine._child.pid, flush=True)
sys.stdin.read()
"""


def test_without_an_ollama_the_wheel_has_library_and_template(
    small_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same tokens as by `llamacpp`; and the child ends with its parent, in the middle of a run."""
    if importlib.util.find_spec("xllamacpp") is None:
        skip_outside_ci("no wheel xllamacpp")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    monkeypatch.delenv("OLLAMA_HOST", raising=False)
    swap, embedded = Engine(EngineSettings()), engines.load("llamacpp", EngineSettings())
    try:
        assert swap.describe().version == f"b{embedded.describe().version.rpartition('.')[2]}"
        cell = make_cell(str(small_model), 512, 32, SYSTEM)
        counts = []
        for engine in (swap, embedded):
            engine.prepare(cell)
            counts.append(engine.generate(cell, TEXT, WAIT_S).prompt_eval_count)
        assert counts == [swap.count_tokens(str(small_model), TEXT, system=SYSTEM)] * 2
    finally:
        swap.close()
        embedded.close()
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, str(small_model)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        parent.kill()
        assert psutil.wait_procs([child], timeout=WAIT_S) == ([child], [])
