"""The engine `openai` on servers that speak almost its protocol: understood where it is plain, else named."""

from __future__ import annotations

import json

import pytest
from openai_asking import WHOLE, ask, failure
from openai_asking import _no_settings_of_the_person as _no_settings_of_the_person
from openai_asking import engine as engine
from openai_asking import said_lines as said_lines
from openai_asking import server as server
from openai_server import Scripted, chunk, end, refused, said, stream, usage

from ollama_sweep.core.outcome import Status
from ollama_sweep.engines.openai.engine import Engine


def test_events_of_servers_that_are_nearly_right_are_understood(server: Scripted, engine: Engine) -> None:
    """A mark of UTF-8, comments between fields, no blank, JSON over two lines, no empty lines, null in a stream."""
    two_lines = 'data: {"choices": [{"index": 0,\ndata: "delta": {"content": " world"}}]}\n\n'
    first, second = (json.dumps(chunk(text)) for text in ("Hello", "!"))
    server.chat(
        stream(
            "\ufeff: hi\n\n", "event: message\nid: 7\n", f"data:{first}\r\n", ": ping\n", f"data: {second}\n",
            "retry: 3\n\ndata: null\n\n", two_lines, end(),
        )
    )  # fmt: skip
    assert ask(engine).text == "Hello! world"


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (["Hello", " world"], "Hello world"),
        ({"type": "text", "text": "Hello"}, "Hello"),
        ([{"text": "Hello"}, {"type": "output_text", "text": " world"}, {"type": "text", "text": None}], "Hello world"),
        (
            [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}, {"type": "text", "text": "Hello"}],
            "Hello",
        ),
        ([{"type": "reasoning", "text": "hm"}, {"type": "image_url", "image_url": {}}, "Hello"], "Hello"),
    ],
)
def test_content_of_every_shape_is_text_without_its_thinking(
    server: Scripted, engine: Engine, content: object, text: str
) -> None:
    server.chat(stream(chunk(choices=[{"index": 0, "delta": {"content": content}}]), end(), usage(4, 2)))
    assert ask(engine).text == text
    choice = {"index": 0, "message": {"role": "assistant", "content": content}, "finish_reason": "stop"}
    server.chat(said({"choices": [choice], "usage": {"prompt_tokens": 3, "completion_tokens": 1}}))
    assert ask(engine).text == text


@pytest.mark.parametrize("reason", ["abort", "aborted", "error", "cancelled", "content_filter", "SAFETY", "timeout"])
def test_an_answer_that_was_given_up_is_a_failure(server: Scripted, engine: Engine, reason: str) -> None:
    for given in (reason, {"type": reason}):
        server.chat(stream(chunk("Hal"), end(given), usage(4, 2)))
        found = failure(engine)
        assert (found.status, found.reason) == (Status.ERROR, "refused")
        assert reason in found.error


@pytest.mark.parametrize("reason", ["stop", "length", "eos", "max_tokens", "end_turn", "tool_calls", {"type": "stop"}])
def test_an_answer_that_ended_is_an_answer(server: Scripted, engine: Engine, reason: str) -> None:
    server.chat(stream(chunk("Hello"), end(reason), usage(4, 2)))
    assert ask(engine).text == "Hello"


@pytest.mark.parametrize(
    ("code", "body"),
    [
        (400, {"error": {"message": "Unsupported parameter: 'max_tokens' is not supported with this model. Use "
                                    "'max_completion_tokens' instead.", "param": "max_tokens"}}),
        (400, {"error": {"message": "Unsupported parameter: 'max_tokens'", "code": "unsupported_parameter"}}),
        (422, {"detail": [{"loc": ["body", "max_tokens"], "msg": "Extra inputs are not permitted"}]}),
        (400, {"object": "error", "message": "[{'type': 'extra_forbidden', 'loc': ('body', 'stream_options')}]"}),
        (422, {"detail": "unknown field `stream_options`"}),
        (400, {"message": "Unrecognized request argument supplied: stream_options"}),
    ],
)  # fmt: skip
def test_a_refused_field_is_asked_once_more(server: Scripted, engine: Engine, code: int, body: object) -> None:
    server.chat(said(body, code), WHOLE)
    assert ask(engine).text == "Hello world"
    assert ask(engine).text == "Hello world"
    assert len(server.bodies("/v1/chat/completions")) == 3


@pytest.mark.parametrize(
    "words",
    [
        "'max_tokens' or 'max_completion_tokens' is too large: 900. This model's maximum context length is 512 tokens.",
        "max_tokens must be at least 1, got -186.",
        "Trying to keep the first 99 tokens when context the overflows. It is loaded with context length of only 9.",
    ],
)
def test_a_prompt_that_is_too_long_is_not_asked_again(server: Scripted, engine: Engine, words: str) -> None:
    server.chat(refused(400, words))
    found = failure(engine)
    assert (found.status, found.reason) == (Status.TRUNCATED, "does_not_fit")
    assert len(server.bodies("/v1/chat/completions")) == 1


BAD_NUMBERS = ["-5", "NaN", "Infinity", "1e400", '"7"', "[]", "true", "1e30", "9" * 400, "9" * 5000]


@pytest.mark.parametrize("field", ["prompt_tokens", "completion_tokens", "prompt_n", "prompt_ms", "predicted_n",
                                   "prompt_per_second"])  # fmt: skip
def test_a_number_that_is_none_is_named(server: Scripted, engine: Engine, field: str) -> None:
    for value in [*BAD_NUMBERS, *(["1.5"] if field.endswith(("tokens", "_n")) else [])]:
        part = "usage" if field.endswith("tokens") else "timings"
        text = json.dumps({**chunk(choices=[]), part: {field: 4711}}).replace("4711", value)
        server.chat(stream(chunk("Hi"), end(), f"data: {text}\n\n"))
        found = failure(engine)
        assert (found.status, found.reason) == (Status.PARSE_ERROR, "bad_value"), value
        assert f"/v1: {field}: " in found.error


def test_halves_of_characters_and_depth_do_no_harm(server: Scripted, engine: Engine) -> None:
    halves = [json.dumps(chunk(text)) for text in ("A \ud83d", "\ude00 \udead")]
    server.chat(stream(*(f"data: {half}\n\n" for half in halves), end(), usage(4, 2)))
    found = ask(engine)
    assert found.text == "A \U0001f600 \ufffd"
    found.raw.encode()
    server.chat(refused(500, "half \ud83d"))
    assert "half \ufffd" in failure(engine).error
    server.chat(stream("data: " + "[" * 100_000 + "\n\n"))
    assert failure(engine).reason == "bad_answer"
