"""The options that an engine can be given: which change a load, which belong to a server, their types and limits."""

from __future__ import annotations

import re
from collections.abc import Mapping

Scalar = str | int | float | bool | None
Options = tuple[tuple[str, Scalar], ...]
LOAD_OPTIONS = frozenset({"num_ctx", "num_batch", "num_gpu", "main_gpu", "use_mmap", "num_thread", "draft_num_predict"})
"""Options whose change makes Ollama load the model again (server/sched.go, needsReload)."""


SERVER_SETTINGS: Mapping[str, type] = {"flash_attention": bool, "kv_cache_type": str, "num_parallel": int}
"""Settings of a whole Ollama server; they change only with a restart, so they need `server: managed`."""
_SERVER_VARIABLE = re.compile(r"(?:OLLAMA|LLAMA_ARG)_[A-Z0-9_]{1,60}")


KV_CACHE_SHARES = {"f32": 2.0, "f16": 1.0, "bf16": 1.0, "q8_0": 34 / 64, "q5_1": 24 / 64, "q5_0": 22 / 64,
                   "q4_1": 20 / 64, "q4_0": 18 / 64, "iq4_nl": 18 / 64}  # fmt: skip
"""Types of a KV cache, and the size of each against f16 (bytes of a block of 32 values)."""


def is_server_setting(name: str) -> bool:
    """A named server setting, or any OLLAMA_* or LLAMA_ARG_* variable."""
    return name in SERVER_SETTINGS or _SERVER_VARIABLE.fullmatch(name) is not None


PARAMETERS: Mapping[str, type] = {
    "num_ctx": int,
    "num_batch": int,
    "num_gpu": int,
    "main_gpu": int,
    "use_mmap": bool,
    "num_thread": int,
    "draft_num_predict": int,
    "num_keep": int,
    "seed": int,
    "num_predict": int,
    "top_k": int,
    "top_p": float,
    "min_p": float,
    "typical_p": float,
    "repeat_last_n": int,
    "temperature": float,
    "repeat_penalty": float,
    "presence_penalty": float,
    "frequency_penalty": float,
    "stop": str,
}
"""Ollama's load and request options with their types."""

LIMITS: Mapping[str, tuple[int, int]] = {
    "num_ctx": (1, 10_000_000),
    "num_batch": (1, 10_000_000),
    "num_gpu": (-1, 10_000),
    "main_gpu": (0, 1_000),
    "num_thread": (0, 10_000),
    "draft_num_predict": (0, 10_000),
    "num_keep": (-1, 10_000_000),
    "seed": (-1, 2**32 - 1),
    "num_predict": (1, 10_000_000),
    "top_k": (0, 10_000_000),
    "top_p": (0, 1),
    "min_p": (0, 1),
    "typical_p": (0, 1),
    "repeat_last_n": (-1, 10_000_000),
    "temperature": (0, 100),
    "repeat_penalty": (-100, 100),
    "presence_penalty": (-100, 100),
    "frequency_penalty": (-100, 100),
}
"""What a sweep may ask of the numeric options; Ollama itself checks next to nothing."""
