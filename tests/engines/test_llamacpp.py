"""The embedded engine: what it asks of llama.cpp, what it makes of its log, and real loads, crashes and hangs."""

# ruff: noqa: F401, F811 - fixtures are imported, and asked for by their names
from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import shutil
import signal
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from blobs import SMALLEST_GGUF, install, installed
from ollama_fixture import ONE_ARENA

from ollama_sweep.core.cell import Cell
from ollama_sweep.core.errors import CellFailed, ConfigError, EngineMissing
from ollama_sweep.core.ledger import Leftover
from ollama_sweep.core.options import Scalar
from ollama_sweep.core.outcome import Status
from ollama_sweep.engines.base import EngineSettings
from ollama_sweep.engines.llamacpp import engine as engine_of_llamacpp
from ollama_sweep.engines.llamacpp.child import error_text, read_log
from ollama_sweep.engines.llamacpp.engine import Engine
from ollama_sweep.engines.llamacpp.model import locate

WAIT_S = 60
PROMPT = "The quick brown fox jumps over the lazy dog. " * 3


def make_cell(model: str | Path, num_ctx: int, num_batch: int, **options: Scalar) -> Cell:
    # One thread: two that wait for each other are slow where other tests keep the cores busy.
    given: dict[str, Scalar] = {
        "num_ctx": num_ctx,
        "num_batch": num_batch,
        "num_predict": 2,
        "num_thread": 1,
        **options,
    }
    return Cell((("num_ctx", num_ctx), ("num_batch", num_batch)), str(model), tuple(sorted(given.items())))


@pytest.mark.parametrize(
    ("template", "think", "told"),
    [
        ("{{ enable_thinking }}", False, {"enable_thinking": False}),
        ("{{ enable_thinking }}", "low", {"enable_thinking": True}),
        ("{{ reasoning_effort }}", False, {}),
        ("{{ reasoning_effort }}", True, {"reasoning_effort": "medium"}),
        ("{{ reasoning_effort }}", "high", {"reasoning_effort": "high"}),
        ("<think>", True, {}),
        ("{{ messages }}", False, {}),
    ],
)
def test_a_chat_template_is_told_to_think_in_its_own_words(template: str, think: bool | str, told: object) -> None:
    assert engine_of_llamacpp._thinking(template, think, "m") == told


def test_a_chat_template_without_thoughts_cannot_think() -> None:
    with pytest.raises(CellFailed, match="m does not support thinking") as failure:
        engine_of_llamacpp._thinking("{{ messages }}", True, "m")
    assert failure.value.reason == "cannot_think"


def test_an_installed_model_is_its_blob(installed: Path) -> None:
    install(installed, "registry.ollama.ai/library/smol/latest", {"model": SMALLEST_GGUF, "license": b"MIT"})
    source = locate("smol")
    assert source.digest == "sha256:" + hashlib.sha256(SMALLEST_GGUF).hexdigest()
    assert source.path.read_bytes() == SMALLEST_GGUF
    assert locate("smol:latest").path == locate("registry.ollama.ai/library/smol").path == source.path


def test_what_an_installed_model_adds_is_part_of_its_digest(installed: Path) -> None:
    layers = {"model": SMALLEST_GGUF, "system": b"Be brief.", "params": b'{"stop": ["x"]}'}
    install(installed, "registry.ollama.ai/someone/smol/8b", layers)
    install(installed, "registry.ollama.ai/someone/smol/plain", {"model": SMALLEST_GGUF})
    source = locate("someone/smol:8b")
    assert (source.system, source.options, source.template) == ("Be brief.", {"stop": ["x"]}, None)
    assert source.digest != locate("someone/smol:plain").digest


def test_the_folder_of_the_service_is_searched_too(installed: Path, tmp_path: Path) -> None:
    install(tmp_path / "service", "registry.ollama.ai/library/smol/latest", {"model": SMALLEST_GGUF})
    assert locate("smol").path.is_relative_to(tmp_path / "service")


@pytest.mark.parametrize("name", ["smol", "smol:8b", "../../etc/passwd", "a/b/c/d/e", "", ":", "hf.co/x/y:Q4_0"])
def test_a_model_that_is_not_installed(installed: Path, name: str) -> None:
    with pytest.raises(EngineMissing, match="is not installed here"):
        locate(name)


@pytest.mark.parametrize(
    ("layers", "message"),
    [({"system": b"x"}, "no weights"), ({"model": SMALLEST_GGUF, "adapter": b"x"}, "has an adapter")],
)
def test_a_model_that_cannot_be_used_here(installed: Path, layers: Mapping[str, bytes], message: str) -> None:
    install(installed, "registry.ollama.ai/library/smol/latest", layers)
    with pytest.raises(EngineMissing, match=message):
        locate("smol")


def test_an_installed_model_that_is_not_whole(installed: Path) -> None:
    install(installed, "registry.ollama.ai/library/smol/latest", {"model": SMALLEST_GGUF, "params": b"{"})
    with pytest.raises(EngineMissing, match="ollama pull smol"):
        locate("smol")


def test_a_file_that_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "x.gguf").write_text("hello")
    with pytest.raises(ConfigError, match="is not a GGUF file"):
        locate(str(tmp_path / "x.gguf"))


# -- llama.cpp's log ---------------------------------------------------------------------------------------------

ON_TWO_DEVICES = """\
0.00.1.000 I llama_context: n_ctx                 = 512
0.00.001.000 I llama_context: n_ctx                 = 4096
0.00.001.000 I llama_context: n_ctx_seq             = 4096
0.00.001.000 I llama_context: n_batch               = 256
0.00.001.000 I llama_context: n_ubatch              = 256
0.00.001.000 I load_tensors: offloaded 20/33 layers to GPU
0.00.001.000 I load_tensors:   CPU_Mapped model buffer size =   100.00 MiB
0.00.001.000 I load_tensors:        CUDA0 model buffer size =    60.00 MiB
0.00.001.000 I llama_kv_cache:      CUDA0 KV buffer size =    99.00 MiB
0.00.001.000 I llama_kv_cache:      CUDA0 KV buffer size =    10.00 MiB
0.00.001.000 I sched_reserve:  CUDA_Host compute buffer size =     4.50 MiB
"""
MIB = 2**20


def test_what_a_load_really_uses() -> None:
    found = read_log(ON_TWO_DEVICES, 110 * MIB, 4096, 1.5)
    assert (found.num_ctx, found.num_batch, found.load_duration_s) == (4096, 256, 1.5)
    assert found.size_vram_bytes == 70 * MIB
    assert found.size_bytes == int((100 + 60 + 10 + 4.5 - 50) * MIB)


def test_a_model_that_lies_on_the_gpu_alone() -> None:
    found = read_log(ON_TWO_DEVICES.replace("20/33", "33/33"), 110 * MIB, 4096, 1.5)
    assert found.size_bytes == found.size_vram_bytes == 70 * MIB


def test_rounding_up_num_ctx_is_no_other_num_ctx() -> None:
    assert read_log(ON_TWO_DEVICES, 0, 4000, 1.0).num_ctx == 4000
    assert read_log(ON_TWO_DEVICES, 0, 8192, 1.0).num_ctx == 4096


def test_a_log_that_says_nothing() -> None:
    found = read_log("", 5, 4096, 1.0)
    assert (found.num_ctx, found.num_batch, found.size_bytes, found.size_vram_bytes) == (None, None, None, None)


def test_the_errors_of_a_log() -> None:
    log = (
        "0.00.000.001 I init: chat template, example_format: '<|im_start|>system\nYou are out of memory\n'\n"
        "0.00.316.535 E ggml_aligned_malloc: insufficient memory (attempted to allocate 362.28 MB)\n"
        "0.00.316.535 E ggml_aligned_malloc: insufficient memory (attempted to allocate 362.28 MB)\n"
        "Traceback (most recent call last):\n"
        '  File "worker.py", line 8, in <module>\n'
        "RuntimeError: Failed to init server\n"
    )
    assert error_text(log).splitlines() == [
        "ggml_aligned_malloc: insufficient memory (attempted to allocate 362.28 MB)",
        "RuntimeError: Failed to init server",
    ]


# -- what is asked of llama.cpp: a worker that answers with the request --------------------------------------------

ECHO = """
import json, sys
for line in sys.stdin:
    request = json.loads(line)
    print("I model loaded", file=sys.stderr, flush=True)
    answer = {"text": line, "timings": {"prompt_n": 5, "cache_n": 0}, "ttft_s": 0.1, "duration_s": 0.2}
    print(json.dumps({"loaded": True} if "load" in request else answer), flush=True)
"""


HOSTILE = """
import json, sys
answers = json.loads({answers!r})
for line in sys.stdin:
    print("I model loaded", file=sys.stderr, flush=True)
    print('{{"loaded": true}}' if "load" in json.loads(line) else answers.pop(0), flush=True)
"""


@pytest.mark.parametrize(
    ("lines", "reason", "words"),
    [
        (["not JSON"], "protocol", "the engine's process answered nonsense: the answer is no JSON: not JSON"),
        (["[]"], "bad_value", "answer: [] instead of an object"),
        (["[" * 100_000], "protocol", "is no JSON"),
        (['{"text": 5, "timings": {}}'], "bad_value", "text: 5 instead of a text"),
        (['{"text": "x", "timings": [1]}'], "bad_value", "timings: [1] instead of an object"),
        (['{"text": "x", "timings": {"prompt_ms": NaN}}'], "bad_value", "prompt_ms: NaN"),
        (['{"text": "x", "timings": {"prompt_n": -1}}'], "bad_value", "prompt_n: -1"),
        (['{"text": "x", "timings": {"predicted_n": %s}}' % ("9" * 5000)], "bad_value", "predicted_n: 9999"),
        (['{"text": "x", "duration_s": "7"}'], "bad_value", 'duration_s: "7"'),
        (['{"error": "half \\ud83d"}'], "unknown", "half \ufffd"),
        (['{"error": [7]}'], "unknown", "[7]"),
    ],
)
def test_what_a_child_says_and_cannot_be_is_its_cells(
    tmp_path: Path, installed: Path, lines: list[str], reason: str, words: str
) -> None:
    good = '{"text": "\\ud83d\\ude00", "timings": {"prompt_n": 5, "prompt_ms": 0}, "ttft_s": 0.1, "duration_s": 0.2}'
    (tmp_path / "hostile.py").write_text(HOSTILE.format(answers=json.dumps([*lines, good])))
    install(installed, "registry.ollama.ai/library/smol/latest", {"model": gguf_with_chat()})
    engine = Engine(EngineSettings(extra={"worker_prefix": f"{sys.executable} {tmp_path / 'hostile.py'}"}))
    cell = make_cell("smol", 512, 64)
    engine.prepare(cell)
    with pytest.raises(CellFailed) as caught:
        engine.generate(cell, "Hello", WAIT_S)
    assert caught.value.reason == reason
    assert words in caught.value.error
    assert len(caught.value.error) < 600
    (tmp_path / "hostile.py").write_text(HOSTILE.format(answers=json.dumps([good])))
    engine.release(failed=True)
    engine.prepare(cell)
    found = engine.generate(cell, "Hello", WAIT_S)
    assert (found.text, found.prompt_eval_count, found.prompt_eval_duration_s) == ("\U0001f600", 5, None)
    engine.close()


@pytest.fixture
def echo(tmp_path: Path, installed: Path) -> Callable[..., tuple[dict[str, Any], list[str]]]:
    """The request for a cell of an installed model with these layers, and what the person was told."""
    (tmp_path / "echo.py").write_text(ECHO)

    def ask(
        template: str, layers: Mapping[str, bytes], system: str = "", **options: Scalar
    ) -> tuple[dict[str, Any], list[str]]:
        install(installed, "registry.ollama.ai/library/smol/latest", {"model": gguf_with_chat(), **layers})
        said: list[str] = []
        extra = {"worker_prefix": f"{sys.executable} {tmp_path / 'echo.py'}"}
        engine = Engine(EngineSettings(template=template, say=said.append, extra=extra))
        cell = replace(make_cell("smol", 512, 64, **options), system=system)
        engine.prepare(cell)
        requests = [json.loads(engine.generate(cell, "Hello", WAIT_S).text)["generate"] for _ in range(2)]
        engine.close()
        assert requests[0] == requests[1]
        return requests[0], said

    return ask


def gguf_with_chat() -> bytes:
    key, template = b"tokenizer.chat_template", b"{{ messages }}"
    entry = struct.pack("<Q", len(key)) + key + struct.pack("<IQ", 8, len(template)) + template
    return b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + entry


Echo = Callable[..., tuple[dict[str, Any], list[str]]]


@pytest.fixture
def needs_xllamacpp() -> None:
    if importlib.util.find_spec("xllamacpp") is None and os.environ.get("CI") != "true":
        pytest.skip("xllamacpp is not installed")


@pytest.mark.usefixtures("needs_xllamacpp")
def test_a_prompt_stands_in_the_models_own_chat_template(echo: Echo) -> None:
    request, said = echo("", {})
    assert request["messages"] == [{"role": "user", "content": "Hello"}]
    assert (request["n_predict"], request["temperature"], request["top_p"]) == (2, 0.8, 0.9)
    assert said == []


@pytest.mark.usefixtures("needs_xllamacpp")
def test_options_of_the_cell_before_the_modelfile_before_the_model(echo: Echo) -> None:
    parameters = ("top_k 7", "seed 5", "stop a", "stop b")
    template = "FROM x\nSYSTEM Be brief.\nMESSAGE user Hi\n" + "".join(f"PARAMETER {line}\n" for line in parameters)
    params = b'{"top_k": 1, "min_p": 0.5, "stop": ["c"]}'
    request, _ = echo(template, {"system": b"Be long.", "params": params}, seed=9)
    assert (request["top_k"], request["min_p"], request["seed"], request["stop"]) == (7, 0.5, 9, ["a", "b"])
    assert [message["content"] for message in request["messages"]] == ["Be brief.", "Hi", "Hello"]


@pytest.mark.usefixtures("needs_xllamacpp")
def test_a_system_prompt_of_the_cell_counts_before_all_others(echo: Echo) -> None:
    request, _ = echo("FROM x\nSYSTEM Be brief.\n", {"system": b"Be long."}, system="Be kind.")
    assert [message["content"] for message in request["messages"]] == ["Be kind.", "Hello"]
    request, _ = echo("FROM x\nTEMPLATE {{ .Prompt }}\n", {}, system="Be kind.")
    assert request["prompt"] == "Be kind.\n\nHello"


@pytest.mark.usefixtures("needs_xllamacpp")
def test_a_template_that_is_the_prompt_alone(echo: Echo) -> None:
    request, said = echo("FROM x\nTEMPLATE {{ .Prompt }}\nSYSTEM Be brief.\n", {})
    assert request["prompt"] == "Hello"
    assert said == []


@pytest.mark.usefixtures("needs_xllamacpp")
def test_a_go_template_cannot_be_used_and_that_is_said_once(echo: Echo) -> None:
    request, said = echo("", {"template": b"<s>{{ .System }}{{ .Prompt }}"})
    assert request["messages"] == [{"role": "user", "content": "Hello"}]
    assert len(said) == 1
    assert "cannot use the TEMPLATE of smol" in said[0]


@pytest.mark.parametrize("server", [("num_parallel", 2), ("kv_cache_type", "q3_0")])
def test_a_server_setting_that_a_load_cannot_have(installed: Path, server: tuple[str, Scalar]) -> None:
    install(installed, "registry.ollama.ai/library/smol/latest", {"model": SMALLEST_GGUF})
    cell = Cell((), "smol", (("num_batch", 64), ("num_ctx", 512), ("num_predict", 2)), server=(server,))
    with pytest.raises(CellFailed) as caught:
        Engine(EngineSettings()).prepare(cell)
    assert (caught.value.status, caught.value.reason) == (Status.ERROR, "config")


# -- the real thing ----------------------------------------------------------------------------------------------


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
    while "processing task" not in child.log:
        assert child.is_alive
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
import os, sys, threading
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
    pass
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
