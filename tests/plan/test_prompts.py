"""The text that is sent: new to every cache at its very front, and as long as asked."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ollama_sweep.plan import prompts
from ollama_sweep.plan.spec import PromptSpec

Count = Callable[[str], int | None]


def test_a_nonce_is_eight_digits_and_never_comes_twice() -> None:
    nonces = [prompts.new_nonce() for _ in range(50_000)]
    assert all(re.fullmatch("[1-9][0-9]{7}", nonce) for nonce in nonces)
    assert len(set(nonces)) == len(nonces)


def test_the_nonce_stands_at_the_very_front_and_the_text_is_unchanged() -> None:
    assert prompts.with_nonce("12345678", "  Tell me\r\n\x1b[1m a story. ") == "12345678   Tell me\r\n\x1b[1m a story. "


def test_a_prompts_identity_is_its_text_or_its_recipe() -> None:
    text, other = PromptSpec("one", source="a.txt"), PromptSpec("one ", source="a.txt")
    assert prompts.prompt_hash(text) == prompts.prompt_hash(PromptSpec("one", source="b.txt"))
    assert prompts.prompt_hash(text) != prompts.prompt_hash(other)
    assert prompts.prompt_hash(PromptSpec(None, 900)) == "tokens:900:1"
    assert prompts.prompt_hash(PromptSpec("tokens:900:1")) != "tokens:900:1"


# Texts made to a length


def by_words(each: int, fixed: int) -> Count:
    return lambda text: fixed + each * len(text.split())


def by_letters(size: int, fixed: int) -> Count:
    return lambda text: fixed + -(-len(text) // size)


def by_pieces(fixed: int, longest: int) -> Count:
    """Like a real tokenizer: a word is one token or several, by its length."""
    return lambda text: fixed + sum(-(-len(word) // longest) for word in text.split())


COUNTS = {
    "a token a word": by_words(1, 0),
    "with a template": by_words(1, 37),
    "letters": by_letters(1, 5),
    "four letters": by_letters(4, 3),
    "pieces": by_pieces(20, 5),
    "small pieces": by_pieces(11, 3),
}


@pytest.mark.parametrize("name", COUNTS)
@given(tokens=st.integers(60, 5000))
def test_a_text_is_exactly_as_long_as_asked(name: str, tokens: int) -> None:
    made = prompts.make_text(tokens, COUNTS[name])
    assert made is not None
    text, found = made
    assert COUNTS[name](text) == found
    # A letter is a step that words cannot make: ` and` has four.
    assert found == tokens if name != "letters" else tokens - 4 < (found or 0) <= tokens


@given(each=st.integers(1, 12), fixed=st.integers(0, 50), tokens=st.integers(1, 3000))
def test_a_text_is_never_too_long_and_as_near_below_as_words_get(each: int, fixed: int, tokens: int) -> None:
    made = prompts.make_text(tokens, by_words(each, fixed))
    if made is None:
        assert fixed + each > tokens
    else:
        assert tokens - each < (by_words(each, fixed)(made[0]) or 0) <= tokens


@given(word=st.integers(1, 9), filler=st.integers(1, 9), tokens=st.integers(100, 3000))
def test_the_gap_is_filled_also_where_the_filler_costs_something_else(word: int, filler: int, tokens: int) -> None:
    def count(text: str) -> int:
        words = text.split()
        return (len(words) - words.count("and")) * word + words.count("and") * filler

    made = prompts.make_text(tokens, count)
    assert made is not None
    assert tokens - filler < count(made[0]) <= tokens


def test_the_same_text_is_made_every_time_and_few_counts_are_needed() -> None:
    asked: list[str] = []

    def count(text: str) -> int | None:
        asked.append(text)
        return COUNTS["pieces"](text)

    first = prompts.make_text(100_000, count)
    assert len(asked) <= 25
    assert prompts.make_text(100_000, count) == first


@pytest.mark.parametrize("answers", [0, 1, 2, 3])
def test_an_engine_that_cannot_count_makes_no_text(answers: int) -> None:
    left = iter([10_000, 5, 40][:answers])
    assert prompts.make_text(1000, lambda text: next(left, None)) is None


def test_a_length_below_one_word_cannot_be_made() -> None:
    assert prompts.make_text(37, by_words(1, 37)) is None


def test_a_count_that_stops_growing_ends() -> None:
    made = prompts.make_text(500, lambda text: min(300, len(text.split())))
    assert made is not None
    assert len(made[0].split()) >= 300
