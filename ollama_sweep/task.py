"""The contract of a task: what is asked of the model and how the answer is judged. One task is one file in `tasks/`.

A task file has `VERSION` (part of a cell's identity) and a class `Task` of this shape.
"""

from __future__ import annotations

from typing import Protocol

from ollama_sweep.engine import Generation


class Task(Protocol):
    """What a run asks and how its answer is scored."""

    version: int

    def score(self, prompt: str, generation: Generation) -> dict[str, float]:
        """Named scores of one answer; an empty dict where speed is all that counts."""
