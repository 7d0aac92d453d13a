"""What a pair says at the end of a run: the words of `compare NAME.a NAME.b`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ollama_sweep.core.errors import ConfigError
from ollama_sweep.results.compare.comparing import Comparison, compare
from ollama_sweep.store.beside import db_words


@dataclass(frozen=True)
class Compared:
    """The comparison of both sweeps, or why there is none yet."""

    names: Sequence[str]
    found: Comparison | None
    why: str = ""

    def summary(self) -> list[str]:
        """A few lines for each task."""
        from ollama_sweep.results.compare import telling

        if self.found is None:
            return [f"Not compared: {self.why}"]
        return [line for part in self.found.parts for line in telling.summary(self.found, part)]

    def lines(self, db: Path) -> list[str]:
        """What a person reads."""
        from ollama_sweep.results.compare import telling

        if self.found is None:
            return self.summary()
        again = f"ollama-sweep compare {' '.join(self.names)}{db_words(db)}"
        return [*telling.head(self.found), *self.summary(), f"Cell by cell: {again}"]

    def as_dict(self) -> dict[str, object] | None:
        """For machines; None where nothing could be compared."""
        return self.found.as_dict() if self.found else None


def compared(db: Path, names: Sequence[str]) -> Compared:
    """Both sweeps of a pair, compared. Raises StorageError."""
    try:
        return Compared(names, compare(names[0], names[1], db=db))
    except ConfigError as error:
        return Compared(names, None, str(error))
