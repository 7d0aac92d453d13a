"""Expensive regions, the routing hint, and what is made of the answer of an analysis model: only what the data say."""

from __future__ import annotations

import pytest
from answers_maker import answer, failed
from hypothesis import given
from hypothesis import strategies as st

from ollama_sweep.core.outcome import AnswerRow
from ollama_sweep.results import analysis, routing
from ollama_sweep.results.groups import make_groups

RIGHT, WRONG = {"score": 1.0}, {"score": 0.0}
TWO_MODELS = [answer("big", "q1", 4.0), answer("big", "q2", 6.0), answer("small", "q1", 1.0), failed("small", "q2")]


# -- expensive regions and routing -----------------------------------------------------------------------------------


def by_size(model: str, tokens: int, score: float, seconds: float, number: int) -> AnswerRow:
    return answer(model, f"{tokens}-{number}", seconds, prompt_eval_count=tokens, scores={"score": score})


def two_sizes(big_at_large: float) -> list[AnswerRow]:
    """40 short prompts that both models know, 40 long ones that the big one knows by a share."""
    rows = []
    for number in range(40):
        rows += [by_size("fast", 100 + number, 1.0, 1.0, number), by_size("big", 100 + number, 1.0, 3.0, number)]
        good = 1.0 if number < 40 * big_at_large else 0.0
        rows += [by_size("fast", 900 + number, 0.0, 2.0, number), by_size("big", 900 + number, good, 6.0, number)]
    return rows


def test_small_prompts_to_the_fast_model_and_large_ones_to_the_big_where_the_data_say_so() -> None:
    found = routing.route(make_groups(two_sizes(0.9), []))
    assert (found.fast, found.big) == ("fast", "big")
    assert "prompts up to 139 tokens to fast, from 900 tokens to big" in found.lines()[0]
    assert found.ranges[0].speed_up == 3.0


def test_nothing_is_said_where_the_data_do_not_say_it() -> None:
    found = routing.route(make_groups(two_sizes(0.04), []))
    assert "from 900" not in found.lines()[0]
    assert any("the data do not say" in line for line in found.lines())


@pytest.mark.parametrize(
    ("rows", "why"),
    [
        ([answer("one")], "two models"),
        ([answer("a"), answer("b")], "no scores"),
        ([answer("a", scores=RIGHT), answer("b", latency_s=9.0, scores=WRONG)], "fastest and has the best"),
        ([answer("a", scores=WRONG), answer("b", latency_s=9.0, scores=RIGHT)], "1 questions were scored"),
        ([answer("a", scores=WRONG), failed("b")], "two models"),
    ],
)
def test_without_a_basis_there_is_no_hint(rows: list[AnswerRow], why: str) -> None:
    found = routing.route(make_groups(rows, []))
    assert why in found.why_not
    assert found.ranges == ()
    assert why in str(found.as_dict()["hint"])


def test_the_expensive_region_is_the_one_that_takes_the_time() -> None:
    rows = [answer(item=f"s{number}", latency_s=1.0, prompt_eval_count=50) for number in range(9)]
    rows += [answer(item="l", latency_s=21.0, prompt_eval_count=3000, eval_count=500)]
    (found,) = routing.expensive_regions(rows, lambda row: row.latency_s)
    assert found.share == pytest.approx(0.7)
    assert found.of_answers == pytest.approx(0.1)
    assert found.region.prompt_tokens[0] <= 3000 < found.region.prompt_tokens[1]
    assert "70 % of the time in 10 % of the answers" in found.text("s")


def test_even_answers_have_no_expensive_region() -> None:
    rows = [answer(item=f"s{number}", prompt_eval_count=100 * number) for number in range(1, 9)]
    assert routing.expensive_regions(rows, lambda row: row.latency_s) == []
    assert routing.expensive_regions([failed()], lambda row: row.latency_s) == []


# -- the analysis ----------------------------------------------------------------------------------------------------

GOOD = """{"ranking": ["big", "small"],
 "strengths_weaknesses": {"big": {"strengths": ["right"], "weaknesses": ["slow"]}},
 "recommendations": ["take big"], "insights": ["small is fast"], "winner": "big"}"""


@pytest.mark.parametrize(
    "text",
    [
        f"Big is best.\n```json\n{GOOD}\n```",
        f"Big is best.\n```\n{GOOD}\n```\nThank you!",
        f"Big is best. {GOOD} Ask me more {{anything}}.",
        f"{{not json}} Big is best.\n{GOOD}",
        f"Big is best.\n```json\n{GOOD.replace(']', ',]')}\n```",
        f"Big is best.\n```json\n{GOOD.replace('}}', '}, }')}",
        f"Big is best.\n```json\n// mine\n{GOOD}\n```",
        f"Big is best. {GOOD.replace(chr(34), '“', 1)}",
        "Big is best. " + GOOD.replace('["big", "small"]', '[{"model": "BIG"}, "2. small", "gpt-4"]'),
    ],
)
def test_the_structure_is_found_in_what_small_models_write(text: str) -> None:
    found = analysis.structure(text, ["big", "small"])
    assert found is not None
    assert found["winner"] == "big"
    assert found["ranking"] == ["big", "small"]
    assert found["recommendations"] == ["take big"]
    assert found["strengths_weaknesses"] == {"big": {"strengths": ["right"], "weaknesses": ["slow"]}}


def test_an_answer_that_was_cut_off_keeps_what_was_whole() -> None:
    cut = GOOD[: GOOD.index("take big")]
    found = analysis.structure(f"```json\n{cut}", ["big", "small"])
    assert found is not None
    assert found["ranking"] == ["big", "small"]
    assert found["recommendations"] == []
    assert found["winner"] is None


def test_half_a_name_is_no_name() -> None:
    """Cut off in `big2` the text names `big`, which it did not mean."""
    found = analysis.structure('{"ranking": ["small"], "winner": "big', ["big", "big2", "small"])
    assert found is not None
    assert (found["ranking"], found["winner"]) == (["small"], None)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "I like trains.",
        "{}",
        '{"winner": "gpt-4"}',
        "{" * 5000,
        '{"a": {' * 20_000,
        '{"ranking": "..."}',
        "[1, 2]",
        '{"insights": ["..."]}',
        '{"winner": 5, "ranking": [[]]}',
        "```json\n```",
        '{"a": ' * 500,
    ],
)
def test_nonsense_has_no_structure(text: str) -> None:
    assert analysis.structure(text, ["big", "small"]) is None


@given(st.text(alphabet='{}[]",:\\ab1 \n`', max_size=200))
def test_no_text_breaks_the_search(text: str) -> None:
    analysis.structure(text, ["a", "b"])


def test_a_good_answer_is_text_and_structure() -> None:
    asked: list[str] = []

    def ask(prompt: str) -> str:
        asked.append(prompt)
        return f"Take big.\n```json\n{GOOD}\n```"

    found = analysis.analyse(make_groups(TWO_MODELS, []), "judge", ask)
    assert (found.readable, found.model, found.note) == ("Take big.", "judge", "")
    assert found.structured is not None
    assert "small, items: 1 of 2 answered (50 %)" in asked[0]


def test_json_alone_is_put_into_words() -> None:
    found = analysis.analyse(make_groups(TWO_MODELS, []), "judge", lambda prompt: GOOD)
    assert "Winner: big" in found.readable
    assert "take big" in found.readable


@pytest.mark.parametrize("text", ["", "  \n", "trains trains trains"])
def test_where_the_model_fails_there_are_the_plain_summaries_and_it_is_said(text: str) -> None:
    found = analysis.analyse(make_groups(TWO_MODELS, []), "judge", lambda prompt: text)
    assert found.structured is None
    assert "big, items: 2 of 2 answered" in found.readable
    assert "judge" in found.note
    assert text.strip() in found.readable


def test_a_model_that_repeats_itself_is_shown_once_and_cannot_speak_to_the_terminal() -> None:
    """As a very small model really answered: a sentence, then `#` for 700 tokens."""
    text = "The best model delivers the most.\n" + "\n#\n" * 300 + "\x1b[2J\x07done"
    found = analysis.analyse(make_groups(TWO_MODELS, []), "judge", lambda prompt: text).readable
    assert found.startswith("The best model delivers the most.\n\n#\n")
    assert found.count("#") == 1
    assert "\x1b" not in found
    assert "\\x1b[2J\\x07done" in found


def test_json_is_never_tidied_away() -> None:
    lines = GOOD.replace(", ", ",\n")
    found = analysis.analyse(make_groups(TWO_MODELS, []), "judge", lambda prompt: lines)
    assert found.structured == analysis.structure(GOOD, ["big", "small"])


def test_the_question_fits_a_small_context() -> None:
    rows = [answer(f"model-{number}") for number in range(300)]
    labels = sum(len(f"model-{number}, ") for number in range(300))
    assert len(analysis.question(make_groups(rows, []))) < analysis.LONGEST_TABLE + labels + 1500
