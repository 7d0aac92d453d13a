"""`explain CELL`: one cell on one screen, with the commands that repeat it by hand."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ollama_sweep.cli import repeating, shared
from ollama_sweep.cli.terminal import say, say_exactly, say_json
from ollama_sweep.core.errors import ConfigError
from ollama_sweep.core.text import without_escapes

if TYPE_CHECKING:
    from ollama_sweep.core.outcome import Run
    from ollama_sweep.results.explain import Explained, ExplainedAttempt
    from ollama_sweep.store.one_cell import Place
    from ollama_sweep.store.reader import Reader

RAW_LINES = 12
_SPINNER = re.compile("^(?:[\u2800-\u28ff] ?)+", re.MULTILINE)
"""Ollama turns one while it waits, and the first line of what it says stands right behind it."""


@click.command("explain", short_help="One cell: attempts, runs, flags, and how to repeat it.")
@click.argument("cell", nargs=-1, required=True)
@click.option("--sweep", default=None, help="The sweep, by its name or file; else the one that ran last.")
@click.option("--prompt", "wants_prompt", is_flag=True, help="Print the prompt of its last run, and nothing else.")
@shared.db_option
@shared.json_option
def command(cell: tuple[str, ...], sweep: str | None, wants_prompt: bool, db: Path, as_json: bool) -> None:
    """Show all that is known of a cell, on one screen.

    CELL is num_ctx=4096 num_batch=256 …, the beginning of its key, or its position.

    \b
    Example:
      ollama-sweep explain num_ctx=4096 num_batch=256
      ollama-sweep explain 7 --prompt > prompt.txt
    """
    from ollama_sweep.results.explain import explain, find_place
    from ollama_sweep.results.find import find_sweep
    from ollama_sweep.store.reader import Reader

    with Reader.open(db) as reader, reader.snapshot():
        row = find_sweep(reader, sweep)
        found = explain(reader, row, find_place(reader, row, cell))
        prompt = _prompt(reader, found) if wants_prompt else ""
    if wants_prompt:
        say_exactly(prompt)
        return
    by_hand = repeating.commands(row, found.planned, found.place.coordinates)
    if as_json:
        say_json({**found.as_dict(), "by_hand": by_hand})
        return
    for line in [*lines_of(found), "", "By hand:", *(f"  {line}" for line in by_hand)]:
        say(line)


def lines_of(found: Explained) -> list[str]:
    """What a person reads, but for the commands."""
    return [*_head(found), *_history(found), *_raw(found)]


def _prompt(reader: Reader, found: Explained) -> str:
    """The text that the last run was asked, its number in front."""
    from ollama_sweep.plan.prompts import with_nonce

    text = reader.prompt(found.planned.prompt_hash)
    if text is None:
        raise ConfigError("the prompt of this cell is not kept as one text: its task asks questions", "--prompt")
    runs = found.last.runs if found.last else ()
    return with_nonce(runs[-1].nonce if runs else "00000000", text)


def _head(found: Explained) -> Iterator[str]:
    from ollama_sweep.cli.commands.status import label
    from ollama_sweep.core.cell import model_label
    from ollama_sweep.results.explain import value_words

    planned, cell = found.planned, found.planned.cell
    place = f"position {found.place.position} of 0 to {found.total - 1}"
    yield f"{label(found.place.coordinates)}: {place}, sweep {found.sweep}"
    yield f"  key    {found.place.key}"
    yield f"  model  {model_label(cell.model)}, {planned.model_digest}"
    yield f"  task   {cell.task}, prompt {planned.prompt_hash}"
    yield f"  now    {value_words(found.result)}{_because(found)}"
    if found.original:
        yield f"  reused the same configuration as {_original(found.original)}, measured there"
    asked = {**dict(cell.server), **dict(cell.options), **dict(cell.task_options)}
    yield f"  asked  {label(asked)}"
    if found.last:
        yield f"  used   {_used(found.last)}"
    for flag in found.flags:
        yield f"  flag   {flag.flag}: {flag.rule}{f' ({flag.here})' if flag.here else ''}"
    for load in found.waiting:
        yield f"  waits  for a further load: {load.reason}"
    if found.scan:
        yield f"  scan   loaded without a prompt: {found.scan.words()}"
    for control in found.controls[-3:]:
        yield f"  control of {control.measured_at}: drift {100 * control.drift:+.1f} %"


def _because(found: Explained) -> str:
    """Of a cell that is left out, what left it out."""
    from ollama_sweep.cli.commands.status import label

    if found.witness is None or not found.is_left_out:
        return ""
    where = label(found.witness.coordinates)
    return f": {where} ran out of memory in two fresh loads. Without `prune: true` it is measured"


def _original(place: Place) -> str:
    from ollama_sweep.cli.commands.status import label

    return f"{label(place.coordinates)} ({place.key})" if place.coordinates else f"cell {place.key} of another sweep"


def _used(last: ExplainedAttempt) -> str:
    from ollama_sweep.core.units import format_bytes

    used = last.attempt.effective
    words = [f"{name} {value}" for name, value in (("num_ctx", used.num_ctx), ("num_batch", used.num_batch))
             if value is not None]  # fmt: skip
    if used.size_bytes is not None:
        gpu = f", {format_bytes(used.size_vram_bytes)} of it on the GPU" if used.size_vram_bytes is not None else ""
        words.append(f"memory {format_bytes(used.size_bytes)}{gpu}")
    if used.load_duration_s is not None:
        words.append(f"loaded in {used.load_duration_s:.2f} s")
    return ", ".join(words) or "the engine does not say"


def _history(found: Explained) -> Iterator[str]:
    from ollama_sweep.results.explain import telemetry_words

    yield ""
    where = f" at {_original(found.original)}" if found.original else ""
    yield f"Attempts{where}:" if found.attempts else "Never attempted."
    for one in found.attempts:
        attempt = one.attempt
        reason = f" ({attempt.reason})" if attempt.reason else ""
        yield f"  {attempt.number}. {attempt.started_at} {attempt.status}{reason}, segment {attempt.segment}: {one.why}"
        if attempt.error:
            yield f"     {next(iter(attempt.error.strip().splitlines()), '')[:200]}"
        for run in one.runs:
            yield f"     {_run(run)}"
        if one.telemetry is not None:
            yield f"     meanwhile {telemetry_words(one.telemetry)}"


def _run(run: Run) -> str:
    from ollama_sweep.core.units import format_rate

    words = []
    if run.prompt_eval_count is not None:
        cached = f" ({run.cached_count} cached)" if run.cached_count else ""
        time = f" in {run.prompt_eval_duration_s:.3f} s" if run.prompt_eval_duration_s is not None else ""
        rate = f": {format_rate(run.prompt_eval_rate)} tokens/s" if run.prompt_eval_rate is not None else ""
        words.append(f"read {run.prompt_eval_count} tokens{cached}{time}{rate}")
    if run.eval_count is not None:
        rate = f" at {format_rate(run.eval_rate)} tokens/s" if run.eval_rate is not None else ""
        thought = f", {run.thinking_count} of them thoughts" if run.thinking_count else ""
        words.append(f"wrote {run.eval_count}{rate}{thought}")
    words.append(f"{run.client_duration_s:.2f} s in all")
    doubt = f"; not believed: {run.doubt}" if not run.believed and not run.warmup else ""
    return f"{run.part:<9} {', '.join(words)}{doubt}"


def _raw(found: Explained) -> Iterator[str]:
    """What the engine printed in the last run, or in the attempt where that is all there is."""
    if found.last is None or not found.last.raw:
        return
    part = next((run.part for run in reversed(found.last.runs) if run.part in found.last.raw), list(found.last.raw)[-1])
    shown = _SPINNER.sub("", without_escapes(found.last.raw[part]))
    lines = [line.rstrip() for line in shown.splitlines() if line.strip()]
    yield ""
    yield f"The engine's own words, {part}:"
    yield from (f"  {line[:160]}" for line in lines[-RAW_LINES:])
    if len(lines) > RAW_LINES:
        yield f"  ({len(lines) - RAW_LINES} lines before these; --json has all)"
