"""A scripted engine: for tests, and to try a grid's shape without a model.

It reads a JSON file named by OLLAMA_SWEEP_FAKE (all keys optional):
`tokens_per_word` 1; `context_length` 131072; `rate` 400 (tokens/s at large num_batch); `noise` 0.01 (share);
`oom_above` (num_ctx x num_batch that no longer fits); `spill_above` (the same, for part of the model on the CPU);
`slows` {"after": 10, "factor": 0.9}: the machine's speed from the 11th generation of a process on;
`cells` {"num_ctx 4096, num_batch 64": ["crashed", "ok"]}: one step for each attempt at a cell, the last one repeated;
`seconds`: how long each run really takes (0); `gate`: a file without which no run ends, so that a test decides when;
`journal`: a file that gets one line for each thing done, so that steps go on and work can be counted over restarts.
Steps: ok, oom, cuda_oom, resource, timeout, crashed, error, no_statistics, truncated, cached, bug, unavailable, hang.
"""

from __future__ import annotations

import json
import os
import random
import threading
import time
from pathlib import Path
from typing import Any

from ollama_sweep.cells import Cell, Effective, Status
from ollama_sweep.engine import EngineInfo, EngineSettings, Generation, Leftover, ModelInfo
from ollama_sweep.errors import CellFailed, ConfigError, EngineMissing, EngineUnavailable

SCRIPT = "OLLAMA_SWEEP_FAKE"
_FAILURES = {
    "oom": (Status.OOM, "host_oom", "ggml_aligned_malloc: insufficient memory (attempted to allocate 344.19 MB)"),
    "cuda_oom": (Status.OOM, "cuda_oom", "cudaMalloc failed: out of memory"),
    "resource": (Status.RESOURCE, "cuda_resource", "CUDA error: resource allocation failed"),
    "timeout": (Status.TIMEOUT, "run", "no answer in time"),
    "crashed": (Status.CRASHED, "assert", "GGML_ASSERT(n_tokens_all <= cparams.n_batch) failed"),
    "error": (Status.ERROR, "unknown", "something else"),
    "no_statistics": (Status.ERROR, "no_statistics", "no statistics printed"),
}
TEMPLATE_TOKENS = 3


class Engine:
    """See `engine.Engine`; what happens is written in the script."""

    def __init__(self, settings: EngineSettings) -> None:
        self._settings = settings
        self._script = _read_script()
        self._attempts: dict[str, int] = {}
        self._step = "ok"
        self._generated = 0
        self._loaded: tuple[object, ...] | None = None
        self._record: int | None = None

    def describe(self) -> EngineInfo:
        return EngineInfo("fake", str(self._script.get("version", "1.0")), "in this process")

    def model_info(self, model: str) -> ModelInfo:
        if model in self._script.get("missing_models", ()):
            raise EngineMissing(f"{model} is not installed here. Run: ollama pull {model}")
        return ModelInfo(
            name=model,
            digest=f"sha256:fake-{model}",
            family="fake",
            parameter_size="135M",
            quantization="Q4_1",
            context_length=int(self._script.get("context_length", 131072)),
            size_bytes=98_000_000,
            kv_bytes_per_token=23_040,
            capabilities=("completion",),
        )

    def count_tokens(self, model: str, prompt: str) -> int | None:
        self._note("count", model)
        return TEMPLATE_TOKENS + len(prompt.split()) * int(self._script.get("tokens_per_word", 1))

    def prepare(self, cell: Cell) -> Effective:
        label = cell.label()
        self._step = self._next_step(label)
        self._note("prepare", label)
        if self._record is None:
            self._record = self._settings.ledger.record("scratch_model", "fake-scratch", {})
        if self._step == "unavailable":
            raise EngineUnavailable("could not connect to the fake server")
        if self._step == "hang":
            threading.Event().wait()
        self._loaded = cell.load_key
        size = 98_000_000 + cell.num_ctx * 23_040 + cell.num_batch * 500_000
        if cell.num_ctx * cell.num_batch > self._script.get("oom_above", float("inf")):
            self._fail("cuda_oom")
        spilled = cell.num_ctx * cell.num_batch > self._script.get("spill_above", float("inf"))
        num_ctx = min(cell.num_ctx, int(self._script.get("context_length", 131072)))
        vram = size // 2 if spilled else size
        return Effective(num_ctx, min(cell.num_batch, num_ctx), size, vram, load_duration_s=0.5)

    def _next_step(self, label: str) -> str:
        steps: list[str] = self._script.get("cells", {}).get(label, ["ok"])
        if len(steps) == 1:
            return steps[0]  # so that a million cells cost no memory, and no reading of a long journal
        tried = self._attempts.get(label, 0) if self._journal is None else self._tried(label)
        self._attempts[label] = tried + 1
        return steps[min(tried, len(steps) - 1)]

    def _fail(self, step: str) -> None:
        status, reason, text = _FAILURES[step]
        raise CellFailed(status, reason, text, f"raw output: {text}")

    def generate(self, cell: Cell, prompt: str, timeout_s: float) -> Generation:
        self._note("generate", cell.label())
        self._generated += 1
        self._take_time()
        if self._step in _FAILURES:
            self._fail(self._step)
        if self._step == "bug":
            raise ZeroDivisionError("a scripted bug")
        count = self.count_tokens(cell.model, prompt) or 0
        if self._step == "truncated":
            count //= 2
        rate = self._rate(cell, prompt)
        cached = count - 1 if self._step == "cached" else 0
        duration_s = (count - cached) / rate
        return Generation(
            text="an answer",
            prompt_eval_count=count,
            prompt_eval_duration_s=duration_s,
            eval_count=cell.num_predict,
            eval_duration_s=0.01 * cell.num_predict,
            cached_count=cached,
            total_duration_s=duration_s + 0.1,
            printed_rate=rate,
            client_duration_s=duration_s + 0.1,
            raw=f"prompt eval rate: {rate:.2f} tokens/s",
        )

    def _take_time(self) -> None:
        time.sleep(float(self._script.get("seconds", 0)))
        gate = self._script.get("gate")
        while gate and not Path(gate).exists():
            time.sleep(0.01)

    def _rate(self, cell: Cell, prompt: str) -> float:
        """Rises with num_batch and saturates, falls a little with num_ctx; the nonce gives the noise."""
        top = float(self._script.get("rate", 400.0))
        slows = self._script.get("slows")
        if slows and self._generated > slows["after"]:
            top *= slows["factor"]
        noise = random.Random(prompt[:8]).uniform(-1, 1) * float(self._script.get("noise", 0.01))  # noqa: S311
        return top * cell.num_batch / (cell.num_batch + 8) * (1 - cell.num_ctx / 4e6) * (1 + noise)

    def release(self, *, failed: bool) -> None:
        self._note("release", "failed" if failed else "done")
        self._loaded = None

    def clear(self, leftover: Leftover) -> str | None:
        self._note("clear", leftover.name)
        return f"Removed {leftover.name}, left by the previous session"

    def close(self) -> None:
        if self._record is not None:
            self._settings.ledger.settle(self._record)
            self._record = None

    # -- the journal ---------------------------------------------------------------------------------------------

    @property
    def _journal(self) -> Path | None:
        name = self._script.get("journal")
        return Path(name) if name else None

    def _note(self, event: str, what: str) -> None:
        if self._journal is not None:
            with self._journal.open("a", encoding="utf-8") as file:
                file.write(f"{event}\t{what}\n")

    def _tried(self, label: str) -> int:
        assert self._journal is not None
        if not self._journal.exists():
            return 0
        return self._journal.read_text("utf-8").split("\n").count(f"prepare\t{label}")


def _read_script() -> dict[str, Any]:
    name = os.environ.get(SCRIPT)
    if not name:
        return {}
    try:
        script = json.loads(Path(name).read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{SCRIPT}: {error}", name) from None
    if not isinstance(script, dict):
        raise ConfigError(f"{SCRIPT}: must be a JSON object", name)
    return script
