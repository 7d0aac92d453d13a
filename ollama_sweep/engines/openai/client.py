"""Requests to one OpenAI-compatible server: chat, embeddings, and plain ones beside them.

Nothing is repeated here: what failed is asked again by whoever asks the questions. Only a 429 is waited for, for a
short while, and a field that the server refuses is given once more in the other way.
"""

from __future__ import annotations

import contextlib
import json
import math
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ollama_sweep.core.cell import Cell
from ollama_sweep.core.errors import CellFailed, EngineMissing, EngineUnavailable
from ollama_sweep.core.generation import Generation, Vectors
from ollama_sweep.core.outcome import Status
from ollama_sweep.engines.base import EngineSettings, RowsDone
from ollama_sweep.engines.openai.faults import Place, body_of, by_status, died, is_html, said_in, translated, unreadable
from ollama_sweep.engines.openai.stream import Pieces, events
from ollama_sweep.engines.shared import gate
from ollama_sweep.engines.shared.connections import Connections, limits
from ollama_sweep.engines.shared.deadline import Deadline
from ollama_sweep.engines.shared.failures import classify
from ollama_sweep.machine.address import Address, is_encrypted
from ollama_sweep.machine.env import Key

if TYPE_CHECKING:
    import httpx

CONNECT_S = 5.0
ANSWER_S = 10.0
WAITS = 3
LONGEST_WAIT_S = 60.0
NOT_FOUND = frozenset({404, 405, 501})
FIELDS = {"num_predict": "max_tokens"}
"""What the API calls otherwise; every other option of a request has the same name there."""
EFFORT = "reasoning_effort"
"""How the API is told to think: low, medium or high. It has no word for `true`, which is medium as in Ollama."""
OTHER_WAYS = {"max_tokens": "max_completion_tokens", "stream_options": None}
"""Fields that some servers refuse, and what they want in their place."""
_REFUSES = re.compile(
    r"unsupported|not supported|unrecogni[sz]ed|unknown|unexpected|not permitted|not allowed|extra|deprecated",
    re.IGNORECASE,
)
REQUEST_OPTIONS = frozenset(
    {"temperature", "top_p", "seed", "num_predict", "presence_penalty", "frequency_penalty", "think"}
)
"""All that a request can say of how it is answered."""


class Client:
    """One server and the key for it. Made without a request; `close` it."""

    def __init__(self, settings: EngineSettings, address: Address, key: Key) -> None:
        self._settings = settings
        self._address = address
        self._http: httpx.Client | None = None
        self._refused: set[tuple[object, str]] = set()
        self._connections = Connections()
        self.place = Place(address.url, key)

    @property
    def address(self) -> Address:
        return self._address

    @property
    def root(self) -> str:
        """The address without `/v1`, where some servers answer more."""
        return self._address.url.removesuffix("/v1")

    def close(self) -> None:
        """Close the connections."""
        if self._http is not None:
            self._http.close()
            self._http = None
        self._connections.close()

    def cut_short(self) -> None:
        """End every request in flight, and every wait for a server that is too busy; for any thread."""
        self._connections.cut()

    def _opened(self) -> httpx.Client:
        import httpx

        if self._http is None:
            headers = {"Authorization": f"Bearer {self.place.key.value}", "User-Agent": "ollama-sweep"}
            self._http = httpx.Client(
                base_url=self._address.url,
                headers=headers,
                trust_env=not self._address.is_local,
                verify=is_encrypted(self._address.url),
                limits=limits(),
                event_hooks={"request": [self._connections.watched]},
            )
        return self._http

    # -- one request ---------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _asked(
        self, method: str, url: str, body: Mapping[str, Any] | None, timeout_s: float
    ) -> Iterator[tuple[float, httpx.Response]]:
        """When it was asked, and the answer once its head has come; it is asked again after a 429, as the server says.

        Raises httpx.HTTPError, also for an answer that is an error; CellFailed, EngineUnavailable.
        """
        import httpx

        http, limits, turn = self._opened(), httpx.Timeout(timeout_s, connect=CONNECT_S), 0
        while True:
            started = time.monotonic()
            sent = None if body is None else self._in_its_way(body)
            with (
                http.stream(method, url, json=sent, timeout=limits) as answer,
                self._limited(answer, timeout_s, started),
            ):
                if answer.is_success:
                    yield started, answer
                    return
                answer.read()
            if answer.status_code == httpx.codes.TOO_MANY_REQUESTS:
                self._wait(answer, turn)
                turn += 1
            elif not (sent and self._has_another_way(answer, sent)):
                answer.raise_for_status()

    @contextlib.contextmanager
    def _limited(self, answer: httpx.Response, timeout_s: float, started: float) -> Iterator[None]:
        import httpx

        with Deadline(answer, timeout_s - (time.monotonic() - started)) as deadline:
            try:
                yield
            except (httpx.HTTPError, CellFailed):
                if not deadline.has_passed:
                    raise
                text = f"{self.place.url} gave no whole answer within {timeout_s:g} s"
                raise self.place.failed(Status.TIMEOUT, "run", text) from None

    def _wait(self, answer: httpx.Response, turn: int) -> None:
        """Wait as long as a 429 asks for. Raises EngineUnavailable where that is too long, or was too often."""
        pause_s = _retry_after_s(answer.headers.get("retry-after"), turn)
        failure = by_status(answer, self.place)
        if isinstance(failure, EngineMissing) or turn == WAITS or pause_s > LONGEST_WAIT_S:
            raise failure
        self._settings.say(f"{failure}. Waiting {pause_s:g} s")
        if self._connections.wait(pause_s):
            raise failure

    def _in_its_way(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """A request with the fields that the server takes for this model."""
        model = body.get("model")
        ways = {name: OTHER_WAYS[name] if (model, name) in self._refused else name for name in OTHER_WAYS}
        return {other: value for name, value in body.items() if (other := ways.get(name, name)) is not None}

    def _has_another_way(self, answer: httpx.Response, sent: Mapping[str, Any]) -> bool:
        """Note the field that a 400 or 422 refuses; whether there was one. A prompt that is too long refuses none."""
        said = said_in(body_of(answer)) if answer.status_code in (400, 422) else ""
        if classify(said)[0] is Status.TRUNCATED:
            return False
        refused = {
            (sent.get("model"), name)
            for name, other in OTHER_WAYS.items()
            if name in sent and ((other or name) in said or (name in said and _REFUSES.search(said)))
        }
        self._refused |= refused
        return bool(refused)

    # -- plain requests ------------------------------------------------------------------------------------------

    def get(self, url: str) -> Any:
        """The JSON at an address; None where nothing is there, or no JSON. Raises EngineUnavailable."""
        return self._plain("GET", url)

    def post(self, url: str, body: Mapping[str, object]) -> Any:
        """The JSON that answers a POST; None where nothing is there, or no JSON. Raises EngineUnavailable."""
        return self._plain("POST", url, body)

    def _plain(self, method: str, url: str, body: Mapping[str, object] | None = None) -> Any:
        import httpx

        try:
            with self._asked(method, url, body, ANSWER_S) as (_, answer):
                answer.read()
            if is_html(answer.text):
                raise EngineMissing(self._not_an_api(said_in(answer.text)))
            found = gate.loads(answer.content) if "json" in answer.headers.get("content-type", "") else None
            return found if isinstance(found, Mapping | list) else None
        except (httpx.HTTPError, ValueError) as error:
            if isinstance(error, httpx.HTTPStatusError) and error.response.status_code in NOT_FOUND:
                return None
            failure = translated(error, self.place, ANSWER_S)
        except CellFailed as error:
            failure = error
        raise failure if isinstance(failure, EngineUnavailable) else EngineUnavailable(failure.error) from None

    def _not_an_api(self, came: str) -> str:
        place = self.place
        return place.line(f"{place.url} answered {came}; JSON of an OpenAI-compatible API was expected (http://…/v1)")

    # -- chat ----------------------------------------------------------------------------------------------------

    def chat(self, model: str, system: str, prompt: str, request: Mapping[str, object], timeout_s: float) -> Generation:
        """One streamed answer. `request` are further fields of the API. Raises CellFailed, EngineUnavailable."""
        import httpx

        messages = [{"role": "system", "content": system}] if system else []
        messages.append({"role": "user", "content": prompt})
        fields = {**request, "model": model, "messages": messages, "stream": True}
        fields["stream_options"] = {"include_usage": True}
        self._trace("chat/completions", model, request)
        try:
            with self._asked("POST", "/chat/completions", fields, timeout_s) as (started, answer):
                return self._read(answer, Pieces(self.place, started))
        except httpx.HTTPStatusError as error:
            code, said = error.response.status_code, said_in(body_of(error.response))
            if EFFORT in request and code in (400, 422) and ("reasoning" in said.lower() or "think" in said.lower()):
                text = f"{model} does not support thinking: {self.place.url} answered HTTP {code}: {said}"
                raise self.place.failed(Status.ERROR, "cannot_think", text, said) from None
            raise translated(error, self.place, timeout_s) from None
        except httpx.HTTPError as error:
            raise translated(error, self.place, timeout_s) from None

    def _trace(self, what: str, model: str, request: Mapping[str, object]) -> None:
        self._settings.trace(self.place.line(f"POST {self.place.url}/{what} model={model} {dict(request)}"))

    def _read(self, answer: httpx.Response, pieces: Pieces) -> Generation:
        """All pieces of an answer whose head has come. Raises CellFailed."""
        import httpx

        kind = answer.headers.get("content-type", "")
        try:
            if "html" in kind:
                text = self._not_an_api(said_in(answer.read().decode("utf-8", "replace")))
                raise self.place.failed(Status.ERROR, "bad_answer", text)
            is_streamed = "json" not in kind
            for event in events(answer.iter_bytes()) if is_streamed else [gate.loads(answer.read(), in_pieces=True)]:
                pieces.take(event, time.monotonic())
        except httpx.HTTPError as error:
            if pieces.events or isinstance(error, httpx.TimeoutException):
                raise pieces.half(str(error)) from None
            raise died(self.place, str(error)) from None
        except gate.BadValue as error:
            raise pieces.impossible(error) from None
        except (ValueError, TypeError, AttributeError, KeyError) as error:
            raise unreadable(error, self.place) from None
        return pieces.generation(streamed=is_streamed)

    # -- embeddings ----------------------------------------------------------------------------------------------

    def embed(self, model: str, texts: Sequence[str], batch_size: int, timeout_s: float) -> Generation:
        """The vectors of these texts in batches, within `timeout_s` in all. Raises CellFailed, EngineUnavailable."""
        self._trace("embeddings", model, {"rows": len(texts), "batch_size": batch_size})
        deadline = time.monotonic() + timeout_s
        spent_s, dimensions, counts = 0.0, set[int](), list[int | None]()
        say_done = RowsDone(self._settings.say, len(texts))
        for start in range(0, len(texts), batch_size):
            batch = list(texts[start : start + batch_size])
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                raise self.place.failed(Status.TIMEOUT, "run", f"the embeddings were not done within {timeout_s:g} s")
            duration_s, answer = self._embed_batch(model, batch, left_s)
            spent_s += duration_s
            dimensions |= self._dimensions(answer, len(batch))
            counts.append(self._tokens_of(answer))
            say_done(start + len(batch))
        if len(dimensions) > 1:
            raise self._bad_vectors(f"vectors of {' and '.join(map(str, sorted(dimensions)))} numbers")
        known = [count for count in counts if isinstance(count, int)]
        return Generation(
            text="",
            prompt_eval_count=sum(known) if known and len(known) == len(counts) else None,
            prompt_eval_duration_s=None,
            client_duration_s=spent_s,
            raw=json.dumps({"model": model, "rows": len(texts), "batch_size": batch_size, "tokens": counts}),
            vectors=Vectors(len(texts), max(dimensions, default=0), dtype=""),
        )

    def _embed_batch(self, model: str, batch: list[str], timeout_s: float) -> tuple[float, Mapping[str, Any]]:
        """The seconds that one request took, and its answer. Raises CellFailed, EngineUnavailable."""
        import httpx

        body = {"model": model, "input": batch, "encoding_format": "float"}
        try:
            with self._asked("POST", "/embeddings", body, timeout_s) as (started, answer):
                answer.read()
                duration_s = time.monotonic() - started
            found = gate.loads(answer.content)
        except httpx.HTTPStatusError as error:
            code, said = error.response.status_code, said_in(body_of(error.response))
            if code in NOT_FOUND or (code in (400, 422, 500) and "embed" in said.lower()):
                text = f"{model} cannot embed: {self.place.url} answered HTTP {code}: {said}"
                raise self.place.failed(Status.ERROR, "cannot_embed", text, said) from None
            raise translated(error, self.place, timeout_s) from None
        except (httpx.HTTPError, ValueError) as error:
            raise translated(error, self.place, timeout_s) from None
        return duration_s, found if isinstance(found, Mapping) else {}

    def _dimensions(self, answer: Mapping[str, Any], rows: int) -> set[int]:
        """The lengths of the vectors, after a look at whether they are vectors. Raises CellFailed."""
        data = answer.get("data")
        if not isinstance(data, list) or len(data) != rows:
            raise self._bad_vectors(f"{len(data) if isinstance(data, list) else 'no'} vectors for {rows} texts")
        vectors = [entry.get("embedding") if isinstance(entry, Mapping) else None for entry in data]
        for vector in vectors:
            if not isinstance(vector, list) or not vector:
                raise self._bad_vectors("a row without a vector")
            if not gate.is_vector(vector):
                raise self._bad_vectors("a vector with something that is no number")
        return {len(vector) for vector in vectors if vector}

    def _tokens_of(self, answer: Mapping[str, Any]) -> int | None:
        """The tokens of a batch, where the server counts. Raises CellFailed."""
        try:
            return gate.whole("prompt_tokens", gate.mapping("usage", answer.get("usage")).get("prompt_tokens")) or None
        except gate.Nonsense as error:
            raise self.place.failed(Status.PARSE_ERROR, error.reason, f"{self.place.url}: {error}") from None

    def _bad_vectors(self, came: str) -> CellFailed:
        text = f"{self.place.url} answered {came}; one vector of numbers for each text was expected"
        return self.place.failed(Status.ERROR, "bad_answer", text)


def request_of(cell: Cell, engine: str, loads: frozenset[str] = frozenset()) -> dict[str, object]:
    """The fields of the API for a cell's options; `loads` are those that the engine sets when it loads.

    A num_ctx or num_batch of 0 is the server's own. Raises CellFailed (config) for an option that nothing can set.
    """
    known = REQUEST_OPTIONS | loads
    for name, value in (*cell.options, *cell.server):
        if name not in known and not (name in ("num_ctx", "num_batch") and not value):
            text = f"the engine {engine} cannot set {name}; it can set {', '.join(sorted(known))}"
            raise CellFailed(Status.ERROR, "config", text)
    asked: dict[str, object] = {
        FIELDS.get(name, name): value for name, value in cell.options if name in REQUEST_OPTIONS
    }
    think = asked.pop("think", None)
    return {**asked, EFFORT: "medium" if think is True else think} if think else asked


def _retry_after_s(header: str | None, turn: int) -> float:
    """Seconds to wait: as the server says, else 1, 2, 4 …; a date, or nonsense, counts as nothing said."""
    try:
        seconds = float(header or "")
    except ValueError:
        return float(2**turn)
    return seconds if math.isfinite(seconds) and seconds >= 0 else float(2**turn)
