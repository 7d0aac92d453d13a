"""Asks a language model through an engine of a sweep, for `report --analysis-model`. Nothing of it stays behind."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ollama_sweep.core import thoughts
from ollama_sweep.core.cell import Cell
from ollama_sweep.core.errors import CellFailed, ConfigError, SweepError
from ollama_sweep.engines.base import Engine, EngineSettings
from ollama_sweep.engines.shared import gate
from ollama_sweep.plan.opening import engine_settings, open_engine, silent

if TYPE_CHECKING:
    from ollama_sweep.results.analysis import Analysis
    from ollama_sweep.results.groups import Group
    from ollama_sweep.store.rows import SweepRow

OPTION = "--analysis-model"
AUTO = "auto"
TIMEOUT_S = 600.0
OPTIONS = {"num_batch": 512, "num_ctx": 4096, "num_predict": 700, "temperature": 0}


@dataclass(frozen=True)
class Asked:
    """Where a person wants the model to be asked; None: as the sweep has it."""

    engine: str | None = None
    host: str | None = None
    ollama: str | None = None
    remote: bool = False
    say: Callable[[str], None] = silent
    trace: Callable[[str], None] = silent


def chosen_model(name: str, groups: Sequence[Group], *, allow_cloud: bool) -> str:
    """The model to ask; `auto` is the tested one with the best score. Raises ConfigError."""
    if not name.strip() or any(sign.isspace() or not sign.isprintable() for sign in name):
        raise ConfigError("write the name of a model, or auto for the best of the tested ones", OPTION)
    model = _best(groups) if name == AUTO else name
    if model.endswith((":cloud", "-cloud")) and not allow_cloud:
        raise ConfigError(f"{model} is a cloud model; use --allow-cloud", OPTION)
    return model


def _best(groups: Sequence[Group]) -> str:
    from ollama_sweep.results.groups import is_embedding

    speaking = [group for group in groups if group.succeeded and group.rows and not is_embedding(group.rows[0])]
    if not speaking:
        raise ConfigError("no tested model has answered with text; write the name of one", OPTION)

    def rank(group: Group) -> tuple[float, float, float]:
        score, speed = group.spreads.get("score"), group.spreads.get("tokens_per_second")
        return score.mean if score else -1.0, group.success_rate or 0.0, speed.mean if speed else 0.0

    return max(speaking, key=rank).model


def analysis_by(model: str, groups: Sequence[Group], row: SweepRow, asked: Asked) -> Analysis:
    """What the model makes of the measurements; the plain summaries where it or its engine fails."""
    from ollama_sweep.results import analysis

    try:
        with asking(model, row, asked) as ask:
            return analysis.analyse(groups, model, ask)
    except ConfigError:
        raise
    except (SweepError, CellFailed) as failure:
        text = failure.error if isinstance(failure, CellFailed) else str(failure)
        first = next(iter(text.strip().splitlines()), "it failed")
        return analysis.plain(groups, f"{model} could not be asked ({first}); these are the plain summaries", model)


@contextlib.contextmanager
def asking(model: str, row: SweepRow, asked: Asked) -> Iterator[Callable[[str], str]]:
    """`ask(prompt)` gives the model's answer. Raises ConfigError, EngineUnavailable, CellFailed."""
    settings = _settings(row, asked)
    engine = open_engine(_engine_name(row, asked, settings), settings)
    try:
        options = tuple((name, value) for name, value in OPTIONS.items() if _can_set(engine, name))
        cell = Cell((("num_ctx", OPTIONS["num_ctx"]),), model, options, task="analysis")
        engine.prepare(cell)

        def answer(prompt: str) -> str:
            generation = engine.generate(cell, prompt, TIMEOUT_S, fresh=False)
            return thoughts.apart(gate.checked(generation, fresh=False)).text

        yield answer
    finally:
        engine.close()


def _can_set(engine: Engine, name: str) -> bool:
    """num_predict ends the answer, so every engine is told."""
    return engine.settable is None or name in engine.settable or name == "num_predict"


def _engine_name(row: SweepRow, asked: Asked, settings: EngineSettings) -> str:
    from ollama_sweep import engines

    wanted = asked.engine or (row.engine if row.engine != "imported" else engines.AUTO)
    return engines.choose(settings) if wanted == engines.AUTO else wanted


def _settings(row: SweepRow, asked: Asked) -> EngineSettings:
    """Those of the sweep's file, where it is still there, with what the person says; never its template."""
    from ollama_sweep.plan.config import load_spec
    from ollama_sweep.plan.setups import with_tasks

    settings = EngineSettings(allow_remote=asked.remote, say=asked.say, trace=asked.trace)
    path = Path(row.config_path)
    if row.config_path and path.is_file():
        with contextlib.suppress(ConfigError):  # it has changed since: what the person says must do
            spec = with_tasks(load_spec(path, {"allow_cloud": True, "allow_local_gguf": True}))
            settings = engine_settings(spec, say=asked.say, trace=asked.trace, remote=asked.remote)
    host, ollama = asked.host or settings.host, asked.ollama or settings.ollama
    return replace(settings, template="", timeout_s=TIMEOUT_S, host=host, ollama=ollama)
