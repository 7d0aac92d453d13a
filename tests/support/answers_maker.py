"""Kept answers made by hand, for tests of reports."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ollama_sweep.core.outcome import Answer, AnswerRow

_ANSWER_FIELDS = {"item", "category", "prompt", "text", "failure", "tries", "chunk_count", "is_estimated",
                  "peak_rss_bytes"}  # fmt: skip


def answer(model: str = "llama3:8b", item: str = "q1", latency_s: float = 2.0, **changes: Any) -> AnswerRow:
    """An answer of 40 tokens to a prompt of 100, the first token after half a second; `changes` are any fields."""
    own = {name: changes.pop(name) for name in list(changes) if name in _ANSWER_FIELDS}
    made = AnswerRow(
        sweep="bench", engine="ollama", model=model, task="items", cell=f"c1:{model}", coordinates={"num_ctx": 4096},
        number=1, answer=Answer(item, "Extraction", f"What is {item}?", "four words are here"), latency_s=latency_s,
        finished_at="2026-03-01T12:00:05+00:00", ttft_s=0.5, load_duration_s=1.5, prompt_eval_count=100,
        prompt_eval_duration_s=0.4, eval_count=40, eval_duration_s=1.4, total_duration_s=latency_s,
        config={"num_predict": 100, "temperature": 0.7}, quantization="Q4_K_M", parameter_size="8B",
    )  # fmt: skip
    return replace(made, **{**changes, "answer": replace(made.answer, **own)})


def failed(model: str = "llama3:8b", item: str = "q9", **changes: Any) -> AnswerRow:
    """A question without an answer: it took 9 s, and nothing is known of tokens."""
    nothing = {"ttft_s": None, "prompt_eval_count": None, "eval_count": None, "eval_duration_s": None,
               "prompt_eval_duration_s": None, "total_duration_s": None}  # fmt: skip
    return answer(model, item, 9.0, **{**nothing, "text": "", "failure": "the answer is empty", "tries": 3, **changes})
