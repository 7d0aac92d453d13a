"""What `doctor` sees of the context swap: which library would be used. Of Ollama itself the look of `ollama` tells."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ollama_sweep.core.errors import SweepError
from ollama_sweep.core.finding import Finding, bad, ok, warning
from ollama_sweep.engines.libllama import library
from ollama_sweep.engines.ollama.look import OllamaLook


class SwapLook(OllamaLook):
    """Looked up, not loaded: whether it can be used shows when a sweep opens it."""

    def findings(self, *, measures: bool) -> Iterator[Finding]:
        if not measures:
            return
        if self._is_served:
            list(super().findings(measures=False))  # they set `is_shared`
        try:
            found = library.find(self._settings.libllama, self._program)
        except SweepError as error:
            yield bad("libllama", str(error), "Measure with: --engine ollama")
            return
        differs = library.difference(found, self._program)
        text = f"{found.path}, {found.origin}, {found.shown}"
        if differs:
            yield warning("libllama", f"{text}; {differs}", "Numbers of another build are not Ollama's")
        else:
            yield ok("libllama", text)

    def disks(self, *, measures: bool) -> Iterator[tuple[str, Path, int]]:
        """Only where a file would be imported."""
        yield from (entry for entry in super().disks(measures=measures) if entry[2])
