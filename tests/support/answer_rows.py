"""Kept answers of pretended models for the tests of pictures: made by a formula with a fixed seed."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from ollama_sweep.core.outcome import Answer, AnswerRow

MODELS = ("gemma:2b", "qwen2:1.5b", "tinyllama")
LONG_NAMES = (
    "bartowski/QwQ-32B-Preview-GGUF/QwQ-32B-Preview-Q4_K_M-with-a-very-long-name-that-goes-on",
    "bartowski/QwQ-32B-Preview-GGUF/QwQ-32B-Preview-Q8_0-with-a-very-long-name-that-goes-on",
    "hf.co/somebody/an-extraordinarily-long-model-name-$with$-odd_signs-模型:q5_k_m",
)


def row(model: str = "gemma:2b", **changes: Any) -> AnswerRow:
    """One answer by hand: 100 prompt tokens, 20 output tokens, 1.5 s, score 1; `changes` are fields of AnswerRow."""
    made = AnswerRow(
        sweep="bench", engine="ollama", model=model, task="items", cell=f"c1:{model}", coordinates={"num_ctx": 4096},
        number=1, answer=Answer("q1", "Extraction", "What?", "That."), latency_s=1.5, ttft_s=0.3,
        prompt_eval_count=100, cached_count=0, prompt_eval_duration_s=0.25, eval_count=20, eval_duration_s=1.0,
        total_duration_s=1.4, load_duration_s=0.1, scores={"score": 1.0},
    )  # fmt: skip
    return replace(made, **changes)


def failed(model: str = "gemma:2b", why: str = "timeout", **changes: Any) -> AnswerRow:
    """A question without an answer."""
    nothing: dict[str, Any] = {
        "ttft_s": None, "prompt_eval_count": None, "cached_count": None, "prompt_eval_duration_s": None,
        "eval_count": None, "eval_duration_s": None, "total_duration_s": None, "scores": {},
    }  # fmt: skip
    return row(model, answer=Answer("q9", "Extraction", "What?", "", why, 3), **{**nothing, **changes})


def answers(
    models: Iterable[str] = MODELS, count: int = 40, failures: int = 0, seed: int = 1, **changes: Any
) -> list[AnswerRow]:
    """`count` answers of each model, each a little slower than the one before, and `failures` failed ones."""
    chance = random.Random(seed)
    found: list[AnswerRow] = []
    for place, model in enumerate(models):
        found += [_answer(model, number, 1 + 0.6 * place, chance, changes) for number in range(1, count + 1)]
        found += [failed(model, number=count + number, **changes) for number in range(1, failures + 1)]
    return found


def _answer(model: str, number: int, slowness: float, chance: random.Random, changes: dict[str, Any]) -> AnswerRow:
    prompt, output = int(chance.lognormvariate(5.5, 0.6)), 1 + int(chance.lognormvariate(3.5, 0.8))
    reading, writing = prompt / 900 * slowness, output / 45 * slowness
    noise = chance.gauss(1.0, 0.06)
    total = (reading + writing) * noise
    made = row(
        model, number=number, answer=Answer(f"q{number}", "Summarization", "What?", "That."), prompt_eval_count=prompt,
        eval_count=output, prompt_eval_duration_s=reading * noise, eval_duration_s=writing * noise,
        total_duration_s=total, latency_s=total * 1.05 + 0.03, ttft_s=reading * noise + 0.02,
        scores={"score": float(chance.random() < 0.75 - 0.15 * slowness)},
    )  # fmt: skip
    return replace(made, **changes)
