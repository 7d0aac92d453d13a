"""The context swap: llama.cpp's library holds the model, and each cell is a new context, made in milliseconds.

The library is Ollama's own where there is one, and the prompt is what Ollama renders, so a rate here is what the same
cell says on Ollama but for the loads. What does not fit beside the whole model fails here, where Ollama would move a
part of it to the processor: such cells are Ollama's own to measure.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from ollama_sweep.core.cell import Cell
from ollama_sweep.core.errors import CellFailed, EngineMissing, EngineUnavailable
from ollama_sweep.core.generation import GENERATE, Generation
from ollama_sweep.core.ledger import Leftover
from ollama_sweep.core.options import KV_CACHE_SHARES, Options, Scalar
from ollama_sweep.core.outcome import Effective, Status
from ollama_sweep.core.units import format_bytes
from ollama_sweep.engines.base import READ_AGAIN, EngineInfo, EngineSettings, Kept, ModelInfo
from ollama_sweep.engines.base import Engine as Base
from ollama_sweep.engines.libllama import library as libraries
from ollama_sweep.engines.libllama.child import ORDINARY, Made, SwapChild
from ollama_sweep.engines.libllama.library import NO_GPU, Backend, Library
from ollama_sweep.engines.libllama.look import SwapLook
from ollama_sweep.engines.libllama.renderer import SEES_NO_GPU, Renderer, Templates
from ollama_sweep.engines.libllama.rendering import MARKER, Rendering
from ollama_sweep.engines.llamacpp.child import LAYERS, read_log, unpadded
from ollama_sweep.engines.llamacpp.engine import DEFAULT_CTX, SERVER_SETTINGS, default_batch, server_settings
from ollama_sweep.engines.ollama.programs import any_binary
from ollama_sweep.engines.shared import gate, modelfile
from ollama_sweep.machine.computer import free_memory_bytes
from ollama_sweep.machine.processor import computing_cores

SHARE_OF_FREE = 0.9
_FLASH = re.compile(r"flash_attn\s*=\s*(\w+)")
_CACHE = re.compile(r"\b([KV]) \((\w+)\):")


class Engine(Base):
    """See `base.Engine`. At most one child process at a time."""

    settable = frozenset(
        {"num_ctx", "num_batch", "num_predict", "num_thread", "num_gpu", "modelfile", *SERVER_SETTINGS}
    )
    kinds = frozenset({GENERATE})
    loads_without_a_prompt = True
    swaps_contexts = True
    host_variable = "OLLAMA_HOST"
    how_to_get_a_model = "ollama pull llama3.2:1b"
    look = SwapLook

    def __init__(self, settings: EngineSettings) -> None:
        super().__init__(settings)
        template = modelfile.parse(settings.template, "modelfile", allow_local=True) if settings.template else None
        self._parameters = modelfile.parameters(template)
        has_ollama = Renderer.is_usable(settings) or any_binary(settings.ollama) is not None
        self._ollama = Renderer(settings) if has_ollama else None
        self._templates = Templates(settings)
        self._library: Library | None = None
        self._info: EngineInfo | None = None
        self._files: dict[str, Path] = {}
        self._models: dict[str, ModelInfo] = {}
        self._own: dict[str, Mapping[str, Scalar]] = {}
        self._variables: Mapping[str, str] | None = None
        self._renderings: dict[tuple[str, str], Rendering] = {}
        self._backend: Backend | None = None
        self._child: SwapChild | None = None
        self._child_is_for: tuple[object, ...] = ()
        self._loaded: tuple[object, ...] | None = None
        self._effective = Effective()
        self._num_ctx = 0

    # -- the library ---------------------------------------------------------------------------------------------

    def describe(self) -> EngineInfo:
        """Looked up again where an update has put another library in its place."""
        if self._library is not None and not self._library.is_as_it_was():
            self._end()
            self._info, self._backend = None, None
        if self._info is None:
            self._info = self._describe()
        return self._info

    def _describe(self) -> EngineInfo:
        program = self._ollama.program() if self._ollama else None
        found = self._library = libraries.find(self._settings.libllama, program)
        try:
            child = self._counting_child()
        except CellFailed as failure:
            raise EngineMissing(f"{found.path} cannot be used: {failure.error}; {ORDINARY}") from None
        differs = libraries.difference(found, program)
        build = found.shown if found.build else f"{child.version or '?'} ({found.shown})"
        self._settings.say(f"Library: {found.path} ({found.origin}), {build}{'; ' if differs else ''}{differs}")
        details = {"library": found.origin, "library_digest": found.digest}
        return EngineInfo("libllama", build, str(found.path), details)

    @property
    def _found(self) -> Library:
        self.describe()
        assert self._library is not None
        return self._library

    # -- models --------------------------------------------------------------------------------------------------

    def models(self) -> tuple[str, ...]:
        return self._ollama.models() if self._ollama else self._templates.models()

    def model_info(self, model: str) -> ModelInfo:
        found = (self._ollama or self._templates).model_info(model)
        self._models[model] = found
        return found

    def _model(self, model: str) -> ModelInfo:
        return self._models.get(model) or self.model_info(model)

    def _file(self, model: str) -> Path:
        if model not in self._files:
            self._files[model] = self._ollama.weights(model) if self._ollama else self._templates.file(model)
        return self._files[model]

    # -- the prompt ----------------------------------------------------------------------------------------------

    def count_tokens(self, model: str, prompt: str, *, system: str = "") -> int | None:
        """What Ollama counts, held against what the library makes of the same text. Raises EngineMissing."""
        self.describe()
        try:
            rendering = self._rendering(model, system)
        except CellFailed as failure:
            if failure.reason != "capability":
                raise
            return None  # a model for embeddings
        if self._ollama is None:
            return self._counted(model, rendering.of(prompt))
        expected = self._ollama.count_tokens(model, prompt, system=system)
        shown = self._ollama.rendered(model, prompt, system)
        if rendering.of(prompt) != shown:
            rendering = replace(rendering, strips=True)
            self._renderings[model, system] = rendering
        if rendering.of(prompt) != shown:
            raise EngineMissing(f"Ollama's rendering of this prompt for {model} changes the prompt itself; {ORDINARY}")
        own = self._counted(model, shown)
        if expected is not None and own != expected:
            text = f"the library makes {own} tokens of this prompt, and Ollama {expected} with {model}"
            raise EngineMissing(f"{text}: their numbers would not be of the same work; {ORDINARY}")
        return expected

    def _counted(self, model: str, text: str) -> int:
        child = self._counting_child()
        try:
            if child.model != str(self._file(model)):
                child = self._loaded_child(model, self._counting_backend, None)
            return child.tokens(text, self._settings.timeout_s)
        except CellFailed as failure:
            if failure.reason in ("model", "load"):
                said = failure.error.splitlines()[0]
                raise EngineMissing(f"the library does not load {model}: {said}; {ORDINARY}") from None
            raise

    def _rendering(self, model: str, system: str) -> Rendering:
        """What stands before and after a prompt; asked for once for a model and its system prompt."""
        key = model, system
        if key not in self._renderings:
            if self._ollama is not None:
                self._make_room_beside(model)
                text = self._ollama.rendered(model, MARKER, system)
                self._note_backend()
            else:
                text = self._by_template(model, system)
            self._renderings[key] = Rendering.of_marked(text, model)
        return self._renderings[key]

    def _by_template(self, model: str, system: str) -> str:
        told = self._templates.told(model, MARKER, system)
        if "prompt" in told:
            return str(told["prompt"])
        if libraries.wheel() is None:
            raise EngineMissing(f"nothing here renders a prompt for {model}: install Ollama, or {libraries.HOW_TO_GET}")
        child = self._counting_child()
        return child.template(str(self._file(model)), told, self._settings.load_timeout_s)

    def _make_room_beside(self, model: str) -> None:
        """Ollama loads the model once more for this, so ours goes first where there is no room for both."""
        size = self._model(model).size_bytes or 0
        if (
            self._child is not None
            and self._child.model
            and (self._child.has_gpu or size > (free_memory_bytes() or size))
        ):
            self._end()

    def _note_backend(self) -> None:
        """What Ollama's runner has for a GPU. Raises EngineMissing where it uses one and that cannot be done here."""
        assert self._ollama is not None
        if self._found.origin != libraries.BESIDE or self._backend is not None:
            return
        self._backend = self._ollama.backend()
        if self._backend is None and self._ollama.uses_gpu():
            self._backend = self._first_backend()

    def _first_backend(self) -> Backend:
        """The first of those beside the library with which it sees a GPU, where Ollama's runner cannot be looked at."""
        for path in libraries.gpu_backends(self._found.folder):
            backend, child = Backend(str(path)), None
            try:
                child = SwapChild(self._settings, self._found, backend)
                if child.has_gpu:
                    return backend
            except (CellFailed, EngineMissing) as error:
                self._settings.trace(f"{path}: {error}")
            finally:
                if child is not None:
                    child.end()
        raise EngineMissing(f"Ollama uses a GPU, and no backend below {self._found.folder} sees one here; {ORDINARY}")

    # -- the child -----------------------------------------------------------------------------------------------

    @property
    def _counting_backend(self) -> Backend:
        return SEES_NO_GPU if self._library is not None and self._library.is_wheel else NO_GPU

    def _counting_child(self) -> SwapChild:
        """Any child that has the library open; without a GPU where it must be started for this."""
        if self._child is None or not self._child.is_alive:
            self._start(self._counting_backend)
        assert self._child is not None
        return self._child

    def _start(self, backend: Backend) -> SwapChild:
        self._end()
        library = self._library
        assert library is not None
        self._settings.trace(f"{library.path} {backend.path}".strip())
        child = SwapChild(self._settings, library, backend)
        self._child = child
        return child

    def _loaded_child(self, model: str, backend: Backend, num_gpu: int | None) -> SwapChild:
        """A child with this model loaded; the one at hand where it is that already. Raises CellFailed."""
        path, child = self._file(model), self._child
        if child is not None and child.is_alive and child.backend == backend:
            layers = num_gpu if child.has_gpu else None
            if self._child_is_for == (str(path), layers):
                return child
            if child.model:
                child = None
        else:
            child = None
        child = child or self._start(backend)
        free = free_memory_bytes()
        size = path.stat().st_size
        if not child.has_gpu and free is not None and size > free:
            text = f"the weights take {format_bytes(size)}, and {format_bytes(free)} of memory are free: not tried"
            raise CellFailed(Status.OOM, "host_oom", text)
        layers, self._child_is_for = num_gpu if child.has_gpu else None, ()
        child.load(str(path), layers, free, self._settings.load_timeout_s)
        self._child_is_for = str(path), layers
        return child

    # -- one cell ------------------------------------------------------------------------------------------------

    def prepare(self, cell: Cell) -> Effective:
        self.describe()
        self._rendering(cell.model, cell.system)
        if self._loaded == cell.load_key and self._child is not None and self._child.is_alive:
            return self._effective
        self._loaded = None
        if self._ollama is not None:
            self._ollama.let_go()
        wanted = self._wanted(cell)
        started = time.monotonic()
        child = self._loaded_child(cell.model, self._backend or NO_GPU, wanted["num_gpu"])
        made = self._make(child, cell, wanted)
        self._effective = self._read_back(cell, wanted, made, time.monotonic() - started, has_gpu=child.has_gpu)
        self._loaded, self._num_ctx = cell.load_key, int(wanted["num_ctx"])
        return self._effective

    def _wanted(self, cell: Cell) -> dict[str, Any]:
        """The context of a cell, by what is said nearest to it: the cell, the Modelfile, the model's own parameters."""
        owner = self._ollama or self._templates
        if cell.model not in self._own:
            self._own[cell.model] = owner.parameters_of(cell.model)
        given = {**self._own[cell.model], **self._parameters}
        given.update((name, value) for name, value in cell.options if value is not None)
        trained = self._model(cell.model).context_length
        num_ctx = int(given.get("num_ctx") or DEFAULT_CTX)
        num_ctx = min(num_ctx, trained) if trained else num_ctx
        num_gpu = int(given.get("num_gpu", -1))
        return {
            "num_ctx": num_ctx,
            "num_batch": int(given.get("num_batch") or default_batch(num_ctx, embeds=False)),
            "num_thread": int(given.get("num_thread") or self._own_threads()),
            "num_gpu": None if num_gpu < 0 else num_gpu,
            **self._server_settings(cell.server),
        }

    def _environment(self) -> Mapping[str, str]:
        """That of Ollama's server, looked up once."""
        if self._variables is None:
            self._variables = self._ollama.environment() if self._ollama else {}
        return self._variables

    def _own_threads(self) -> int:
        """As many as llama-server takes by itself."""
        named = self._environment().get("LLAMA_ARG_THREADS", "")
        return int(named) if named.isdigit() and int(named) else computing_cores()

    def _server_settings(self, server: Options) -> Mapping[str, Scalar]:
        """Those of the cell, else those of Ollama's server, which it gives to each of its loads. Raises CellFailed."""
        environment = self._environment()
        flash, kind = environment.get("OLLAMA_FLASH_ATTENTION", ""), environment.get("OLLAMA_KV_CACHE_TYPE", "")
        given: dict[str, Scalar] = {"flash_attention": flash.lower() in ("1", "t", "true")} if flash else {}
        if kind and kind != "f16":
            given["kv_cache_type"] = kind
        return server_settings({**given, **dict(server)}, "the engine libllama")

    def _make(self, child: SwapChild, cell: Cell, wanted: Mapping[str, Any]) -> Made:
        child.drop()
        free, needed = free_memory_bytes(), self._model(cell.model).kv_cache_bytes(int(wanted["num_ctx"]))
        share = KV_CACHE_SHARES[str(wanted.get("kv_cache_type") or "f16")]
        if not child.has_gpu and needed and free is not None and needed * share > free * SHARE_OF_FREE:
            size = format_bytes(int(needed * share))
            text = f"the KV cache takes {size}, and {format_bytes(free)} of memory are free: not tried"
            raise CellFailed(Status.OOM, "host_oom", text)
        return child.make({**wanted, "free_bytes": free}, self._settings.load_timeout_s)

    def _read_back(
        self, cell: Cell, wanted: Mapping[str, Any], made: Made, duration_s: float, *, has_gpu: bool
    ) -> Effective:
        """Sizes by the library's log, the rest by its functions. Raises CellFailed where the log says otherwise."""
        _refuse_other_settings(wanted, made, has_gpu=has_gpu)
        num_ctx = int(wanted["num_ctx"])
        found = read_log(made.log, self._file(cell.model).stat().st_size, num_ctx, duration_s)
        others: tuple[str, ...] = ()
        if self._ollama is not None:
            with suppress(EngineUnavailable):
                others = self._ollama.others()
        return replace(
            found,
            num_ctx=unpadded(made.num_ctx, num_ctx),
            num_batch=made.num_batch,
            others_loaded=others,
        )

    def generate(self, cell: Cell, prompt: str, timeout_s: float, *, fresh: bool = True) -> Generation:
        """Greedy; nothing is ever taken from a cache here, `fresh` or not."""
        if self._child is None:
            raise RuntimeError("asked before prepare")
        text = self._rendering(cell.model, cell.system).of(prompt)
        request = {"text": text, "num_predict": cell.num_predict, "num_ctx": self._num_ctx}
        answer = self._child.generate(request, timeout_s)
        raw = json.dumps(answer, ensure_ascii=False)
        with gate.of_cell(raw):
            if "too_long" in answer:
                count = gate.whole("too_long", answer["too_long"])
                raise CellFailed(
                    Status.TRUNCATED, "does_not_fit", f"the prompt has {count} tokens, num_ctx is {self._num_ctx}", raw
                )
            return _generation(answer, raw)

    @classmethod
    def read_again(cls, kept: Kept) -> Mapping[str, float | None]:
        """Of what the child process told, its own times among it."""
        answer = gate.mapping("answer", gate.loads(kept.raw))
        if kept.embeds or not {"text", "prompt_n", "prompt_s"} <= set(answer):
            raise gate.Nonsense("no answer of the engine libllama was kept")
        found = _generation(answer, "")
        return {name: getattr(found, name) for name in READ_AGAIN}

    def processes(self) -> tuple[int, ...]:
        return (self._child.pid,) if self._child is not None and self._child.is_alive else ()

    # -- the end -------------------------------------------------------------------------------------------------

    def release(self, *, failed: bool) -> None:
        """After a failure a child that lives and has no GPU is as it was: only its context goes."""
        self._loaded = None
        if failed and self._child is not None and self._child.is_alive and not self._child.has_gpu:
            with suppress(CellFailed):
                self._child.drop()
        else:
            self._end()
        if self._ollama is not None:
            self._ollama.let_go()

    def clear(self, leftover: Leftover) -> str | None:
        if leftover.kind != "process" and self._ollama is not None:
            return self._ollama.clear(leftover)
        return super().clear(leftover)

    def _end(self) -> None:
        self._loaded, self._child_is_for = None, ()
        if self._child is not None:
            self._child.end()
            self._child = None

    def close(self) -> None:
        with suppress(Exception):
            self._end()
        if self._ollama is not None:
            self._ollama.close()
        self._templates.close()


def _refuse_other_settings(wanted: Mapping[str, Any], made: Made, *, has_gpu: bool) -> None:
    """What was set behind the head of a structure must stand in the log."""
    faults = []
    if has_gpu and wanted["num_gpu"] is not None:
        layers = LAYERS.findall(made.log)
        if not layers or int(layers[-1][0]) != min(wanted["num_gpu"], int(layers[-1][1])):
            faults.append(f"num_gpu {wanted['num_gpu']}")
    if wanted.get("flash_attention") is not None:
        said = _FLASH.findall(made.own_log)
        if not said or said[0] != ("enabled" if wanted["flash_attention"] else "disabled"):
            faults.append(f"flash_attention {str(wanted['flash_attention']).lower()}")
    kind = wanted.get("kv_cache_type")
    if kind and {said for _, said in _CACHE.findall(made.own_log)} != {kind}:
        faults.append(f"kv_cache_type {kind}")
    if faults:
        text = f"the library's log does not say that it took {' and '.join(faults)}; {ORDINARY}"
        raise CellFailed(Status.ERROR, "config", text, made.log)


def _generation(answer: Mapping[str, Any], raw: str) -> Generation:
    """Raises Nonsense."""
    duration_s = gate.duration_s("duration_s", answer.get("duration_s"))
    return Generation(
        text=gate.text("text", answer.get("text")),
        prompt_eval_count=gate.whole("prompt_n", answer.get("prompt_n")),
        prompt_eval_duration_s=gate.duration_s("prompt_s", answer.get("prompt_s")),
        eval_count=gate.whole("predicted_n", answer.get("predicted_n")),
        eval_duration_s=gate.duration_s("predicted_s", answer.get("predicted_s")),
        cached_count=0,
        total_duration_s=duration_s,
        client_duration_s=duration_s or 0.0,
        ttft_s=gate.duration_s("ttft_s", answer.get("ttft_s")),
        raw=raw,
        chunk_count=gate.whole("chunk_count", answer.get("chunk_count")),
    )
