"""The engine `lmstudio`: with a scripted `lms` beside a scripted server, and beside a real llama-server."""

# ruff: noqa: F401, F811 - fixtures are imported, and asked for by their names
from __future__ import annotations

import json
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from book import Book
from lm_studio import DOWNLOAD, SMALL, Studio, book, said, server, settings, studio
from ollama_fixture import free_port
from openai_server import (
    Reply,
    Scripted,
    chunk,
    end,
    llama_server_binary,
    refused,
    stream,
    usage,
)

from ollama_sweep import engines
from ollama_sweep.core.cell import Cell
from ollama_sweep.core.errors import CellFailed, ConfigError, EngineMissing, EngineUnavailable
from ollama_sweep.core.generation import Vectors
from ollama_sweep.core.options import Options
from ollama_sweep.core.outcome import Status
from ollama_sweep.engines import base
from ollama_sweep.engines.base import EngineSettings
from ollama_sweep.engines.lmstudio.engine import Engine
from ollama_sweep.machine import process
from ollama_sweep.plan import prompts

TIMEOUT_S = 60.0


@pytest.fixture(autouse=True)
def _no_settings_of_the_person(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("LLM_BASE_URL", "LLM_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)


def cell(num_ctx: int = 512, model: str = "smollm2-135m-instruct", **options: Any) -> Cell:
    given: Options = tuple(sorted({"num_ctx": num_ctx, "num_predict": 4, **options}.items()))
    return Cell((("num_ctx", num_ctx),), model, given)


def said_vector() -> Reply:
    """An answer of the API with one vector."""
    data = [{"object": "embedding", "index": 0, "embedding": [0.1, 0.2]}]
    return Reply(
        json.dumps({"object": "list", "model": "m", "data": data, "usage": {"prompt_tokens": 1, "total_tokens": 1}})
    )


def test_without_lms_the_person_is_told_how_to_get_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with (
        closing(Engine(EngineSettings())) as engine,
        pytest.raises(EngineMissing, match=r"lms was not found.*lmstudio\.ai"),
    ):
        engine.describe()


def test_everything_it_starts_is_stopped_again(
    studio: Studio, server: Scripted, settings: EngineSettings, book: Book
) -> None:
    studio.put(daemon=False)
    engine = engines.load("lmstudio", settings)
    info = engine.describe()
    assert (info.name, info.version, info.details["server"]) == ("lmstudio", "0.0.47", "own")
    assert [left.details.get("what") for left in book.open.values()] == ["lmstudio-daemon", "lmstudio-server"]
    found = engine.prepare(cell(512))
    assert (found.num_ctx, found.others_loaded) == (512, ())
    assert (found.load_duration_s or 0) > 0
    assert len(book.open) == 3
    generation = engine.generate(cell(512), "Hello?", TIMEOUT_S)
    assert (generation.text, generation.eval_count) == ("Hello", 1)
    identifier = studio.state["loaded"][0]["identifier"]
    assert server.bodies("/v1/chat/completions")[0]["model"] == identifier
    assert "num_ctx" not in server.bodies("/v1/chat/completions")[0]
    engine.close()
    engine.close()
    assert studio.changing() == [
        f"server start --port {server.port}",
        f"load smollm2-135m-instruct --identifier {identifier} --yes --context-length 512",
        f"unload {identifier}",
        "server stop",
        "daemon down",
    ]
    assert book.open == {}
    assert studio.state["loaded"] == []


def test_what_was_running_before_stays(studio: Studio, server: Scripted, settings: EngineSettings, book: Book) -> None:
    theirs = {**SMALL, "identifier": "theirs", "contextLength": 4096}
    studio.put(running=True, port=server.port, loaded=[theirs])
    with closing(Engine(settings)) as engine:
        assert engine.describe().details["server"] == "found"
        assert engine.prepare(cell()).others_loaded == ("theirs",)
    assert not [call for call in studio.changing() if call.startswith(("server", "daemon"))]
    assert studio.state["loaded"] == [theirs]
    assert studio.state["running"]
    assert book.open == {}


def test_a_load_is_kept_for_cells_of_the_same_length(studio: Studio, settings: EngineSettings) -> None:
    with closing(Engine(settings)) as engine:
        engine.prepare(cell(512))
        assert engine.prepare(cell(512, temperature=0.1)).load_duration_s is None
        assert engine.prepare(cell(1024)).num_ctx == 1024
        assert engine.prepare(cell(0)).num_ctx == 4096
        assert engine.prepare(cell(100_000)).num_ctx == 8192
    loads = [call.partition("--yes")[2].strip() for call in studio.calls() if call.startswith("load")]
    assert loads == ["--context-length 512", "--context-length 1024", "", "--context-length 100000"]
    assert studio.state["loaded"] == []


def test_a_model_that_someone_unloaded_is_loaded_again(studio: Studio, settings: EngineSettings) -> None:
    with closing(Engine(settings)) as engine:
        engine.prepare(cell())
        studio.put(loaded=[])
        assert engine.prepare(cell()).load_duration_s is not None


def test_what_is_known_of_a_model(studio: Studio, settings: EngineSettings) -> None:
    with closing(Engine(settings)) as engine:
        found = engine.model_info("smollm2-135m-instruct")
        assert (found.family, found.parameter_size, found.quantization) == ("llama", "135M", "Q4_1")
        assert (found.context_length, found.size_bytes, found.capabilities) == (8192, 98_000_000, ("completion",))
        assert engine.model_info("smol-Q4_1.gguf").digest == found.digest
        studio.put(models=[{**SMALL, "sizeBytes": 98_000_001}])
        assert engine.model_info("smollm2-135m-instruct").digest != found.digest


def test_a_model_is_downloaded_only_after_a_yes(studio: Studio, settings: EngineSettings, said: list[str]) -> None:
    wanted = "https://huggingface.co/bartowski/QwQ-32B-Preview-GGUF@Q4_K_M"
    studio.put(hub={**SMALL, "modelKey": "qwq-32b-preview", "path": DOWNLOAD})
    with closing(Engine(settings)) as engine:
        with pytest.raises(EngineMissing, match=f"is not downloaded. Run: lms get {wanted} \\(or use --setup\\)"):
            engine.model_info(DOWNLOAD)
        with pytest.raises(EngineMissing, match=r"Did you mean smollm2-135m-instruct\?"):
            engine.model_info("smollm2-135-instruct")
    assert not [call for call in studio.calls() if call.startswith("get")]
    with closing(Engine(replace(settings, extra={"setup": "yes"}))) as engine:
        assert engine.model_info(DOWNLOAD).name == DOWNLOAD
    assert f"get {wanted} --yes" in studio.calls()
    assert any("Downloading" in line for line in said)


@pytest.mark.parametrize(
    ("text", "status", "reason"),
    [
        ("Model loading aborted due to insufficient system resources", Status.OOM, "does_not_fit"),
        ("ggml_cuda: cudaMalloc failed: out of memory", Status.OOM, "cuda_oom"),
        ("The model has crashed without additional information", Status.CRASHED, "load_crash"),
        ("the cat sat on it", Status.ERROR, "load"),
        ("hang", Status.TIMEOUT, "load"),
    ],
)
def test_a_load_that_fails_is_its_cells(
    studio: Studio, settings: EngineSettings, book: Book, text: str, status: Status, reason: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """An hour has passed as soon as a load hangs."""
    hangs = studio.folder / "hangs"
    monkeypatch.setattr(process, "time", SimpleNamespace(monotonic=lambda: time.monotonic() + 3600 * hangs.exists()))
    studio.put(fails={"load": text})
    with closing(Engine(settings)) as engine:
        with pytest.raises(CellFailed) as caught:
            engine.prepare(cell())
        assert (caught.value.status, caught.value.reason) == (status, reason)
        assert "\x1b" not in caught.value.error
        engine.release(failed=True)
        studio.put(fails={})
        assert engine.prepare(cell()).num_ctx == 512
    assert book.open == {}


def test_a_loaded_model_answers_a_test_before_it_is_measured(
    studio: Studio, server: Scripted, settings: EngineSettings
) -> None:
    with closing(Engine(settings)) as engine:
        engine.prepare(cell())
        (body,) = server.bodies("/v1/chat/completions")
        assert body["model"] == studio.state["loaded"][0]["identifier"]
        assert body["max_tokens"] <= 16
        engine.prepare(cell(512, temperature=0.1))
        assert len(server.bodies("/v1/chat/completions")) == 1, "a load that is kept is not tested again"


@pytest.mark.parametrize(
    ("reply", "reason", "words"),
    [
        (refused(500, "The model has crashed without additional information"), "runner_died", "has crashed"),
        (stream(end()), "test_inference", "an empty answer"),
        (stream(chunk("Hel"), done=False, cut=True), "half_answer", ""),
    ],
)
def test_a_loaded_model_that_does_not_answer_is_its_cells_failure(
    studio: Studio, server: Scripted, settings: EngineSettings, book: Book, reply: Reply, reason: str, words: str
) -> None:
    server.chat(reply)
    with closing(Engine(settings)) as engine:
        for _ in range(2):
            with pytest.raises(CellFailed, match=r"does not answer a test question: .*" + words) as caught:
                engine.prepare(cell())
            assert caught.value.reason == reason
        engine.release(failed=True)
        assert studio.state["loaded"] == []
        server.chat(stream(chunk("Hello"), end(), usage(12, 1)))
        assert engine.prepare(cell()).num_ctx == 512
    assert book.open == {}


def test_a_model_that_only_thinks_within_the_test_has_answered(
    studio: Studio, server: Scripted, settings: EngineSettings
) -> None:
    thought = chunk(choices=[{"index": 0, "delta": {"reasoning_content": "The user"}, "finish_reason": None}])
    server.chat(stream(thought, end("length"), usage(12, 8)))
    with closing(Engine(settings)) as engine:
        assert engine.prepare(cell()).num_ctx == 512


def test_an_embedding_model_is_tested_with_a_vector(studio: Studio, server: Scripted, settings: EngineSettings) -> None:
    studio.put(models=[{**SMALL, "type": "embedding"}])
    server.replies["/v1/embeddings"] = [refused(500, "out of memory")]
    with closing(Engine(settings)) as engine:
        with pytest.raises(CellFailed, match=r"does not answer a test question: .*out of memory") as caught:
            engine.prepare(cell())
        assert caught.value.status is Status.OOM
        engine.release(failed=True)
        server.replies["/v1/embeddings"] = [said_vector()]
        assert engine.prepare(cell()).num_ctx == 512
        assert engine.embed(cell(), ["a"], 16, TIMEOUT_S).vectors == Vectors(1, 2, dtype=""), "nobody says a type"
    assert server.bodies("/v1/chat/completions") == []


def test_another_model_than_asked_is_never_measured(studio: Studio, settings: EngineSettings) -> None:
    studio.put(instead={**SMALL, "modelKey": "other", "path": "some/other.gguf"})
    expected = pytest.raises(CellFailed, match="loaded other instead of smollm2-135m-instruct")
    with closing(Engine(settings)) as engine, expected:
        engine.prepare(cell())
    assert studio.state["loaded"] == []


def test_a_server_that_will_not_start_is_named(studio: Studio, settings: EngineSettings) -> None:
    studio.put(fails={"server start": "Failed to verify the server is running. Please try to use another port."})
    with closing(Engine(settings)) as engine, pytest.raises(EngineUnavailable, match="try to use another port"):
        engine.describe()


def test_the_server_listens_where_it_listens(studio: Studio, server: Scripted, settings: EngineSettings) -> None:
    studio.put(running=True, port=server.port)
    with closing(Engine(replace(settings, host=None))) as engine:
        assert engine.describe().where == f"http://127.0.0.1:{server.port}/v1"
    other = EngineSettings(host=f"127.0.0.1:{free_port()}")
    expected = pytest.raises(EngineMissing, match=f"runs on port {server.port}.*give host: 127.0.0.1:{server.port}")
    with closing(Engine(other)) as engine, expected:
        engine.describe()


def test_an_old_lms_without_a_daemon_is_understood(studio: Studio, settings: EngineSettings) -> None:
    studio.put(daemon=None)
    with closing(Engine(settings)) as engine:
        assert engine.prepare(cell()).num_ctx == 512
    assert "daemon down" not in studio.calls()
    assert "server stop" in studio.calls()


def test_another_machine_is_refused() -> None:
    with pytest.raises(ConfigError, match="lms works on this machine only"):
        Engine(EngineSettings(host="http://studio.example:1234", allow_remote=True))


def test_what_a_dead_session_left_is_cleared(studio: Studio, settings: EngineSettings, book: Book) -> None:
    studio.put(daemon=False)
    dead = Engine(settings)
    dead.prepare(cell())
    dead._hang_up()
    left = list(book.open.values())
    with closing(Engine(settings)) as engine:
        said = [engine.clear(leftover) for leftover in reversed(left)]
    assert [str(line).split(" ")[0] for line in said] == ["Removed", "Ended", "Ended"]
    assert (studio.state["loaded"], studio.state["running"], studio.state["daemon"]) == ([], False, False)
    with closing(Engine(settings)) as engine:
        assert [engine.clear(leftover) for leftover in left] == [None, None, None]
        assert studio.state["daemon"] is False
        with pytest.raises(EngineUnavailable, match="another engine made it"):
            engine.clear(replace(left[-1], details={}))


def test_a_slow_embedding_says_how_far_it_is(
    studio: Studio, server: Scripted, settings: EngineSettings, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base, "EVERY_S", 0.0)
    server.replies["/v1/embeddings"] = [said_vector()]
    with closing(Engine(settings)) as engine:
        engine.prepare(cell())
        engine.embed(cell(), ["a", "b", "c"], 1, TIMEOUT_S)
    assert said[1:] == ["Embedding: 1 of 3 rows", "Embedding: 2 of 3 rows"]


def test_an_embedding_goes_to_the_loaded_model(studio: Studio, server: Scripted, settings: EngineSettings) -> None:
    server.replies["/v1/embeddings"] = [refused(400, "Model is not an embedding model")]
    with closing(Engine(settings)) as engine:
        engine.prepare(cell())
        with pytest.raises(CellFailed) as caught:
            engine.embed(cell(), ["a"], 16, TIMEOUT_S)
    assert caught.value.reason == "cannot_embed"


@pytest.fixture(scope="session")
def real_binary() -> Path:
    """Found before a test has a home of its own."""
    return llama_server_binary()


@pytest.mark.real
def test_beside_a_real_llama_server(real_binary: Path, small_model: Path, studio: Studio, book: Book) -> None:
    """The scripted `lms` starts it anew with every load, so the context length is real."""
    port = free_port()
    studio.put(daemon=False, binary=str(real_binary), gguf=str(small_model), port=port)
    text = prompts.with_nonce(prompts.new_nonce(), "Name the rivers of the world and where they flow. " * 40)
    with closing(Engine(EngineSettings(host=f"127.0.0.1:{port}", ledger=book))) as engine:
        engine.describe()
        assert engine.prepare(cell(256)).num_ctx == 256
        with pytest.raises(CellFailed) as caught:
            engine.generate(cell(256), text, TIMEOUT_S)
        assert (caught.value.status, caught.value.reason) == (Status.TRUNCATED, "does_not_fit")
        engine.release(failed=True)
        assert engine.prepare(cell(1024)).num_ctx == 1024
        found = engine.generate(cell(1024), text, TIMEOUT_S)
        assert 300 < (found.prompt_eval_count or 0) < 600
        assert found.eval_count == 4
        assert found.cached_count is not None
        assert 0 < (found.ttft_s or 0) < found.client_duration_s
        assert engine.processes() == (studio.state["pid"],)
        pid = studio.state["pid"]
    assert book.open == {}
    assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
