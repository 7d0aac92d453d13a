"""The child process of the engine `libllama`, from this side: what is open, loaded and made in it, typed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from ollama_sweep.core.errors import CellFailed, EngineMissing
from ollama_sweep.core.outcome import Status
from ollama_sweep.engines.base import EngineSettings
from ollama_sweep.engines.libllama.library import Backend, Library
from ollama_sweep.engines.libllama.native import BEGIN, FAULT, WORD
from ollama_sweep.engines.llamacpp.child import LONGEST_ERROR, Child
from ollama_sweep.engines.shared import gate
from ollama_sweep.engines.shared.failures import classify

OPEN_S = 60.0
ORDINARY = "the ordinary way: --engine ollama"


@dataclass(frozen=True)
class Made:
    """A context: what the library's log says of it and of the model, of it alone, and what was read back."""

    log: str
    own_log: str
    num_ctx: int
    num_batch: int


class SwapChild(Child):
    """One process with the library open in it. What the library refuses is an EngineMissing: no cell can help it."""

    engine: ClassVar[str] = "libllama"
    worker: ClassVar[str] = "ollama_sweep.engines.libllama.worker"

    def __init__(self, settings: EngineSettings, library: Library, backend: Backend) -> None:
        """Start it and open the library. Raises EngineMissing, EngineUnavailable, CellFailed."""
        super().__init__(settings, library.environment(backend))
        self.backend = backend
        self.model, self._model_log, self.has_gpu = "", "", False
        folder = str(library.folder) if library.has_backends else ""
        asked = {"library": str(library.path), "folder": folder, "backend": backend.path, "build": library.build}
        try:
            answer = self._asked("open", asked, OPEN_S)
            self.version = gate.text("version", answer.get("version"))
            self.has_gpu = gate.flag("has_gpu", answer.get("has_gpu"))
        except BaseException:
            self.end()  # nobody else has it
            raise

    def load(self, path: str, num_gpu: int | None, free_bytes: int | None, timeout_s: float) -> None:
        """Load a model's file. Raises CellFailed (reason `model` where the library refuses it)."""
        answer = self._asked("load", {"path": path, "num_gpu": num_gpu, "free_bytes": free_bytes}, timeout_s)
        self._model_log = gate.text("log", answer.get("log"))
        self.model = path

    def drop(self) -> None:
        """Free the context, if there is one. Raises CellFailed."""
        self._asked("drop", {}, OPEN_S)

    def make(self, wanted: Mapping[str, Any], timeout_s: float) -> Made:
        """Another context in the place of the one before. Raises CellFailed."""
        answer = self._asked("make", wanted, timeout_s)
        log = gate.text("log", answer.get("log"))
        num_ctx, num_batch = (gate.length(name, answer.get(name)) or 0 for name in ("num_ctx", "num_batch"))
        return Made(self._model_log + log, log, num_ctx, num_batch)

    def tokens(self, text: str, timeout_s: float) -> int:
        """How many tokens a rendered prompt has. Raises CellFailed."""
        return gate.whole("count", self._asked("tokens", text, timeout_s, "count").get("count")) or 0

    def template(self, path: str, told: Mapping[str, Any], timeout_s: float) -> str:
        """A conversation in the model's own template. Raises CellFailed."""
        answer = self._asked("template", {"path": path, "told": told}, timeout_s)
        return gate.text("text", answer.get("text"))

    def generate(self, request: Mapping[str, Any], timeout_s: float) -> Mapping[str, Any]:
        """One answer, or `too_long` with the prompt's tokens. Raises CellFailed."""
        return self._asked("generate", request, timeout_s, "run")

    def error_of(self, log: str) -> str:
        """Of what was asked last: what the library called an error, and what others wrote (asserts, exceptions)."""
        last = log.rpartition(f"\n{BEGIN}")[2] if f"\n{BEGIN}" in log else log
        lines = [line for line in last.splitlines()[1:] if not line.startswith((WORD, " ", "\t", "Traceback "))]
        return "\n".join(dict.fromkeys(line.removeprefix(FAULT) for line in lines if line.strip()))[-LONGEST_ERROR:]

    def _asked(self, name: str, wanted: object, timeout_s: float, what: str = "load") -> Mapping[str, Any]:
        answer = self.ask({name: wanted}, timeout_s, what)
        if "refused" in answer:
            self.end()
            raise EngineMissing(f"{gate.text('refused', answer['refused'])}; {ORDINARY}")
        if "unknown" in answer:
            raise CellFailed(Status.ERROR, "config", f"{gate.text('unknown', answer['unknown'])}; {ORDINARY}")
        if "failed" not in answer:
            return answer
        said = gate.text("failed", answer["failed"])[-LONGEST_ERROR:]
        status, reason = classify(said)
        if self.has_gpu or status is not Status.OOM:
            # After a failed allocation a GPU may be in a bad state.
            self.end()
        raise CellFailed(status, reason if reason != "unknown" else name, said, gate.text("log", answer.get("log")))
