"""Requests to an Ollama server with a deadline, and what their failures mean."""

from __future__ import annotations

import contextlib
import json
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ollama_sweep.core.errors import CellFailed, EngineUnavailable
from ollama_sweep.core.generation import Generation, Vectors
from ollama_sweep.core.outcome import Status
from ollama_sweep.core.thoughts import Arrivals
from ollama_sweep.engines.base import EngineSettings, Kept, RowsDone
from ollama_sweep.engines.ollama.server import ANSWER_S, OllamaServer
from ollama_sweep.engines.shared import gate
from ollama_sweep.engines.shared.deadline import Deadline
from ollama_sweep.engines.shared.failures import classify

if TYPE_CHECKING:
    import httpx

LONGEST_SHOWN = 400
LONGEST_ERROR = 4000

_TOKENS_NAMED = (
    re.compile(r'n_prompt_tokens\\*"\s*:\s*([0-9]{1,9})\b'),
    re.compile(r"request \(([0-9]{1,9}) tokens\)"),
)


@dataclass
class Streamed:
    """An answer in pieces, its last object, and how long all of it took."""

    pieces: Arrivals = field(default_factory=lambda: Arrivals(time.monotonic()))
    last: dict[str, Any] = field(default_factory=dict)
    duration_s: float = 0.0

    @property
    def text(self) -> str:
        return gate.mended(self.pieces.text)

    @property
    def thoughts(self) -> str:
        return gate.mended(self.pieces.thoughts)

    @property
    def raw(self) -> str:
        """Everything that came, as one object; the ids of the tokens are left out."""
        kept = {name: value for name, value in self.last.items() if name not in ("context", "thinking")}
        thoughts = {"thinking": self.thoughts} if self.thoughts else {}
        return gate.mended(json.dumps({**kept, **thoughts, "response": self.text}, ensure_ascii=False))

    def generation(self) -> Generation:
        """As every engine gives it. Raises CellFailed for a number that is none."""
        with gate.of_cell(lambda: self.raw):
            numbers = _numbers(self.last)
            return Generation(
                **numbers,
                text=self.text,
                thoughts=self.thoughts,
                thinking_count=self.pieces.thinking_count(numbers["eval_count"]),
                thinking_duration_s=self.pieces.thinking_duration_s(),
                client_duration_s=self.duration_s,
                ttft_s=self.pieces.ttft_s,
                raw=self.raw,
                chunk_count=self.pieces.count,
            )


def _numbers(answer: Mapping[str, Any]) -> dict[str, Any]:
    """What the last object of an answer counts and times, by the names of a generation. Raises Nonsense."""
    return {
        "prompt_eval_count": gate.whole("prompt_eval_count", answer.get("prompt_eval_count")),
        "prompt_eval_duration_s": seconds("prompt_eval_duration", answer),
        "eval_count": gate.whole("eval_count", answer.get("eval_count")),
        "eval_duration_s": seconds("eval_duration", answer),
        "cached_count": gate.whole("prompt_eval_cached_count", answer.get("prompt_eval_cached_count")),
        "total_duration_s": seconds("total_duration", answer),
        "load_duration_s": seconds("load_duration", answer),
    }


def read_again(kept: Kept) -> dict[str, float | None]:
    """The numbers of an answer, or of an embedding request, as `Streamed` and `_Embedded` kept it. Raises Nonsense."""
    found = _parsed(kept.raw)
    if not kept.embeds:
        if "response" not in found:
            raise gate.Nonsense("no answer of Ollama's API was kept")
        return {**_numbers(found), "printed_rate": None}
    if not {"rows", "prompt_eval_count"} <= set(found):
        raise gate.Nonsense("no embedding request of Ollama's API was kept")
    durations = {name: gate.duration_s(name, found[name]) for name in _EMBED_DURATIONS if name in found}
    nothing = dict.fromkeys(("prompt_eval_duration_s", "eval_count", "eval_duration_s", "cached_count", "printed_rate"))
    count = gate.whole("prompt_eval_count", found.get("prompt_eval_count"))
    return {**nothing, "prompt_eval_count": count or None, **durations}


_EMBED_DURATIONS = ("total_duration_s", "load_duration_s")
"""Of all batches together; earlier versions did not keep them."""


class Requests:
    """Asks one server. Every failure is the cell's (CellFailed) or the surroundings' (EngineUnavailable)."""

    def __init__(self, server: OllamaServer, settings: EngineSettings) -> None:
        self._server = server
        self._settings = settings

    def post(self, path: str, body: Mapping[str, Any], timeout_s: float, what: str) -> httpx.Response:
        """One request and its whole answer, which may be an error of the server."""
        self._trace(path, body, what)
        with self._judged(what, timeout_s):
            return self._server.post(path, body, timeout_s)

    def _trace(self, path: str, body: Mapping[str, Any], what: str) -> None:
        shown = body if len(str(body)) < LONGEST_SHOWN else f"{body.get('model')} ({what})"
        self._settings.trace(f"POST {self._server.where}{path} {shown}")

    @contextlib.contextmanager
    def _judged(self, what: str, timeout_s: float, streamed: Streamed | None = None) -> Iterator[None]:
        import httpx

        try:
            yield
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise EngineUnavailable(f"the Ollama server at {self._server.where} does not answer: {error}") from error
        except httpx.TimeoutException:
            raise _too_late(what, timeout_s, streamed) from None
        except httpx.HTTPError as error:
            raw = streamed.raw if streamed else ""
            text = f"the server ended the connection: {error}"
            raise CellFailed(Status.ERROR, "engine_died", text, raw) from error

    def generate(self, body: Mapping[str, Any], timeout_s: float) -> Streamed:
        """One generation in pieces; never an incomplete one. Raises CellFailed, EngineUnavailable."""
        import httpx

        self._trace("/api/generate", body, "run")
        client, limits = self._server.http, httpx.Timeout(timeout_s, connect=ANSWER_S)
        started = time.monotonic()
        streamed = Streamed(Arrivals(started))
        with (
            self._judged("run", timeout_s, streamed),
            client.stream("POST", "/api/generate", json={**body, "stream": True}, timeout=limits) as answer,
        ):
            if answer.is_error:
                answer.read()
                raise refusal(answer)
            with Deadline(answer, started + timeout_s - time.monotonic()) as deadline:
                collect(answer.iter_bytes(), streamed, deadline)
        if deadline.has_passed:
            raise _too_late("run", timeout_s, streamed)
        streamed.duration_s = time.monotonic() - started
        return _complete(streamed)

    def count(self, body: Mapping[str, Any], timeout_s: float) -> int | None:
        """The tokens of a prompt that may not be cut, by its evaluation or by its refusal; None where neither says."""
        answer = self.post("/api/generate", {**body, "stream": False, "truncate": False}, timeout_s, "count")
        if not answer.is_error:
            with gate.of_cell(_beginning(answer)):
                return gate.whole("prompt_eval_count", _object(answer).get("prompt_eval_count")) or None
        failure = refusal(answer)
        named = next(filter(None, (pattern.search(failure.error) for pattern in _TOKENS_NAMED)), None)
        if named:
            return int(named[1])
        if failure.status == Status.TRUNCATED:
            return None
        raise failure

    def embed(self, body: Mapping[str, Any], texts: Sequence[str], batch_size: int, timeout_s: float) -> Generation:
        """The vectors of these texts, none of them cut. Raises CellFailed, EngineUnavailable."""
        found, spent_s, say_done = _Embedded(), 0.0, RowsDone(self._settings.say, len(texts))
        for start in range(0, len(texts), batch_size):
            batch = list(texts[start : start + batch_size])
            if spent_s >= timeout_s:
                raise _too_late("embed", timeout_s, None)
            began = time.monotonic()
            request = {**body, "input": batch, "truncate": False}
            answer = self.post("/api/embed", request, timeout_s - spent_s, "embed")
            spent_s += time.monotonic() - began
            if answer.is_error:
                raise _no_embeddings(refusal(answer))
            with gate.of_cell(_beginning(answer)):
                found.add(_object(answer), len(batch))
            say_done(found.rows)
        return found.generation(spent_s)


@dataclass
class _Embedded:
    """What the batches of one embedding request gave together."""

    rows: int = 0
    dimension: int = 0
    tokens: int = 0
    total_s: float = 0.0
    load_s: float = 0.0

    def add(self, answer: Mapping[str, Any], asked: int) -> None:
        """Raises Nonsense for what are not so many vectors of one length."""
        dimension = gate.vectors("embeddings", answer.get("embeddings"), asked)
        if self.rows and dimension != self.dimension:
            raise gate.BadValue("embeddings", dimension, f"vectors of {self.dimension} numbers, as before")
        self.rows += asked
        self.dimension = dimension
        self.tokens += gate.whole("prompt_eval_count", answer.get("prompt_eval_count")) or 0
        self.total_s += seconds("total_duration", answer) or 0.0
        self.load_s += seconds("load_duration", answer) or 0.0

    def generation(self, spent_s: float) -> Generation:
        raw = {"rows": self.rows, "dimension": self.dimension, "prompt_eval_count": self.tokens,
               "total_duration_s": self.total_s, "load_duration_s": self.load_s}  # fmt: skip
        return Generation(
            text="",
            prompt_eval_count=self.tokens or None,
            prompt_eval_duration_s=None,
            total_duration_s=self.total_s or None,
            load_duration_s=self.load_s or None,
            client_duration_s=spent_s,
            raw=json.dumps(raw),
            vectors=Vectors(self.rows, self.dimension),
        )


def collect(chunks: Iterable[bytes], streamed: Streamed, deadline: Deadline) -> None:
    """Take the pieces as they come. Raises CellFailed for an error among them, httpx.HTTPError."""
    import httpx

    try:
        for line in _lines(chunks):
            with gate.of_cell(lambda: streamed.raw):
                found = _parsed(line, in_pieces=True)
                if found.get("error") is not None:
                    raise _failure(_error_of(found), streamed.raw)
                text, thought = (gate.text(name, found.get(name), in_pieces=True) for name in ("response", "thinking"))
                is_done = gate.flag("done", found.get("done"))
            streamed.pieces.take(time.monotonic(), text=text, thought=thought)
            if is_done:
                streamed.last = found
            elif not text and not thought:
                streamed.pieces.skip(time.monotonic())
    except httpx.HTTPError:
        if not deadline.has_passed:
            raise


def _lines(chunks: Iterable[bytes]) -> Iterator[bytes]:
    rest = b""
    for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n")
        yield from (line for line in whole if line.strip())
    if rest.strip():
        yield rest


def _parsed(data: bytes | str, *, in_pieces: bool = False) -> dict[str, Any]:
    """An object of the API. Raises Nonsense."""
    found = gate.loads(data, in_pieces=in_pieces)
    if isinstance(found, dict):
        return found
    raise gate.Nonsense(f"the server's answer is no JSON object: {gate.shown(found)}")


def _complete(streamed: Streamed) -> Streamed:
    count = streamed.pieces.count
    if not streamed.last:
        text = f"the answer broke off after {count} pieces" if count else "nothing was answered"
        raise CellFailed(Status.ERROR, "engine_died" if count else "no_statistics", text, streamed.raw)
    counted = [streamed.last.get(name) for name in ("prompt_eval_count", "eval_count", "prompt_eval_duration")]
    if all(value in (None, 0) for value in counted):
        raise CellFailed(Status.ERROR, "no_statistics", "no statistics came with the answer", streamed.raw)
    return streamed


def _too_late(what: str, timeout_s: float, streamed: Streamed | None) -> CellFailed:
    text = f"the {what} did not end in {timeout_s:g} s"
    return CellFailed(Status.TIMEOUT, what, text, streamed.raw if streamed else "")


def refusal(answer: httpx.Response) -> CellFailed:
    """What an answer that is an error means for the cell."""
    try:
        text = _error_of(_object(answer))
    except (gate.Nonsense, KeyError):
        text = f"HTTP {answer.status_code}: {_beginning(answer)[:LONGEST_SHOWN].strip() or 'no text'}"
    return _failure(text, _beginning(answer))


def _error_of(answer: Mapping[str, Any]) -> str:
    error = answer["error"]
    return error if isinstance(error, str) else json.dumps(error)


def _failure(said: str, raw: str) -> CellFailed:
    text = gate.mended(said)
    status, reason = classify(text)
    return CellFailed(status, reason, text, raw)


def _no_embeddings(failure: CellFailed) -> CellFailed:
    if failure.reason != "capability":
        return failure
    return CellFailed(Status.ERROR, "cannot_embed", failure.error, failure.raw)


def _object(answer: httpx.Response) -> dict[str, Any]:
    return _parsed(answer.content)


def _beginning(answer: httpx.Response) -> str:
    """What is kept of an answer that cannot be read."""
    return answer.content[:LONGEST_ERROR].decode("utf-8", "replace")


def seconds(name: str, answer: Mapping[str, Any]) -> float | None:
    """A duration of Ollama's, which are nanoseconds; absent is unknown. Raises Nonsense."""
    return gate.duration_s(name, answer.get(name), gate.NS_PER_S)
