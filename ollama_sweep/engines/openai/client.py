"""Requests to one OpenAI-compatible server through the `openai` package: chat, embeddings, and plain ones beside them.

The package never retries: what failed is asked again by whoever asks the questions. Only a 429 is waited for here, for
a short while.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from ollama_sweep.core.cell import Cell
from ollama_sweep.core.errors import CellFailed, EngineMissing, EngineUnavailable
from ollama_sweep.core.generation import Generation, Vectors
from ollama_sweep.core.outcome import Status
from ollama_sweep.engines.base import EngineSettings, RowsDone
from ollama_sweep.engines.openai.faults import Place, died, is_html, said_in, translated
from ollama_sweep.engines.openai.stream import Pieces
from ollama_sweep.engines.shared.deadline import Deadline
from ollama_sweep.machine.address import Address
from ollama_sweep.machine.env import Key

if TYPE_CHECKING:
    import openai

CONNECT_S = 5.0
ANSWER_S = 10.0
WAITS = 3
LONGEST_WAIT_S = 60.0
NOT_FOUND = frozenset({404, 405, 501})
FIELDS = {"num_predict": "max_tokens"}
"""What the API calls otherwise; every other option of a request has the same name there."""
REQUEST_OPTIONS = frozenset({"temperature", "top_p", "seed", "num_predict", "presence_penalty", "frequency_penalty"})
"""All that a request can say of how it is answered."""
EXTRA = "pip install 'ollama-sweep[openai]'"

T = TypeVar("T")


class Client:
    """One server and the key for it. Made without a request; `close` it."""

    def __init__(self, settings: EngineSettings, address: Address, key: Key) -> None:
        self._settings = settings
        self._address = address
        self._client: openai.OpenAI | None = None
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
        if self._client is not None:
            self._client.close()
            self._client = None

    def _opened(self) -> openai.OpenAI:
        if self._client is None:
            try:
                import openai
            except ImportError:
                raise EngineMissing(f"the package openai is not installed. Run: {EXTRA}") from None
            self._client = openai.OpenAI(
                api_key=self.place.key.value,
                base_url=self._address.url,
                max_retries=0,
                timeout=ANSWER_S,
                http_client=openai.DefaultHttpxClient(
                    follow_redirects=False,
                    trust_env=not self._address.is_local,
                    timeout=ANSWER_S,
                    verify=self._address.url.startswith("https:"),  # to read the certificates takes a while
                ),
            )
        return self._client

    # -- plain requests ------------------------------------------------------------------------------------------

    def get(self, url: str) -> Any:
        """The JSON at an address; None where nothing is there, or no JSON. Raises EngineUnavailable."""
        return self._plain(lambda client: client.get(url, cast_to=object))

    def post(self, url: str, body: Mapping[str, object]) -> Any:
        """The JSON that answers a POST; None where nothing is there, or no JSON. Raises EngineUnavailable."""
        return self._plain(lambda client: client.post(url, body=dict(body), cast_to=object))

    def _plain(self, ask: Callable[[openai.OpenAI], object]) -> Any:
        client = self._opened()
        import openai

        try:
            answer = self._patiently(lambda: ask(client), ANSWER_S)
        except openai.APIStatusError as error:
            if error.status_code in NOT_FOUND:
                return None
            failure = translated(error, self.place, ANSWER_S)
        except (openai.OpenAIError, ValueError) as error:
            failure = translated(error, self.place, ANSWER_S)
        else:
            if isinstance(answer, str) and is_html(answer):
                raise EngineMissing(self._not_an_api(said_in(answer)))
            return answer if isinstance(answer, Mapping | list) else None
        if isinstance(failure, EngineUnavailable):
            raise failure from None
        raise EngineUnavailable(failure.error) from None

    def _not_an_api(self, came: str) -> str:
        place = self.place
        return place.line(f"{place.url} answered {came}; JSON of an OpenAI-compatible API was expected (http://…/v1)")

    def _patiently(self, ask: Callable[[], T], timeout_s: float) -> T:
        """Ask again after a 429, as long as the server says, a few times. Raises EngineUnavailable, openai's errors."""
        self._opened()
        import openai

        for turn in range(WAITS + 1):
            try:
                return ask()
            except openai.RateLimitError as error:
                pause_s = _retry_after_s(error.response.headers.get("retry-after"), turn)
                failure = translated(error, self.place, timeout_s)
                if isinstance(failure, EngineMissing) or turn == WAITS or pause_s > LONGEST_WAIT_S:
                    raise failure from None
                self._settings.say(f"{failure}. Waiting {pause_s:g} s")
            time.sleep(pause_s)
        raise AssertionError("unreachable")

    # -- chat ----------------------------------------------------------------------------------------------------

    def chat(self, model: str, system: str, prompt: str, request: Mapping[str, object], timeout_s: float) -> Generation:
        """One streamed answer. `request` are further fields of the API. Raises CellFailed, EngineUnavailable."""
        messages = [{"role": "system", "content": system}] if system else []
        messages.append({"role": "user", "content": prompt})
        fields = {**request, "model": model, "messages": messages, "stream": True}
        fields["stream_options"] = {"include_usage": True}
        self._trace("chat/completions", model, request)
        client = self._opened()
        import openai

        def ask() -> tuple[float, Any]:
            limit = openai.Timeout(timeout_s, connect=CONNECT_S)
            return time.monotonic(), client.chat.completions.with_raw_response.create(**fields, timeout=limit)  # type: ignore[call-overload]

        try:
            started, answer = self._patiently(ask, timeout_s)
        except openai.OpenAIError as error:
            raise translated(error, self.place, timeout_s) from None
        left_s = max(0.0, timeout_s - (time.monotonic() - started))
        with Deadline(answer.http_response, left_s) as deadline:
            try:
                return self._read(answer, Pieces(self.place, started))
            except CellFailed:
                if deadline.has_passed:
                    text = f"{self.place.url} gave no whole answer within {timeout_s:g} s"
                    raise self.place.failed(Status.TIMEOUT, "run", text) from None
                raise

    def _trace(self, what: str, model: str, request: Mapping[str, object]) -> None:
        self._settings.trace(self.place.line(f"POST {self.place.url}/{what} model={model} {dict(request)}"))

    def _read(self, answer: Any, pieces: Pieces) -> Generation:
        """All pieces of an answer whose head has come. Raises CellFailed."""
        import openai

        kind = answer.headers.get("content-type", "")
        cut_off: tuple[type[Exception], ...] = (openai.APIConnectionError, *_transport_errors())
        try:
            if "html" in kind:
                raise self.place.failed(
                    Status.ERROR,
                    "bad_answer",
                    self._not_an_api(said_in(answer.http_response.read().decode("utf-8", "replace"))),
                )
            if "json" in kind:
                return self._read_whole(answer, pieces)
            for event in answer.parse():
                pieces.take(_plain_event(event), time.monotonic())
        except cut_off as error:
            if pieces.events or isinstance(error, openai.APITimeoutError):
                raise pieces.half(str(error.__cause__ or error)) from None
            raise died(self.place, str(error.__cause__ or error)) from None
        except (openai.OpenAIError, ValueError, TypeError, AttributeError, KeyError) as error:
            raise _as_cell(translated(error, self.place, 0), self.place) from None
        finally:
            answer.http_response.close()
        return pieces.generation(streamed=True)

    def _read_whole(self, answer: Any, pieces: Pieces) -> Generation:
        """The answer of a server that does not stream."""
        body = json.loads(answer.http_response.read())
        if isinstance(body, Mapping) and body.get("error"):
            raise self.place.judged(said_in(body), "error_event", json.dumps(body))
        pieces.take(body, time.monotonic())
        return pieces.generation(streamed=False)

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
            usage = getattr(answer, "usage", None)
            counts.append(getattr(usage, "prompt_tokens", None) or None)
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

    def _embed_batch(self, model: str, batch: list[str], timeout_s: float) -> tuple[float, Any]:
        client = self._opened()
        import openai

        def ask() -> tuple[float, Any]:
            started = time.monotonic()
            limit = openai.Timeout(timeout_s, connect=CONNECT_S)
            found = client.embeddings.create(model=model, input=batch, encoding_format="float", timeout=limit)
            return time.monotonic() - started, found

        try:
            return self._patiently(ask, timeout_s)
        except openai.APIStatusError as error:
            said = said_in(error.body if error.body is not None else error.response.text)
            if error.status_code in NOT_FOUND or (error.status_code in (400, 422, 500) and "embed" in said.lower()):
                text = f"{model} cannot embed: {self.place.url} answered HTTP {error.status_code}: {said}"
                raise self.place.failed(Status.ERROR, "cannot_embed", text, said) from None
            raise translated(error, self.place, timeout_s) from None
        except (openai.OpenAIError, ValueError, TypeError, AttributeError, KeyError) as error:
            raise translated(error, self.place, timeout_s) from None

    def _dimensions(self, answer: Any, rows: int) -> set[int]:
        """The lengths of the vectors, after a look at whether they are vectors. Raises CellFailed."""
        data = getattr(answer, "data", None)
        if not isinstance(data, list) or len(data) != rows:
            raise self._bad_vectors(f"{len(data) if isinstance(data, list) else 'no'} vectors for {rows} texts")
        for entry in data:
            vector = getattr(entry, "embedding", None)
            if not isinstance(vector, list) or not vector:
                raise self._bad_vectors("a row without a vector")
            if not all(isinstance(value, int | float) and math.isfinite(value) for value in vector):
                raise self._bad_vectors("a vector with something that is no number")
        return {len(entry.embedding) for entry in data}

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
    return {FIELDS.get(name, name): value for name, value in cell.options if name in REQUEST_OPTIONS}


def _plain_event(event: Any) -> object:
    """An event of the package as plain data, also what it does not know (`timings`)."""
    return event.model_dump(exclude_unset=True, warnings=False) if hasattr(event, "model_dump") else event


def _transport_errors() -> tuple[type[Exception], ...]:
    """What the transport raises: the package wraps it only since version 3, and uses httpx or httpx2."""
    modules = (sys.modules.get(name) for name in ("httpx", "httpx2"))
    return tuple(module.HTTPError for module in modules if module is not None)


def _as_cell(failure: CellFailed | EngineUnavailable, place: Place) -> CellFailed:
    """An answer had begun, so whatever ends it is the cell's."""
    return failure if isinstance(failure, CellFailed) else place.failed(Status.ERROR, "engine_died", str(failure))


def _retry_after_s(header: str | None, turn: int) -> float:
    """Seconds to wait: as the server says, else 1, 2, 4 …; a date, or nonsense, counts as nothing said."""
    try:
        seconds = float(header or "")
    except ValueError:
        return float(2**turn)
    return seconds if math.isfinite(seconds) and seconds >= 0 else float(2**turn)
