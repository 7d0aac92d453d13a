"""Thoughts and answers are told apart, whatever marks a model or its server puts between them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ollama_sweep.core import thoughts
from ollama_sweep.core.generation import Generation
from ollama_sweep.core.thoughts import Arrivals, part

FINAL = "<|start|>assistant<|channel|>final"
PARTED = [
    ("<think>Is it A?</think>B", "Is it A?", "B"),
    ("<think>\nIs it A?\n</think>\n\nB\n", "Is it A?", "B"),
    ("Is it A?</think>B", "Is it A?", "B"),
    ("<think>Is it A?", "Is it A?", ""),
    ("<thinking>Is it A?</thinking>\nB", "Is it A?", "B"),
    ("<thought>Is it A?</thought>B", "Is it A?", "B"),
    ("[THINK]Is it A?[/THINK]B", "Is it A?", "B"),
    ("Is it A?[/THINK]B", "Is it A?", "B"),
    ("[THINK]Is it A?", "Is it A?", ""),
    ("<seed:think>Is it A?</seed:think>B", "Is it A?", "B"),
    ("<|START_THINKING|>Is it A?<|END_THINKING|><|START_RESPONSE|>B<|END_RESPONSE|>", "Is it A?", "B"),
    ("<|START_THINKING|>Is it A?", "Is it A?", ""),
    ("<|begin_of_thought|>Is it A?<|end_of_thought|><|begin_of_solution|>B<|end_of_solution|>", "Is it A?", "B"),
    ("◁think▷Is it A?◁/think▷B", "Is it A?", "B"),
    ("<|channel>thought\nIs it A?<channel|>B", "Is it A?", "B"),
    (f"<|channel|>analysis<|message|>Is it A?<|end|>{FINAL}<|message|>B<|return|>", "Is it A?", "B"),
    (f"Is it A?<|end|>{FINAL} <|constrain|>json<|message|>B", "Is it A?", "B"),
    ("<|channel|>analysis<|message|>Is it A?", "Is it A?", ""),
    ("<|channel|>final<|message|>B<|return|>", "", "B"),
    ("analysisIs it A?assistantfinalB", "Is it A?", "B"),
    ("analysisIs it A?", "Is it A?", ""),
    ("Thinking...\nIs it A?\n...done thinking.\n\nB", "Is it A?", "B"),
    ("<think>Is it A?</think><answer>B</answer>", "Is it A?", "B"),
    ("<think>Is it A?</think>B</think>", "Is it A?", "B"),
    ("<think>Is it [THINK] A?</think>B", "Is it [THINK] A?", "B"),
    ('<think>Is it "A"</think>"B"', 'Is it "A"', '"B"'),
    ("<think>Is</think>B <think>it A?</think>", "Is\n\nit A?", "B"),
    ("<think></think>\n\nB", "", "B"),
    ("Thinking...\n<think>Is it A?\n...done thinking.\n\nB", "<think>Is it A?", "B"),
]
WHOLE = ["", "B", "Write `<think>` in front.", 'The tag "</think>" ends it.', "analysis of A: B", "Thinking... B",
         "Thinking...\nof you", "[Thinking] B", "1 < think > 0", '{"a": 1}', "  B\n"]  # fmt: skip


@pytest.mark.parametrize(("text", "thought", "answer"), PARTED)
def test_thoughts_and_answer_are_parted(text: str, thought: str, answer: str) -> None:
    found = part(text)
    assert (found.thoughts, found.answer) == (thought, answer)
    assert 0 <= found.answer_at <= len(text)


@pytest.mark.parametrize("text", WHOLE)
def test_a_text_without_thoughts_is_its_own_answer(text: str) -> None:
    assert part(text) == thoughts.Parted(text)
    generation = Generation(text, None, None)
    assert thoughts.apart(generation) is generation


def test_what_the_client_prints_is_known_by_its_first_words() -> None:
    """`ollama run` prints no end of thoughts that num_predict cut, and begins again where a model does."""
    cut = part("Thinking...\nIs it A?", of_client=True)
    assert (cut.thoughts, cut.answer) == ("Is it A?", "")
    twice = part("Thinking...\nIs\n...done thinking.\n\nBThinking...\nit A?\n...done thinking.\n\n.", of_client=True)
    assert (twice.thoughts, twice.answer) == ("Is\n\nit A?", "B.")


def test_thoughts_of_a_field_and_of_the_text_are_both_kept() -> None:
    found = thoughts.apart(Generation("<think>it A?</think>B", 1, 1.0, thoughts="Is"))
    assert (found.thoughts, found.text) == ("Is\n\nit A?", "B")
    assert not thoughts.only_thoughts(found)
    assert thoughts.only_thoughts(thoughts.apart(Generation("<think>it A?", 1, 1.0)))
    assert thoughts.only_thoughts(Generation("", 1, 1.0, thinking_count=12))
    assert not thoughts.only_thoughts(Generation("", 1, 1.0))


def arrived(*pieces: tuple[str, str]) -> Arrivals:
    """One piece a second, the first one after two: (thought, text)."""
    found = Arrivals(10.0)
    for number, (thought, text) in enumerate(pieces):
        found.take(12.0 + number, thought=thought, text=text)
    return found


def test_the_time_and_the_tokens_of_thinking_end_with_the_first_piece_of_the_answer() -> None:
    of_field = arrived(("Is", ""), (" it", ""), (" A?", ""), ("", "B"), ("", "."))
    of_text = arrived(("", "<think>"), ("", "Is it"), ("", "</think>"), ("", "\n\n"), ("", "B"), ("", "."))
    assert (of_field.ttft_s, of_field.thinking_duration_s(), of_field.thinking_count(6)) == (2.0, 3.0, 3)
    assert (of_text.ttft_s, of_text.thinking_duration_s(), of_text.thinking_count(7)) == (2.0, 4.0, 4)
    assert (of_field.text, of_field.thoughts, of_field.count) == ("B.", "Is it A?", 5)


def test_tokens_of_which_nothing_is_shown_count_where_they_came() -> None:
    """So Ollama does with the marks: the stream has an empty piece for each of their tokens."""
    found = arrived(("Is", ""), (" it", ""))
    for now in (14.0, 15.0):
        found.skip(now)
    found.take(16.0, text="B")
    assert (found.thinking_count(6), found.thinking_duration_s(), found.count) == (4, 4.0, 3)


def test_thoughts_that_were_cut_last_until_the_end() -> None:
    for cut in (arrived(("Is", ""), (" it", "")), arrived(("", "<think>Is"), ("", " it"))):
        assert (cut.thinking_duration_s(), cut.thinking_count(2)) == (1.0, 2)


def test_pieces_of_several_tokens_are_not_counted_as_tokens() -> None:
    assert arrived(("Is it A?", ""), ("", "B")).thinking_count(60) is None
    assert arrived(("Is", ""), ("", "B")).thinking_count(None) is None
    none = arrived(("", "B"), ("", "."))
    assert (none.thinking_count(2), none.thinking_duration_s()) == (None, None)
    assert arrived().ttft_s is None


SOME = ["<think>", "</think>", "[THINK]", "<|channel|>final<|message|>", "<|end|>", "`", "B", " ", "\n",
        "Thinking...\n", "...done thinking.\n\n", "analysisA", "assistantfinal"]  # fmt: skip


@given(st.lists(st.sampled_from(SOME)))
def test_any_text_is_parted_without_making_anything_up(pieces: list[str]) -> None:
    text = "".join(pieces)
    for of_client in (False, True):
        found = part(text, of_client=of_client)
        assert 0 <= found.answer_at <= len(text)
        assert len(found.answer.replace("\n", "")) + len(found.thoughts.replace("\n", "")) <= len(text)
