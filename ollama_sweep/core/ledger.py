"""What exists outside the database now and would stay after a crash: who writes it down, who forgets it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol


class Ledger(Protocol):
    """Where an engine writes down what it is about to make, so that the next start can clear it after a crash."""

    def record(self, kind: str, name: str, details: Mapping[str, str]) -> int:
        """Write down, durably and before it exists, a `scratch_model`, a `loaded_model` or a `process`; its number."""

    def settle(self, number: int) -> None:
        """It is gone again."""


class NoLedger:
    """For callers without a database (`plan`, `doctor`, `params`), which leave nothing behind when they end."""

    def record(self, kind: str, name: str, details: Mapping[str, str]) -> int:
        return 0

    def settle(self, number: int) -> None:
        return None


@dataclass(frozen=True)
class Leftover:
    """Something a dead session recorded and did not settle."""

    number: int
    kind: str
    name: str
    details: Mapping[str, str]
