"""The embedded engine: llama.cpp from the wheel `xllamacpp`, in a child process for each load.

It means by every option what Ollama means by it (num_batch is both batch and micro-batch, num_ctx ends at the
model's training context, the same sampling defaults), so that a map measured here reads like one of Ollama.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

from ollama_sweep.core.cell import Cell
from ollama_sweep.core.errors import CellFailed
from ollama_sweep.core.generation import EMBED, GENERATE, Generation, Vectors
from ollama_sweep.core.options import KV_CACHE_SHARES, PARAMETERS, Options, Scalar
from ollama_sweep.core.outcome import Effective, Status
from ollama_sweep.engines.base import READ_AGAIN, EngineInfo, EngineSettings, Kept, ModelInfo
from ollama_sweep.engines.base import Engine as Base
from ollama_sweep.engines.llamacpp.child import EmbeddedChild
from ollama_sweep.engines.llamacpp.look import EmbeddedLook, installed_version
from ollama_sweep.engines.llamacpp.model import Source, installed, locate
from ollama_sweep.engines.shared import gate, modelfile
from ollama_sweep.engines.shared.failures import classify
from ollama_sweep.engines.shared.modelfile import last_value, messages, parameters

DEFAULT_CTX = 4096
"""As Ollama's on machines without much GPU memory; num_batch then follows Ollama's own steps."""
COUNTING_CTX = 256
COUNTING_BATCH = 64
RAW_TEMPLATE = "{{ .Prompt }}"
SERVER_SETTINGS = ("kv_cache_type", "flash_attention")

_SAMPLING: Mapping[str, Any] = {
    "temperature": 0.8,
    "top_k": 40,
    "top_p": 0.9,
    "min_p": 0.0,
    "typical_p": 1.0,
    "repeat_last_n": 64,
    "repeat_penalty": 1.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
}
"""Ollama's defaults; llama-server's own are others. Both use the same names."""


class Engine(Base):
    """See `base.Engine`. At most one child process at a time."""

    settable = frozenset({*PARAMETERS, *SERVER_SETTINGS, "modelfile", "think"} - {"draft_num_predict"})
    kinds = frozenset({GENERATE, EMBED})
    loads_without_a_prompt = True
    look = EmbeddedLook

    def __init__(self, settings: EngineSettings) -> None:
        super().__init__(settings)
        self._template = modelfile.parse(settings.template, "modelfile", True) if settings.template else None
        self._sources: dict[str, Source] = {}
        self._said: set[str] = set()
        self._child: EmbeddedChild | None = None
        self._loaded: tuple[object, ...] | None = None
        self._effective = Effective()

    def describe(self) -> EngineInfo:
        return EngineInfo("llamacpp", installed_version(), "embedded")

    # -- models --------------------------------------------------------------------------------------------------

    def models(self) -> tuple[str, ...]:
        return installed()

    def model_info(self, model: str) -> ModelInfo:
        return self._source(model).info(model)

    def _source(self, model: str) -> Source:
        if model not in self._sources:
            self._sources[model] = locate(model)
        return self._sources[model]

    # -- one cell ------------------------------------------------------------------------------------------------

    @classmethod
    def read_again(cls, kept: Kept) -> Mapping[str, float | None]:
        """Of what the child process told, its own times among it."""
        answer = gate.mapping("answer", gate.loads(kept.raw))
        if not ({"rows", "tokens", "spent_s"} if kept.embeds else {"text", "timings"}) <= set(answer):
            raise gate.Nonsense("no answer of the embedded engine was kept")
        found = _Embedded.kept(answer).generation() if kept.embeds else _generation(answer, "")
        return {name: getattr(found, name) for name in READ_AGAIN}

    def prepare(self, cell: Cell) -> Effective:
        if self._loaded == cell.load_key and self._child is not None and self._child.is_alive:
            return self._effective
        source = self._source(cell.model)
        server = server_settings(dict(cell.server), "the embedded engine")
        load = {**self._load_options(source, cell.options), **server, "warmup": True}
        self._start(source, load)
        self._loaded = cell.load_key
        return self._effective

    def _start(self, source: Source, load: Mapping[str, Any]) -> EmbeddedChild:
        """A fresh child with this load; the one before is ended first."""
        self._end()
        self.describe()
        self._settings.trace(f"llama.cpp {json.dumps(load)}")
        self._child = child = EmbeddedChild(self._settings)
        self._effective = child.load(load, source.path.stat().st_size)
        return child

    def _load_options(self, source: Source, options: Options) -> dict[str, Any]:
        given = self._all_options(source, options)
        trained = source.header.context_length
        num_ctx = int(given.get("num_ctx") or DEFAULT_CTX)
        num_ctx = min(num_ctx, trained) if trained else num_ctx
        embeds = source.header.is_embedding_model
        return {
            "path": str(source.path.absolute()),
            "num_ctx": num_ctx,
            "num_batch": int(given.get("num_batch") or default_batch(num_ctx, embeds=embeds)),
            "num_gpu": int(given.get("num_gpu", -1)),
            "num_thread": given.get("num_thread"),
            "main_gpu": given.get("main_gpu"),
            "use_mmap": given.get("use_mmap"),
            "embedding": embeds,
        }

    def _all_options(self, source: Source, options: Options) -> dict[str, Any]:
        """The installed model's options, over them the Modelfile's, over them the cell's."""
        return {**source.options, **parameters(self._template), **dict(options)}

    def generate(self, cell: Cell, prompt: str, timeout_s: float, *, fresh: bool = True) -> Generation:
        """Nothing is ever taken from a cache here, `fresh` or not."""
        source = self._source(cell.model)
        if source.header.is_embedding_model:
            raise CellFailed(Status.ERROR, "capability", f"{cell.model} is an embedding model and does not generate")
        conversation = self._conversation(cell.model, prompt, cell.system, cell.think)
        request = {**self._sampling(source, cell), **conversation}
        answer = self._prepared().generate(request, timeout_s)
        raw = json.dumps(answer, ensure_ascii=False)
        with gate.of_cell(raw):
            if "error" in answer:
                self._raise_refusal(answer["error"], raw)
            found = _generation(answer, raw)
        limit = self._effective.num_ctx
        if limit and found.prompt_eval_count and found.prompt_eval_count >= limit:
            # It fitted only because llama.cpp rounds num_ctx up; Ollama would have cut it.
            text = f"the prompt has {found.prompt_eval_count} tokens, num_ctx is {limit}"
            raise CellFailed(Status.TRUNCATED, "does_not_fit", text, raw)
        return found

    def _prepared(self) -> EmbeddedChild:
        if self._child is None:
            raise RuntimeError("asked before prepare")
        return self._child

    def embed(self, cell: Cell, texts: Sequence[str], batch_size: int, timeout_s: float) -> Generation:
        """A text longer than num_batch is refused and never cut."""
        if not self._source(cell.model).header.is_embedding_model:
            raise CellFailed(Status.ERROR, "cannot_embed", f"{cell.model} is no embedding model")
        found = _Embedded()
        for start in range(0, len(texts), batch_size):
            left_s, batch = timeout_s - found.spent_s, texts[start : start + batch_size]
            if left_s <= 0:
                raise CellFailed(Status.TIMEOUT, "embed", f"the embed did not end within {timeout_s:g} s")
            answer = self._prepared().embed(batch, left_s)
            raw = json.dumps(answer, ensure_ascii=False)
            with gate.of_cell(raw):
                if "error" in answer:
                    self._raise_refusal(answer["error"], raw)
                found.add(answer, len(batch))
        return found.generation()

    def processes(self) -> tuple[int, ...]:
        return (self._child.pid,) if self._child is not None and self._child.is_alive else ()

    def _raise_refusal(self, error: object, raw: str) -> None:
        status, reason = classify(json.dumps(error))
        message = error.get("message") if isinstance(error, Mapping) else error
        raise CellFailed(status, reason, message if isinstance(message, str) else json.dumps(error), raw)

    def _sampling(self, source: Source, cell: Cell) -> dict[str, Any]:
        given = self._all_options(source, cell.options)
        request = {name: given.get(name, default) for name, default in _SAMPLING.items()}
        request["n_predict"] = cell.num_predict
        request["n_keep"] = given.get("num_keep", 4)
        if given.get("seed", -1) >= 0:
            request["seed"] = given["seed"]
        stop = given.get("stop")
        if stop:
            request["stop"] = [stop] if isinstance(stop, str) else list(stop)
        return request

    # -- what the model is told ----------------------------------------------------------------------------------

    def _conversation(self, model: str, prompt: str, system: str = "", think: bool | str = False) -> dict[str, Any]:
        """The prompt as `ollama run` would put it: in the model's chat template, after SYSTEM and MESSAGE.

        `system` goes before any other SYSTEM. Without a chat template it stands in front of the prompt.
        """
        source = self._source(model)
        if not self._is_chat(source, model):
            _thinking("", think, model)
            return {"prompt": f"{system}\n\n{prompt}" if system else prompt}
        written = last_value(self._template, "system")
        system = system or (source.system if written is None else written)
        history = messages(self._template) or [dict(message) for message in source.messages]
        start = [{"role": "system", "content": system}] if system else []
        request: dict[str, Any] = {"messages": [*start, *history, {"role": "user", "content": prompt}]}
        told = _thinking(source.header.chat_template or "", think, model)
        return {**request, "chat_template_kwargs": told} if told else request

    def _is_chat(self, source: Source, model: str) -> bool:
        written = last_value(self._template, "template")
        template = source.template if written is None else written
        has_own = bool(source.header.chat_template)
        if template is not None and template.strip() != RAW_TEMPLATE:
            instead = "the chat template inside the model file" if has_own else "no template"
            self._say_once(f"The embedded engine cannot use the TEMPLATE of {model}; it uses {instead}")
        elif template is not None:
            return False
        return has_own

    def _say_once(self, line: str) -> None:
        if line not in self._said:
            self._said.add(line)
            self._settings.say(line)

    # -- the prompt's true length --------------------------------------------------------------------------------

    def count_tokens(self, model: str, prompt: str, *, system: str = "") -> int | None:
        """Asked of a very small context on the CPU: the refusal names the count, and nothing is evaluated."""
        source = self._source(model)
        if source.header.is_embedding_model:
            return None
        child = self._counting_child(model, source)
        request = {**self._conversation(model, prompt, system), "n_predict": 1}
        answer = child.generate(request, self._settings.timeout_s)
        raw, error = json.dumps(answer), answer.get("error")
        with gate.of_cell(raw):
            if error is None:
                return _generation(answer, "").prompt_eval_count
            if not isinstance(error, Mapping) or "n_prompt_tokens" not in error:
                self._raise_refusal(error, raw)
            return gate.whole("n_prompt_tokens", error["n_prompt_tokens"])

    def _counting_child(self, model: str, source: Source) -> EmbeddedChild:
        """Kept from one count to the next, until a cell is prepared."""
        key = ("count", model)
        if self._loaded == key and self._child is not None and self._child.is_alive:
            return self._child
        options: Options = (("num_batch", COUNTING_BATCH), ("num_ctx", COUNTING_CTX), ("num_gpu", 0))
        child = self._start(source, {**self._load_options(source, options), "warmup": False})
        self._loaded = key
        return child

    # -- the end -------------------------------------------------------------------------------------------------

    def release(self, *, failed: bool) -> None:
        self._end()

    def _end(self) -> None:
        self._loaded = None
        if self._child is not None:
            self._child.end()
            self._child = None

    def close(self) -> None:
        with suppress(Exception):
            self._end()


def _thinking(chat_template: str, think: bool | str, model: str) -> dict[str, Any]:
    """What the chat template is told of thinking; nothing where it does not ask. Raises CellFailed (cannot_think)."""
    told: dict[str, Any] = {}
    if "enable_thinking" in chat_template:
        told["enable_thinking"] = bool(think)
    if "reasoning_effort" in chat_template and think:
        told["reasoning_effort"] = think if isinstance(think, str) else "medium"
    if think and not told and "think" not in chat_template.lower():
        text = f"{model} does not support thinking (its chat template says nothing of it), and `think` asks for it"
        raise CellFailed(Status.ERROR, "cannot_think", text)
    return told


def default_batch(num_ctx: int, *, embeds: bool) -> int:
    """What Ollama takes where nobody names num_batch (server/sched.go)."""
    if embeds:
        return min(2048, num_ctx)
    return 2048 if num_ctx > 32768 else 1024 if num_ctx > 4096 else 512


def server_settings(settings: Mapping[str, Scalar], engine: str) -> Mapping[str, Scalar]:
    """The server settings that a load of its own can have, too. Raises CellFailed for others."""
    for name in settings:
        if name not in SERVER_SETTINGS:
            text = f"{engine} has no {name}; it knows {', '.join(SERVER_SETTINGS)}"
            raise CellFailed(Status.ERROR, "config", text)
    kind = settings.get("kv_cache_type")
    if kind is not None and kind not in KV_CACHE_SHARES:
        known = ", ".join(KV_CACHE_SHARES)
        raise CellFailed(Status.ERROR, "config", f"unknown kv_cache_type {kind}; known are {known}")
    return settings


def _generation(answer: Mapping[str, Any], raw: str) -> Generation:
    """Raises Nonsense."""
    timings = gate.mapping("timings", answer.get("timings"))
    new, cached = (gate.whole(name, timings.get(name)) for name in ("prompt_n", "cache_n"))
    duration_s = gate.duration_s("duration_s", answer.get("duration_s"))
    return Generation(
        text=gate.text("text", answer.get("text")),
        prompt_eval_count=None if new is None else new + (cached or 0),
        prompt_eval_duration_s=gate.duration_s("prompt_ms", timings.get("prompt_ms"), gate.MS_PER_S),
        eval_count=gate.whole("predicted_n", timings.get("predicted_n")),
        eval_duration_s=gate.duration_s("predicted_ms", timings.get("predicted_ms"), gate.MS_PER_S),
        cached_count=cached,
        total_duration_s=duration_s,
        printed_rate=gate.rate("prompt_per_second", timings.get("prompt_per_second")),
        client_duration_s=duration_s or 0.0,
        ttft_s=gate.duration_s("ttft_s", answer.get("ttft_s")),
        raw=raw,
        chunk_count=gate.whole("chunk_count", answer.get("chunk_count")),
        thoughts=gate.text("thoughts", answer.get("thoughts")),
        thinking_count=gate.whole("thinking_count", answer.get("thinking_count")),
        thinking_duration_s=gate.duration_s("thinking_duration_s", answer.get("thinking_duration_s")),
    )


@dataclass
class _Embedded:
    """What the batches of one embedding request gave together."""

    rows: int = 0
    dimension: int = 0
    tokens: int = 0
    spent_s: float = 0.0

    def add(self, answer: Mapping[str, Any], asked: int) -> None:
        """Raises Nonsense."""
        if gate.whole("rows", answer.get("rows")) != asked:
            raise gate.BadValue("rows", answer.get("rows"), f"{asked}, as many as texts were sent")
        self.rows += asked
        self.dimension = max(self.dimension, gate.whole("dimension", answer.get("dimension")) or 0)
        self.tokens += gate.whole("tokens", answer.get("tokens")) or 0
        self.spent_s += gate.duration_s("duration_s", answer.get("duration_s")) or 0.0

    @classmethod
    def kept(cls, answer: Mapping[str, Any]) -> _Embedded:
        """As `generation` kept it. Raises Nonsense."""
        rows, dimension, tokens = (gate.whole(name, answer.get(name)) or 0 for name in ("rows", "dimension", "tokens"))
        return cls(rows, dimension, tokens, gate.duration_s("spent_s", answer.get("spent_s")) or 0.0)

    def generation(self) -> Generation:
        return Generation(
            text="",
            prompt_eval_count=self.tokens or None,
            prompt_eval_duration_s=None,
            total_duration_s=self.spent_s or None,
            client_duration_s=self.spent_s,
            raw=json.dumps(asdict(self)),
            vectors=Vectors(self.rows, self.dimension),
        )
