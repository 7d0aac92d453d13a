"""One load of the embedded engine: its child process from start to end, and what its log says."""

from __future__ import annotations

import importlib
import json
import os
import re
import shlex
import sys
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from ollama_sweep.core.errors import CellFailed, EngineUnavailable
from ollama_sweep.core.outcome import Effective, Status
from ollama_sweep.engines.base import EngineSettings, padded
from ollama_sweep.engines.shared import gate
from ollama_sweep.engines.shared.failures import classify
from ollama_sweep.machine import process

ENDING_S = 10.0
LOG_S = 2.0
"""llama.cpp writes its log in a thread of its own; so long the end of a load's log is waited for."""
LOAD_ENDS = "model loaded"
LONGEST_ERROR = 4000

_PREFIX = re.compile(r"\d+\.\d\d\.\d{3}\.\d{3} ([A-Z]) ")
_BUFFER = re.compile(
    r"(\w+):\s+(\S+)\s+(model|KV|compute|output|RS)\s+buffer size\s*=\s*(\d{1,12}(?:\.\d{1,12})?)\s*MiB"
)
LAYERS = re.compile(r"offloaded\s+(\d{1,6})/(\d{1,6})\s+layers to GPU")


class Child:
    """A worker process that answers lines. A death, a deadline or nonsense has ended it once CellFailed is raised."""

    engine: ClassVar[str] = "llamacpp"
    worker: ClassVar[str] = "ollama_sweep.engines.llamacpp.worker"

    def error_of(self, log: str) -> str:
        """What a log says of why the process died."""
        return error_text(log)

    def __init__(self, settings: EngineSettings, more: Mapping[str, str] | None = None) -> None:
        """Start it, with `more` in its environment. Raises EngineUnavailable."""
        self._settings = settings
        token = f"{self.engine}-{uuid.uuid4().hex}"
        argv = [*shlex.split(settings.extra.get("worker_prefix", "")), sys.executable, "-P", "-m", self.worker]
        self._number = settings.ledger.record("process", token, {"engine": self.engine})
        try:
            self._worker = process.spawn_worker(argv, env={**_environment(), **(more or {})}, token=token)
        except OSError as error:
            settings.ledger.settle(self._number)
            raise EngineUnavailable(f"the process of the engine {self.engine} cannot be started: {error}") from error
        self._is_ended = False

    @property
    def pid(self) -> int:
        return self._worker.pid

    @property
    def log(self) -> str:
        return self._worker.stderr_text()

    @property
    def is_alive(self) -> bool:
        if not self._is_ended and self._worker.wait(0) is not None:
            self._settle()
        return not self._is_ended

    def end(self) -> None:
        """End the process and all it started, whatever state it is in."""
        if self._is_ended:
            return
        self._worker.end(grace_s=0)
        self._settle()

    def _settle(self) -> None:
        self._is_ended = True
        self._settings.ledger.settle(self._number)

    def ask(self, request: Mapping[str, Any], timeout_s: float, what: str) -> Mapping[str, Any]:
        """The answer to one request. Raises CellFailed."""
        try:
            self._worker.send(json.dumps(request), timeout_s)
            line = self._worker.receive(timeout_s)
        except process.DeadlineExceeded:
            self.end()
            raise CellFailed(Status.TIMEOUT, what, f"the {what} did not end within {timeout_s:g} s", self.log) from None
        except BaseException:
            # Stopped in the middle: the answer under way would be taken for that of the next request.
            self.end()
            raise
        if line is None:
            raise self._death(what)
        try:
            return gate.mapping("answer", gate.loads(line))
        except gate.Nonsense as error:
            self.end()
            text = f"the engine's process answered nonsense: {error}"
            raise CellFailed(Status.PARSE_ERROR, error.reason, text, f"{line[:LONGEST_ERROR]}\n{self.log}") from None

    def _death(self, what: str) -> CellFailed:
        code = self._worker.wait(ENDING_S)
        if code is None:
            self.end()
        else:
            self._settle()
        log = self.log
        text = self.error_of(log)
        signal = -code if code is not None and code < 0 else None
        status, reason = classify(text, exit_code=code, signal=signal)
        if status is Status.ERROR and reason == "unknown":
            status, reason = Status.CRASHED, "load_crash" if what == "load" else "runner_died"
        ended = f"signal {signal}" if signal else f"exit code {code}"
        return CellFailed(status, reason, text or f"the engine's process ended in the {what} ({ended})", log)


class EmbeddedChild(Child):
    """The worker of the embedded engine: one load in each."""

    def load(self, options: Mapping[str, Any], file_bytes: int) -> Effective:
        """Load a model; what it really uses. Raises CellFailed."""
        started = time.monotonic()
        self.ask({"load": options}, self._settings.load_timeout_s, "load")
        duration_s = time.monotonic() - started
        until = time.monotonic() + LOG_S
        while LOAD_ENDS not in self.log and time.monotonic() < until:
            time.sleep(0.005)
        return read_log(self.log, file_bytes, int(options["num_ctx"]), duration_s)

    def generate(self, request: Mapping[str, Any], timeout_s: float) -> Mapping[str, Any]:
        """One generation, or `error`. Raises CellFailed."""
        return self.ask({"generate": request}, timeout_s, "run")

    def embed(self, texts: Sequence[str], timeout_s: float) -> Mapping[str, Any]:
        """One batch of texts, or `error`. Raises CellFailed."""
        return self.ask({"embed": list(texts)}, timeout_s, "embed")


def _environment() -> dict[str, str]:
    """The worker finds this package also where it is not installed; ggml does not start a debugger after an assert."""
    package = importlib.import_module("ollama_sweep")
    root = str(Path(str(package.__file__)).parent.parent)
    paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "GGML_NO_BACKTRACE": "1"}


def error_text(log: str) -> str:
    """The errors of a log: its lines of level E, and what was written past the log at its end (asserts, exceptions)."""
    errors: list[str] = []
    bare: list[str] = []
    for line in log.splitlines():
        prefix = _PREFIX.match(line)
        if prefix is None:
            bare.append(line)
            continue
        # Lines without a prefix that others follow are the rest of a message of several lines.
        bare = []
        if prefix[1] == "E":
            errors.append(line[prefix.end() :])
    lines = [*errors, *(line for line in bare if line.strip() and not line.startswith((" ", "\t", "Traceback ")))]
    return "\n".join(dict.fromkeys(lines))[-LONGEST_ERROR:]


def read_log(log: str, file_bytes: int, num_ctx: int, load_duration_s: float) -> Effective:
    """What a load really uses, by llama.cpp's own log, counted as Ollama counts it for /api/ps."""
    total, on_gpu = _sizes(log, file_bytes)
    return Effective(
        num_ctx=unpadded(_last_number(log, "n_ctx"), num_ctx),
        num_batch=_last_number(log, "n_batch"),
        size_bytes=total,
        size_vram_bytes=on_gpu,
        load_duration_s=load_duration_s,
    )


def unpadded(found: int | None, num_ctx: int) -> int | None:
    """num_ctx rounded up is no other num_ctx, and Ollama does not show it, either."""
    return num_ctx if found == padded(num_ctx) else found


def _last_number(log: str, name: str) -> int | None:
    found = re.findall(rf"llama_context: {name}\s*= (\d{{1,12}})\b", log)
    return int(found[-1]) if found else None


def _sizes(log: str, file_bytes: int) -> tuple[int | None, int | None]:
    """Bytes in all, and of them on GPUs; the last line for each buffer counts (earlier ones are trials)."""
    buffers = {(where, name, kind): int(float(mib) * 2**20) for where, name, kind, mib in _BUFFER.findall(log)}
    if not buffers:
        return None, None
    total = sum(buffers.values())
    on_gpu = sum(size for (_, name, _), size in buffers.items() if _is_gpu(name))
    layers = LAYERS.findall(log)
    if layers and layers[-1][0] == layers[-1][1]:
        return on_gpu, on_gpu
    # With mmap the host's part spans nearly the whole file and counts again what lies on the GPU.
    weights = {name: size for (_, name, kind), size in buffers.items() if kind == "model"}
    mapped = sum(size for name, size in weights.items() if name.endswith("_Mapped") and not _is_gpu(name))
    of_the_file = mapped + sum(size for name, size in weights.items() if _is_gpu(name))
    return total - min(mapped, max(0, of_the_file - file_bytes)), on_gpu


def _is_gpu(buffer: str) -> bool:
    return not (buffer in ("CPU", "BLAS") or buffer.startswith("CPU_") or buffer.endswith("_Host"))
