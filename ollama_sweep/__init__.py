"""Measure a model over num_ctx x num_batch (and other settings), for days, and say which numbers may be believed.

As a Python package: `load` a sweep, `preview` and `measure` it, and read a database by `status`, `rows`,
`best` and `compare` (docs/python.md). Each is imported when it is first asked for.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ollama_sweep.plan.load import load
    from ollama_sweep.plan.preview import preview
    from ollama_sweep.results.compare.comparing import compare
    from ollama_sweep.results.find import best, rows
    from ollama_sweep.results.status import status
    from ollama_sweep.run.session import measure

__version__ = "0.1.0"
__all__ = ["best", "compare", "load", "measure", "preview", "rows", "status"]

_HOMES = {
    "best": "results.find",
    "compare": "results.compare.comparing",
    "load": "plan.load",
    "measure": "run.session",
    "preview": "plan.preview",
    "rows": "results.find",
    "status": "results.status",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
