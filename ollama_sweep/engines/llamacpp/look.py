"""Is the embedded engine part of this installation?"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version

from ollama_sweep.core.errors import EngineMissing
from ollama_sweep.core.finding import Finding, ok
from ollama_sweep.engines.shared.look import Look


class EmbeddedLook(Look):
    """Only where another engine would measure; else `describe` says the same."""

    def findings(self, *, measures: bool) -> Iterator[Finding]:
        if measures:
            return
        try:
            yield ok("llamacpp", f"the embedded engine is there, too (xllamacpp {installed_version()})")
        except EngineMissing as error:
            yield ok("llamacpp", f"{error} (only needed without Ollama)")


def installed_version() -> str:
    """The version of the wheel. Raises EngineMissing."""
    try:
        found = version("xllamacpp") if importlib.util.find_spec("xllamacpp") else ""
    except PackageNotFoundError:
        found = ""
    if not found:
        raise EngineMissing("the embedded engine is not installed. Run: pip install 'ollama-sweep[llamacpp]'")
    return found
