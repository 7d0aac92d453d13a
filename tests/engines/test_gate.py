"""The gate for what engines say: whatever comes, it is believed only where it can be, and never a traceback."""

from __future__ import annotations

import json
import math
import time
from dataclasses import fields, replace
from decimal import Decimal
from fractions import Fraction
from typing import Any, NoReturn

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ollama_sweep.core.errors import CellFailed, EngineUnavailable
from ollama_sweep.core.generation import Generation, Vectors
from ollama_sweep.core.judge import judge_answer
from ollama_sweep.core.outcome import Answer, Effective, Status
from ollama_sweep.core.rates import DURATION_MOST_S
from ollama_sweep.core.thoughts import Arrivals
from ollama_sweep.engines.ollama.output import statistics
from ollama_sweep.engines.ollama.requests import Streamed
from ollama_sweep.engines.openai.faults import Place
from ollama_sweep.engines.openai.stream import Pieces
from ollama_sweep.engines.shared import gate
from ollama_sweep.machine.env import Key

ENOUGH = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
GOOD = Generation("Hello", 9, 0.03, 2, 0.01, 0, 0.04, 0.001, 300.0, 0.05, 0.04, "raw", 1)
DURATIONS = [part.name for part in fields(Generation) if part.name.endswith("_s")]
COUNTS = [part.name for part in fields(Generation) if part.name.endswith("_count")]
RATES = [part.name for part in fields(Generation) if part.name.endswith("_rate")]


class Unshowable:
    def __repr__(self) -> NoReturn:
        raise RuntimeError


magnitudes = st.integers(-2, 400).map(lambda power: 10**power if power >= 0 else power)
numbers = st.one_of(
    st.integers(-5, 20_000_000),
    st.floats(),
    magnitudes,
    st.just(5000).map(lambda power: 10**power),
    magnitudes.map(lambda number: -number),
    st.sampled_from([12.0, 1.5, -0.0, 5e-324, np.int64(7), np.float32("nan"), np.float64(0.01), np.bool_(True)]),
)
anything = st.one_of(
    numbers,
    st.none(),
    st.booleans(),
    st.text(st.characters(codec=None), max_size=5),
    st.sampled_from([[], [1], {}, {"a": 1}, b"7", Decimal(7), Fraction(1, 3), "7", 1j, object]),
    st.builds(Unshowable),
)
json_values = st.one_of(
    st.sampled_from(["NaN", "Infinity", "-Infinity", "1e400", "-1e400", "1e-400", "9" * 400, "-" + "9" * 5000, "true",
                     "null", "[]", "{}", '"7"', r'"\\ud83d"', "12.0", "0", "-0.0"]),
    st.integers(-5, 2**70).map(str),
    st.floats().map(repr).map(lambda text: text.replace("nan", "NaN").replace("inf", "Infinity")),
)  # fmt: skip


def believed(found: Generation) -> None:
    """Everything in it is possible, of plain types, and can be stored."""
    limit_s = (found.client_duration_s or DURATION_MOST_S) * 1.1 + 0.05
    for name in COUNTS:
        count = getattr(found, name)
        assert count is None or (type(count) is int and 0 <= count <= 10_000_000 * max(1, (found.vectors or ONE).rows))
    for name in DURATIONS:
        seconds = getattr(found, name)
        assert seconds is None or type(seconds) is float
        assert not seconds or 0 < seconds <= limit_s
    for name in RATES:
        rate = getattr(found, name)
        assert rate is None or (type(rate) is float and 0 <= rate <= 10_000_000)
    assert all(math.isfinite(number) for number in found.numbers.values())
    f"{found.text}{found.raw}{''.join(found.numbers)}".encode()
    run = judge_answer(found, number=1, warmup=False, nonce="", answer=Answer("a", "", ""), is_fresh=True,
                       expected_tokens=None)  # fmt: skip
    for rate in (run.prompt_eval_rate, run.eval_rate):
        assert rate is None or 0 <= rate <= 10_000_000


ONE = Vectors(1, 1)


def is_a_cells_failure(failure: CellFailed) -> None:
    assert (failure.status, failure.reason) == (Status.PARSE_ERROR, "bad_value")
    assert len(failure.error) < 400
    assert "\n" not in failure.error
    f"{failure.error}{failure.raw}".encode()


def test_what_is_possible_passes_as_it_is() -> None:
    assert gate.checked(GOOD, fresh=True) == GOOD
    embedded = Generation("", 4_000_000_000, None, client_duration_s=9.0, vectors=Vectors(1000, 384))
    assert gate.checked(embedded, fresh=True) == embedded
    nothing = Generation("two words", None, None)
    assert gate.checked(nothing, fresh=False) == nothing, "every field has a reader"


def test_what_was_not_measured_is_unknown() -> None:
    """Some servers say 0 where a prompt came from a cache; old ones then show any rate."""
    found = gate.checked(replace(GOOD, prompt_eval_duration_s=0, eval_duration_s=0.0), fresh=True)
    assert (found.prompt_eval_duration_s, found.eval_duration_s) == (None, None)
    cached = replace(GOOD, prompt_eval_count=131_072, prompt_eval_duration_s=0.004, cached_count=None)
    assert gate.checked(cached, fresh=False) == cached
    with pytest.raises(CellFailed, match="prompt_eval_rate: 32768000"):
        gate.checked(cached, fresh=True)


def test_numbers_of_numpy_become_plain_ones() -> None:
    found = gate.checked(replace(GOOD, prompt_eval_count=np.int64(9), eval_duration_s=np.float32(0.01)), fresh=True)  # type: ignore[arg-type]
    assert (type(found.prompt_eval_count), type(found.eval_duration_s)) == (int, float)


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (None, 'generation: "NoneType" instead of a Generation'),
        ({"text": "Hello"}, 'generation: "dict"'),
        (replace(GOOD, prompt_eval_duration_s=0.2), "prompt_eval_duration_s: 0.2 instead of at most"),
        (replace(GOOD, ttft_s=9.0), "ttft_s: 9.0"),
        (replace(GOOD, eval_count=2, eval_duration_s=1e-9), "eval_rate: "),
        (replace(GOOD, prompt_eval_count=9_000_000, prompt_eval_duration_s=0.001), "prompt_eval_rate: 9000000000.0"),
        (replace(GOOD, cached_count=10), "cached_count: 10"),
        (replace(GOOD, vectors=Vectors(2, 0)), "vectors.dimension: 0"),
        (replace(GOOD, numbers={"joules": math.nan}), "numbers.joules: NaN instead of a finite number"),
        (replace(GOOD, client_duration_s=math.inf), "client_duration_s: Infinity"),
        (replace(GOOD, text=b"Hello"), "text: "),  # type: ignore[arg-type]
    ],
)
def test_what_cannot_be_is_named_with_its_value(found: object, words: str) -> None:
    with pytest.raises(CellFailed) as caught:
        gate.checked(found, fresh=True)
    assert caught.value.error.startswith(words)
    is_a_cells_failure(caught.value)


@ENOUGH
@given(
    st.dictionaries(st.sampled_from([part.name for part in fields(Generation)]), anything, max_size=3), st.booleans()
)
def test_no_generation_is_believed_beyond_the_limits(values: dict[str, Any], fresh: bool) -> None:
    try:
        believed(gate.checked(replace(GOOD, **values), fresh=fresh))
    except CellFailed as failure:
        is_a_cells_failure(failure)


@ENOUGH
@given(st.dictionaries(st.sampled_from([part.name for part in fields(Effective)]), anything, max_size=2))
def test_nothing_that_a_load_says_is_believed_beyond_the_limits(values: dict[str, Any]) -> None:
    try:
        found = gate.effective(replace(Effective(512, 64, 7, 7, 0.5, ("m",)), **values))
    except CellFailed as failure:
        is_a_cells_failure(failure)
    else:
        sizes = (found.num_ctx, found.num_batch, found.size_bytes, found.size_vram_bytes)
        assert all(size is None or (type(size) is int and 0 <= size < 2**63) for size in sizes)


FIELDS = ("prompt_eval_count", "prompt_eval_duration", "eval_count", "eval_duration", "prompt_eval_cached_count",
          "total_duration", "load_duration")  # fmt: skip


@ENOUGH
@given(st.dictionaries(st.sampled_from(FIELDS), json_values, max_size=3))
def test_no_answer_of_ollama_is_believed_beyond_the_limits(values: dict[str, str]) -> None:
    text = "{" + ", ".join(f'"{name}": {value}' for name, value in values.items()) + "}"
    try:
        streamed = Streamed(Arrivals(0.0), gate.loads(text, in_pieces=True), 0.05)
        streamed.pieces.take(0.04, text="Hello")
        believed(gate.checked(streamed.generation(), fresh=True))
    except CellFailed as failure:
        is_a_cells_failure(failure)


@ENOUGH
@given(st.dictionaries(st.sampled_from(["prompt_tokens", "completion_tokens", "prompt_tokens_details"]), json_values),
       st.dictionaries(st.sampled_from(["prompt_n", "cache_n", "prompt_ms", "predicted_n", "predicted_ms",
                                        "prompt_per_second"]), json_values))  # fmt: skip
def test_no_answer_of_another_server_is_believed_beyond_the_limits(
    usage: dict[str, str], timings: dict[str, str]
) -> None:
    parts = [", ".join(f'"{name}": {value}' for name, value in values.items()) for values in (usage, timings)]
    text = '{"choices": [{"delta": {"content": "Hi"}, "finish_reason": "stop"}], "usage": {%s}, "timings": {%s}}'
    pieces = Pieces(Place("http://x/v1", Key("k", "")), time.monotonic() - 0.05)
    try:
        pieces.take(gate.loads(text % tuple(parts), in_pieces=True), time.monotonic())
        believed(gate.checked(pieces.generation(streamed=True), fresh=True))
    except CellFailed as failure:
        is_a_cells_failure(failure)


LABELS = ("total duration", "load duration", "prompt eval count", "prompt eval cached", "prompt eval duration",
          "prompt eval rate", "eval count", "eval duration")  # fmt: skip
line_values = st.one_of(
    numbers.map(lambda number: str(number) if not isinstance(number, int) or number < 10**400 else "9" * 5000),
    st.text(max_size=8),
).flatmap(
    lambda text: st.sampled_from([text, f"{text} token(s)", f"{text} tokens/s", f"{text}s", f"{text}ms", f"1h{text}m"])
)


@ENOUGH
@given(st.lists(st.tuples(st.sampled_from(LABELS), line_values), max_size=4))
def test_no_statistics_are_believed_beyond_the_limits(lines: list[tuple[str, str]]) -> None:
    try:
        found = statistics("\n".join(f"{label}: {value}" for label, value in lines))
    except gate.Nonsense as error:
        assert str(error).startswith(LABELS)  # noqa: PT017 - it may raise or not
        return
    for name, value in vars(found).items() if found else ():
        assert value is None or 0 <= value <= (10_000_000 if name.endswith("count") else 1e308)


@ENOUGH
@given(
    st.recursive(anything, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(), inner, max_size=2))
)
def test_anything_can_be_shown(value: object) -> None:
    assert len(gate.shown(value)) <= gate.LONGEST_SHOWN


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (r'"\ud83d\ude00"', "\U0001f600"),
        (r'{"\udead": ["\ud83d"]}', {"\ufffd": ["\ufffd"]}),
        (b"\xff\xfe{\x00}\x00", {}),
        ('"\ud83d"'.encode("utf-8", "surrogatepass"), "\ufffd"),
        ("12", 12),
    ],
)
def test_json_of_others_has_no_halves_of_characters(text: str | bytes, found: object) -> None:
    assert gate.loads(text) == found


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, b"\xff\xff\xff", "nan", "<html>"])
def test_what_is_no_json_is_said(text: str | bytes) -> None:
    with pytest.raises(gate.Nonsense, match="the answer is no JSON: ") as caught:
        gate.loads(text)
    assert len(str(caught.value)) < 500


def test_numbers_that_are_none_stay_texts_that_can_be_kept() -> None:
    found = gate.loads("[NaN, 1e400, -Infinity, %s, 7]" % ("9" * 5000))
    assert json.loads(json.dumps(found)) == ["NaN", "1e400", "-Infinity", "9" * 5000, 7]
    with pytest.raises(gate.Nonsense, match="size: 1e400 instead of a whole number"):
        gate.size_bytes("size", found[1])


def test_nonsense_is_its_cells_or_its_servers() -> None:
    with pytest.raises(EngineUnavailable, match=r"^/api/ps answers nonsense: size: 1\.5 "), gate.of_server("/api/ps"):
        gate.size_bytes("size", 1.5)
    with pytest.raises(CellFailed) as caught, gate.of_cell(lambda: "all of it"):
        gate.whole("count", -1)
    assert caught.value.raw == "all of it"


def test_a_failure_of_another_package_can_be_stored() -> None:
    kept = gate.storable(CellFailed("melted", "heat \ud83d", "half \udead", "raw \udead"))
    assert (kept.status, kept.reason, kept.error, kept.raw) == ("error", "heat \ufffd", "half \ufffd", "raw \ufffd")
    assert gate.storable(CellFailed("oom", "x", "y")).status == "oom"
