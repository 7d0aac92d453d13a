"""The text that is sent: a nonce that no cache has seen at its very front, and texts made to a number of tokens."""

from __future__ import annotations

import itertools
import random
import secrets
from collections.abc import Callable

from ollama_sweep.core.cell import content_hash, made_hash
from ollama_sweep.plan.spec import PromptSpec

NONCE_DIGITS = 8
MAKER_VERSION = 1
_NONCES = 9 * 10 ** (NONCE_DIGITS - 1)
_STRIDE = 55_623_059
"""Shares no divisor with _NONCES, so that its steps meet every nonce once; near the golden section, so they spread."""
_FIRST = secrets.randbelow(_NONCES)
_TURNS = itertools.count()
_VOCABULARY = """
river stone window garden market letter winter summer morning evening bridge forest island harbour village teacher
doctor farmer sailor painter reader writer singer builder measure record answer question number circle square line
paper glass metal wooden silver golden narrow broad quiet early late careful simple honest gentle steady bright
carry follow gather listen notice remember travel wander begin finish between beside under over along across
"""
_WORDS = _VOCABULARY.split()
_FILLER = " and"
_ATTEMPTS = 40


def new_nonce() -> str:
    """Eight digits, never starting with 0: the same length in every text, and never the same twice in this process."""
    return str((_FIRST + next(_TURNS) * _STRIDE) % _NONCES + _NONCES // 9)


def with_nonce(nonce: str, text: str) -> str:
    """The nonce stands at the very front: a prefix cache compares from there."""
    return f"{nonce} {text}"


def prompt_hash(spec: PromptSpec) -> str:
    """Identity of a prompt: of its text, or of the recipe for a text of so many tokens."""
    return made_hash(spec.tokens or 0, MAKER_VERSION) if spec.text is None else content_hash(spec.text)


def make_text(tokens: int, count: Callable[[str], int | None]) -> tuple[str, int] | None:
    """A text that `count` (which adds the nonce and the template) finds `tokens` long, or as near below as it gets, and
    how long it found it.

    None where the engine cannot count, or where even one word is longer.
    """
    words = _endless_words(tokens + 1)
    found = _longest(tokens, len(words), lambda size: " ".join(words[:size]), count)
    while found is not None and found[1] < tokens:
        longer = _with_filler(tokens, *found, count)
        if longer is None or longer[1] <= found[1]:
            break
        found = longer
    return found


def _endless_words(size: int) -> list[str]:
    source = random.Random(MAKER_VERSION)  # noqa: S311 - a repeatable text, not a secret
    return [source.choice(_WORDS) for _ in range(size)]


def _with_filler(tokens: int, text: str, length: int, count: Callable[[str], int | None]) -> tuple[str, int] | None:
    return _longest(tokens, tokens - length, lambda size: text + _FILLER * size, count)


def _longest(
    tokens: int, most: int, make: Callable[[int], str], count: Callable[[str], int | None]
) -> tuple[str, int] | None:
    """The longest of make(1) … make(most) that is not longer than `tokens`, and its length, by interpolation.

    None where already the first is longer, and where a text cannot be counted.
    """
    high, high_count = most, count(make(most))
    if high_count is None or high_count <= tokens:
        return None if high_count is None else (make(high), high_count)
    low, low_count = 1, count(make(1))
    if low_count is None or low_count > tokens:
        return None
    for _ in range(_ATTEMPTS):
        if high - low <= 1 or low_count == tokens:
            break
        share = (tokens - low_count) / (high_count - low_count)
        middle = min(max(low + 1, low + int(share * (high - low))), high - 1)
        middle_count = count(make(middle))
        if middle_count is None:
            return None
        if middle_count <= tokens:
            low, low_count = middle, middle_count
        else:
            high, high_count = middle, middle_count
    return make(low), low_count
