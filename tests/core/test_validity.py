"""Whether a number may be believed, and what is said of it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

import ollama_sweep.tasks  # noqa: F401 - tasks declare what answers have
from ollama_sweep.core import stats
from ollama_sweep.core.cell import Cell
from ollama_sweep.core.errors import CellFailed
from ollama_sweep.core.generation import Generation
from ollama_sweep.core.judge import flags_of, is_spilled, is_unstable, judge_attempt, judge_run, unanswered
from ollama_sweep.core.options import Options
from ollama_sweep.core.outcome import Answer, Effective, Flag, Outcome, Run, Status
from ollama_sweep.core.rates import decode_rate
from ollama_sweep.core.summary import own_load, summarize, summarize_answers

GENERATION = Generation(
    text="yes",
    prompt_eval_count=1000,
    prompt_eval_duration_s=4.0,
    eval_count=11,
    eval_duration_s=2.0,
    cached_count=0,
    total_duration_s=6.5,
    load_duration_s=0.1,
    printed_rate=250.0,
    client_duration_s=6.6,
    raw="prompt eval rate: 250.00 tokens/s",
)
EFFECTIVE = Effective(num_ctx=4096, num_batch=64, size_bytes=1000, size_vram_bytes=1000)


def cell(num_ctx: int = 4096, num_batch: int = 64, **more: int) -> Cell:
    options: Options = tuple({"num_ctx": num_ctx, "num_batch": num_batch, "num_predict": 2, **more}.items())
    return Cell(options[:2], "m", options)


def judged(
    generation: Generation = GENERATION, *, number: int = 1, warmup: bool = False, expected: int | None = 1000
) -> Run:
    return judge_run(
        generation, number=number, warmup=warmup, nonce="12345678", expected_tokens=expected, scores={"accuracy": 1.0}
    )


def refusal(generation: Generation, expected: int | None = 1000) -> CellFailed:
    with pytest.raises(CellFailed) as caught:
        judged(generation, expected=expected)
    return caught.value


def runs_of(*rates: float, doubt: str = "") -> list[Run]:
    runs = [judged(replace(GENERATION, prompt_eval_duration_s=1000 / rate, printed_rate=rate)) for rate in rates]
    return [replace(run, number=number, believed=not doubt, doubt=doubt) for number, run in enumerate(runs, 1)]


def attempt(
    runs: Sequence[Run], earlier: Sequence[Run] = (), effective: Effective = EFFECTIVE, *, tokens: int | None = 1000
) -> Outcome:
    summary = summarize([*earlier, *runs])
    return judge_attempt(cell(), runs, summary, effective, prompt_tokens=tokens, has_gpu=True)


# One run


def test_the_rate_is_our_own_and_everything_reported_is_kept() -> None:
    run = judged(replace(GENERATION, printed_rate=249.5), number=2)
    assert run == Run(
        number=2, warmup=False, nonce="12345678", prompt_eval_count=1000, cached_count=0, prompt_eval_duration_s=4.0,
        prompt_eval_rate=250.0, eval_count=11, eval_duration_s=2.0, eval_rate=5.0, total_duration_s=6.5,
        load_duration_s=0.1, printed_rate=249.5, client_duration_s=6.6, believed=True, doubt="", raw=GENERATION.raw,
        scores={"accuracy": 1.0},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("cached", "believed"), [(None, True), (0, True), (32, True), (33, False), (990, False), (1000, False)]
)
def test_more_cached_than_the_templates_opening_is_not_believed(cached: int | None, believed: bool) -> None:
    run = judged(replace(GENERATION, cached_count=cached, printed_rate=None))
    assert (run.believed, run.doubt) == (believed, "" if believed else "cached")
    assert run.prompt_eval_rate == pytest.approx((1000 - (cached or 0)) / 4)


@pytest.mark.parametrize(
    ("printed", "cached", "believed"),
    [
        (250.0, 0, True),
        (252.4, 0, True),
        (247.6, 0, True),
        (252.6, 0, False),
        (247.0, 0, False),
        (2500.0, 0, False),
        (None, 0, True),
        # Newer versions print the rate without the cached tokens, older ones with them.
        (247.5, 10, True),
        (250.0, 10, True),
        (256.0, 10, False),
    ],
)
def test_the_printed_rate_is_a_cross_check_by_either_formula(
    printed: float | None, cached: int, believed: bool
) -> None:
    run = judged(replace(GENERATION, cached_count=cached, printed_rate=printed))
    assert (run.believed, run.doubt) == (believed, "" if believed else "printed_rate")


def test_two_decimals_of_a_very_slow_rate_are_no_contradiction() -> None:
    slow = replace(GENERATION, prompt_eval_count=3, prompt_eval_duration_s=900.0, printed_rate=0.0)
    assert judged(slow, expected=3).believed


@pytest.mark.parametrize("count", [995, 500, 1, 1005])
def test_a_prompt_of_another_length_was_cut(count: int) -> None:
    failure = refusal(replace(GENERATION, prompt_eval_count=count))
    assert (failure.status, failure.reason, failure.raw) == ("truncated", "prompt_cut", GENERATION.raw)
    assert failure.error == f"the engine read {count} prompt tokens instead of 1000"


@pytest.mark.parametrize("count", [996, 1004])
def test_a_nonce_may_be_a_few_tokens_longer_or_shorter(count: int) -> None:
    assert judged(replace(GENERATION, prompt_eval_count=count, printed_rate=None)).believed


def test_where_the_length_is_not_known_nothing_is_cut() -> None:
    assert judged(replace(GENERATION, prompt_eval_count=17, printed_rate=None), expected=None).prompt_eval_count == 17


@pytest.mark.parametrize(
    ("changed", "what"),
    [
        ({"prompt_eval_count": None}, "prompt eval count"),
        ({"prompt_eval_count": 0}, "prompt eval count"),
        ({"prompt_eval_duration_s": None}, "prompt eval duration"),
        ({"prompt_eval_duration_s": 0.0}, "prompt eval duration"),
    ],
)
def test_a_missing_count_is_no_zero(changed: dict[str, float | None], what: str) -> None:
    failure = refusal(replace(GENERATION, **changed))  # type: ignore[arg-type]
    assert (failure.status, failure.reason) == ("parse_error", "count_missing")
    assert failure.error == f"no {what} in the statistics"


@pytest.mark.parametrize(
    ("count", "seconds", "rate"),
    [(11, 2.0, 5.0), (2, 0.5, 2.0), (1, 0.5, None), (0, 0.5, None), (None, 0.5, None), (9, 0.0, None), (9, None, None)],
)
def test_the_first_token_comes_with_the_prompt(count: int | None, seconds: float | None, rate: float | None) -> None:
    assert decode_rate(count, seconds) == rate


# Runs together


def test_a_summary_is_of_medians_and_of_believed_runs_only() -> None:
    warmup = judged(replace(GENERATION, printed_rate=None, prompt_eval_duration_s=100.0), warmup=True)
    found = summarize([warmup, *runs_of(200, 260, 230), *runs_of(9000, doubt="cached")])
    assert found.runs == 3
    assert found.prompt_eval_rate == pytest.approx(230)
    assert [found.prompt_eval_rate_min, found.prompt_eval_rate_max] == pytest.approx([200, 260])
    assert found.prompt_eval_duration_s == pytest.approx(1000 / 230)
    assert (found.prompt_eval_count, found.eval_count, found.eval_rate) == (1000, 11, 5.0)
    assert found.scores == {"accuracy": 1.0, "task_score": pytest.approx(3 * 3600 / (3 * 6.6))}


def test_a_rate_has_the_slowest_and_the_fastest_of_its_runs() -> None:
    found = summarize(runs_of(*range(101, 110)))
    assert [found.prompt_eval_rate_min, found.prompt_eval_rate_max] == pytest.approx([101, 109])
    assert found.loads == 1


def test_several_loads_are_worth_the_geometric_mean_of_their_medians() -> None:
    found = summarize(runs_of(90.0, 100.0, 130.0), runs_of(140.0, 144.0, 150.0))
    assert found.prompt_eval_rate == pytest.approx(120.0)
    assert (found.runs, found.loads) == (6, 2)
    assert [found.prompt_eval_rate_min, found.prompt_eval_rate_max] == pytest.approx([90, 150])


def answered(item: str, score: float | None = None, *, seconds: float = 2.0, tokens: int = 11) -> Run:
    """The answer to a question whose first token came after half a second."""
    run = judged(replace(GENERATION, client_duration_s=seconds, ttft_s=0.5, eval_count=tokens))
    scores = {"tokens_per_s": tokens / seconds, **({} if score is None else {"score": score})}
    return replace(run, scores=scores, answer=Answer(item, "", "?"))


def ends_of(scores: Mapping[str, float], name: str, ends: str = "low high") -> list[float]:
    return [scores[f"{name}_{end}"] for end in ends.split()]


def test_quality_has_the_interval_in_which_it_truly_lies() -> None:
    failed = unanswered(4, Answer("d", "", "?", failure="no answer"), 1.0, "")
    runs = [answered("a", 1.0), answered("b", 1.0), answered("c", 0.0), failed]
    scores = summarize_answers(runs, {}).scores
    assert [scores["score"], scores["quality"]] == pytest.approx([2 / 3, 0.5])
    assert ends_of(scores, "score") == list(stats.wilson(2 / 3, 3))
    assert ends_of(scores, "quality") == list(stats.wilson(0.5, 4))
    again = summarize_answers([*runs, *runs], {}).scores
    assert ends_of(again, "score") == ends_of(scores, "score"), "the same questions once more say nothing of others"


def test_speeds_of_answers_have_their_range_and_a_load_has_one_of_each() -> None:
    runs = [answered("a", seconds=seconds) for seconds in (1.5, 2.5, 4.5)]
    few = summarize_answers(runs, {}).scores
    assert ends_of(few, "latency_s", "min max") == [1.5, 4.5]
    assert ends_of(few, "decode_tps", "min max") == [2.5, 10.0]
    assert ends_of(few, "ttft_s", "min max") == [0.5, 0.5]
    assert ends_of(few, "tokens_per_s", "min max") == [11 / 4.5, 11 / 1.5]
    assert "latency_s_low" not in few, "questions differ, which says nothing of the next load"
    said = own_load(runs)
    assert sorted(said) == ["decode_tps", "latency_s", "tokens_per_s", "ttft_s"]
    assert [said["latency_s"].log_median, said["latency_s"].runs] == [pytest.approx(math.log(2.5)), 1]


def test_what_no_run_knows_stays_unknown() -> None:
    run = judged(replace(GENERATION, eval_count=None, eval_duration_s=None, total_duration_s=None))
    found = summarize([run])
    assert (found.eval_count, found.eval_rate, found.total_duration_s) == (None, None, None)
    assert summarize().prompt_eval_rate is None


@given(st.lists(st.floats(1, 1e5), min_size=1, max_size=12))
def test_the_median_lies_between_smallest_and_largest(rates: list[float]) -> None:
    found = summarize(runs_of(*rates))
    low, middle, high = found.prompt_eval_rate_min, found.prompt_eval_rate, found.prompt_eval_rate_max
    assert low is not None
    assert middle is not None
    assert high is not None
    assert low <= middle <= high
    assert math.isclose(low, min(rates))
    assert math.isclose(high, max(rates))


def test_runs_of_earlier_attempts_count_together_with_the_new_ones() -> None:
    outcome = attempt(runs_of(300), runs_of(100, 200))
    assert outcome.status is Status.OK
    assert outcome.summary.runs == 3
    assert outcome.summary.prompt_eval_rate == pytest.approx(200)
    assert len(outcome.runs) == 1


def test_an_attempt_without_a_believed_run_is_an_error_and_keeps_its_runs() -> None:
    outcome = attempt([*runs_of(9000, 9100, doubt="cached"), *runs_of(200, doubt="printed_rate")])
    assert (outcome.status, outcome.reason) == (Status.ERROR, "not_believed")
    assert outcome.error == "none of 3 runs can be believed: cached, printed_rate"
    assert outcome.summary.prompt_eval_rate is None
    assert len(outcome.runs) == 3
    assert outcome.flags == {Flag.CACHED}


def test_one_cached_run_is_flagged_and_the_others_are_used() -> None:
    outcome = attempt([*runs_of(250, 251), *runs_of(9000, doubt="cached")])
    assert (outcome.status, outcome.summary.runs) == (Status.OK, 2)
    assert outcome.flags == {Flag.CACHED}
    assert outcome.summary.prompt_eval_rate_max == pytest.approx(251)


def test_a_cached_warm_up_is_nobodys_business() -> None:
    warmup = replace(runs_of(9000, doubt="cached")[0], warmup=True)
    assert attempt([warmup, *runs_of(250)]).flags == frozenset()


# Flags


@pytest.mark.parametrize(
    ("effective", "flags"),
    [
        (EFFECTIVE, set()),
        (Effective(), set()),
        (replace(EFFECTIVE, num_ctx=2048), {Flag.CLAMPED}),
        (replace(EFFECTIVE, num_ctx=4352), {Flag.CLAMPED}),
        (replace(EFFECTIVE, num_batch=32), {Flag.CLAMPED}),
        (replace(EFFECTIVE, size_vram_bytes=999), {Flag.SPILLED}),
        (replace(EFFECTIVE, size_vram_bytes=0), {Flag.SPILLED}),
        (replace(EFFECTIVE, size_vram_bytes=None), set()),
        (replace(EFFECTIVE, others_loaded=("other",)), {Flag.SHARED_GPU}),
        (replace(EFFECTIVE, num_ctx=1, size_vram_bytes=1, others_loaded=("x",)), {Flag.CLAMPED, Flag.SPILLED,
                                                                                   Flag.SHARED_GPU}),
    ],
    ids=lambda value: ",".join(sorted(value)) if isinstance(value, set) else str(value),
)  # fmt: skip
def test_what_the_engine_really_used_is_flagged(effective: Effective, flags: set[Flag]) -> None:
    assert attempt(runs_of(250), effective=effective).flags == flags


@pytest.mark.parametrize(
    ("vram", "has_gpu", "num_gpu", "spilled"),
    [
        (0, False, None, False),
        (0, True, None, True),
        (500, False, None, True),
        (500, True, 0, False),
        (0, True, 0, False),
        (500, True, 3, True),
        (1000, True, None, False),
    ],
)
def test_a_model_on_the_cpu_is_spilled_only_where_a_gpu_was_meant(
    vram: int, has_gpu: bool, num_gpu: int | None, spilled: bool
) -> None:
    asked = cell() if num_gpu is None else cell(num_gpu=num_gpu)
    assert is_spilled(asked, replace(EFFECTIVE, size_vram_bytes=vram), has_gpu=has_gpu) is spilled


@pytest.mark.parametrize(("tokens", "unfilled"), [(64, False), (60, False), (59, True), (None, False)])
def test_a_batch_larger_than_the_prompt_is_unfilled(tokens: int | None, unfilled: bool) -> None:
    assert (Flag.UNFILLED in attempt(runs_of(250), tokens=tokens).flags) is unfilled


@pytest.mark.parametrize(("rates", "noisy"), [((240, 250, 264), False), ((237, 250, 263), True), ((250,), False)])
def test_runs_that_differ_by_more_than_ten_percent_are_noisy(rates: tuple[float, ...], noisy: bool) -> None:
    assert (Flag.NOISY in attempt(runs_of(*rates)).flags) is noisy


@pytest.mark.parametrize(
    ("status", "earlier", "unstable"),
    [
        (Status.OK, [], False),
        (Status.OK, [Status.OOM], True),
        (Status.OOM, [Status.OK], True),
        (Status.OOM, [Status.OOM], False),
        (Status.OK, [Status.TIMEOUT, Status.OK], False),
    ],
)
def test_memory_that_sufficed_only_sometimes_is_unstable(status: Status, earlier: list[Status], unstable: bool) -> None:
    assert is_unstable(status, earlier) is unstable


def test_flags_of_a_cell_that_gave_no_number_are_those_of_its_load() -> None:
    found = flags_of(cell(), summarize([]), replace(EFFECTIVE, num_ctx=1), prompt_tokens=9, has_gpu=False)
    assert found == {Flag.CLAMPED, Flag.UNFILLED}


def test_a_short_prompt_behind_a_templates_opening_is_believed() -> None:
    """SmolLM2's template has three tokens before the text, 2 % of a prompt of 150."""
    short = replace(GENERATION, prompt_eval_count=150, printed_rate=None)
    assert judge(short, 3).believed
    assert judge(short, 15).believed
    assert judge(short, 16).doubt == "cached"


def judge(generation: Generation, cached: int) -> Run:
    return judge_run(
        replace(generation, cached_count=cached),
        number=1, warmup=False, nonce="12345678", expected_tokens=150, scores={},
    )  # fmt: skip
