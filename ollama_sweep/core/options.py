"""The options that an engine can be given: which change a load, which belong to a server, their types and limits."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

Scalar = str | int | float | bool | None
Options = tuple[tuple[str, Scalar], ...]


@dataclass(frozen=True)
class Option:
    """One option of an engine, or one setting of a server: its type, its limits, and whether a change loads again.

    `words` say what it does, `example` is a value as a sweep file has it.
    """

    name: str
    kind: type
    low: int | None = None
    high: int | None = None
    loads: bool = False
    words: str = ""
    example: str = ""


OPTIONS = (
    Option("num_ctx", int, 1, 10_000_000, loads=True),
    Option("num_batch", int, 1, 10_000_000, loads=True),
    Option("num_gpu", int, -1, 10_000, loads=True, words="layers on the GPU; -1 leaves it to Ollama", example="0"),
    Option("main_gpu", int, 0, 1_000, loads=True, words="the GPU that holds what cannot be split", example="0"),
    Option("use_mmap", bool, loads=True, words="map the file of the model into memory", example="true"),
    Option("num_thread", int, 0, 10_000, loads=True, words="threads that compute", example="2"),
    Option("draft_num_predict", int, 0, 10_000, loads=True, words="tokens that a draft model proposes", example="4"),
    Option("num_keep", int, -1, 10_000_000, words="tokens that stay when the context is shifted", example="4"),
    Option("seed", int, -1, 2**32 - 1, words="the same seed draws the same tokens", example="1"),
    Option("num_predict", int, 1, 10_000_000),
    Option("top_k", int, 0, 10_000_000, words="choose among the so many likeliest tokens", example="40"),
    Option("top_p", float, 0, 1, words="choose among the likeliest that share this much", example="0.9"),
    Option("min_p", float, 0, 1, words="leave out tokens below this share of the likeliest one", example="0.0"),
    Option("typical_p", float, 0, 1, words="locally typical sampling; 1 is off", example="1.0"),
    Option("repeat_last_n", int, -1, 10_000_000, words="tokens that repeat_penalty looks back on", example="64"),
    Option("temperature", float, 0, 100, words="how much chance there is in an answer; 0 is none", example="0"),
    Option("repeat_penalty", float, -100, 100, words="against what stands there already; 1 is off", example="1.0"),
    Option("presence_penalty", float, -100, 100, words="the same, once for each token; 0 is off", example="0.0"),
    Option("frequency_penalty", float, -100, 100, words="the same, for each time; 0 is off", example="0.0"),
)
"""Ollama's load and request options. The limits are what a sweep may ask; Ollama itself checks next to nothing."""

SERVER_OPTIONS = (
    Option("flash_attention", bool, words="true, false (`OLLAMA_FLASH_ATTENTION`)", example="true"),
    Option("kv_cache_type", str, words="text such as f16, q8_0, q4_0 (`OLLAMA_KV_CACHE_TYPE`)", example="f16"),
    Option("num_parallel", int, 1, 1024, words="LOW to HIGH (`OLLAMA_NUM_PARALLEL`)", example="1"),
)
"""Settings of a whole Ollama server; they change only with a restart, so they need `server: managed`."""

MATTER_OF_COURSE: Mapping[str, Scalar] = {"think": False, "concurrency": 1}
"""What holds without a key. A cell of which it is asked is the one of which nothing is."""

LOAD_OPTIONS = frozenset(option.name for option in OPTIONS if option.loads)
"""Options whose change makes Ollama load the model again (server/sched.go, needsReload)."""

PARAMETERS: Mapping[str, type] = {**{option.name: option.kind for option in OPTIONS}, "stop": str}
"""What a Modelfile's PARAMETER may name, with its type; a list of stop words is no option of a sweep."""

SERVER_SETTINGS: Mapping[str, type] = {option.name: option.kind for option in SERVER_OPTIONS}
LIMITS: Mapping[str, tuple[int, int]] = {
    option.name: (option.low, option.high)
    for option in (*OPTIONS, *SERVER_OPTIONS)
    if option.low is not None and option.high is not None
}
SERVER_VARIABLE = r"(?:OLLAMA|LLAMA_ARG)_[A-Z0-9_]{1,60}"


KV_CACHE_SHARES = {"f32": 2.0, "f16": 1.0, "bf16": 1.0, "q8_0": 34 / 64, "q5_1": 24 / 64, "q5_0": 22 / 64,
                   "q4_1": 20 / 64, "q4_0": 18 / 64, "iq4_nl": 18 / 64}  # fmt: skip
"""Types of a KV cache, and the size of each against f16 (bytes of a block of 32 values)."""


def asked_for(options: Mapping[str, Scalar]) -> dict[str, Scalar]:
    """These options without those that hold as a matter of course."""
    return {name: value for name, value in options.items() if MATTER_OF_COURSE.get(name) != value or value is None}


def is_server_setting(name: str) -> bool:
    """A named server setting, or any OLLAMA_* or LLAMA_ARG_* variable."""
    return name in SERVER_SETTINGS or re.fullmatch(SERVER_VARIABLE, name) is not None
