"""A person's own items, in categories, each judged by what it expects of its answer or by its reference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from ollama_sweep.core.generation import GENERATE, Generation
from ollama_sweep.core.metrics import Metric
from ollama_sweep.core.outcome import Run
from ollama_sweep.core.strict_yaml import Node
from ollama_sweep.tasks.base import Question, Setup
from ollama_sweep.tasks.shared import prompt_set


class Task:
    """Items with `id, category, prompt` and perhaps `reference` and `expect`; `prompts/items.yaml` without others."""

    version: ClassVar[int] = 1
    kind: ClassVar[str] = GENERATE
    metrics: ClassVar[tuple[Metric, ...]] = prompt_set.METRICS

    def setup(self, given: Mapping[str, Node]) -> Setup:
        defaults = {"num_predict": 100, "temperature": 0.7}
        return prompt_set.set_up("items", given, defaults=defaults, needs_category=True)

    def score(self, question: Question, generation: Generation) -> dict[str, float]:
        return prompt_set.score(question, generation)

    def unjudged(self, generation: Generation) -> dict[str, float]:
        return prompt_set.unjudged(generation)

    def summarize(self, runs: Sequence[Run]) -> dict[str, float]:
        return prompt_set.summarize(runs)
