"""What a bad answer of an OpenAI-compatible server means: the cell's failure, the server's absence, or a wrong setting.

Every error is one line that names what came and what is expected; the key is in none of them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ollama_sweep.core.errors import CellFailed, EngineMissing, EngineUnavailable
from ollama_sweep.core.outcome import Status
from ollama_sweep.engines.shared import gate
from ollama_sweep.engines.shared.failures import classify
from ollama_sweep.machine.env import Key

if TYPE_CHECKING:
    import httpx

LONGEST = 400
KEPT_BODY = 4000
SHOWN = 80
_TITLE = re.compile(r"<title[^>]*>([^<]*)", re.IGNORECASE)
_HTML = re.compile(r"\s*(?:<!doctype|<html|<head|<body|<\?xml)", re.IGNORECASE)
_AWAY = frozenset({429, 502, 503, 504, 529})
_NO_MEMORY = re.compile(r"insufficient system resources", re.IGNORECASE)


@dataclass(frozen=True)
class Place:
    """Who is asked, and with which key."""

    url: str
    key: Key

    def line(self, text: str) -> str:
        """A text on one line, of a bearable length and without the key."""
        flat = " ".join(self.key.masked(gate.mended(text)).split())
        return flat if len(flat) <= LONGEST else flat[: LONGEST - 1] + "…"

    def shown(self, value: object) -> str:
        """The beginning of what came; the key is taken out first, so that no part of it is left."""
        return self.key.masked(str(value))[:SHOWN]

    def failed(self, status: Status, reason: str, text: str, raw: str = "") -> CellFailed:
        """The cell's failure."""
        return CellFailed(status, reason, self.line(text), self.key.masked(gate.mended(raw))[:KEPT_BODY])

    def judged(self, said: str, otherwise: str, raw: str = "") -> CellFailed:
        """The failure that the server's own words stand for, `otherwise` where they say nothing that is known."""
        status, reason = classify(said)
        if _NO_MEMORY.search(said):
            status, reason = Status.OOM, "does_not_fit"
        if (status, reason) == (Status.ERROR, "unknown"):
            reason = otherwise
        return self.failed(status, reason, f"{self.url}: {said}", raw or said)


def translated(error: Exception, place: Place, timeout_s: float) -> CellFailed | EngineUnavailable:
    """What an error of httpx, or of reading what came, means."""
    import httpx

    if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
        return EngineUnavailable(place.line(f"no server answers at {place.url}: {error or type(error).__name__}"))
    if isinstance(error, httpx.TimeoutException):
        return place.failed(Status.TIMEOUT, "run", f"{place.url} gave no answer within {timeout_s:g} s")
    if isinstance(error, httpx.HTTPStatusError):
        return by_status(error.response, place)
    return died(place, str(error)) if isinstance(error, httpx.HTTPError) else unreadable(error, place)


def unreadable(error: Exception, place: Place) -> CellFailed:
    """The failure of an answer that is not what the API says."""
    said = f"{place.url} answered what cannot be read ({error}); JSON as of the OpenAI API was expected"
    return place.failed(Status.ERROR, "bad_answer", said)


def died(place: Place, how: str) -> CellFailed:
    """The failure of a request whose connection ended before an answer came."""
    return place.failed(Status.ERROR, "engine_died", f"{place.url} ended the connection before it answered ({how})")


def by_status(answer: httpx.Response, place: Place) -> CellFailed | EngineUnavailable:
    """What an answer that is an error means."""
    code, said = answer.status_code, said_in(body_of(answer))
    text = f"{place.url} answered HTTP {code}: {said}"
    if code in (401, 403):
        origin = place.key.origin or "api_key_env"
        return EngineMissing(place.line(f"{text}. The key comes from {origin}; a right one was expected there"))
    if code == 404:
        return EngineMissing(place.line(f"{text}. An OpenAI-compatible API was expected; its address ends in /v1"))
    if 300 <= code < 400:
        to = answer.headers.get("location", "another place")
        return EngineMissing(place.line(f"{text}. It points to {to}; give the address that answers itself as host"))
    if code in _AWAY:
        return _away(said, text, place)
    if code == 408:
        return place.failed(Status.TIMEOUT, "run", text, said)
    failure = place.judged(said, f"http_{code}", answer.text)
    return CellFailed(failure.status, failure.reason, place.line(text), failure.raw)


def _away(said: str, text: str, place: Place) -> EngineUnavailable:
    if "insufficient_quota" in said or "quota" in said.lower():
        return EngineMissing(place.line(f"{text}. Waiting does not help"))
    return EngineUnavailable(place.line(text))


def body_of(answer: httpx.Response) -> object:
    """An answer's JSON, else its text."""
    try:
        return gate.loads(answer.content)
    except gate.Nonsense:
        return answer.content.decode("utf-8", "replace")


def said_in(body: object) -> str:
    """The server's own words in a body: its message, a page's title, else the body itself."""
    if isinstance(body, Mapping):
        inner = body.get("error", body)
        if isinstance(inner, Mapping):
            words = [str(inner[name]) for name in ("message", "detail", "code") if inner.get(name)]
            return " ".join(dict.fromkeys(words)) or json.dumps(dict(inner), default=str)
        return str(inner)
    text = body if isinstance(body, str) else json.dumps(body, default=str)
    if is_html(text):
        title = _TITLE.search(text)
        return f"an HTML page ({title[1].strip()})" if title and title[1].strip() else "an HTML page"
    return text.strip() or "nothing"


def is_html(text: str) -> bool:
    """The text is a page for people."""
    return _HTML.match(text) is not None
