"""What each engine keeps of a run says the same numbers once more; what it never said is not taken for its words."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ollama_sweep import engines
from ollama_sweep.core.cell import Cell
from ollama_sweep.core.generation import Generation
from ollama_sweep.core.thoughts import Arrivals
from ollama_sweep.engines.base import READ_AGAIN, EngineSettings, Kept
from ollama_sweep.engines.fake import Engine as Fake
from ollama_sweep.engines.llamacpp.engine import _Embedded as EmbeddedByLlama
from ollama_sweep.engines.llamacpp.engine import _generation as of_llamacpp
from ollama_sweep.engines.ollama.engine import STDOUT
from ollama_sweep.engines.ollama.requests import Streamed
from ollama_sweep.engines.ollama.requests import _Embedded as EmbeddedByOllama
from ollama_sweep.engines.openai.faults import Place
from ollama_sweep.engines.openai.stream import Pieces
from ollama_sweep.engines.sentence_transformers.engine import _generation as of_sentence_transformers
from ollama_sweep.engines.shared import gate
from ollama_sweep.machine.env import Key

ENGINES = ("fake", "llamacpp", "lmstudio", "ollama", "ollama_http", "openai", "sentence_transformers")
LINES = {
    "total duration": "1m2.623456789s", "load duration": "45.1ms", "prompt eval count": "1273 token(s)",
    "prompt eval cached": "3 token(s)", "prompt eval duration": "369.65ms", "prompt eval rate": "3435.68 tokens/s",
    "eval count": "16 token(s)", "eval duration": "1µs", "eval rate": "16000000.00 tokens/s",
}  # fmt: skip
SAID = {
    "prompt_eval_count": 1273, "cached_count": 3, "prompt_eval_duration_s": 0.36965, "eval_count": 16,
    "eval_duration_s": 1e-6, "total_duration_s": 62.623456789, "load_duration_s": 0.0451, "printed_rate": 3435.68,
    "thinking_count": None,
}  # fmt: skip
CLOCKS = frozenset({"client_duration_s", "ttft_s", "thinking_duration_s"})
ENOUGH = settings(max_examples=40, deadline=None)
counts = st.one_of(st.none(), st.integers(0, 100_000))
durations = st.one_of(st.none(), st.floats(0, 1e5))


def same(name: str, found: Generation, **kept: Any) -> None:
    """Every number of a generation is in what was kept of it, but for what a clock here said."""
    told = gate.checked(found, fresh=False)
    again = engines.reader(name)(Kept(told.raw, **kept))
    assert {one: getattr(told, one) for one in again} == again
    missing = {one for one in READ_AGAIN if getattr(told, one) is not None} - set(again)
    assert missing <= CLOCKS | {"thinking_count"}


def printed(**changes: str | None) -> str:
    lines = {**LINES, **{name.replace("_", " "): value for name, value in changes.items()}}
    text = "".join(f"{label}: {value}\n" for label, value in lines.items() if value is not None)
    return f"\x1b[?25l⠋ \x1b[K{text}{STDOUT}eval count: 99 token(s)\n"


@pytest.mark.parametrize(
    ("raw", "version", "fresh", "changes"),
    [
        (printed(), "0.34.0", True, {}),
        (printed(prompt_eval_cached=None), "0.34.0", True, {"cached_count": 0}),
        (printed(prompt_eval_cached=None), "0.33.0", True, {"cached_count": None}),
        (printed(prompt_eval_cached=None), "0.33.0", False, {"cached_count": None, "printed_rate": None}),
        (printed(eval_count=None, eval_duration=None), "0.34.0", True, {"eval_count": None, "eval_duration_s": None}),
    ],
)
def test_what_ollama_run_printed_is_read_as_its_version_means_it(
    raw: str, version: str, fresh: bool, changes: dict[str, Any]
) -> None:
    assert engines.reader("ollama")(Kept(raw, version, fresh=fresh)) == pytest.approx({**SAID, **changes})


def test_without_a_version_nobody_knows_what_a_missing_line_means() -> None:
    found = engines.reader("ollama")(Kept(printed(prompt_eval_cached=None)))
    assert found == pytest.approx({name: value for name, value in SAID.items() if name != "cached_count"})


@ENOUGH
@given(counts, counts, counts, durations, durations, st.booleans())
def test_the_api_of_ollama(
    count: int | None,
    eval_count: int | None,
    cached: int | None,
    read_s: float | None,
    wrote_s: float | None,
    thinks: bool,
) -> None:
    last = {"done": True, "prompt_eval_count": count, "eval_count": eval_count, "context": [1, 2],
            "prompt_eval_duration": read_s and int(read_s * 1e9), "eval_duration": wrote_s and int(wrote_s * 1e9),
            "total_duration": 1, "load_duration": 0}  # fmt: skip
    if count is not None and (cached or 0) <= count:
        last["prompt_eval_cached_count"] = cached
    pieces = Arrivals(0.0)
    pieces.take(0.5, text="Hello ✓", thought="Well." if thinks else "")
    found = Streamed(pieces, last, 1e6)
    try:
        generation = gate.checked(found.generation(), fresh=False)
    except Exception:  # a number that cannot be: nothing was kept of it as a run
        return
    same("ollama_http", generation, version="0.34.0")
    assert engines.reader("ollama_http")(Kept(generation.raw, "0.33.0"))["cached_count"] is None
    assert "cached_count" not in engines.reader("ollama_http")(Kept(generation.raw))


@ENOUGH
@given(counts, counts, counts, durations, st.sampled_from(["", "some words here"]), st.booleans())
def test_servers_of_the_other_api(
    count: int | None, tokens: int | None, thinking: int | None, read_s: float | None, thought: str, has_timings: bool
) -> None:
    timings = {"prompt_n": count, "cache_n": 2, "prompt_ms": read_s and read_s * 1e3, "predicted_n": tokens,
               "prompt_per_second": 12.5}  # fmt: skip
    usage = {"prompt_tokens": count, "completion_tokens": tokens, "prompt_tokens_details": {"cached_tokens": 0},
             "completion_tokens_details": {"reasoning_tokens": thinking}}  # fmt: skip
    pieces = Pieces(Place("http://x/v1", Key("secret", "")), time.monotonic() - 1e6)
    delta = {"content": "An answer of words", "reasoning_content": thought}
    event = {"choices": [{"delta": delta, "finish_reason": "stop"}], "usage": usage}
    pieces.take({**event, "timings": timings if has_timings else {}}, time.monotonic())
    try:
        generation = gate.checked(pieces.generation(streamed=True), fresh=False)
    except Exception:  # a number that cannot be
        return
    for name in ("openai", "lmstudio"):
        same(name, generation)


def test_tokens_of_thoughts_that_were_pieces_of_a_stream_are_not_there_any_more() -> None:
    raw = json.dumps({"text": "<think>Well.</think>Yes.", "finish_reason": "stop", "usage": {}, "timings": {}})
    assert "thinking_count" not in engines.reader("openai")(Kept(raw))


@ENOUGH
@given(counts, counts, durations, durations)
def test_the_embedded_engine(count: int | None, tokens: int | None, read_s: float | None, all_s: float | None) -> None:
    answer = {"text": "Hi", "thoughts": "Hm.", "ttft_s": 0.01, "duration_s": all_s, "thinking_count": 1,
              "timings": {"prompt_n": count, "prompt_ms": read_s, "predicted_n": tokens, "cache_n": 0},
              "thinking_duration_s": None}  # fmt: skip
    try:
        generation = gate.checked(of_llamacpp(answer, json.dumps(answer)), fresh=False)
    except Exception:  # a number that cannot be
        return
    same("llamacpp", generation)


def test_vectors() -> None:
    of_ollama = EmbeddedByOllama(4, 2, 31, 0.5, 0.1).generation(0.7)
    for name in ("ollama", "ollama_http"):
        same(name, of_ollama, embeds=True, version="0.34.0")
    earlier = Kept(json.dumps({"rows": 4, "dimension": 2, "prompt_eval_count": 31}), "0.34.0", embeds=True)
    assert "total_duration_s" not in engines.reader("ollama")(earlier), "earlier versions did not keep it"
    same("llamacpp", EmbeddedByLlama(4, 2, 31, 0.5).generation(), embeds=True)
    told = {"rows": 4, "dimension": 2, "dtype": "float32", "device": "cpu", "duration_s": 0.25}
    same("sentence_transformers", of_sentence_transformers(told, json.dumps(told)), embeds=True)
    for tokens, count in (([5, 6], 11), ([5, None], None), ([], None)):
        raw = json.dumps({"model": "m", "rows": 2, "batch_size": 1, "tokens": tokens})
        assert engines.reader("openai")(Kept(raw, embeds=True))["prompt_eval_count"] == count


def test_the_scripted_engine() -> None:
    cell = Cell((), "m", (("num_batch", 8), ("num_ctx", 64), ("num_predict", 3)))
    made = Fake(EngineSettings())
    same("fake", made.generate(cell, "one two three", 60))
    same("fake", made.embed(cell, ["one", "two"], 1, 60), embeds=True)


@pytest.mark.parametrize(
    "raw", ["", "nonsense", "[]", "{}", "null", '{"text": 1, "usage": 2, "timings": 3, "rows": "x"}']
)
@pytest.mark.parametrize("name", ENGINES)
def test_what_an_engine_has_not_said_is_not_read(name: str, raw: str) -> None:
    for embeds in (False, True):
        with pytest.raises(gate.Nonsense):
            engines.reader(name)(Kept(raw, "0.34.0", embeds=embeds))


def test_the_scripted_engine_in_the_place_of_another_one_is_not_blamed() -> None:
    for name in ENGINES:
        for words in ("prompt eval rate: 85.60 tokens/s", "6 vectors"):
            assert engines.reader(name)(Kept(words, "0.34.0")) == {}
    assert engines.reader("of a package that is gone")(Kept("what it said")) == {}
