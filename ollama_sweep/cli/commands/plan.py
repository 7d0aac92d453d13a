"""`plan CONFIG`: what a run would do, without doing it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ollama_sweep.cli import shared
from ollama_sweep.cli.terminal import say, say_json, warn
from ollama_sweep.core.cell import model_label
from ollama_sweep.core.text import in_short, one_line
from ollama_sweep.machine.secrets import masked

if TYPE_CHECKING:
    from ollama_sweep.core.loading.change import Loading
    from ollama_sweep.core.options import Scalar
    from ollama_sweep.plan.goals.scouts import Way
    from ollama_sweep.plan.preview import LengthPreview, ModelPreview, Preview, TaskPreview


@click.command("plan", short_help="Show what a run would do: cells, order, memory, what is done.")
@shared.sweep_options
@shared.pair_option
@shared.scout_option
@shared.db_option
@shared.json_option
@shared.verbose_option
def command(config: Path | None, db: Path, as_json: bool, verbose: bool, **given: Any) -> None:
    """Show what `run` would do: cells and order, what is done, what cannot be valid, memory, time left.

    Where the prompt's length is not known yet, the model is loaded once with a very small context to count it.

    \b
    Example:
      ollama-sweep plan configs/quickstart.yaml
      ollama-sweep plan configs/default.yaml --scout
    """
    from ollama_sweep.plan.preview import preview

    spec = shared.spec_from(config, given)
    trace = shared.trace_to_stderr(verbose)
    remote, setup, scout = given["remote"], given["setup"], given["scout"]
    found = preview(spec, db, remote=remote, setup=setup, scout=scout, say=warn, trace=trace)
    if as_json:
        say_json(found.as_dict(), indent=2)
        return
    if found.arms:
        for line in _pair_lines(found):
            say(line)
    for one in found.arms or (found,):
        for line in [*_lines(one), *_scanned(db, one.sweep)]:
            say(line)


def _pair_lines(found: Preview) -> list[str]:
    """What a pair is, and the order of its two sweeps, which follow one by one."""
    from ollama_sweep.core.units import format_duration

    counts = f"{found.cells} cells of both, {found.done} done, {found.to_run} to run"
    lines = [
        f"Pair {found.sweep}: {found.pair}",
        f"{counts}; {found.matched} cells on both arms, in turns A B B A, a load a turn",
    ]
    lines += [f"  first: {'; '.join(found.first)}"] if found.first else []
    if found.seconds_left is not None:
        lines.append(f"Time left for both: about {format_duration(found.seconds_left)}, at the rate so far")
    return [*lines, ""]


def _scanned(db: Path, sweep: str) -> list[str]:
    """What `run --scan` found before."""
    from ollama_sweep.results.status import memory_words
    from ollama_sweep.store.reader import Reader

    reader = Reader.if_there(db)
    if reader is None:
        return []
    with reader:
        row = reader.sweep_if_there(sweep)
        return memory_words(reader.scanned_loads(row.sweep_id)) if row else []


def _lines(found: Preview) -> list[str]:
    from ollama_sweep.core.units import format_duration

    tokens = (f"{_counted(found, name)} tokens on {model_label(name)}" for name in found.prompt_tokens)
    counts = f"{found.cells} cells, {found.done} done, {found.to_run} to run"
    lines = [
        f"Sweep {found.sweep}: {counts} (order {found.order})",
        f"Engine: {found.engine} {one_line(masked(found.engine_version))} at {found.where}",
    ]
    lines += [f"Prompt: {found.prompt}, {', '.join(tokens)}"] if found.prompt_tokens else []
    lines += [_task_line(task) for task in found.tasks]
    lines += [f"  {name}: {_values(values)}" for name, values in found.dimensions.items()]
    for name, model in found.models.items():
        lines += _model_lines(name, model)
    lines += [f"Changed since the last run: {line}" for line in found.changes]
    lines += [f"Would run: {count} cells ({reason})" for reason, count in found.why.items()]
    lines += [f"  first: {'; '.join(found.first)}"] if found.first else []
    lines += _loading(found)
    if found.saved:
        lines.append(f"Saved: {found.saved} cells take the result of another one of the same configuration")
    lines += _warnings(found)
    lines += _goal(found)
    lines += [_way(way) for way in found.ways]
    lines += _further(found)
    if found.seconds_left is not None and found.goal is None:
        lines.append(f"Time left: about {format_duration(found.seconds_left)}, at the rate so far")
    return lines


def _loading(found: Preview) -> list[str]:
    """How often something is loaded, where cells differ in what they need."""
    now, auto = found.loading, found.loading_by_auto
    lines = []
    own = _needs(now, swaps=found.swaps_contexts)
    if now.kept or now.models or now.restarts:
        lines.append(f"In this order: {own}")
    if auto is not None and found.to_run == found.cells:
        by_auto = _needs(auto, swaps=found.swaps_contexts)
        lines += [f"  in the order auto: {by_auto}"] if by_auto != own else []
    return lines


def _needs(loading: Loading, *, swaps: bool) -> str:
    """`36 loads, 2 changes of model, 3 restarts of the server; 180 cells in the load of the one before`.

    An engine that swaps contexts has contexts in place of loads, and starts no server for a setting.
    """
    load, restarts = ("context", 0) if swaps else ("load", loading.restarts)
    counts = [(loading.loads, load, f"{load}s"), (loading.models, "change of model", "changes of model"),
              (restarts, "restart of the server", "restarts of the server")]  # fmt: skip
    words = ", ".join(f"{count} {one if count == 1 else many}" for count, one, many in counts if count)
    return f"{words}; {loading.kept} cells in the {load} of the one before" if loading.kept else words


def _goal(found: Preview) -> list[str]:
    """What the sweep is for, and how many of its cells that usually takes."""
    from ollama_sweep.core.units import format_duration

    goal = found.goal
    if goal is None:
        return []
    many = f"{goal.low} to {goal.high}" if goal.low < goal.high else str(goal.low)
    took = ""
    if found.seconds_left is not None and found.to_run:
        each_s = found.seconds_left / found.to_run
        took = f", {format_duration(goal.low * each_s)} to {format_duration(goal.high * each_s)} at the rate so far"
        took = took if goal.low < goal.high else f", at most {format_duration(goal.high * each_s)} at the rate so far"
    return [f"Goal {goal.goal}: usually {many} of {found.cells} cells{took} ({goal.note})"]


def _way(way: Way) -> str:
    """What one way to measure the sweep takes."""
    from ollama_sweep.core.units import format_duration

    many = f"{way.cells_low} to {way.cells_high}" if way.cells_low < way.cells_high else str(way.cells_low)
    took = "seconds are not known before a cell is measured"
    if way.seconds_low is not None and way.seconds_high is not None:
        low, high = format_duration(way.seconds_low), format_duration(way.seconds_high)
        took = f"about {low} to {high}" if low != high else f"about {low}"
    scouted = f" and {way.scouted} by context swap" if way.scouted else ""
    return f"Way {way.way}: {many} cells{scouted}, {took}"


def _further(found: Preview) -> list[str]:
    """What is loaded beside each cell's own load, and what it may cost."""
    loads, parts = found.loads, []
    if loads.passes > 1:
        further = loads.passes - 1
        parts.append(f"{further} further {'pass' if further == 1 else 'passes'} of up to {loads.per_pass} loads")
    if loads.controls is None:
        parts.append("the control cell now and then")
    elif loads.controls:
        parts.append(f"the control cell {loads.controls} times")
    if loads.second_look_share:
        parts.append(f"a second look of at most {100 * loads.second_look_share:g} % of the time")
    lines = [f"Besides: {', '.join(parts)}"] if parts else []
    return lines + ([f"Further loads that wait: {loads.waiting}"] if loads.waiting else [])


def _counted(found: Preview, model: str) -> str:
    """How long the prompt really is on a model; of several lengths each."""
    counts = [length.tokens[model] for length in found.prompt_lengths] or [found.prompt_tokens[model]]
    return in_short([str(count or "?") for count in counts])


def _task_line(task: TaskPreview) -> str:
    what = f"{task.rows} rows" if task.rows else f"{task.questions} questions"
    long = "".join(f"; {count} too long for num_ctx {num_ctx}" for num_ctx, count in task.too_long.items())
    return f"Task {task.task}: {what} × {task.repeats} on {model_label(task.model)}{long}"


def _values(values: Sequence[Scalar]) -> str:
    text = in_short([str(value) for value in values])
    return f"{text}  ({len(values)} values)" if len(values) > 1 else text


def _model_lines(name: str, model: ModelPreview) -> list[str]:
    from ollama_sweep.core.units import format_bytes

    facts = [model.parameter_size, model.quantization]
    facts += [format_bytes(model.size_bytes)] if model.size_bytes else []
    facts += [f"trained for {model.context_length} tokens"] if model.context_length else []
    lines = [f"Model: {model_label(name)} ({', '.join(fact for fact in facts if fact)})"]
    known = [(row, row.kv_cache_bytes) for row in model.memory if row.kv_cache_bytes]
    if known:
        lines.append("  num_ctx   KV cache (f16)   with weights (compute buffers come on top)")
    for row, cache in known if len(known) <= 12 else [*known[:6], *known[-6:]]:
        total = format_bytes(row.load_bytes) if row.load_bytes else "?"
        lines.append(f"  {row.num_ctx:>7}   {format_bytes(cache):>14}   {total:>12}")
    return lines


def _warnings(found: Preview) -> list[str]:
    lines = [f"Warning: {text}" for text in found.warnings]
    named: list[tuple[str, str, LengthPreview | Preview]] = [("the prompt", "tokens", found)]
    if found.prompt_lengths:
        named = [(f"the prompt of {one.prompt_tokens} tokens", f"{one.prompt_tokens} tokens", one)
                 for one in found.prompt_lengths]  # fmt: skip
    for which, _, one in named:
        if one.does_not_fit:
            lines.append(f"Cannot be valid: {which} does not fit num_ctx {_values(one.does_not_fit)}; skipped")
    for _, tokens, one in named:
        if one.unfilled:
            lines.append(
                f"Warning: num_batch {_values(one.unfilled)} exceeds the prompt's {tokens}; these cells cannot "
                "differ by batch. Use a longer prompt"
            )
    lines += _memory_lines(found)
    shown = found.repeating[:5]
    groups = (" = ".join(group[:4]) for group in shown)
    once = "Measured once" if found.measured_once else "Warning"
    lines += [f"{once}: the same configuration after clamping: {group}" for group in groups]
    if found.repeats > len(shown):
        lines.append(f"{once}: {found.repeats - len(shown)} more groups of cells repeat each other after clamping")
    if found.replaced_parameters:
        lines.append(f"The Modelfile sets {', '.join(found.replaced_parameters)}; the sweep's own values are used")
    return lines


def _memory_lines(found: Preview) -> list[str]:
    """What is left out, and what comes last, for want of memory."""
    from ollama_sweep.core.units import format_bytes

    lines, last = [], found.last
    if found.pruned:
        lines.append(
            f"Left out (prune): {found.pruned} at least as large as one of {found.witnesses} that ran out of memory in "
            "two fresh loads"
        )
    if found.in_doubt and found.to_run:
        lines.append(
            f"In doubt (prune): {found.in_doubt} ran out of memory once; a second load decides what they leave out"
        )
    if last.cells:
        sizes = list(dict.fromkeys(format_bytes(size) for size in (last.free_low_bytes, last.free_high_bytes) if size))
        where = "GPU memory" if last.is_gpu else "memory"
        free = f" (free then {' to '.join(sizes)} of {where})" if sizes else ""
        lines.append(
            f"Come last: {last.cells} at least as large as one of {last.failures} that ran out of memory on this "
            f"machine before{free}"
        )
    return lines
