"""The engine `openai` against real servers: llama-server, and the `/v1` of Ollama."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest
from ollama_fixture import MODEL, Servers, until
from openai_asking import KEY, TIMEOUT_S, cell
from openai_asking import _no_settings_of_the_person as _no_settings_of_the_person
from openai_server import llama_server

from ollama_sweep import engines
from ollama_sweep.core import judge
from ollama_sweep.core.errors import CellFailed, EngineMissing
from ollama_sweep.core.generation import Generation
from ollama_sweep.core.outcome import Status
from ollama_sweep.engines.base import EngineSettings
from ollama_sweep.engines.openai.engine import Engine
from ollama_sweep.plan import prompts

TEXT = "Name the three largest rivers of the world and the seas that they flow into. " * 6


@pytest.fixture(scope="module")
def real_llama(tmp_path_factory: pytest.TempPathFactory, small_model: Path) -> Iterator[str]:
    log = tmp_path_factory.mktemp("llama-server") / "log"
    with llama_server(small_model, log, "-c", "1024", "-b", "128", "--api-key", KEY) as host:
        yield host


@pytest.fixture
def on_llama(real_llama: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    monkeypatch.setenv("LLM_API_KEY", KEY)
    with closing(engines.load("openai", EngineSettings(host=real_llama))) as engine:
        assert isinstance(engine, Engine)
        yield engine


@pytest.mark.real
def test_a_real_llama_server(on_llama: Engine, small_model: Path) -> None:
    info = on_llama.describe()
    assert info.version.startswith("llama-server b")
    assert on_llama.describe() == info
    found = on_llama.model_info(small_model.name)
    assert (found.quantization, found.parameter_size, found.context_length) == ("Q4_1", "134.52M", 8192)
    assert on_llama.model_info(small_model.name) == found
    with pytest.raises(EngineMissing, match="no-such-model is not served"):
        on_llama.model_info("no-such-model")
    assert on_llama.processes() != (os.getpid(),)
    assert len(on_llama.processes()) == 1
    place = cell(small_model.name, num_predict=4, temperature=0.0, seed=1)
    assert on_llama.prepare(place).num_ctx == 1024
    nonce = prompts.new_nonce()
    text = prompts.with_nonce(nonce, TEXT)
    tokens = on_llama.count_tokens(small_model.name, text)
    generation = on_llama.generate(place, text, TIMEOUT_S)
    assert generation.prompt_eval_count == tokens
    run = judge.judge_run(generation, number=1, warmup=False, nonce=nonce, expected_tokens=tokens, scores={})
    assert run.believed
    assert (run.prompt_eval_rate or 0) > 0
    assert (generation.eval_count, generation.chunk_count) == (4, 4)
    assert 0 < (generation.ttft_s or 0) < generation.client_duration_s
    again = on_llama.generate(place, text, TIMEOUT_S)
    assert (again.cached_count or 0) > (tokens or 0) / 2, "a prompt from the cache shows as such"
    assert KEY not in generation.raw


@pytest.mark.real
def test_a_real_llama_server_refuses_what_is_too_long_and_cannot_embed(on_llama: Engine, small_model: Path) -> None:
    with pytest.raises(CellFailed) as caught:
        on_llama.generate(cell(small_model.name), TEXT * 20, TIMEOUT_S)
    assert (caught.value.status, caught.value.reason) == (Status.TRUNCATED, "does_not_fit")
    with pytest.raises(CellFailed) as caught:
        on_llama.embed(cell(small_model.name), ["a"], 16, TIMEOUT_S)
    assert caught.value.reason == "cannot_embed"


def is_under_way(engine: Engine, answer: Future[Generation]) -> bool:
    return engine._server._is_busy() or answer.done()


@pytest.mark.real
def test_a_real_llama_server_comes_to_rest_after_a_timeout(on_llama: Engine, small_model: Path) -> None:
    """The server stands still in the middle of its answer; where the model was quicker, it is asked once more."""
    place = cell(small_model.name, num_predict=2000)
    (pid,) = on_llama.processes()
    assert not on_llama._server._is_busy()
    failure = None
    with ThreadPoolExecutor(1) as pool:
        while failure is None:
            text = prompts.with_nonce(prompts.new_nonce(), TEXT)
            answer = pool.submit(on_llama.generate, place, text, 3.0)
            until("it answers", partial(is_under_way, on_llama, answer))
            os.kill(pid, signal.SIGSTOP)
            failure = answer.exception()
            os.kill(pid, signal.SIGCONT)
    assert isinstance(failure, CellFailed)
    assert failure.status is Status.TIMEOUT
    on_llama.release(failed=True)
    assert not on_llama._server._is_busy()
    assert on_llama.generate(cell(small_model.name, num_predict=2), "Hello", TIMEOUT_S).eval_count


@pytest.mark.real
def test_a_wrong_key_on_a_real_server(real_llama: str) -> None:
    with closing(Engine(EngineSettings(host=real_llama))) as engine, pytest.raises(EngineMissing, match="HTTP 401"):
        engine.describe()


@pytest.mark.real
def test_ollamas_own_v1(real_ollama: Servers) -> None:
    server = real_ollama("0.34.0")
    with closing(Engine(EngineSettings(host=server.host))) as engine:
        assert engine.describe().version == "Ollama 0.34.0"
        found = engine.model_info(MODEL)
        assert found.digest == f"sha256:{server.installed()[f'{MODEL}:latest']}"
        assert (found.quantization, found.parameter_size, found.context_length) == ("Q4_1", "134.52M", 8192)
        with pytest.raises(EngineMissing, match=r"smoll is not served.*Did you mean smol"):
            engine.model_info("smoll")
        assert engine.count_tokens(MODEL, "x") is None
        text = prompts.with_nonce(prompts.new_nonce(), TEXT)
        generation = engine.generate(cell(MODEL, num_predict=4, temperature=0.0), text, TIMEOUT_S)
        assert (generation.eval_count, generation.cached_count, generation.is_estimated) == (4, 0, False)
        assert 0 < (generation.ttft_s or 0) < generation.client_duration_s
        with pytest.raises(CellFailed) as caught:
            engine.embed(cell(MODEL), ["a"], 16, TIMEOUT_S)
        assert caught.value.reason == "cannot_embed"
        assert engine.processes()
    server.unload_all()
