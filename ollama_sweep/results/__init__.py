"""What the numbers say: status, best cells, tables, reports, pictures.

No engine is started here and nothing is measured.
"""

from __future__ import annotations

from collections.abc import Iterator

from ollama_sweep.core.metrics import Metric, add_source


def _declared() -> Iterator[Metric]:
    """What tasks declare of their numbers, and engines of other packages; ours have no number of their own."""
    from ollama_sweep import tasks
    from ollama_sweep.machine.plugins import Plugins

    yield from tasks.metrics()
    yield from Plugins("engine", __name__, ()).metrics()


add_source(_declared)
