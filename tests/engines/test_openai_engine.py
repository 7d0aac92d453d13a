"""The engine `openai`: against a scripted server, for what is asked and everything that can go wrong."""

from __future__ import annotations

import sqlite3
import threading
import zlib
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from ollama_fixture import free_port
from openai_asking import KEY, TIMEOUT_S, WHOLE, ask, cell, failure
from openai_asking import _no_settings_of_the_person as _no_settings_of_the_person
from openai_asking import engine as engine
from openai_asking import said_lines as said_lines
from openai_asking import server as server
from openai_server import (
    EVENTS,
    HTML,
    PAGE,
    Reply,
    Scripted,
    chunk,
    end,
    refused,
    said,
    stream,
    usage,
)  # fmt: skip
from sweep_runner import Sweep

from ollama_sweep.core.errors import CellFailed, ConfigError, EngineMissing, EngineUnavailable
from ollama_sweep.core.outcome import Status
from ollama_sweep.core.thoughts import apart
from ollama_sweep.engines.base import EngineSettings
from ollama_sweep.engines.openai.engine import Engine
from ollama_sweep.machine import env

# -- what is asked and what comes back ---------------------------------------------------------------------------------


def test_an_answer_with_its_counts_and_times(server: Scripted, engine: Engine) -> None:
    server.chat(WHOLE)
    found = ask(engine, temperature=0.5, seed=7, system="Be brief.")
    assert (found.text, found.prompt_eval_count, found.eval_count) == ("Hello world", 12, 2)
    assert (found.chunk_count, found.is_estimated, found.cached_count) == (2, False, None)
    assert (found.prompt_eval_duration_s, found.eval_duration_s) == (None, None)
    assert found.ttft_s is not None
    assert 0 < found.ttft_s <= found.client_duration_s
    assert '"finish_reason": "stop"' in found.raw
    sent = server.bodies("/v1/chat/completions")[0]
    assert sent == {
        "model": "small-model",
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello?"}],
        "max_tokens": 8,
        "temperature": 0.5,
        "seed": 7,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def test_the_timings_of_a_llama_server_are_used(server: Scripted, engine: Engine) -> None:
    timings = {"prompt_n": 30, "cache_n": 6, "prompt_ms": 150.0, "predicted_n": 5, "predicted_ms": 100.0,
               "prompt_per_second": 200.0}  # fmt: skip
    server.chat(stream(chunk("Hi"), end(), usage(36, 5, timings=timings)))
    found = ask(engine)
    assert (found.prompt_eval_count, found.cached_count, found.prompt_eval_duration_s) == (36, 6, 0.15)
    assert (found.eval_count, found.eval_duration_s, found.printed_rate) == (5, 0.1, 200.0)


def test_cached_tokens_of_the_usage_are_used(server: Scripted, engine: Engine) -> None:
    server.chat(stream(chunk("Hi"), end(), usage(36, 5, usage={"prompt_tokens_details": {"cached_tokens": 14}})))
    assert ask(engine).cached_count == 14


def test_without_usage_the_tokens_are_estimated_from_words(server: Scripted, engine: Engine) -> None:
    server.chat(stream(chunk("one two three four five"), chunk(" six seven eight nine ten"), end()))
    found = ask(engine)
    assert (found.eval_count, found.is_estimated, found.prompt_eval_count) == (13, True, None)


def test_thinking_counts_as_the_first_piece_but_is_no_text(server: Scripted, engine: Engine) -> None:
    thought = chunk(choices=[{"index": 0, "delta": {"reasoning_content": "hm"}, "finish_reason": None}])
    server.chat(stream(thought, chunk("Yes"), end(), usage(4, 2)))
    found = ask(engine)
    assert (found.text, found.chunk_count) == ("Yes", 2)
    assert (found.thoughts, found.thinking_count) == ("hm", 1)
    assert (found.thinking_duration_s or 0) > 0


@pytest.mark.parametrize(
    ("delta", "thoughts", "text"),
    [
        ({"reasoning": "hm"}, "hm", ""),
        ({"reasoning_content": "hm", "reasoning": "hm", "content": None}, "hm", ""),
        ({"reasoning": "hm", "reasoning_details": [{"type": "reasoning.text", "text": "hm"}]}, "hm", ""),
        ({"reasoning_details": [{"type": "reasoning.summary", "summary": "hm"}]}, "hm", ""),
        ({"content": [{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "B"}]}, "hm", "B"),
        ({"content": [{"type": "reasoning", "text": "hm"}]}, "hm", ""),
        ({"content": "<think>hm</think>B"}, "hm", "B"),
    ],
)
def test_thoughts_have_many_names(
    delta: dict[str, Any], thoughts: str, text: str, server: Scripted, engine: Engine
) -> None:
    server.chat(stream(chunk(choices=[{"index": 0, "delta": delta, "finish_reason": None}]), end(), usage(4, 2)))
    found = apart(ask(engine))
    assert (found.thoughts, found.text) == (thoughts, text)


def test_a_server_that_counts_its_thoughts_is_believed(server: Scripted, engine: Engine) -> None:
    """Also one that does not show them."""
    counted = {"prompt_tokens": 4, "completion_tokens": 90, "completion_tokens_details": {"reasoning_tokens": 88}}
    server.chat(stream(chunk("Yes"), end(), {**usage(4, 2), "usage": counted}))
    found = ask(engine)
    assert (found.thinking_count, found.thoughts, found.eval_count) == (88, "", 90)


def test_how_hard_to_think_is_said_in_the_words_of_the_api(server: Scripted, engine: Engine) -> None:
    asked = [(None, None), (True, "medium"), ("high", "high")]
    for think, _ in asked:
        server.chat(WHOLE)
        told: dict[str, Any] = {} if think is None else {"think": think}
        engine.generate(cell(**told), "Hello?", 10)
    assert [body.get("reasoning_effort") for body in server.bodies("/v1/chat/completions")] == [
        effort for _, effort in asked
    ]
    assert all("think" not in body for body in server.bodies("/v1/chat/completions"))


def test_a_model_that_cannot_think_says_so(server: Scripted, engine: Engine) -> None:
    server.chat(refused(400, "Unsupported parameter: 'reasoning_effort' is not supported with this model."))
    with pytest.raises(CellFailed, match="does not support thinking") as failure:
        engine.generate(cell(think="low"), "Hello?", 10)
    assert (failure.value.status, failure.value.reason) == (Status.ERROR, "cannot_think")


def test_a_server_that_does_not_stream_is_understood(server: Scripted, engine: Engine) -> None:
    choice = {"index": 0, "message": {"role": "assistant", "content": "Hello"}, "finish_reason": "stop"}
    server.chat(said({"id": "c", "choices": [choice], "usage": {"prompt_tokens": 3, "completion_tokens": 1}}))
    found = ask(engine)
    assert (found.text, found.eval_count, found.ttft_s, found.chunk_count) == ("Hello", 1, None, None)


def test_events_that_say_nothing_do_no_harm(server: Scripted, engine: Engine) -> None:
    nothing = ("retry: 3000\n\n", "id: 7\n\n", ": ping\n\n", "event: ping\ndata:\n\n")
    server.chat(stream(*nothing, chunk("Hello"), *nothing, chunk(" \u2028world"), end(), usage(12, 2), *nothing))
    found = ask(engine)
    assert (found.text, found.chunk_count, found.eval_count) == ("Hello \u2028world", 2, 2)


def test_a_stream_whose_last_event_has_no_end_is_whole(server: Scripted, engine: Engine) -> None:
    server.chat(Reply(WHOLE.body.replace("\n\n", "\r\n\r\n").rpartition("data: [DONE]")[0].rstrip(), kind=EVENTS))
    assert ask(engine).eval_count == 2


def test_a_content_in_parts_is_text_without_its_thinking(server: Scripted, engine: Engine) -> None:
    thought = {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}
    parts: list[Any] = [[thought], [{"type": "text", "text": "Hello"}, {"type": "text", "text": " world"}]]
    choices = [{"index": 0, "delta": {"content": content}, "finish_reason": None} for content in parts]
    server.chat(stream(*(chunk(choices=[choice]) for choice in choices), end(), usage(4, 2)))
    found = ask(engine)
    assert (found.text, found.chunk_count) == ("Hello world", 2)


def test_a_field_that_the_server_refuses_is_given_in_the_other_way(server: Scripted, engine: Engine) -> None:
    tokens = refused(400, "Unsupported parameter: 'max_tokens' is not supported. Use 'max_completion_tokens' instead.")
    usage_too = said({"detail": [{"loc": ["body", "stream_options"], "msg": "Extra inputs are not permitted"}]}, 422)
    server.chat(tokens, usage_too, WHOLE)
    assert ask(engine).text == "Hello world"
    assert ask(engine).text == "Hello world"
    sent = server.bodies("/v1/chat/completions")
    assert [("max_tokens" in body, body.get("max_completion_tokens"), "stream_options" in body) for body in sent] == [
        (True, None, True), (False, 8, True), (False, 8, False), (False, 8, False),
    ]  # fmt: skip


def test_an_option_that_no_request_can_set_is_refused(server: Scripted, engine: Engine) -> None:
    with pytest.raises(CellFailed, match="cannot set num_gpu; it can set frequency_penalty, num_predict"):
        engine.prepare(cell(num_gpu=1))
    engine.prepare(cell(num_ctx=0, num_batch=0))


# -- what can go wrong -------------------------------------------------------------------------------------------------


def test_a_page_instead_of_an_answer(server: Scripted, engine: Engine) -> None:
    server.chat(Reply(PAGE, kind=HTML))
    found = failure(engine)
    assert (found.status, found.reason) == (Status.ERROR, "bad_answer")
    assert "an HTML page (Welcome to nginx); JSON of an OpenAI-compatible API was expected" in found.error
    server.replies["/v1/models"] = [Reply(PAGE, kind=HTML)]
    with pytest.raises(EngineMissing, match="an HTML page"):
        engine.describe()


def test_a_wrong_address_is_named(server: Scripted, engine: Engine) -> None:
    server.chat(Reply(PAGE, 404, HTML))
    with pytest.raises(EngineMissing, match=r"HTTP 404: an HTML page .* its address ends in /v1"):
        ask(engine)


def test_a_redirection_is_not_followed(server: Scripted, engine: Engine) -> None:
    server.chat(Reply("", 302, headers={"Location": "http://elsewhere.example/v1"}))
    with pytest.raises(EngineMissing, match=r"points to http://elsewhere\.example/v1; give the address"):
        ask(engine)


def test_too_many_requests_are_waited_for_and_then_it_goes_on(
    server: Scripted, engine: Engine, said_lines: list[str]
) -> None:
    server.chat(refused(429, "slow down", Retry_After="0"), WHOLE)
    assert ask(engine).text == "Hello world"
    assert any("HTTP 429: slow down" in line and "Waiting 0 s" in line for line in said_lines)


def test_too_many_requests_for_ever_end_the_waiting(server: Scripted, engine: Engine) -> None:
    server.chat(refused(429, "slow down", Retry_After="0"))
    with pytest.raises(EngineUnavailable, match="HTTP 429: slow down"):
        ask(engine)
    assert len(server.bodies("/v1/chat/completions")) == 4
    server.chat(refused(429, "come back tomorrow", Retry_After="86400"))
    with pytest.raises(EngineUnavailable, match="tomorrow"):
        ask(engine)
    assert len(server.bodies("/v1/chat/completions")) == 5
    server.chat(refused(429, "You exceeded your current quota", Retry_After="0"))
    with pytest.raises(EngineMissing, match="Waiting does not help"):
        ask(engine)


@pytest.mark.parametrize(
    ("reply", "status", "reason", "words"),
    [
        (refused(500, "CUDA out of memory: cudaMalloc failed"), Status.OOM, "cuda_oom", "HTTP 500"),
        (refused(500, "the cat sat on it"), Status.ERROR, "http_500", "the cat sat on it"),
        (refused(400, "request (9 tokens) exceeds the available context size (4 tokens)"), Status.TRUNCATED,
         "does_not_fit", "HTTP 400"),
        (refused(408, "too slow"), Status.TIMEOUT, "run", "too slow"),
        (stream(chunk("Hal"), cut=True, done=False), Status.ERROR, "half_answer", "after 1 pieces"),
        (stream(chunk("Hal"), done=False), Status.ERROR, "half_answer", "without a finish_reason"),
        (stream(chunk("a"), {"error": {"message": "llama runner process has terminated"}}), Status.CRASHED,
         "load_crash", "has terminated"),
        (stream('data: {"error": "no more"}\n\n'), Status.ERROR, "error_event", "no more"),
        (stream(chunk("a"), "data: {broken\n\n"), Status.ERROR, "bad_answer", "JSON as of the OpenAI API was expected"),
        (stream("data: 5\n\n"), Status.ERROR, "bad_answer", "instead of an object"),
        (stream(chunk(choices=[7])), Status.ERROR, "bad_answer", "no object"),
        (stream(usage(3, 0)), Status.ERROR, "no_answer", "empty choices"),
        (stream(done=False), Status.ERROR, "no_answer", "an empty answer"),
        (Reply("", kind="text/event-stream", cut=True), Status.ERROR, "engine_died", "ended the connection"),
        (stream(chunk("a"), end("content_filter")), Status.ERROR, "refused", "content_filter"),
        (stream(chunk("a"), end("abort")), Status.ERROR, "refused", "abort"),
        (stream({"object": "error", "message": "CUDA out of memory"}), Status.OOM, "cuda_oom", "CUDA out of memory"),
        (refused(400, "max_completion_tokens is too large"), Status.ERROR, "http_400", "too large"),
        (said({"error": {"message": "out of luck"}}), Status.ERROR, "error_event", "out of luck"),
        (Reply('{"id": "c1", ', cut=True), Status.ERROR, "engine_died", "ended the connection"),
        (Reply("{broken"), Status.ERROR, "bad_answer", "was expected"),
        (Reply("[]"), Status.ERROR, "bad_answer", "instead of an object"),
    ],
)  # fmt: skip
def test_a_bad_answer_is_its_cells_and_said_in_one_line(
    server: Scripted, engine: Engine, reply: Reply, status: Status, reason: str, words: str
) -> None:
    server.chat(reply)
    found = failure(engine)
    assert (found.status, found.reason) == (status, reason)
    assert words in found.error
    server.chat(WHOLE)
    assert ask(engine).text == "Hello world"


@pytest.mark.parametrize("status", [502, 503, 504])
def test_a_server_that_is_away_is_no_cells_fault(server: Scripted, engine: Engine, status: int) -> None:
    server.chat(refused(status, "Loading model"))
    with pytest.raises(EngineUnavailable, match="Loading model") as caught:
        ask(engine)
    assert not isinstance(caught.value, EngineMissing)


def test_a_stream_that_never_ends_is_cut_at_the_time_limit(server: Scripted, engine: Engine) -> None:
    """The server goes on sending something, so no read ever times out."""
    server.chat(stream(chunk("a"), done=False, wait=threading.Event()))
    found = failure(engine, 0.3)
    assert (found.status, found.reason) == (Status.TIMEOUT, "run")
    assert "no whole answer within 0.3 s" in found.error


def test_nothing_listens() -> None:
    port = free_port()
    with closing(Engine(EngineSettings(host=f"127.0.0.1:{port}"))) as engine:
        for step in (engine.describe, lambda: ask(engine), lambda: engine.model_info("m")):
            with pytest.raises(EngineUnavailable, match=f"no server answers at http://127.0.0.1:{port}/v1"):
                step()


def test_a_model_that_is_not_there_is_named_with_its_nearest(server: Scripted, engine: Engine) -> None:
    with pytest.raises(EngineMissing, match=r"smal-model is not served at .* Did you mean small-model\?"):
        engine.model_info("smal-model")


def test_the_digest_follows_what_the_server_says_but_not_the_time(server: Scripted, engine: Engine) -> None:
    def listed(**entry: object) -> str:
        server.replies["/v1/models"] = [said({"data": [{"id": "small-model", **entry}]})]
        return engine.model_info("small-model").digest

    first = listed(created=1, meta={"n_params": 134_515_008, "n_ctx_train": 8192, "ftype": "Q4_1"})
    assert first.startswith("sha256:")
    assert listed(created=2, meta={"n_params": 134_515_008, "n_ctx_train": 8192, "ftype": "Q4_1"}) == first
    assert listed(created=1, meta={"n_params": 134_515_008, "n_ctx_train": 8192, "ftype": "Q8_0"}) != first
    found = engine.model_info("small-model")
    assert (found.parameter_size, found.context_length, found.quantization) == ("134.52M", 8192, "Q8_0")


# -- embeddings --------------------------------------------------------------------------------------------------------


def vectors(*rows: object, tokens: int = 3) -> Reply:
    data = [{"object": "embedding", "index": number, "embedding": row} for number, row in enumerate(rows)]
    return said(
        {"object": "list", "data": data, "model": "m", "usage": {"prompt_tokens": tokens, "total_tokens": tokens}}
    )


def test_texts_are_embedded_in_batches(server: Scripted, engine: Engine) -> None:
    server.replies["/v1/embeddings"] = [vectors([0.1, 0.2, 0.3], [1, 2, 3]), vectors([0.1, 0.2, 0.3], tokens=2)]
    found = engine.embed(cell(), ["a", "b", "c"], 2, TIMEOUT_S)
    assert found.vectors is not None
    assert (found.vectors.rows, found.vectors.dimension, found.text) == (3, 3, "")
    assert found.prompt_eval_count == 5
    assert found.client_duration_s > 0
    assert [body["input"] for body in server.bodies("/v1/embeddings")] == [["a", "b"], ["c"]]


@pytest.mark.parametrize(
    ("reply", "reason", "words"),
    [
        (refused(501, "This server does not support embeddings"), "cannot_embed", "small-model cannot embed"),
        (refused(400, "Model is not an embedding model"), "cannot_embed", "not an embedding model"),
        (refused(404, "no such address"), "cannot_embed", "HTTP 404"),
        (vectors([0.1]), "bad_answer", "1 vectors for 2 texts"),
        (vectors([0.1], [0.1, 0.2]), "bad_answer", "vectors of 1 and 2 numbers"),
        (vectors([0.1], []), "bad_answer", "a row without a vector"),
        (vectors([0.1], ["x"]), "bad_answer", "no number"),
        (vectors([0.1], [float("nan")]), "bad_answer", "no number"),
        (said({"object": "list"}), "bad_answer", "was expected"),
        (Reply(PAGE, kind=HTML), "bad_answer", "was expected"),
    ],
)
def test_bad_vectors_are_never_counted(server: Scripted, engine: Engine, reply: Reply, reason: str, words: str) -> None:
    server.replies["/v1/embeddings"] = [reply]
    with pytest.raises(CellFailed) as caught:
        engine.embed(cell(), ["a", "b"], 16, TIMEOUT_S)
    assert (caught.value.status, caught.value.reason) == (Status.ERROR, reason)
    assert words in caught.value.error


# -- keys and addresses ------------------------------------------------------------------------------------------------


def test_the_key_is_never_seen(server: Scripted, said_lines: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The server gives the key back in every way it can."""
    monkeypatch.setenv("MY_KEY", KEY)
    settings = EngineSettings(host=server.host, api_key_env="MY_KEY", say=said_lines.append, trace=said_lines.append)
    seen: list[str] = []
    with closing(Engine(settings)) as engine:
        for reply in (
            refused(401, f"Incorrect API key provided: {KEY}. Bearer {KEY}"),
            Reply(f"<html><title>{KEY}</title>", 403, HTML),
            refused(429, f"{KEY} is too fast", Retry_After="0"),
            refused(500, f"panic: {KEY}"),
            stream({"error": {"message": f"key {KEY}"}}),
            stream(f"data: {{{KEY}\n\n"),
            Reply(KEY.replace("/", "\\/"), 400, "text/plain"),
        ):
            server.chat(reply)
            with pytest.raises((CellFailed, EngineUnavailable)) as caught:
                ask(engine)
            seen += [
                str(caught.value),
                repr(caught.value),
                getattr(caught.value, "raw", ""),
                getattr(caught.value, "error", ""),
            ]
        server.chat(stream(chunk(f"Your key is {KEY}!"), end()))
        found = ask(engine)
        assert found.text == "Your key is ***!"
        seen += [repr(found), repr(engine.__dict__), repr(env.api_key("MY_KEY"))]
    assert server.asked[-1][1]["authorization"] == f"Bearer {KEY}"
    everything = "\n".join([*seen, *said_lines])
    assert "sk-very" not in everything
    assert "***" in everything


def test_a_refused_key_names_its_variable(server: Scripted, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", KEY)
    server.replies["/v1/models"] = [refused(401, "Invalid API Key")]
    expected = pytest.raises(EngineMissing, match=r"HTTP 401: Invalid API Key.* The key comes from MY_KEY")
    with closing(Engine(EngineSettings(host=server.host, api_key_env="MY_KEY"))) as engine, expected:
        engine.describe()


def test_the_key_comes_from_the_environment_then_from_dot_env(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert env.api_key().value == "api-key"
    (tmp_path / ".env").write_text(
        'LLM_API_KEY="in-$FILE#1"\nOTHER=x\nLLM_BASE_URL=http://localhost:4321/v1\n', "utf-8"
    )
    assert env.api_key().value == "in-$FILE#1"
    assert Engine(EngineSettings())._address.url == "http://localhost:4321/v1"
    monkeypatch.setenv("LLM_API_KEY", "in-environment")
    assert env.api_key().value == "in-environment"
    assert env.api_key("OTHER").value == "x"
    with pytest.raises(ConfigError, match=r"api_key_env: NOWHERE is set neither in the environment nor in \.env"):
        env.api_key("NOWHERE")


@pytest.mark.parametrize("value", ["two words", "line\nbreak", "ключ"])
def test_a_key_that_cannot_be_sent_is_refused_unseen(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLM_API_KEY", value)
    with pytest.raises(ConfigError, match="the key in LLM_API_KEY holds a blank") as caught:
        env.api_key()
    assert value not in str(caught.value)


def test_a_dot_env_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes(b"LLM_API_KEY=\xff\xfe\n")
    with pytest.raises(ConfigError, match=r"^\.env: is not UTF-8$"):
        env.api_key()


@pytest.mark.parametrize(
    ("host", "url"),
    [
        (None, "http://127.0.0.1:1234/v1"),
        ("127.0.0.1:8080", "http://127.0.0.1:8080/v1"),
        ("localhost", "http://localhost:1234/v1"),
        ("http://127.0.0.1:8080/v1/", "http://127.0.0.1:8080/v1"),
        ("http://127.0.0.1:8080/api/v1", "http://127.0.0.1:8080/api/v1"),
        ("https://localhost", "https://localhost:443/v1"),
        ("[::1]:99", "http://[::1]:99/v1"),
    ],
)
def test_an_address_as_people_write_it(host: str | None, url: str) -> None:
    assert Engine(EngineSettings(host=host))._address.url == url


@pytest.mark.parametrize(
    ("host", "words"),
    [
        ("https://api.example.com/v1", "api.example.com is another machine"),
        ("http://user:pw4711@localhost/v1", "put credentials into api_key_env"),
        ("http://localhost/v1?key=pw4711", "put credentials into api_key_env"),
        ("localhost:pw4711x", "is not a host"),
        ("ftp://localhost", "write http:// or https://"),
        ("http://[::1", "is not a host"),
    ],
)
def test_a_bad_address_is_refused(host: str, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"^host: ") as caught:
        Engine(EngineSettings(host=host))
    assert words in str(caught.value)
    monkeypatch.setenv("LLM_BASE_URL", host)
    with pytest.raises(ConfigError, match=r"^LLM_BASE_URL: "):
        Engine(EngineSettings())


def test_another_machine_is_asked_only_when_that_is_allowed() -> None:
    engine = Engine(EngineSettings(host="https://api.example.com/v1", allow_remote=True))
    assert engine.processes() == ()


# -- a whole sweep -----------------------------------------------------------------------------------------------------


def test_a_sweep_leaves_the_key_nowhere(server: Scripted, sweep: Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither in its database and files nor on the screen, though the server gives the key back in all it says."""
    monkeypatch.setenv("MY_KEY", KEY)
    parrot = stream(chunk(f"The key is {KEY}"), end(), usage(12, 2))
    server.chat(parrot, refused(500, f"{KEY} is broken"), parrot)
    config = sweep.folder / "remote.yaml"
    config.write_text(
        f"model: small-model\nengine: openai\nhost: {server.host}\napi_key_env: MY_KEY\ntask: chat\n"
        "num_predict: 4\ntemperature: [0.0, 1.0]\nsecond_look: off\n",
        "utf-8",
    )
    done = sweep("run", str(config), "--verbose")
    assert done.returncode == 0, done.stderr
    assert server.bodies("/v1/chat/completions")[-1]["temperature"] == 1.0
    files = [path.read_bytes() for path in sweep.folder.rglob("*") if path.is_file()]
    everything = b"\n".join(
        [*files, *everything_in(sweep.folder / "sweeps.db"), f"{done.stdout}{done.stderr}".encode()]
    )
    assert b"The key is ***" in everything
    assert b"sk-very" not in everything


def everything_in(db: Path) -> Iterator[bytes]:
    """Every value of every table, unpacked where it is packed."""
    with closing(sqlite3.connect(db)) as connection:
        for (table,) in connection.execute("select name from sqlite_master where type = 'table'").fetchall():
            for value in (value for row in connection.execute(f'select * from "{table}"') for value in row):
                yield zlib.decompress(value) if isinstance(value, bytes) else str(value).encode()


def test_a_dimension_that_the_server_cannot_set_is_refused_by_plan(server: Scripted, sweep: Sweep) -> None:
    config = sweep.folder / "remote.yaml"
    config.write_text(
        f"model: small-model\nengine: openai\nhost: {server.host}\ntask: chat\nnum_gpu: [0, 1]\n", "utf-8"
    )
    done = sweep("plan", str(config))
    assert done.returncode == 2
    assert "the engine openai cannot set num_gpu; it can set frequency_penalty, num_predict" in done.stderr
    assert "/v1/chat/completions" not in [path for path, _, _ in server.asked]
