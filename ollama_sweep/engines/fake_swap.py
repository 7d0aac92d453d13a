"""The scripted engine as one that swaps contexts: what scouts for `fake`, for tests.

It reads the script of `fake`, and in it `swap`: {"factor": 1.0} (its rates divided by those of `fake`), "version" and
what else differs. Where a part of the model would be moved to the processor it runs out of memory instead.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ollama_sweep.engines.base import EngineInfo, EngineSettings
from ollama_sweep.engines.fake import Engine as Fake


class Engine(Fake):
    """See `fake.Engine`."""

    scout = ""
    swaps_contexts = True

    def __init__(self, settings: EngineSettings) -> None:
        super().__init__(settings)
        self._script = _swapped(self._script)

    def describe(self) -> EngineInfo:
        return replace(super().describe(), name="fake_swap")


def _swapped(script: dict[str, Any]) -> dict[str, Any]:
    own: dict[str, Any] = dict(script.get("swap", {}))
    limits = [script[name] for name in ("spill_above", "oom_above") if name in script]
    rate = float(script.get("rate", 400.0)) * float(own.pop("factor", 1.0))
    return {**script, "rate": rate, **({"oom_above": min(limits)} if limits else {}), **own}
