"""Answers as a person waits for them, streamed: time to the first token, speed, latency percentiles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from ollama_sweep.core.generation import GENERATE, Generation
from ollama_sweep.core.metrics import Metric
from ollama_sweep.core.outcome import Run
from ollama_sweep.core.strict_yaml import Node
from ollama_sweep.tasks.base import Question, Setup
from ollama_sweep.tasks.shared import hub, prompt_set, task_options
from ollama_sweep.tasks.shared.data import PromptSet

OWN = ("split", *hub.OPTIONS)
SYSTEM = "You are a helpful assistant."
"""For data that cannot name a system prompt: everything but a prompt set."""
DATASET_PROMPTS = 3


class Task:
    """The prompts of a set, `prompts/chat.yaml` without another one. A number in front keeps every cache out."""

    version: ClassVar[int] = 1
    kind: ClassVar[str] = GENERATE
    metrics: ClassVar[tuple[Metric, ...]] = prompt_set.METRICS

    def setup(self, given: Mapping[str, Node]) -> Setup:
        return prompt_set.set_up(
            "chat",
            given,
            own=OWN,
            found=_downloaded(given),
            defaults={"num_predict": 100},
            system=SYSTEM,
            repeats=None,
            is_fresh=True,
        )

    def score(self, question: Question, generation: Generation) -> dict[str, float]:
        return prompt_set.score(question, generation)

    def unjudged(self, generation: Generation) -> dict[str, float]:
        return prompt_set.unjudged(generation)

    def summarize(self, runs: Sequence[Run]) -> dict[str, float]:
        return prompt_set.summarize(runs)


def _downloaded(given: Mapping[str, Node]) -> PromptSet | None:
    """The first prompts of the dataset that `datasets` names; None where it is not given."""
    limit = task_options.count("chat", given, "limit", 1, 1_000_000)
    found = hub.first_rows("chat", given, limit or DATASET_PROMPTS)
    return None if found is None else PromptSet(tuple(found))
