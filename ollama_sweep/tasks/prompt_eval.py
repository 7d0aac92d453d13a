"""How fast the model reads a prompt: the main task. The answer itself is not judged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from ollama_sweep.core.generation import GENERATE, Generation
from ollama_sweep.core.metrics import Metric
from ollama_sweep.core.outcome import Run
from ollama_sweep.core.strict_yaml import Node
from ollama_sweep.tasks.base import Question, Setup


class Task:
    """The sweep's own prompt. Two predicted tokens are enough; what counts is prompt_eval_rate."""

    version: ClassVar[int] = 1
    kind: ClassVar[str] = GENERATE
    metrics: ClassVar[tuple[Metric, ...]] = ()

    def setup(self, given: Mapping[str, Node]) -> Setup:
        for name, node in given.items():
            raise node.error(f"tasks.prompt_eval.{name}: prompt_eval has no options; `prompt` gives its text")
        return Setup(is_fresh=True)

    def score(self, question: Question, generation: Generation) -> dict[str, float]:
        return {}

    def unjudged(self, generation: Generation) -> dict[str, float]:
        return {}

    def summarize(self, runs: Sequence[Run]) -> dict[str, float]:
        return {}
