"""The text that is sent: a nonce that no cache has seen at its very front, and texts made to a number of tokens."""

from __future__ import annotations

import random
import secrets
from collections.abc import Callable

from ollama_sweep.cells import content_hash
from ollama_sweep.spec import PromptSpec

NONCE_DIGITS = 8
MAKER_VERSION = 1
_WORDS = tuple(
    """
    river stone window garden market letter winter summer morning evening bridge forest island harbour village teacher
    doctor farmer sailor painter reader writer singer builder measure record answer question number circle square line
    paper glass metal wooden silver golden narrow broad quiet early late careful simple honest gentle steady bright
    carry follow gather listen notice remember travel wander begin finish between beside under over along across
    """.split()
)
_FILLER = " and"
_ATTEMPTS = 40


def new_nonce() -> str:
    """Eight digits, never starting with 0: the same length in every text, never sent before."""
    return str(secrets.randbelow(9 * 10 ** (NONCE_DIGITS - 1)) + 10 ** (NONCE_DIGITS - 1))


def with_nonce(nonce: str, text: str) -> str:
    """The nonce stands at the very front: a prefix cache compares from there."""
    return f"{nonce} {text}"


def prompt_hash(spec: PromptSpec) -> str:
    """Identity of a prompt: of its text, or of the recipe for a text of so many tokens."""
    if spec.text is not None:
        return content_hash(spec.text)
    return f"tokens:{spec.tokens}:{MAKER_VERSION}"


def make_text(tokens: int, count: Callable[[str], int | None]) -> str | None:
    """A text that `count` (which adds the nonce and the template) finds `tokens` long, or as near below as it gets.

    None where the engine cannot count, or where even one word is longer.
    """
    words = _endless_words(tokens + 1)
    fitting = _most_words(tokens, words, count)
    if fitting is None:
        return None
    text = " ".join(words[:fitting])
    found = count(text)
    while found is not None and found < tokens:
        longer = text + _FILLER * (tokens - found)
        found = count(longer)
        if found is None or found > tokens:
            break
        text = longer
    return text


def _endless_words(size: int) -> list[str]:
    source = random.Random(MAKER_VERSION)  # noqa: S311 - a repeatable text, not a secret
    return [source.choice(_WORDS) for _ in range(size)]


def _most_words(tokens: int, words: list[str], count: Callable[[str], int | None]) -> int | None:
    """The largest number of words that is not longer than `tokens`, by interpolation between known counts."""
    low, low_count = 1, count(words[0])
    if low_count is None or low_count > tokens:
        return None
    high, high_count = len(words), count(" ".join(words))
    if high_count is None or high_count <= tokens:
        return high if high_count is not None else None
    for _ in range(_ATTEMPTS):
        if high - low <= 1 or low_count == tokens:
            break
        share = (tokens - low_count) / (high_count - low_count)
        middle = min(max(low + 1, low + int(share * (high - low))), high - 1)
        middle_count = count(" ".join(words[:middle]))
        if middle_count is None:
            return None
        if middle_count <= tokens:
            low, low_count = middle, middle_count
        else:
            high, high_count = middle, middle_count
    return low
