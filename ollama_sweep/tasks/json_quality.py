"""Is JSON that was asked for JSON, complete, alone, and made of what the text says? Also length and key facts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import ClassVar

from ollama_sweep.core.generation import GENERATE, Generation
from ollama_sweep.core.metrics import Kind, Metric
from ollama_sweep.core.outcome import Run
from ollama_sweep.core.strict_yaml import Node
from ollama_sweep.tasks.base import Question, Setup
from ollama_sweep.tasks.shared import prompt_set, scorers, scores

FAILURES = ("valid_json", "has_required_keys", "no_extra_text", "no_hallucination")


class Task:
    """JSON is checked where an item's prompt asks for it (it names JSON), or where `expect: {json: true}` says so."""

    version: ClassVar[int] = 2
    kind: ClassVar[str] = GENERATE
    metrics: ClassVar[tuple[Metric, ...]] = (
        *prompt_set.METRICS,
        Metric("json_answers", kind=Kind.COUNT),
        *(Metric(f"{name}_failures", better=-1, kind=Kind.COUNT) for name in FAILURES),
    )

    def setup(self, given: Mapping[str, Node]) -> Setup:
        defaults = {"num_predict": 200, "temperature": 0}
        return prompt_set.set_up("json_quality", given, defaults=defaults, change=_asking, has_version=True)

    def score(self, question: Question, generation: Generation) -> dict[str, float]:
        return prompt_set.score(question, generation)

    def unjudged(self, generation: Generation) -> dict[str, float]:
        return prompt_set.unjudged(generation)

    def summarize(self, runs: Sequence[Run]) -> dict[str, float]:
        """Beside the means the counts: `json_answers` n, and `valid_json_failures` k of them, and so on."""
        asked = [run for run in scores.answered(runs) if "valid_json" in run.scores]
        failures = {
            f"{name}_failures": float(sum(run.scores[name] < 1 for run in asked if name in run.scores))
            for name in FAILURES
            if any(name in run.scores for run in asked)
        }
        return prompt_set.summarize(runs) | {"json_answers": float(len(asked))} | failures


def _asking(question: Question) -> Question:
    names_json = scorers.asks_for_json(question.text) or "keys" in question.expected
    wants = question.expected.get("json", names_json)
    return replace(question, expected={**question.expected, "json": wants})
