"""Comments of a sweep file that is written for a person: what a key is for, and what holds without it. No I/O."""

from __future__ import annotations

import textwrap

from ollama_sweep.core.text import whole_line
from ollama_sweep.plan.keys import Key

WIDTH = 119


def comment(text: str) -> list[str]:
    """The text as lines of a comment."""
    return textwrap.wrap(
        text, WIDTH, initial_indent="# ", subsequent_indent="# ", break_long_words=False, break_on_hyphens=False
    )


def heading(text: str) -> str:
    """What stands above a part of the file."""
    return f"# {text} ".ljust(WIDTH, "-")


def default(key: Key) -> str:
    """The value that a key has where it is left out, in backticks where it is text; "" where there is none."""
    if key.default is None:
        return key.absent
    if isinstance(key.default, bool):
        return str(key.default).lower()
    return f"`{key.default}`" if isinstance(key.default, str) else str(key.default)


def explained(key: Key) -> str:
    """What a key is for, with its limits, and what holds without it."""
    without = default(key)
    if not without:
        return key.sentence
    if without.startswith("needed"):
        return f"{key.sentence} N{without[1:]}."
    return f"{key.sentence} Default: {without}."


def on_one_line(text: str) -> str:
    """Metadata come from files of others: no line break may end the comment."""
    return whole_line(" ".join(text.split()))
