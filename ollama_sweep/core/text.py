"""Text of others, made harmless where a person sees it. What is stored stays as it was.

A character that steers a terminal, turns the direction of writing or is not seen at all is written out: `\\x1b`,
`\\u202e`. What gives text away asks this module: the terminal, pictures, tables and reports, messages, logs, JSON.
What takes JSON of people asks `strict_json` and `half_in`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any, NoReturn

SHORT, LONG = 60, 2000
"""Characters of a text of others within a line, and of a whole line."""

HALF = "holds half of a character, written as an escape; write the character itself, or both halves"

_UNSEEN = (
    "\x00-\x1f\x7f-\x9f\xad\u034f\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2\u115f\u1160\u17b4\u17b5\u180b-\u180f"
    "\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\u2800\u3164\ud800-\udfff\ufe00-\ufe0d\ufeff\uffa0\ufff0-\ufffb\ufffe"
    "\uffff\U000110bd\U000110cd\U00013430-\U0001345f\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
)
_JOINERS = "\u200c\u200d"
_SPELLED = f"[^\x00-\u024f\u2000-\u206f{_UNSEEN}]"
_ALONE = f"(?<!{_SPELLED})[{_JOINERS}]|[{_JOINERS}](?!{_SPELLED})"
"""Joiners are part of how Persian, Hindi or an emoji is written; beside anything else they are only not seen."""
_HIDDEN = re.compile(f"[{_UNSEEN}]|{_ALONE}")
_HIDDEN_IN_LINES = re.compile(f"(?![\n\t])(?:[{_UNSEEN}]|{_ALONE})")
_SURROGATE = re.compile("[\ud800-\udfff]")
_PAIR = re.compile("[\ud800-\udbff][\udc00-\udfff]")
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|\x1b[@-Z\\-_]")
_NAMED = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def without_escapes(text: str) -> str:
    """The text without what a program writes to steer a terminal: colours, the cursor, a line drawn again."""
    return _ESCAPES.sub("", text)


def harmless(text: str) -> str:
    """The text on one line, with every control character and every unseen mark written out."""
    if text.isascii() and text.isprintable():  # most are, and this costs a tenth
        return text
    return _HIDDEN.sub(_written_out, text)


def harmless_lines(text: str) -> str:
    """The same for text of several lines: line breaks and tabs stay."""
    return _HIDDEN_IN_LINES.sub(_written_out, text.replace("\r\n", "\n"))


def one_line(text: str, limit: int = SHORT) -> str:
    """A text of others as a part of a line: harmless and not too long."""
    return harmless(text if len(text) <= limit else text[:limit] + "…")


def in_short(words: Sequence[str]) -> str:
    """Words with commas between them; of more than ten the first and the last."""
    return ", ".join(words if len(words) <= 10 else [*words[:4], "…", *words[-2:]])


def whole_line(text: str) -> str:
    """A line as a terminal, a log or a message may have it: harmless, at most 2,000 characters of it."""
    return harmless(text) if len(text) <= LONG else f"{harmless(text[:LONG])}… ({len(text) - LONG:,} more characters)"


def as_json(value: object, *, indent: int | None = None, strict: bool = False) -> str:
    """JSON of the same value that holds nothing a terminal could be steered by: that stands as `\\u001b`.

    `strict` raises ValueError for a number that is none, which JSON does not know.
    """
    text = json.dumps(value, ensure_ascii=False, indent=indent, allow_nan=not strict)
    return _HIDDEN_IN_LINES.sub(_in_json, text)


def surrogate_in(text: str) -> str | None:
    """The first half of a character that stands alone, as it was written (`\\ud83d`): no text; None in any text."""
    found = _SURROGATE.search(text)
    return found and _written_out(found)


def half_in(item: object) -> str:
    """What is wrong with a value of JSON that holds half of a character, with the field's name; "" where it is text."""
    waiting = [("", item)]
    while waiting:
        name, value = waiting.pop()
        if isinstance(value, str) and (half := surrogate_in(value)):
            return f"{f'{name}: ' if name else ''}{HALF} ({half})"
        if isinstance(value, dict):
            within = f"{name}." if name else ""
            inner = [(f"{within}{one_line(key)}", one) for key, one in value.items()]
            waiting += [*reversed(inner), *(("", key) for key in value)]
        elif isinstance(value, list):
            waiting += ((name, one) for one in reversed(value))
    return ""


def joined(text: str) -> str:
    """The text with characters that were written as two halves made whole, as JSON has them."""
    return _PAIR.sub(lambda pair: pair[0].encode("utf-16", "surrogatepass").decode("utf-16"), text)


def strict_json(text: str) -> Any:
    """JSON without NaN, Infinity and double keys. Raises ValueError (json.JSONDecodeError among them)."""
    try:
        return json.loads(text, parse_constant=_no_constant, parse_int=_whole, object_pairs_hook=_unique_keys)
    except RecursionError:
        raise ValueError("is not JSON: lists lie too deep in each other") from None


def _whole(digits: str) -> int:
    try:
        return int(digits)
    except ValueError:
        raise ValueError("is not JSON: a number is too long") from None


def _no_constant(word: str) -> NoReturn:
    raise ValueError(f"{word} is not a number of JSON")


def _unique_keys(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{one_line(next(name for name in names if names.count(name) > 1))} is given twice")
    return found


def _written_out(found: re.Match[str]) -> str:
    sign = found[0]
    number = ord(sign)
    if sign in _NAMED:
        return _NAMED[sign]
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


def _in_json(found: re.Match[str]) -> str:
    return json.dumps(found[0])[1:-1]
