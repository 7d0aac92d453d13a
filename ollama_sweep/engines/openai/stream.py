"""Puts the pieces of one streamed chat answer together, with the times at which they came. No network."""

from __future__ import annotations

import codecs
import json
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ollama_sweep.core.errors import CellFailed
from ollama_sweep.core.generation import Generation
from ollama_sweep.core.outcome import Status
from ollama_sweep.core.thoughts import Arrivals, part
from ollama_sweep.engines.base import Kept
from ollama_sweep.engines.openai.faults import Place, said_in
from ollama_sweep.engines.shared import gate

TOKENS_PER_WORD = 1.3
"""For servers that count nothing; such a count is marked as estimated."""
TEXT_PARTS = frozenset({"text", "output_text"})
THOUGHT_FIELDS = ("thinking", "text", "summary")
"""Where the parts of thoughts have their text."""
_FAILED = re.compile(r"abort|cancel|error|fail|filter|safety|time_?out|overload", re.IGNORECASE)
"""Words of a finish_reason after which there is no answer."""


def events(chunks: Iterable[bytes]) -> Iterator[Any]:
    """The JSON of each event of a stream, up to `[DONE]`; comments and events of `id` or `retry` have none.

    An event may be named `error`, or have that in the place of `data`. JSON that goes on in a second line of data is
    put together. Raises Nonsense for data that is no JSON.
    """
    name, rest = b"", b""
    for line in _lines(chunks):
        field, _, value = line.removeprefix(codecs.BOM_UTF8).partition(b":")
        data = value.strip()
        if not line.strip():
            if rest:
                gate.loads(rest)
            name = b""
        elif field == b"event":
            name = data
        elif field in (b"data", b"error") and data:
            if data.startswith(b"[DONE]"):
                return
            found, rest = _event(rest + data)
            if found is not None:
                is_named = b"error" in (name, field) and not (isinstance(found, Mapping) and "error" in found)
                yield {"error": found} if is_named else found
    if rest:
        gate.loads(rest)


def _event(data: bytes) -> tuple[Any, bytes]:
    """JSON in pieces, or what there is of it so far."""
    try:
        return gate.loads(data, in_pieces=True), b""
    except gate.Nonsense:
        return None, data + b"\n"


def _lines(chunks: Iterable[bytes]) -> Iterator[bytes]:
    rest = b""
    for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n")
        yield from (line.removesuffix(b"\r") for line in whole)
    yield rest


class Pieces:
    """What has come so far of one answer. Times in seconds of `time.monotonic`."""

    def __init__(self, place: Place, started: float) -> None:
        self._place = place
        self._started = started
        self._pieces = Arrivals(started)
        self._choices = 0
        self._finish: str | None = None
        self._usage: Mapping[str, Any] = {}
        self._timings: Mapping[str, Any] = {}
        self._head: dict[str, Any] = {}
        self.events = 0

    def take(self, event: object, now: float) -> None:
        """One event of the stream. Raises ValueError for one that is no chat completion, CellFailed for an error."""
        if not isinstance(event, Mapping):
            raise ValueError(f"{self._place.shown(event)!r} instead of an object")
        if event.get("error") or event.get("object") == "error":
            raise self._place.judged(said_in(event), "error_event", json.dumps(event))
        self.events += 1
        self._head = self._head or {name: event.get(name) for name in ("id", "model", "system_fingerprint")}
        self._usage = gate.mapping("usage", event.get("usage")) or self._usage
        self._timings = gate.mapping("timings", event.get("timings")) or self._timings
        for choice in event.get("choices") or ():
            self._take_choice(choice, now)

    def _take_choice(self, choice: object, now: float) -> None:
        if not isinstance(choice, Mapping):
            raise ValueError("a choice that is no object")
        self._choices += 1
        finish = choice.get("finish_reason")
        finish = finish.get("type") if isinstance(finish, Mapping) else finish  # as SGLang's own API has it
        self._finish = gate.text("finish_reason", finish) or self._finish
        delta = _mapping(choice.get("delta") or choice.get("message"))
        content = delta.get("content") or ""
        self._pieces.take(now, text=_text_of(content), thought=_thought_of(delta))

    @property
    def text(self) -> str:
        return gate.mended(self._pieces.text)

    def raw(self) -> str:
        """Everything kept of the answer, as JSON and without the key."""
        thoughts = {"thoughts": self._pieces.thoughts} if self._pieces.thoughts else {}
        kept = {**self._head, "text": self.text, **thoughts, "finish_reason": self._finish, "usage": self._usage,
                "timings": self._timings, "events": self.events}  # fmt: skip
        return self._place.key.masked(gate.mended(json.dumps(kept, ensure_ascii=False, default=str)))

    def generation(self, *, streamed: bool) -> Generation:
        """The whole answer. Raises CellFailed where it is none, or only half of one, or one of its numbers is none."""
        duration_s = time.monotonic() - self._started
        self._check()
        try:
            return self._generation(duration_s, streamed=streamed)
        except gate.Nonsense as error:
            raise self.impossible(error) from None

    def impossible(self, error: gate.Nonsense) -> CellFailed:
        """The failure of an answer with a field that cannot be."""
        return self._place.failed(Status.PARSE_ERROR, error.reason, f"{self._place.url}: {error}", self.raw())

    def _generation(self, duration_s: float, *, streamed: bool) -> Generation:
        words = _words(self.text, self._pieces.thoughts)
        tokens, thinking = _tokens(self._usage, self._timings), _thinking(self._usage)
        return Generation(
            **_numbers(self._usage, self._timings, words),
            text=self._place.key.masked(self.text),
            thoughts=self._place.key.masked(self._pieces.thoughts),
            thinking_count=self._pieces.thinking_count(tokens) if thinking is None else thinking,
            thinking_duration_s=self._pieces.thinking_duration_s() if streamed else None,
            client_duration_s=duration_s,
            ttft_s=self._pieces.ttft_s if streamed else None,
            raw=self.raw(),
            chunk_count=self._pieces.count if streamed else None,
            is_estimated=not tokens and words > 0,
        )

    def _check(self) -> None:
        place, raw = self._place, self.raw()
        if not self._choices:
            came = "an answer with empty choices" if self.events else "an empty answer"
            text = f"{place.url} gave {came}; a choice with a message was expected"
            raise place.failed(Status.ERROR, "no_answer", text, raw)
        if self._finish and _FAILED.search(self._finish):
            text = f"{place.url} ended the answer with finish_reason {self._finish}; stop or length was expected"
            raise place.failed(Status.ERROR, "refused", text, raw)
        if not self._finish and not self._usage:
            raise self.half("the stream ended without a finish_reason")

    def half(self, what: str) -> Exception:
        """The failure of an answer that was cut off."""
        text = f"{self._place.url} broke off after {self._pieces.count} pieces of the answer: {what}"
        return self._place.failed(Status.ERROR, "half_answer", text, self.raw())


def read_again(kept: Kept) -> dict[str, float | None]:
    """The numbers of an answer as `Pieces.raw`, or of vectors as `Client.embed` kept it. Raises Nonsense.

    Where the server does not count the tokens of thoughts, they were the pieces of its stream, which are gone.
    """
    found = gate.mapping("answer", gate.loads(kept.raw))
    expected = {"rows", "tokens"} if kept.embeds else {"text", "usage", "timings"}
    if not expected <= set(found):
        raise gate.Nonsense("no answer of an OpenAI-compatible API was kept")
    nothing = {"total_duration_s": None, "load_duration_s": None}
    if kept.embeds:
        counts = [gate.whole("tokens", count) for count in gate.listed("tokens", found["tokens"])]
        known = [count for count in counts if count is not None]
        count = sum(known) if known and len(known) == len(counts) else None
        return {**_numbers({}, {}, 0), **nothing, "prompt_eval_count": count}
    usage, timings = (gate.mapping(name, found[name]) for name in ("usage", "timings"))
    text, thoughts = (gate.text(name, found.get(name)) for name in ("text", "thoughts"))
    thinking, has_thought = _thinking(usage), bool(thoughts or part(text).thoughts)
    counted = {} if thinking is None and has_thought else {"thinking_count": thinking}
    return {**_numbers(usage, timings, _words(text, thoughts)), **nothing, **counted}


def _numbers(usage: Mapping[str, Any], timings: Mapping[str, Any], words: int) -> dict[str, Any]:
    """What the server counts and times, by the names of a generation. Raises Nonsense."""
    count, cached = _prompt_counts(usage, timings)
    tokens = _tokens(usage, timings)
    return {
        "prompt_eval_count": count,
        "prompt_eval_duration_s": gate.duration_s("prompt_ms", timings.get("prompt_ms"), gate.MS_PER_S),
        "eval_count": round(words * TOKENS_PER_WORD) if not tokens and words > 0 else tokens,
        "eval_duration_s": gate.duration_s("predicted_ms", timings.get("predicted_ms"), gate.MS_PER_S),
        "cached_count": cached,
        "printed_rate": gate.rate("prompt_per_second", timings.get("prompt_per_second")),
    }


def _tokens(usage: Mapping[str, Any], timings: Mapping[str, Any]) -> int | None:
    return _count(timings, "predicted_n") or _count(usage, "completion_tokens")


def _words(*texts: str) -> int:
    return sum(len(text.split()) for text in texts)


def _thinking(usage: Mapping[str, Any]) -> int | None:
    """The tokens of thoughts, where the server counts them."""
    details = gate.mapping("completion_tokens_details", usage.get("completion_tokens_details"))
    return _count(details, "reasoning_tokens")


def _prompt_counts(usage: Mapping[str, Any], timings: Mapping[str, Any]) -> tuple[int | None, int | None]:
    """All prompt tokens, and of them the cached ones."""
    new, cached = _count(timings, "prompt_n"), _count(timings, "cache_n")
    if new is not None:
        return new + (cached or 0), cached
    details = gate.mapping("prompt_tokens_details", usage.get("prompt_tokens_details"))
    return _count(usage, "prompt_tokens") or None, _count(details, "cached_tokens")


def _text_of(content: object) -> str:
    """A content's text; of a list of parts that of the text parts, without the thinking."""
    if isinstance(content, Mapping):
        return _text_of(content.get("text") or "") if content.get("type", "text") in TEXT_PARTS else ""
    if isinstance(content, list):
        return "".join(map(_text_of, content))
    if not isinstance(content, str):
        raise ValueError("a content that is no text")
    return content


def _thought_of(delta: Mapping[str, Any]) -> str:
    """The thoughts of a piece: a field that some servers give twice under two names, or parts of the content."""
    for name in ("reasoning_content", "reasoning", "thinking"):
        if isinstance(delta.get(name), str) and delta[name]:
            return str(delta[name])
    return _said_in_parts(delta.get("content")) or _said_in_parts(delta.get("reasoning_details"))


def _said_in_parts(parts: object) -> str:
    """The text of those parts of a list that are no answer."""
    if not isinstance(parts, list):
        return ""
    found = [part for part in parts if isinstance(part, Mapping) and part.get("type") not in TEXT_PARTS]
    return "".join(_whole_text(part.get(name)) for part in found for name in THOUGHT_FIELDS)


def _whole_text(value: object) -> str:
    if isinstance(value, list):
        return "".join(_whole_text(part.get("text") if isinstance(part, Mapping) else part) for part in value)
    return value if isinstance(value, str) else ""


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _count(values: Mapping[str, Any], name: str) -> int | None:
    return gate.whole(name, values.get(name))
