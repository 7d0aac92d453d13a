"""A ledger in memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ollama_sweep.core.ledger import Leftover


@dataclass
class Book:
    """A ledger in memory."""

    open: dict[int, Leftover] = field(default_factory=dict)
    count: int = 0

    def record(self, kind: str, name: str, details: Mapping[str, str]) -> int:
        self.count += 1
        self.open[self.count] = Leftover(self.count, kind, name, details)
        return self.count

    def settle(self, number: int) -> None:
        del self.open[number]
