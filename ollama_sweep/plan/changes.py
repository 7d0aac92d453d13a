"""What is new, gone and changed since the last run of a sweep, in words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from ollama_sweep.core.cell import PROMPT_TOKENS, Cell, made_length
from ollama_sweep.core.options import Scalar
from ollama_sweep.plan import grid
from ollama_sweep.plan.survey import Survey, _setup_picture
from ollama_sweep.tasks.base import Setup

_SETTINGS = ("model", "prompt", "modelfile", "options", "server", "tasks")
"""What `changes` says of a sweep beside its dimensions; each is identity."""
_AGAIN = "cells will be measured again, the old ones are kept (cells that were measured like this before count)"


def changes(old: Mapping[str, object], new: Survey) -> list[str]:
    """What differs from the last run of this sweep, in words; empty where nothing does."""
    picture = new.picture()
    changed = [name for name in _SETTINGS if old.get(name, picture[name]) != picture[name]]
    again = _measured_again(changed, old, new)
    lines = []
    for name in changed:
        if again[name]:
            lines.append(f"{name} changed: {again[name]} {_AGAIN}")
        elif _is_replaced(old[name], picture[name]):
            lines.append(f"{name} changed")
    before, now = old.get("dimensions"), picture["dimensions"]
    if isinstance(before, dict) and isinstance(now, dict):
        made = _lengths(old.get("prompt")) if PROMPT_TOKENS in now else []
        lines += _dimension_changes({PROMPT_TOKENS: made, **before} if made else before, now, new)
    if "engine_version" in old and old["engine_version"] != picture["engine_version"]:
        lines.append(f"the engine was {old['engine_version']}, now it is {picture['engine_version']}")
    return lines


def _measured_again(changed: list[str], old: Mapping[str, object], new: Survey) -> Counter[str]:
    """How many cells each of these settings makes other ones, of those that fit and that the last run had as well."""
    found: Counter[str] = Counter()
    before = old.get("dimensions")
    for cell in grid.each_cell(new.spec) if changed else ():
        if _was_planned(cell, before) and new.fits(cell):
            found.update(name for name in changed if _makes_another(name, cell, old[name], new))
    return found


def _was_planned(cell: Cell, before: object) -> bool:
    if not isinstance(before, dict):
        return True
    return all(value in before.get(name, ()) for name, value in cell.coordinates)


def _makes_another(name: str, cell: Cell, before: Any, new: Survey) -> bool:
    """The cell's own model, prompt or task is another one than in the last run; what else changed is every cell's."""
    if name == "model":
        return f"{cell.model} {new.models[cell.model].digest}" not in before
    if name == "prompt":
        return new.prompts[cell.asked].hash not in before
    if name == "tasks":
        setup = new.spec.setups.get(cell.task, Setup())
        return bool(setup.questions) and before.get(cell.task) != _setup_picture(setup)
    return True


def _is_replaced(before: Any, now: Any) -> bool:
    """Not only more or fewer models, prompts or tasks than in the last run."""
    if isinstance(now, list):
        return not set(before) & set(now)
    if isinstance(now, dict):
        return any(before[name] != now[name] for name in before.keys() & now.keys())
    return True


def _lengths(hashes: object) -> list[Scalar]:
    """The lengths that the prompt had: one that was no dimension makes the same cells."""
    found = (made_length(str(one)) for one in hashes) if isinstance(hashes, list) else ()
    return [length for length in found if length is not None]


def _dimension_changes(before: Mapping[str, list[Scalar]], now: Mapping[str, list[Scalar]], new: Survey) -> list[str]:
    lines = []
    for name in now:
        had, has = set(before.get(name, [])), set(now[name])
        added = [value for value in now[name] if value not in had]
        gone = [value for value in before.get(name, []) if value not in has]
        if added:
            wanted = set(added)
            count = sum(dict(cell.coordinates).get(name) in wanted for cell in new.each_cell())
            lines.append(f"{name} {_listed(added)} is new ({count} cells)")
        if gone:
            lines.append(f"{name} {_listed(gone)} is gone (its cells are kept)")
    lines += [f"dimension {name} is gone" for name in before if name not in now]
    return lines


def _listed(values: list[Scalar]) -> str:
    shown = ", ".join(str(value) for value in values[:6])
    return shown if len(values) <= 6 else f"{shown}, … ({len(values)} values)"
