"""What a server on another host says when it is asked from outside whether it could be measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ollama_sweep.core.errors import EngineUnavailable


class Unreached(EngineUnavailable):
    """A host cannot be measured: `text` goes behind its name, `hint` says what to do."""

    def __init__(self, text: str, hint: str) -> None:
        super().__init__(f"{text}. {hint}")
        self.text, self.hint = text, hint


@dataclass(frozen=True)
class Told:
    """What a server said: its version in words, and the digest of each model by its name.

    `clock_off_s` is how many seconds its clock is ahead of ours, as little as that can be; None where it does not say.
    `free_bytes` are those of the disk with its models; None where nobody says. `peer` is the address and port that
    answered, "" where that is not known.
    """

    program: str
    version: str
    models: Mapping[str, str]
    clock_off_s: float | None = None
    free_bytes: int | None = None
    peer: str = ""
