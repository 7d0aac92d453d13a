"""How answers are judged: JSON, letters, key facts, lists, references."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ollama_sweep.tasks.shared import scorers

CHOICES = ["4", "2 apples", "a ring", "zero"]
CONTACT = '{"name": "Ada Berg", "email": "ada@books.example"}'
ASKED = "Return JSON with name and email. Text: Ada Berg writes to ada@books.example in room 12."


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("B", "B"), ("b", "B"), (" (C) ", "C"), ("**D**", "D"), ("B. 2 apples", "B"), ("D) zero", "D"), ("A\n", "A"),
        ("The answer is (B).", "B"), ("Answer: C", "C"), ("The correct option is (c)", "C"), ("\\boxed{D}", "D"),
        ("$\\boxed{\\text{A}}$", "A"), ("A is correct.", "A"), ("The correct answer is option B: 2 apples", "B"),
        ("I think it is D", "D"), ("it must be zero", "D"), ("A ring", "C"),
        ("B\n\nQuestion: what else?\nAnswer: C", "B"), ("Answer: B\n\nNext one. Answer: C", "B"),
        ("Option A is wrong, so the answer is C", "C"), ("Answer: B. Option A is wrong", "B"),
        ("A. 4\nB. 2 apples\nC. a ring\nD. zero\nAnswer: B", "B"), ("not A but B", "B"),
        ("<think>A looks good</think>C", "C"), ("A looks good</think>B", "B"),
    ],
)  # fmt: skip
def test_the_letter_of_an_answer(text: str, letter: str) -> None:
    assert scorers.letter(text, CHOICES) == letter


@pytest.mark.parametrize(
    "text",
    ["", "E", "I do not know.", "A or B", "B and C", "A. 4\nB. 2 apples\nC. a ring\nD. zero", "A thing is unclear",
     "<think>It is B, because", "4 or zero", "?"],
)  # fmt: skip
def test_an_answer_without_one_letter_has_none(text: str) -> None:
    assert scorers.letter(text, CHOICES) is None


def test_letters_go_as_far_as_the_choices() -> None:
    assert scorers.letter("C", ["yes", "no"]) is None
    assert scorers.letter("J", [str(number) for number in range(10)]) == "J"


def test_json_alone_in_a_fence_and_inside_a_sentence() -> None:
    alone = scorers.find_json(f" {CONTACT}\n")
    fenced = scorers.find_json(f"```json\n{CONTACT}\n```")
    inside = scorers.find_json(f"Sure [1]! Here it is: {CONTACT} Anything {{else}}?")
    assert alone is not None
    assert fenced is not None
    assert inside is not None
    assert alone.value == fenced.value == inside.value == {"name": "Ada Berg", "email": "ada@books.example"}
    assert (alone.is_alone, fenced.is_alone, inside.is_alone) == (True, False, False)


@pytest.mark.parametrize(
    "text",
    [
        'Here is the list: [{"a": 1}, {"a": 2}]', 'See [1]: [{"a": 1}, {"a": 2}] and {"b": 3}',
        '```json\r\n[{"a": 1}, {"a": 2}]\r\n```',
        '``` json\n[{"a": 1}, {"a": 2}]\n```', '```JSON\n[{"a": 1}, {"a": 2}]\n```',
        '```[{"a": 1}, {"a": 2}]```', '~~~\n[{"a": 1}, {"a": 2}]\n~~~', '```json\n[{"a": 1}, {"a": 2}]',
        'So:\r\n```json \r\n[{"a": 1}, {"a": 2}]\r\n```\r\nDone.',
        '```python\nprint([1])\n```\nor\n```json\n[{"a": 1}, {"a": 2}]\n```',
        '```\n[1]\n```\n```\n[{"a": 1}, {"a": 2}]\n```',
        '<think>{"b": 3}</think>[{"a": 1}, {"a": 2}] is it',
    ],
)  # fmt: skip
def test_a_list_is_found_whole_wherever_it_stands(text: str) -> None:
    found = scorers.find_json(scorers.final_answer(text))
    assert found is not None
    assert (found.value, found.is_alone) == ([{"a": 1}, {"a": 2}], False)


def test_a_list_of_plain_values_counts_where_nothing_else_is_there() -> None:
    found = scorers.find_json('Tags: ["x", "y"].')
    assert found is not None
    assert found.value == ["x", "y"]


@pytest.mark.parametrize(
    "text", ["", "no JSON", "42", '"text"', '{"name": ', "{'name': 'Ada'}", '{"a": NaN}', "[" * 5000, "{" * 5000]
)
def test_what_is_no_json_object_or_list(text: str) -> None:
    assert scorers.find_json(text) is None


def test_keys_of_an_object_and_of_every_object_of_a_list() -> None:
    assert scorers.keys_present({"a": 1, "b": None}, ["a", "b", "c"]) == 2
    assert scorers.keys_present([{"a": 1, "b": 2}, {"a": 1}], ["a", "b"]) == 1
    assert scorers.keys_present([], ["a"]) == scorers.keys_present([1], ["a"]) == 0


def test_placeholders_and_values_that_were_made_up() -> None:
    value = {"name": "Ada Berg", "email": "N/A", "phone": None, "city": "unknown", "room": 12, "age": 43, "paid": True}
    assert scorers.placeholders(value) == ["N/A", "null", "unknown"]
    assert scorers.unseen_values(value, ASKED) == ["43"]
    assert scorers.unseen_values(value, ASKED, [43]) == []
    assert scorers.placeholders({"city": "Unknown"}, "He was born in Unknown, Texas.") == []


def test_a_value_is_seen_in_other_words_order_and_number_format() -> None:
    source = "The 1,200 seats of Ada  BERG's hall cost 12.50 euros"
    value = {"who": "Berg, Ada", "seats": 1200, "price": 12.5, "hall": ["ada berg's hall"]}
    assert scorers.unseen_values(value, source) == []
    assert scorers.unseen_values({"seats": 120, "who": "Ada Bergmann"}, source) == ["120", "Ada Bergmann"]


def test_facts_with_alternatives_and_markup() -> None:
    assert scorers.facts_share("It was **Ada\nBerg** in 8 months.", ["ada berg", ["eight months", "8 months"]]) == 1
    assert scorers.facts_share("nothing", ["a fact", "nothing"]) == 0.5


def test_lists_are_counted() -> None:
    assert scorers.bullet_count("Here:\n- one\n* two\n• three\n-four\n") == 3
    assert scorers.numbered_count("1. one\n2) two\n**3.** three\n1990 was a year") == 3


def test_the_overlap_with_a_reference() -> None:
    assert scorers.reference_f1("The cat sat.", "the cat sat") == 1
    assert scorers.reference_f1("dog", "the cat") == scorers.reference_f1("", "the cat") == 0
    assert math.isclose(scorers.reference_f1("the cat", "the cat sat on"), 2 * 2 / 6)


@pytest.mark.parametrize(
    ("text", "expect", "wanted"),
    [
        ("one two three", {"max_words": 3}, {"within_length": 1.0, "score": 1.0, "passed": 1.0}),
        ("one two three", {"max_words": 2, "facts": ["two"]}, {"within_length": 0.0, "key_facts": 1.0, "score": 0.5}),
        ("", {"max_words": 3}, {"within_length": 0.0, "score": 0.0, "passed": 0.0}),
        ("- a\n- b", {"bullets": 2, "lines": 2}, {"format_followed": 1.0}),
        ("Yes:\n- a\n- b", {"bullets": 2, "lines": 2}, {"format_followed": 0.0}),
        ("No.", {"equals": "no"}, {"format_followed": 1.0}),
        ("In autumn it rains", {"starts_with": "in Autumn", "forbidden": ["rain"]},
         {"format_followed": 1.0, "nothing_forbidden": 0.0}),
        ("It ends here.", {"ends_with": "here"}, {"format_followed": 1.0}),
        ("58 euros", {"fields": {"price": 58}}, {"fields_extracted": 1.0}),
        (CONTACT, {"fields": {"name": "ada berg", "email": "other"}}, {"fields_extracted": 0.5}),
        ('{"price": "12.0", "tags": ["B", "a"]}', {"fields": {"price": 12, "tags": ["a", "b"]}},
         {"fields_extracted": 1.0}),
    ],
)  # fmt: skip
def test_what_an_item_expects_is_checked(text: str, expect: dict[str, Any], wanted: dict[str, float]) -> None:
    found = scorers.judge(text, ASKED, expect)
    assert {name: found[name] for name in wanted} == wanted


def test_good_json_and_the_ways_in_which_it_is_bad() -> None:
    expect = {"json": True, "keys": ["name", "email"]}
    good = scorers.judge(CONTACT, ASKED, expect)
    assert (good["score"], good["passed"], good["keys_present"], good["placeholder_values"]) == (1, 1, 2, 0)
    around = scorers.judge(f"Here: {CONTACT}", ASKED, expect)
    assert (around["valid_json"], around["no_extra_text"], around["passed"]) == (1, 0, 0)
    made_up = scorers.judge('{"name": "Bob Hill"}', ASKED, expect)
    assert (made_up["has_required_keys"], made_up["hallucinated_values"], made_up["no_hallucination"]) == (0, 1, 0)
    none = scorers.judge("I cannot do that.", ASKED, expect)
    assert (none["valid_json"], none["score"], none["keys_present"]) == (0, 0, 0)
    assert "hallucinated_values" not in none


def test_json_is_looked_at_only_where_it_is_asked_for() -> None:
    assert "valid_json" not in scorers.judge("a summary", "Summarize", {"max_words": 5})
    assert "valid_json" not in scorers.judge("text", ASKED, {"json": False, "keys": ["name"], "max_words": 5})
    assert scorers.asks_for_json("Answer as json.")
    assert not scorers.asks_for_json("Who is Jsonia?")


def test_without_expectations_the_reference_is_the_judge_and_without_it_nobody() -> None:
    assert scorers.judge("the cat", ASKED, {"reference": "the cat"}) == {"reference_f1": 1.0, "score": 1.0}
    assert scorers.judge("the cat", ASKED, {}) == {}


def test_thoughts_are_not_judged() -> None:
    assert scorers.judge(f"<think>Let me see {{}}</think>\n{CONTACT}", ASKED, {"json": True})["no_extra_text"] == 1


EVERYTHING = {
    "facts": ["a"], "forbidden": ["b"], "max_words": 5, "min_words": 1, "bullets": 1, "numbered": 1, "lines": 2,
    "starts_with": "x", "ends_with": "y", "equals": "z", "fields": {"a": 1, "b": True, "c": ["d"]}, "json": True,
    "keys": ["a"], "allowed": ["q"], "reference": "the text",
}  # fmt: skip
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
)


@given(st.text() | JSON.map(json.dumps))
def test_any_answer_gets_finite_scores(text: str) -> None:
    found = scorers.judge(text, ASKED, EVERYTHING)
    assert all(math.isfinite(value) for value in found.values())
    assert 0 <= found["score"] <= 1
    assert scorers.letter(text, CHOICES) in {None, "A", "B", "C", "D"}
