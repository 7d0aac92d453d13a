"""Answers as a person waits for them, streamed: time to the first token, speed, latency percentiles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from ollama_sweep.cells import Run
from ollama_sweep.engine import Generation
from ollama_sweep.task import GENERATE, Question, Setup
from ollama_sweep.tasks import _set
from ollama_sweep.yaml_strict import Node


class Task:
    """The prompts of a set, `prompts/chat.yaml` without another one. A number in front keeps every cache out."""

    version: ClassVar[int] = 1
    kind: ClassVar[str] = GENERATE

    def setup(self, given: Mapping[str, Node]) -> Setup:
        return _set.set_up("chat", given, defaults={"num_predict": 100}, repeats=None, is_fresh=True)

    def score(self, question: Question, generation: Generation) -> dict[str, float]:
        return _set.score(question, generation)

    def summarize(self, runs: Sequence[Run]) -> dict[str, float]:
        return _set.summarize(runs)
