"""What is put before and after a prompt: the parts of a rendering that do not change with it. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from ollama_sweep.core.errors import EngineMissing

MARKER = "PROMPT-OF-OLLAMA-SWEEP-7c1f0b"


@dataclass(frozen=True)
class Rendering:
    """`strips`: blanks around the prompt are left out."""

    before: str
    after: str
    strips: bool = False

    @classmethod
    def of_marked(cls, text: str, model: str) -> Rendering:
        """Of what became of the marker. Raises EngineMissing where it does not stand there once."""
        parts = text.split(MARKER)
        if len(parts) != 2:
            times = len(parts) - 1
            raise EngineMissing(
                f"the template of {model} has the prompt {times} times, so it cannot be put in; use --engine ollama"
            )
        return cls(parts[0], parts[1])

    def of(self, prompt: str) -> str:
        """All that the model is told."""
        return f"{self.before}{prompt.strip() if self.strips else prompt}{self.after}"
