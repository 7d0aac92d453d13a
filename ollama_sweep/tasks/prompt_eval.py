"""How fast the model reads a prompt: the main task. The answer itself is not judged."""

from __future__ import annotations

from ollama_sweep.engine import Generation


class Task:
    """Two predicted tokens are enough; what counts is prompt_eval_rate."""

    version = 1

    def score(self, prompt: str, generation: Generation) -> dict[str, float]:
        return {}
