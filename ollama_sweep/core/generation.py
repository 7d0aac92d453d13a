"""What an engine gave back: one generation, with its counts and durations, or vectors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Vectors:
    """What an embedding request gave: so many rows of this dimension, of which numbers, and made where.

    `dtype` is float32 in Ollama and llama.cpp; an engine that does not know it says "". `device` is cuda, mps, rocm or
    cpu where the engine knows which one made them, else "".
    """

    rows: int
    dimension: int
    dtype: str = "float32"
    device: str = ""

    def __str__(self) -> str:
        parts = [f"{self.rows} x {self.dimension}", self.dtype, self.device and f"on {self.device}"]
        return " ".join(part for part in parts if part)


@dataclass(frozen=True)
class Generation:
    """One generation as the engine reported it. Counts in tokens, durations in seconds; None is unknown.

    `prompt_eval_count` includes cached tokens; `cached_count` is None where the engine cannot tell.
    `printed_rate` is the engine's own prompt rate in tokens/s, a cross-check only. `raw` is its whole output.
    `client_duration_s` is measured here, from the request to the last piece; `ttft_s` from the request to the first
    piece of the answer, None where it was not streamed. `is_estimated` marks an `eval_count` that is words × 1.3.
    `thoughts` is what the model thought before it answered, where the engine tells the two apart, `thinking_count` its
    tokens, and `thinking_duration_s` the time from its first piece to the first one of the answer.
    `numbers` are what else this engine measures, by the names it declares (its attribute `metrics`).
    `vectors` is set for embeddings, whose `text` is empty.
    """

    text: str
    prompt_eval_count: int | None
    prompt_eval_duration_s: float | None
    eval_count: int | None = None
    eval_duration_s: float | None = None
    cached_count: int | None = None
    total_duration_s: float | None = None
    load_duration_s: float | None = None
    printed_rate: float | None = None
    client_duration_s: float = 0.0
    ttft_s: float | None = None
    raw: str = ""
    chunk_count: int | None = None
    is_estimated: bool = False
    vectors: Vectors | None = None
    numbers: Mapping[str, float] = field(default_factory=dict)
    thoughts: str = ""
    thinking_count: int | None = None
    thinking_duration_s: float | None = None


GENERATE, EMBED = "generate", "embed"
"""The kinds of tasks: the engine answers with text, or with vectors."""
