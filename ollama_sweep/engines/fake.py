"""A scripted engine: for tests, and to try a grid's shape without a model.

It reads a JSON file named by OLLAMA_SWEEP_FAKE (all keys optional):
`tokens_per_word` 1; `context_length` 131072; `rate` 400 (tokens/s at large num_batch); `noise` 0.01 (share);
`oom_above` (num_ctx x num_batch that no longer fits); `spill_above` (the same, for part of the model on the CPU);
`slows` {"after": 10, "factor": 0.9}: the machine's speed from the 11th generation of a process on;
`crowded` {"folder": path, "factor": 0.8}: its speed while another process has something loaded, which is noted there;
`cells` {"num_ctx 4096, num_batch 64": ["crashed", "ok"]}: one step for each attempt at a cell, the last one repeated;
`visitor_since`: another client's model is loaded beside ours from so many generations of a process on;
`loads` {"reload": 60, "model": 100, "restart": 130}: the seconds of a load by what differs from what is loaded (0);
`slower` {"model": 3}: models whose loads and runs take so many times longer; `sizes` {"model": "1B"}: parameters;
`seconds`: how long each run really takes (0); `gate`: a file without which no run ends, so that a test decides when;
`together`: no request is answered before so many are in flight, once;
`journal`: a file that gets one line for each thing done, so that steps go on and work can be counted over restarts;
`answers` {"part of the prompt": "text" | ["first", "second"]}: what is answered, in turn, the last one repeated;
`thoughts` {"part of the prompt": "text"}: what is thought before it where the cell is told to think; it counts towards
num_predict; `not_thinking` ["model"]: models that cannot think;
`item_failures` {"part of the prompt": ["error", "ok"]}: one step for each try at it, the last one repeated;
`not_embedding` ["model"]: models without embeddings; `only_embedding` ["model"]: those without anything else;
`dimension` of a vector (8); `models` ["m"]: what is installed.
Steps: ok, oom, cuda_oom, resource, timeout, crashed, error, no_statistics, truncated, cached, bug, unavailable, hang;
the failures among them with `load_` in front happen in the load.
"""

from __future__ import annotations

import json
import os
import random
import re
import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ollama_sweep.core.cell import Cell
from ollama_sweep.core.errors import CellFailed, ConfigError, EngineMissing, EngineUnavailable
from ollama_sweep.core.generation import EMBED, GENERATE, Generation, Vectors
from ollama_sweep.core.ledger import Leftover
from ollama_sweep.core.loading.change import Change, LoadKey, change
from ollama_sweep.core.outcome import Effective, Status
from ollama_sweep.engines.base import READ_AGAIN, EngineInfo, EngineSettings, Kept, ModelInfo
from ollama_sweep.engines.base import Engine as Base
from ollama_sweep.engines.shared import gate
from ollama_sweep.machine.clocks import REAL

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
_OWN_WORDS = re.compile(r"prompt eval rate: [0-9.]+ tokens/s|[0-9]+ vectors")
TEMPLATE_TOKENS = 3
TOKEN_S = 0.01
OVERHEAD_S = 0.08
DEFAULT_CTX, DEFAULT_BATCH = 4096, 512
"""What this engine uses where a cell leaves it to the engine."""


class Engine(Base):
    """See `base.Engine`; what happens is written in the script."""

    settable = None
    kinds = frozenset({GENERATE, EMBED})
    asks_at_once = True
    is_scripted = True
    has_lanes = True
    loads_without_a_prompt = True
    scout = "fake_swap"

    def __init__(self, settings: EngineSettings) -> None:
        super().__init__(settings)
        self._script = _read_script()
        self._attempts: dict[str, int] = {}
        self._step = "ok"
        self._generated = 0
        self._loaded: LoadKey | None = None
        self._last: LoadKey | None = None
        self._record: int | None = None
        self._lock = threading.RLock()
        self._in_flight = 0
        self._is_together = False
        self._cut = threading.Event()

    @classmethod
    def read_again(cls, kept: Kept) -> Mapping[str, float | None]:
        """Earlier versions kept no numbers but the rounded rate."""
        words, _, numbers = kept.raw.partition("\n")
        if not _OWN_WORDS.fullmatch(words):
            raise gate.Nonsense("this engine says other words")
        return gate.mapping("numbers", gate.loads(numbers)) if numbers else {}

    def describe(self) -> EngineInfo:
        return EngineInfo("fake", str(self._script.get("version", "1.0")), "in this process")

    def models(self) -> tuple[str, ...]:
        return tuple(sorted(self._script.get("models", ("m",))))

    def model_info(self, model: str) -> ModelInfo:
        if model in self._script.get("missing_models", ()):
            raise EngineMissing(f"{model} is not installed here. Run: ollama pull {model}")
        return ModelInfo(
            name=model,
            digest=f"sha256:fake-{model}",
            family="fake",
            parameter_size=self._script.get("sizes", {}).get(model, "135M"),
            quantization="Q4_1",
            context_length=int(self._script.get("context_length", 131072)),
            size_bytes=98_000_000,
            kv_bytes_per_token=23_040,
            capabilities=self._capabilities(model),
            is_loaded=self._loaded is not None and model in self._loaded,
        )

    def _capabilities(self, model: str) -> tuple[str, ...]:
        if model in self._script.get("only_embedding", ()):
            return ("embedding",)
        return ("completion", "embedding") if self._can_embed(model) else ("completion",)

    def _can_embed(self, model: str) -> bool:
        return model not in self._script.get("not_embedding", ())

    def count_tokens(self, model: str, prompt: str, *, system: str = "") -> int | None:
        self._note("count", model)
        return self._tokens(system, prompt)

    def _tokens(self, *texts: str) -> int:
        words = sum(len(text.split()) for text in texts)
        return TEMPLATE_TOKENS + words * int(self._script.get("tokens_per_word", 1))

    def prepare(self, cell: Cell) -> Effective:
        label = cell.label()
        self._step = self._next_step(label)
        self._note("prepare", label)
        if cell.think and cell.model in self._script.get("not_thinking", ()):
            raise CellFailed(Status.ERROR, "cannot_think", f'"{cell.model}" does not support thinking')
        if self._record is None:
            self._record = self._settings.ledger.record("scratch_model", "fake-scratch", {})
        if self._step == "unavailable":
            raise EngineUnavailable("could not connect to the fake server")
        if self._step.startswith("load_"):
            self._fail(self._step.removeprefix("load_"))
        if self._step == "hang":
            threading.Event().wait()
        self._take(float(self._script.get("loads", {}).get(self._needs(cell), 0)), cell)
        self._loaded = self._last = cell.load_key
        self._be_seen(True)
        return self._effective(cell)

    def _be_seen(self, is_loaded: bool) -> None:
        """For the engines of other processes."""
        if crowded := self._script.get("crowded"):
            file = Path(crowded["folder"], str(os.getpid()))
            file.touch() if is_loaded else file.unlink(missing_ok=True)

    def _needs(self, cell: Cell) -> Change:
        """What a load takes after a release hangs on the server and the weights that were there before."""
        return change(self._loaded or self._last, cell.load_key, is_released=self._loaded is None)

    def _take(self, seconds: float, cell: Cell) -> None:
        slower = float(self._script.get("slower", {}).get(cell.model, 1))
        self._settings.clock.wait(self._cut, seconds * slower)

    def _effective(self, cell: Cell) -> Effective:
        wanted_ctx, num_batch = _place(cell)
        size = 98_000_000 + wanted_ctx * 23_040 + num_batch * 500_000
        if wanted_ctx * num_batch > self._script.get("oom_above", float("inf")):
            self._fail("cuda_oom")
        spilled = wanted_ctx * num_batch > self._script.get("spill_above", float("inf"))
        num_ctx = min(wanted_ctx, int(self._script.get("context_length", 131072)))
        vram = size // 2 if spilled else size
        return Effective(num_ctx, min(num_batch, num_ctx), size, vram, load_duration_s=0.5)

    def _next_step(self, label: str) -> str:
        steps: list[str] = self._script.get("cells", {}).get(label, ["ok"])
        if len(steps) == 1:
            return steps[0]  # so that a million cells cost no memory, and no reading of a long journal
        tried = self._attempts.get(label, 0) if self._journal is None else self._noted(f"prepare\t{label}")
        self._attempts[label] = tried + 1
        return steps[min(tried, len(steps) - 1)]

    def _fail(self, step: str) -> None:
        status, reason, text = _FAILURES[step]
        raise CellFailed(status, reason, text, f"raw output: {text}")

    def generate(self, cell: Cell, prompt: str, timeout_s: float, *, fresh: bool = True) -> Generation:
        with self._lock:
            self._note("generate", cell.label())
            step = self._item_step(prompt)
        self._begin(step, cell)
        with self._lock:
            return self._generation(cell, prompt)

    def _generation(self, cell: Cell, prompt: str) -> Generation:
        count = self.count_tokens(cell.model, prompt, system=cell.system) or 0
        if self._step == "truncated":
            count //= 2
        rate = self._rate(cell, prompt)
        cached = count - 1 if self._step == "cached" else 0
        duration_s = (count - cached) / rate
        thoughts = self._thoughts(prompt, cell)
        thinking_count = len(thoughts.split())
        text, tokens = self._answer(prompt, cell.num_predict - thinking_count)
        tokens += thinking_count
        total_s = duration_s + TOKEN_S * tokens + OVERHEAD_S
        return told(
            f"prompt eval rate: {rate:.2f} tokens/s",
            Generation(
                text=text,
                prompt_eval_count=count,
                prompt_eval_duration_s=duration_s,
                eval_count=tokens,
                eval_duration_s=TOKEN_S * tokens,
                cached_count=cached,
                total_duration_s=total_s,
                printed_rate=rate,
                client_duration_s=total_s,
                ttft_s=duration_s + TOKEN_S,
                chunk_count=tokens,
                thoughts=thoughts,
                thinking_count=thinking_count if thoughts else None,
                thinking_duration_s=TOKEN_S * thinking_count if thoughts else None,
            ),
        )

    def _begin(self, item_step: str, cell: Cell) -> None:
        """Every request takes its time and then fails where the script says so, for its cell or for its item."""
        with self._lock:
            self._generated += 1
            self._in_flight += 1
        try:
            self._take_time(cell)
        finally:
            with self._lock:
                self._in_flight -= 1
        for step in (self._step, item_step):
            if step in _FAILURES:
                self._fail(step)
            if step == "bug":
                raise ZeroDivisionError("a scripted bug")
        if item_step == "unavailable":
            raise EngineUnavailable("could not connect to the fake server")

    def _item_step(self, prompt: str) -> str:
        """The step of the first scripted item that is part of the prompt."""
        for part, steps in self._script.get("item_failures", {}).items():
            if part in prompt:
                return str(steps[min(self._asked("try", part), len(steps) - 1)])
        return "ok"

    def _answer(self, prompt: str, num_predict: int) -> tuple[str, int]:
        """The text, and its tokens: a scripted answer has one for each word, the other fills num_predict."""
        if num_predict < 1:
            return "", 0
        for part, given in self._script.get("answers", {}).items():
            if part in prompt:
                texts = [given] if isinstance(given, str) else given
                text = str(texts[min(self._asked("answer", part), len(texts) - 1)])
                return text, max(1, min(num_predict, len(text.split())))
        return "an answer", num_predict

    def _thoughts(self, prompt: str, cell: Cell) -> str:
        """What the cell's model thinks of it, as far as num_predict goes."""
        given = self._script.get("thoughts", {}) if cell.think else {}
        text = next((str(text) for part, text in given.items() if part in prompt), "")
        return " ".join(text.split()[: cell.num_predict])

    def _asked(self, event: str, part: str) -> int:
        """How often this was asked before, in former processes too where there is a journal."""
        key = f"{event}\t{part}"
        before = self._attempts.get(key, 0) if self._journal is None else self._noted(key)
        self._attempts[key] = before + 1
        self._note(event, part)
        return before

    def embed(self, cell: Cell, texts: Sequence[str], batch_size: int, timeout_s: float) -> Generation:
        self._note("embed", cell.label())
        if not self._can_embed(cell.model):
            raise CellFailed(Status.ERROR, "cannot_embed", f"{cell.model} does not support embeddings")
        self._begin(self._item_step("\n".join(texts)), cell)
        count = sum(self._tokens(text) for text in texts)
        duration_s = count / self._rate(cell, texts[0] if texts else "") + TOKEN_S * -(-len(texts) // batch_size)
        return told(
            f"{len(texts)} vectors",
            Generation(
                text="",
                prompt_eval_count=count,
                prompt_eval_duration_s=None,
                total_duration_s=duration_s,
                client_duration_s=duration_s,
                vectors=Vectors(len(texts), int(self._script.get("dimension", 8))),
            ),
        )

    def processes(self) -> tuple[int, ...]:
        return (os.getpid(),)

    def others_loaded(self) -> tuple[str, ...]:
        since = self._script.get("visitor_since")
        return ("theirs",) if since is not None and self._generated >= since else ()

    def _take_time(self, cell: Cell) -> None:
        cut = self._cut
        self._take(float(self._script.get("seconds", 0)), cell)
        gate = self._script.get("gate")
        while not cut.is_set() and ((gate and not Path(gate).exists()) or self._is_waiting_for_others()):
            REAL.sleep(0.01)  # for a test that decides when
        if cut.is_set():
            raise CellFailed(Status.ERROR, "engine_died", "the request was cut short")

    def _is_waiting_for_others(self) -> bool:
        with self._lock:
            self._is_together = self._is_together or self._in_flight >= int(self._script.get("together", 0))
            return not self._is_together

    def cut_short(self) -> None:
        was, self._cut = self._cut, threading.Event()
        was.set()

    def _rate(self, cell: Cell, prompt: str) -> float:
        """Rises with num_batch and saturates, falls a little with num_ctx; the nonce gives the noise."""
        top = float(self._script.get("rate", 400.0))
        slows = self._script.get("slows")
        if slows and self._generated > slows["after"]:
            top *= slows["factor"]
        crowded = self._script.get("crowded")
        if crowded and len(os.listdir(crowded["folder"])) > 1:
            top *= crowded["factor"]
        noise = random.Random(prompt[:8]).uniform(-1, 1) * float(self._script.get("noise", 0.01))  # noqa: S311
        num_ctx, num_batch = _place(cell)
        return top * num_batch / (num_batch + 8) * (1 - num_ctx / 4e6) * (1 + noise)

    def release(self, *, failed: bool) -> None:
        self._note("release", "failed" if failed else "done")
        self._loaded = None
        self._be_seen(False)

    def clear(self, leftover: Leftover) -> str | None:
        self._note("clear", leftover.name)
        return f"Removed {leftover.name}, left by the previous session"

    def close(self) -> None:
        self._be_seen(False)
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

    def _noted(self, line: str) -> int:
        assert self._journal is not None
        if not self._journal.exists():
            return 0
        return self._journal.read_text("utf-8").split("\n").count(line)


def told(words: str, found: Generation) -> Generation:
    """A generation with what this engine says of it: a line in words, and one with its numbers."""
    numbers = {name: getattr(found, name) for name in READ_AGAIN}
    return replace(found, raw=f"{words}\n{json.dumps(numbers)}")


def _place(cell: Cell) -> tuple[int, int]:
    """num_ctx and num_batch, this engine's own where the cell sets none."""
    return int(cell.option("num_ctx") or DEFAULT_CTX), int(cell.option("num_batch") or DEFAULT_BATCH)


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
