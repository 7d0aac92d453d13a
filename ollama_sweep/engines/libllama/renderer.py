"""What Ollama adds to a prompt, where a model's weights lie, and what its runner loads: asked of the server itself.

Ollama loads the model with a very small context for this; it lets go of it before a cell is measured.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Mapping
from pathlib import Path

import psutil

from ollama_sweep.core.errors import EngineMissing
from ollama_sweep.core.options import Scalar
from ollama_sweep.engines.libllama.library import Backend, variables_of
from ollama_sweep.engines.llamacpp.engine import Engine as LlamaCpp
from ollama_sweep.engines.ollama.base import COUNTING
from ollama_sweep.engines.ollama.listed import Loaded
from ollama_sweep.engines.ollama.processes import family
from ollama_sweep.engines.ollama.requests import refusal
from ollama_sweep.engines.ollama.server import is_named
from ollama_sweep.engines.ollama_http import Engine as OllamaHttp
from ollama_sweep.engines.shared import gate

_FROM = re.compile(r"^FROM (/.+|[A-Za-z]:\\.+)$", re.MULTILINE)
_ADAPTER = re.compile(r"^ADAPTER ", re.MULTILINE)
_PARAMETER = re.compile(r'^(num_thread|num_gpu)\s+"?(-?[0-9]{1,5})"?\s*$', re.MULTILINE)


class Renderer(OllamaHttp):
    """The engine `ollama_http`, which measures nothing here."""

    @property
    def holds(self) -> bool:
        """Something is loaded for us."""
        return bool(self._held)

    @property
    def server_in_words(self) -> str:
        """`Ollama 0.34.0 at http://127.0.0.1:11434`."""
        return f"Ollama {self._server.version} at {self._server.where}"

    def program(self) -> Path | None:
        """The `ollama` that serves; where its process cannot be seen the one that is installed, else None."""
        self._server.connect()
        pid = self._serving()
        with contextlib.suppress(psutil.Error, OSError):
            if pid is not None:
                return Path(psutil.Process(pid).exe())
        return self._server.binary

    def environment(self) -> Mapping[str, str]:
        """The server's variables; this terminal's where they cannot be seen."""
        pid = self._serving()
        with contextlib.suppress(psutil.Error, OSError):
            if pid is not None:
                return dict(psutil.Process(pid).environ())
        return os.environ

    def rendered(self, model: str, prompt: str, system: str) -> str:
        """All that the model would be told, as one text. Raises CellFailed, EngineUnavailable."""
        self._server.connect()
        self._make_room_for(model)
        self._loaded, self._current = None, None
        target = self._target(model, COUNTING, system)
        self._hold(model, target.name)
        body = target.body(prompt=prompt, stream=False, truncate=False, _debug_render_only=True)
        body["options"] = {**body.get("options", {}), **COUNTING}
        limit_s = self._settings.load_timeout_s + self._settings.timeout_s
        answer = self._requests.post("/api/generate", body, limit_s, "render")
        if answer.is_error:
            raise refusal(answer)
        with gate.of_cell(answer.text):
            found = gate.mapping("answer", gate.loads(answer.content))
            info = gate.mapping("_debug_info", found.get("_debug_info"))
            if not info:
                raise EngineMissing(f"{self.server_in_words} does not show how it renders a prompt")
            return gate.text("rendered_template", info.get("rendered_template"))

    def weights(self, model: str) -> Path:
        """The file that Ollama loads. Raises EngineMissing where it cannot be read here."""
        said = self._server.show(self._base(model)).modelfile
        found = _FROM.search(said)
        if _ADAPTER.search(said):
            raise EngineMissing(f"{model} has an adapter, which the engine libllama does not load; use --engine ollama")
        path = Path(found[1].strip()) if found else None
        if path is None or not os.access(path, os.R_OK):
            where = f": {path}" if path else ""
            raise EngineMissing(f"the weights of {model} cannot be read here{where}; use --engine ollama")
        return path

    def parameters_of(self, model: str) -> dict[str, Scalar]:
        """What of the model's own parameters the engine can set."""
        return {name: int(value) for name, value in _PARAMETER.findall(self._server.show(self._base(model)).parameters)}

    def backend(self) -> Backend | None:
        """What the runner that is loaded now has for a GPU; None where it cannot be seen."""
        for pid in family(self._serving())[1:]:
            with contextlib.suppress(psutil.Error, OSError):
                environment = psutil.Process(pid).environ()
                return Backend(environment.get("GGML_BACKEND_PATH", ""), variables_of(environment))
        return None

    def uses_gpu(self) -> bool:
        """Something of what is loaded lies on a GPU."""
        return any(entry.size_vram for entry in self._server.loaded())

    def others(self) -> tuple[str, ...]:
        """What is loaded on the server that is not ours."""
        return tuple(entry.name for entry in self._server.loaded() if not self._is_ours(entry))

    def _is_ours(self, entry: Loaded) -> bool:
        return any(is_named(entry, name) for name in self._held)

    def let_go(self) -> None:
        """Unload what was loaded for us."""
        if self.holds:
            self.release(failed=False)


class Templates(LlamaCpp):
    """The engine `llamacpp`, which measures nothing here: files of models, and what a person would tell them."""

    def file(self, model: str) -> Path:
        """Raises EngineMissing, ConfigError."""
        return self._source(model).path.absolute()

    def told(self, model: str, prompt: str, system: str) -> dict[str, object]:
        """`prompt`, or `messages` that the model's own template puts together."""
        return self._conversation(model, prompt, system)

    def parameters_of(self, model: str) -> dict[str, Scalar]:
        """What of the model's own parameters the engine can set."""
        given = self._source(model).options
        return {name: given[name] for name in ("num_thread", "num_gpu") if isinstance(given.get(name), int)}


SEES_NO_GPU = Backend("", tuple((name, "-1") for name in ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES",
                                                            "ROCR_VISIBLE_DEVICES")))  # fmt: skip
"""For counting with a library whose backends are inside it."""
