"""`plan CONFIG`: what a run would do, without doing it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ollama_sweep.cli import shared
from ollama_sweep.core.cell import model_label

if TYPE_CHECKING:
    from ollama_sweep.plan.spec import SweepSpec
    from ollama_sweep.plan.survey import Survey
    from ollama_sweep.store.reader import Reader
    from ollama_sweep.store.rows import CellState, PlannedCell

SHOWN_CELLS = 8


@click.command("plan", short_help="Show what a run would do: cells, order, memory, what is done.")
@shared.sweep_options
@shared.db_option
@shared.json_option
@shared.verbose_option
def command(config: Path | None, db: Path, as_json: bool, verbose: bool, **given: Any) -> None:
    """Show what `run` would do: cells and order, what is done, what cannot be valid, memory, time left.

    Where the prompt's length is not known yet, the model is loaded once with a very small context to count it.

    \b
    Example:
      ollama-sweep plan configs/quickstart.yaml
    """
    import json

    spec = shared.spec_from(config, given)
    reader = shared.reader_if_there(db)
    found, states = _survey(spec, reader, verbose=verbose, remote=given["remote"], setup=given["setup"])
    picture = _picture(found.spec, reader, found, states)
    if as_json:
        click.echo(json.dumps(picture, indent=2, ensure_ascii=False))
        return
    for line in _lines(picture):
        click.echo(line)


def _survey(
    spec: SweepSpec, reader: Reader | None, *, verbose: bool, remote: bool, setup: bool
) -> tuple[Survey, dict[str, CellState]]:
    from ollama_sweep.plan.lengths import NoMemory
    from ollama_sweep.plan.survey import survey

    def say(line: str) -> None:
        click.echo(line, err=True)

    settings = shared.engine_settings(spec, say=say, verbose=verbose, remote=remote, setup=setup)
    name = shared.engine_name(spec, settings, pinned_engine(reader, spec.name))
    engine = shared.open_engine(name, settings)
    try:
        found = survey(spec, name, engine, reader or NoMemory(), say)
    finally:
        engine.close()
    return found, dict(reader.states(planned.key for planned in found.planned())) if reader else {}


def pinned_engine(reader: Reader | None, name: str) -> str | None:
    """The engine that this sweep began with, None where it is new."""
    rows = reader.sweeps() if reader else []
    return next((row.engine for row in rows if row.name == name), None)


def _picture(spec: SweepSpec, reader: Reader | None, found: Survey, states: dict[str, CellState]) -> dict[str, Any]:
    from ollama_sweep.plan import fit, grid
    from ollama_sweep.plan.changes import changes

    cells = list(found.planned())
    why = [_why(planned, states, spec) for planned in cells]
    to_run = [planned for planned, reason in zip(cells, why, strict=True) if reason]
    row = next((row for row in reader.sweeps() if row.name == spec.name), None) if reader else None
    repeats = fit.repeating(found.cells, found.models)
    return {
        "sweep": spec.name,
        "engine": found.engine,
        "engine_version": found.info.version,
        "where": found.info.where,
        "models": {name: _model_picture(model, found) for name, model in found.models.items()},
        "prompt": spec.prompt.source or "text",
        "prompt_tokens": {model: prompt.tokens for (_, model), prompt in found.prompts.items() if prompt.is_own_prompt},
        "tasks": _tasks(spec, found),
        "order": spec.order,
        "dimensions": {name: list(spec.dimensions[name]) for name in grid.nesting(spec)},
        "cells": len(cells),
        "done": len(cells) - len(to_run) - sum(planned.reason == "does_not_fit" for planned in cells),
        "to_run": len(to_run),
        "why": dict(Counter(reason for reason in why if reason)),
        "first": [planned.cell.label() for planned in to_run[:SHOWN_CELLS]],
        "changes": changes(row.spec, found) if row else [],
        "does_not_fit": sorted({planned.cell.num_ctx for planned in cells if planned.reason == "does_not_fit"}),
        "repeating": [[cell.label() for cell in group] for group in repeats],
        "unfilled": _unfilled(found),
        "replaced_parameters": list(_replaced(spec, found)),
        "seconds_left": _seconds_left(reader, row.sweep_id if row else None, len(to_run)),
        "warnings": list(spec.warnings),
    }


def _why(planned: PlannedCell, states: dict[str, CellState], spec: SweepSpec) -> str:
    """Why a cell would run; empty where it would not."""
    from ollama_sweep.core.outcome import Status

    if planned.status is Status.SKIPPED:
        return ""
    state = states.get(planned.key)
    if state is None:
        return "new"
    if state.status is Status.SKIPPED:
        return "was skipped, fits now"
    setup = spec.setups.get(planned.cell.task)
    repeats = (setup.repeats if setup else None) or spec.repeats.minimum
    return state.why_again(timeout_s=spec.timeout_s, repeats_minimum=repeats)


def _model_picture(model: Any, found: Survey) -> dict[str, Any]:
    from ollama_sweep.plan import fit

    contexts = sorted({cell.num_ctx for cell in found.cells if cell.model == model.name})
    return {
        "digest": model.digest,
        "quantization": model.quantization,
        "parameter_size": model.parameter_size,
        "context_length": model.context_length,
        "size_bytes": model.size_bytes,
        "memory": [
            {
                "num_ctx": num_ctx,
                "kv_cache_bytes": fit.kv_cache_bytes(num_ctx, model),
                "load_bytes": fit.load_bytes(num_ctx, model),
            }
            for num_ctx in contexts
        ],
    }


def _unfilled(found: Survey) -> list[int]:
    """num_batch values above the prompt's tokens: they cannot differ from one another."""
    tokens = max((prompt.tokens or 0 for prompt in found.prompts.values() if prompt.is_own_prompt), default=0)
    cells = (cell for cell in found.cells if found.prompts[cell.task, cell.model].is_own_prompt)
    return sorted({cell.num_batch for cell in cells if tokens and cell.num_batch > tokens})


def _tasks(spec: SweepSpec, found: Survey) -> list[dict[str, Any]]:
    """What the tasks with questions ask, and how many questions are too long for which num_ctx."""
    pictures = []
    for (task, model), sent in found.prompts.items():
        if sent.is_own_prompt:
            continue
        cells = {cell.num_ctx: cell for cell in found.cells if (cell.task, cell.model) == (task, model)}
        long = {num_ctx: found.too_long(cell) for num_ctx, cell in sorted(cells.items())}
        pictures.append({
            "task": task,
            "model": model,
            "questions": len(sent.questions),
            "rows": sum(len(question.texts) for question in sent.questions),
            "repeats": spec.setups[task].repeats or spec.repeats.minimum,
            "too_long": {num_ctx: count for num_ctx, count in long.items() if count},
        })  # fmt: skip
    return pictures


def _task_line(task: dict[str, Any]) -> str:
    what = f"{task['rows']} rows" if task["rows"] else f"{task['questions']} questions"
    long = "".join(f"; {count} too long for num_ctx {num_ctx}" for num_ctx, count in task["too_long"].items())
    return f"Task {task['task']}: {what} × {task['repeats']} on {model_label(task['model'])}{long}"


def _replaced(spec: SweepSpec, found: Survey) -> tuple[str, ...]:
    from ollama_sweep.engines.shared import modelfile

    if not spec.template:
        return ()
    own = {name for name, _ in found.cells[0].options}
    written = modelfile.parameters_set(modelfile.parse(spec.template, str(spec.template_path), allow_local=True))
    return tuple(name for name in written if name in own)


def _seconds_left(reader: Reader | None, sweep_id: int | None, cells: int) -> float | None:
    durations = reader.recent(sweep_id, 50) if reader and sweep_id is not None else []
    return sum(durations) / len(durations) * cells if durations else None


def _lines(picture: dict[str, Any]) -> list[str]:
    from ollama_sweep.core.units import format_duration

    tokens = (f"{count or '?'} tokens on {model_label(name)}" for name, count in picture["prompt_tokens"].items())
    counts = f"{picture['cells']} cells, {picture['done']} done, {picture['to_run']} to run"
    lines = [
        f"Sweep {picture['sweep']}: {counts} (order {picture['order']})",
        f"Engine: {picture['engine']} {picture['engine_version']} at {picture['where']}",
    ]
    lines += [f"Prompt: {picture['prompt']}, {', '.join(tokens)}"] if picture["prompt_tokens"] else []
    lines += [_task_line(task) for task in picture["tasks"]]
    lines += [f"  {name}: {_values(values)}" for name, values in picture["dimensions"].items()]
    for name, model in picture["models"].items():
        lines += _model_lines(name, model)
    lines += [f"Changed since the last run: {line}" for line in picture["changes"]]
    lines += [f"Would run: {count} cells ({reason})" for reason, count in picture["why"].items()]
    lines += [f"  first: {'; '.join(picture['first'])}"] if picture["first"] else []
    lines += _warnings(picture)
    if picture["seconds_left"] is not None:
        lines.append(f"Time left: about {format_duration(picture['seconds_left'])}, at the rate so far")
    return lines


def _values(values: list[Any]) -> str:
    shown = [str(value) for value in values]
    text = ", ".join(shown if len(shown) <= 10 else [*shown[:4], "…", *shown[-2:]])
    return f"{text}  ({len(shown)} values)" if len(shown) > 1 else text


def _model_lines(name: str, model: dict[str, Any]) -> list[str]:
    from ollama_sweep.core.units import format_bytes

    facts = [model["parameter_size"], model["quantization"]]
    facts += [format_bytes(model["size_bytes"])] if model["size_bytes"] else []
    facts += [f"trained for {model['context_length']} tokens"] if model["context_length"] else []
    lines = [f"Model: {model_label(name)} ({', '.join(fact for fact in facts if fact)})"]
    known = [row for row in model["memory"] if row["kv_cache_bytes"]]
    if known:
        lines.append("  num_ctx   KV cache (f16)   with weights (compute buffers come on top)")
    for row in known if len(known) <= 12 else [*known[:6], *known[-6:]]:
        total = format_bytes(row["load_bytes"]) if row["load_bytes"] else "?"
        lines.append(f"  {row['num_ctx']:>7}   {format_bytes(row['kv_cache_bytes']):>14}   {total:>12}")
    return lines


def _warnings(picture: dict[str, Any]) -> list[str]:
    lines = [f"Warning: {text}" for text in picture["warnings"]]
    if picture["does_not_fit"]:
        lines.append(f"Cannot be valid: the prompt does not fit num_ctx {_values(picture['does_not_fit'])}; skipped")
    if picture["unfilled"]:
        lines.append(
            f"Warning: num_batch {_values(picture['unfilled'])} exceeds the prompt's tokens; these cells cannot "
            "differ by batch. Use a longer prompt"
        )
    groups = (" = ".join(group[:4]) for group in picture["repeating"][:5])
    lines += [f"Warning: the same configuration after clamping: {group}" for group in groups]
    if len(picture["repeating"]) > 5:
        lines.append(f"Warning: {len(picture['repeating']) - 5} more groups of cells repeat each other after clamping")
    if picture["replaced_parameters"]:
        lines.append(f"The Modelfile sets {', '.join(picture['replaced_parameters'])}; the sweep's own values are used")
    return lines
