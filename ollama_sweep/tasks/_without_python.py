"""A task that is only a prompt set: `prompts/NAME.yaml`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from ollama_sweep.cells import Run
from ollama_sweep.engine import Generation
from ollama_sweep.task import GENERATE, Question, Setup
from ollama_sweep.tasks import _set
from ollama_sweep.yaml_strict import Node


class Task:
    """The prompts of one file, each judged by what it expects of its answer."""

    version: ClassVar[int] = 1
    kind: ClassVar[str] = GENERATE

    def __init__(self, name: str, path: Path) -> None:
        self._name, self._path = name, path

    def setup(self, given: Mapping[str, Node]) -> Setup:
        return _set.set_up(self._name, given, path=self._path, defaults={"num_predict": 100})

    def score(self, question: Question, generation: Generation) -> dict[str, float]:
        return _set.score(question, generation)

    def summarize(self, runs: Sequence[Run]) -> dict[str, float]:
        return _set.summarize(runs)
