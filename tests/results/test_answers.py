"""What is asked of kept answers: tokens, cost, one line per model, bins; price tables; another tool's CSV."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from answer_rows import answers, failed, row
from hypothesis import given
from hypothesis import strategies as st

from ollama_sweep.core.errors import ConfigError
from ollama_sweep.core.outcome import Answer, AnswerRow
from ollama_sweep.core.stats import mean
from ollama_sweep.core.summary import answered, score_interval
from ollama_sweep.results.answers import (
    bin_edges,
    by_model,
    cost,
    regions,
    total_tokens,
    values,
)
from ollama_sweep.results.foreign_csv import read_answers
from ollama_sweep.results.prices import PriceTable, load_prices, one_price

# --- tokens, means, models


def test_tokens_of_prompt_and_answer_together() -> None:
    assert total_tokens(row(prompt_eval_count=100, eval_count=20)) == 120
    assert total_tokens(row(eval_count=None)) is None


def test_what_failed_is_in_no_number() -> None:
    rows = [row(latency_s=1.0), row(latency_s=3.0), failed(latency_s=120.0)]
    assert values(rows, "latency_s") == [1.0, 3.0]
    assert len(answered(rows)) == 2


def test_a_line_for_each_model_in_the_order_of_their_names() -> None:
    rows = [row("zeta"), row("/models/Alpha-Q4.gguf"), row("zeta"), failed("zeta")]
    assert {name: len(members) for name, members in by_model(rows).items()} == {"Alpha-Q4": 1, "zeta": 3}


def test_sizes_are_sorted_as_numbers() -> None:
    assert list(by_model([row("m:13b"), row("m:2b"), row("7b"), row("M")])) == ["7b", "M", "m:2b", "m:13b"]


def test_engines_and_sweeps_are_named_where_they_differ() -> None:
    both = [row("m"), row("m", engine="llamacpp", sweep="other")]
    assert list(by_model(both)) == ["m @ llamacpp", "m @ ollama"]
    assert list(by_model([row("m"), row("m", sweep="later")])) == ["m, bench", "m, later"]


def test_a_question_that_was_asked_again_does_not_narrow_the_interval_of_its_score() -> None:
    once = [scored(1.0, f"q{number}") for number in range(10)]
    found = score_interval(once)
    assert found == pytest.approx((0.722, 1.0), abs=0.001)
    assert score_interval([*once, *once]) == found
    others = [scored(score, f"q{score}") for score in (0.2, 0.4, 0.6)]
    assert score_interval(others) == pytest.approx((0.1737, 0.6263), abs=1e-4)
    assert score_interval(others[:1]) is None
    assert score_interval([failed()]) is None


def scored(score: float, item: str) -> AnswerRow:
    return row(answer=Answer(item, "Extraction", "What?", "That."), scores={"score": score})


def test_no_mean_of_nothing() -> None:
    with pytest.raises(ValueError, match="no values"):
        mean([])


# --- bins


@given(st.lists(st.integers(0, 200_000), min_size=1, max_size=60), st.integers(2, 12))
def test_every_count_lies_in_a_bin_and_there_are_not_too_many(counts: list[int], most: int) -> None:
    edges = bin_edges(counts, most)
    assert list(edges) == sorted(set(edges))
    assert len(edges) - 1 <= most
    assert edges[0] <= min(counts)
    assert max(counts) < edges[-1]


@pytest.mark.parametrize(
    ("counts", "edges"),
    [
        ([5], (5, 6)),
        ([100, 250], (100, 120, 140, 160, 180, 200, 220, 240, 260)),
        ([50, 30000], (32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768)),
        ([0, 40], (0, 1, 2, 4, 8, 16, 32, 64)),
    ],
)
def test_edges_are_round(counts: list[int], edges: tuple[int, ...]) -> None:
    assert bin_edges(counts) == edges


def test_the_most_expensive_region_comes_first() -> None:
    rows = [
        row(prompt_eval_count=100, eval_count=10, latency_s=1.0),
        row(prompt_eval_count=100, eval_count=10, latency_s=3.0),
        row(prompt_eval_count=900, eval_count=90, latency_s=9.0),
        row(prompt_eval_count=None, latency_s=99.0),
        failed(prompt_eval_count=900, eval_count=90, latency_s=99.0),
    ]
    found = regions(rows, lambda one: one.latency_s, (0, 500, 1000), (0, 50, 100))
    assert [(region.prompt_tokens, region.output_tokens, region.values) for region in found] == [
        ((500, 1000), (50, 100), (9.0,)),
        ((0, 500), (0, 50), (1.0, 3.0)),
    ]
    assert found[1].median == 2.0


# --- prices


def saved(folder: Path, text: str, name: str = "prices.yaml") -> Path:
    path = folder / name
    path.write_text(text, "utf-8")
    return path


def test_a_row_costs_its_tokens_of_both_kinds(tmp_path: Path) -> None:
    prices = load_prices(
        saved(tmp_path, "currency: USD\ngemma:2b: {input_per_1m: 0.5, output_per_1m: 2}\nqwen2: {per_token: 0.001}\n")
    )
    assert prices.currency == "USD"
    assert cost(row(prompt_eval_count=1000, eval_count=100), prices) == pytest.approx(0.0005 + 0.0002)
    assert cost(row("qwen2:latest", prompt_eval_count=10, eval_count=5), prices) == pytest.approx(0.015)
    assert cost(row("tinyllama"), prices) is None
    assert cost(row(eval_count=None), prices) is None


def test_the_default_is_the_price_of_all_others(tmp_path: Path) -> None:
    prices = load_prices(saved(tmp_path, "default: {per_1m: 1}\n/models/big.gguf: {per_1m: 5}\nbig: {per_1m: 3}\n"))
    assert cost(row("other", prompt_eval_count=1_000_000, eval_count=0), prices) == pytest.approx(1)
    assert cost(row("/elsewhere/big.gguf", prompt_eval_count=1_000_000, eval_count=0), prices) == pytest.approx(3)


def test_json_is_read_as_json_writes_it(tmp_path: Path) -> None:
    path = saved(tmp_path, json.dumps({"m": {"per_token": 2e-07}}, indent="\t"), "prices.json")
    assert cost(row("m", prompt_eval_count=90, eval_count=10), load_prices(path)) == pytest.approx(2e-5)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("m: 0.1\n", r"prices\.yaml:1: m: a price says per how many tokens; write one of \{per_token: P\}"),
        ("a: {per_1m: 1}\nm: {per_tokn: 1}\n", r"prices\.yaml:2: m: unknown key per_tokn\..* Did you mean per_token\?"),
        ("m: {input_per_1m: 1}\n", r":1: m: input_per_1m is not a whole price"),
        ("m: {per_1m: 1, per_token: 1}\n", r":1: m: per_1m, per_token is not a whole price"),
        ("m: {per_1m: -1}\n", r":1: m\.per_1m: -1 is not a price; write a number of 0 or more"),
        ("m: {per_1m: free}\n", r':1: m\.per_1m: "free" is text'),
        ("m: {per_1m: 1e999}\n", r":1: m\.per_1m: .*is not a price"),
        ("currency: American Dollars\nm: {per_1m: 1}\n", r":1: currency: .* write at most 8 characters, such as USD"),
        ("currency: USD\n", "has no prices"),
        ("", "has no prices"),
        ("- 1\n", "must be a mapping of models to prices"),
        ("m: {}\n", "nothing is not a whole price"),
    ],
)
def test_a_wrong_price_is_named_with_its_line(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        load_prices(saved(tmp_path, text))


def test_one_price_for_everything() -> None:
    assert cost(row(prompt_eval_count=100, eval_count=20), one_price(0.01)) == pytest.approx(1.2)
    for wrong in (-1.0, float("nan"), float("inf")):
        with pytest.raises(ConfigError, match="is not a price"):
            one_price(wrong)
    assert PriceTable().price_of("m") is None


# --- another tool's CSV

HEADER = "model,prompt_id,output,score,latency_sec,metadata"


def csv_file(folder: Path, *rows: dict[str, Any], meta: Callable[[Any], str] = json.dumps) -> Path:
    path = folder / "results_local.csv"
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(HEADER.split(","))
        for found in rows:
            metadata = found.get("metadata")
            text = "" if metadata is None else meta(metadata)
            writer.writerow([found.get("model", "gemma:2b"), found.get("prompt_id", "p1"), found.get("output", "A"),
                             found.get("score", 1), found.get("latency_sec", 2.0), text])  # fmt: skip
    return path


NANO = {"total_duration": 1_900_000_000, "prompt_eval_duration": 40_000_000, "eval_duration": 1_500_000_000,
        "prompt_eval_count": 81, "eval_count": 12}  # fmt: skip


@pytest.mark.parametrize("meta", [json.dumps, repr], ids=["json", "python"])
def test_nanoseconds_become_seconds_and_it_is_said(meta: Callable[[Any], str], tmp_path: Path) -> None:
    path = csv_file(tmp_path, {"metadata": NANO}, {"metadata": NANO}, meta=meta)
    found = read_answers(path)
    first = found.rows[0]
    assert (first.model, first.answer.item, first.answer.text, first.sweep) == ("gemma:2b", "p1", "A", "results_local")
    assert (first.prompt_eval_count, first.eval_count, first.latency_s) == (81, 12, 2.0)
    assert first.total_duration_s == pytest.approx(1.9)
    assert first.prompt_eval_duration_s == pytest.approx(0.04)
    assert first.eval_duration_s == pytest.approx(1.5)
    assert first.scores == {"score": 1.0}
    assert found.notes == (f"{path}: durations of 2 rows were nanoseconds; converted to seconds",)


def test_seconds_stay_seconds_and_nothing_is_said(tmp_path: Path) -> None:
    metadata = {"total": 1.9, "prompt_eval": 0.04, "eval": 1.5, "promptEvalCount": 81.0, "output_tokens": 12, "x": "y"}
    found = read_answers(csv_file(tmp_path, {"metadata": metadata}))
    first = found.rows[0]
    assert (first.total_duration_s, first.prompt_eval_duration_s, first.eval_duration_s) == (1.9, 0.04, 1.5)
    assert (first.prompt_eval_count, first.eval_count) == (81, 12)
    assert found.notes == ()


def test_a_unit_in_the_name_is_believed(tmp_path: Path) -> None:
    metadata = {"eval_duration_ms": 1500, "total_duration_s": 1.9, "prompt_eval_duration_ns": 4e7}
    (first,) = read_answers(csv_file(tmp_path, {"metadata": metadata})).rows
    assert (first.eval_duration_s, first.total_duration_s) == (1.5, 1.9)
    assert first.prompt_eval_duration_s == pytest.approx(0.04)


def test_latency_in_nanoseconds_is_converted_too(tmp_path: Path) -> None:
    found = read_answers(csv_file(tmp_path, {"latency_sec": 2_000_000_000}))
    assert found.rows[0].latency_s == pytest.approx(2.0)
    assert len(found.notes) == 1


def test_empty_fields_are_unknown_and_no_latency_is_no_answer(tmp_path: Path) -> None:
    known, silent = read_answers(csv_file(tmp_path, {"score": ""}, {"latency_sec": "", "output": ""})).rows
    assert (known.scores, known.eval_count, known.answer.failure) == ({}, None, "")
    assert silent.answer.failure == "no latency"


def test_a_failure_column_marks_failed_answers(tmp_path: Path) -> None:
    path = saved(tmp_path, "model,latency_sec,failure,task\nm,1,,mmlu\nm,120,timeout,mmlu\n", "r.csv")
    good, bad = read_answers(path).rows
    assert (good.answer.failure, bad.answer.failure, bad.task) == ("", "timeout", "mmlu")


FAILED = "{'total_duration': None, 'prompt_eval_count': None, 'eval_count': None}"
NOT_FOUND = "ERROR: 404 Client Error: Not Found for url: http://127.0.0.1:11434/api/generate"


@pytest.mark.parametrize(
    ("output", "metadata", "failure"),
    [
        (NOT_FOUND, FAILED, NOT_FOUND),
        (NOT_FOUND, "", NOT_FOUND),
        ("Error: connection refused", FAILED, "Error: connection refused"),
        ("HTTPConnectionPool(host='127.0.0.1', port=11434): Read timed out.", "{}", "HTTPConnectionPool"),
        ("Request timed out.", "nan", "Request timed out."),
        ("", FAILED, "no statistics"),
        ("Paris", FAILED, "no statistics"),
        ("Paris", "{'eval_count': nan, 'total_duration': nan}", "no statistics"),
        ("Paris", '{"eval_count": NaN, "totalDuration": -Infinity}', "no statistics"),
        ("Paris", '{"eval_count": 12, "failure": "cut off"}', "cut off"),
        ("Paris", "{'eval_count': 12, 'total_duration': None}", ""),
        ("Paris", "", ""),
        ("ERROR: that is what the program prints.", "{'eval_count': 9}", ""),
        ("Errors are measured by bars.", "", ""),
    ],
)
def test_a_request_that_failed_is_no_answer(output: str, metadata: str, failure: str, tmp_path: Path) -> None:
    path = saved(tmp_path, "", "r.csv")
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([HEADER.split(","), ["gemma:2b", "0", output, "0", "0.09", metadata]])
    (found,) = read_answers(path).rows
    assert found.answer.failure.startswith(failure[:40])
    assert bool(found.answer.failure) == bool(failure)
    assert values([found], "latency_s") == ([] if failure else [0.09]), "no picture shows it as a quick one"


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("nan", None), ("None", None), ("inf", None), ("-inf", None), ("np.nan", None), ("float('nan')", None),
        ("1e400", None), ("np.float64(12.0)", 12), ("np.int64(12)", 12), ("12", 12), ("'nan'", None),
    ],
)  # fmt: skip
def test_what_is_no_number_is_unknown(written: str, read: int | None, tmp_path: Path) -> None:
    text = f"{{'eval_count': {written}, 'total_duration': 1.5, 'flag': True, 'x': [nan, {{'y': -inf}}]}}"
    (found,) = read_answers(csv_file(tmp_path, {"metadata": text}, meta=str)).rows
    assert (found.eval_count, found.total_duration_s, found.answer.failure) == (read, 1.5, "")


def test_a_column_may_say_that_nothing_is_known(tmp_path: Path) -> None:
    rows = read_answers(csv_file(tmp_path, {"score": "nan"}, {"latency_sec": "NaN"}, {"latency_sec": "inf"})).rows
    assert [found.scores for found in rows] == [{}, {"score": 1.0}, {"score": 1.0}]
    assert [found.answer.failure for found in rows] == ["", "no latency", "no latency"]


def test_scores_may_be_true_or_false(tmp_path: Path) -> None:
    rows = read_answers(csv_file(tmp_path, {"score": "True"}, {"score": "false"}, {"score": 0.5})).rows
    assert [found.scores["score"] for found in rows] == [1.0, 0.0, 0.5]


def test_answers_with_line_breaks_and_of_any_length(tmp_path: Path) -> None:
    long, limit = 'he said "no,\nnever"\n' * 20_000, csv.field_size_limit()
    path = csv_file(tmp_path, {"output": long}, {"score": "x"})
    with pytest.raises(ConfigError, match=rf"results_local\.csv:{long.count(chr(10)) + 3}: score: 'x' is not a number"):
        read_answers(path)
    assert read_answers(csv_file(tmp_path, {"output": long})).rows[0].answer.text == long
    assert csv.field_size_limit() == limit


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"r\.csv: is empty; its first line must be model,prompt_id"),
        (f"{HEADER}\n", r"r\.csv: has no rows below its header"),
        ("model,latency\nm,1\n", r"r\.csv:1: has no column latency_sec; it has model, latency\. Is it latency\?"),
        ("model,model,latency_sec\nm,m,1\n", r"r\.csv:1: the column model is there 2 times"),
        (f"{HEADER}\nm,1\n", r"r\.csv:2: has 2 fields; the header has 6"),
        (f"{HEADER}\n,p,o,1,1,\n", r"r\.csv:2: model: is empty"),
        (f"{HEADER}\nm,p,o,1,fast,\n", r"r\.csv:2: latency_sec: 'fast' is not a number of 0 or more"),
        (f"{HEADER}\nm,p,o,1,-1,\n", r"r\.csv:2: latency_sec: '-1' is not a number of 0 or more"),
        (f"{HEADER}\nm,p,o,good,1,\n", r"r\.csv:2: score: 'good' is not a number, true or false"),
        (f"{HEADER}\nm,p,o,1,1,\nm,p,o,1,1,oops\n", r"r\.csv:3: metadata: 'oops' is not JSON such as"),
        (f"{HEADER}\nm,p,o,1,1,[1]\n", r"r\.csv:2: metadata: '\[1\]' is not JSON such as"),
        (f'{HEADER}\nm,p,o,1,1,"{{""eval_count"": 1.5}}"\n', r"r\.csv:2: metadata: eval_count is 1\.5; a count"),
        (f'{HEADER}\nm,p,o,1,1,"{{""eval_duration"": ""1s""}}"\n', r"r\.csv:2: metadata: eval_duration is \"?'1s'"),
        (f'{HEADER}\nm,p,o,1,1,"{{""eval_count"": true}}"\n', r"r\.csv:2: metadata: eval_count is True"),
        (f'{HEADER}\nm,p,"o,1,1,\n', r"r\.csv:2: is not CSV"),
    ],
)
def test_a_bad_row_is_named_with_its_line(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        read_answers(saved(tmp_path, text, "r.csv"))


def test_a_file_that_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / "r.csv"
    path.write_bytes(HEADER.encode() + b"\nm,p,\xff,1,1,\n")
    with pytest.raises(ConfigError, match=r"r\.csv:2: is not UTF-8"):
        read_answers(path)


def test_500_answers_keep_their_order(tmp_path: Path) -> None:
    made = answers(("a", "b"), 250)
    path = csv_file(tmp_path, *({"model": one.model, "prompt_id": one.answer.item} for one in made))
    assert [(one.model, one.answer.item) for one in read_answers(path).rows] == [
        (one.model, one.answer.item) for one in made
    ]
