"""What `doctor` sees of the context swap: Ollama as its other engines see it, and which library would be used."""

from __future__ import annotations

from collections.abc import Iterator

from ollama_sweep.core.errors import SweepError
from ollama_sweep.core.finding import Finding, bad, ok, warning
from ollama_sweep.engines.libllama import library
from ollama_sweep.engines.ollama.look import OllamaLook


class SwapLook(OllamaLook):
    """Looked up, not loaded: whether it can be used shows when a sweep opens it."""

    def findings(self, *, measures: bool) -> Iterator[Finding]:
        if self._program is not None or not measures:
            yield from super().findings(measures=measures)
        else:
            yield ok("ollama", "no program is here; prompts are rendered by the template inside the model file")
        if not measures:
            return
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
