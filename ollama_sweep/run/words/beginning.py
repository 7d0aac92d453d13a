"""What a person is told before the first cell of a session, or before the first load of a scan."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from ollama_sweep.core.cell import model_label
from ollama_sweep.core.outcome import Status
from ollama_sweep.core.text import in_short
from ollama_sweep.machine.computer import Machine, OtherMachine
from ollama_sweep.plan.lengths import SentPrompt
from ollama_sweep.plan.spec import SweepSpec
from ollama_sweep.plan.survey import Survey
from ollama_sweep.store.rows import LeftOut


@dataclass(frozen=True)
class Others:
    """Cells that are not measured in their turn.

    `waiting` further loads of cells that have a value, pending `copies` that take the result of another one, what is
    left out for want of memory, and how many come last.
    """

    waiting: int = 0
    copies: int = 0
    left_out: LeftOut = field(default_factory=LeftOut)
    late: int = 0


def first_lines(
    found: Survey,
    counts: Mapping[Status, int],
    here: Machine | OtherMachine,
    others: Others,
    *,
    scan: bool = False,
) -> Iterator[str]:
    """What a person is told before the first cell, or before the first load of a scan."""
    spec, total = found.spec, sum(counts.values())
    skipped = counts.get(Status.SKIPPED, 0)
    done = sum(count for status, count in counts.items() if status.is_final) - skipped
    yield from (f"Warning: {text}" for text in spec.warnings)
    yield f"Sweep {spec.name}: {total} cells on {found.engine} {found.info.shown_version} at {found.info.where}"
    yield f"Machine: {here.line()}"
    if scan:
        yield "No cell is measured: the model is loaded without a prompt, to find how far memory reaches"
        return
    asked = dict.fromkeys((task, model) for task, model, _ in found.prompts)
    for task, model in asked:
        yield _each_cell(spec, task, model, [found.prompts[task, model, length] for length in spec.lengths_of(task)])
    left_out = others.left_out
    if skipped > left_out.cells:
        yield f"{skipped - left_out.cells} cells are skipped: the prompt does not fit their num_ctx"
    if left_out.cells:
        what = f"{left_out.cells} at least as large as one of {left_out.witnesses}"
        yield f"Left out (prune): {what} that ran out of memory in two fresh loads"
    if others.late:
        yield f"Come last: {others.late} at least as large as what ran out of memory on this machine before"
    if others.copies:
        yield f"{others.copies} cells are the same configuration as another one and take its result"
    again = f", {others.waiting} to load once more" if others.waiting else ""
    yield f"{done} of {total} cells already done, {total - done - skipped - others.copies} to run{again}"


def _each_cell(spec: SweepSpec, task: str, model: str, prompts: Sequence[SentPrompt]) -> str:
    on, warmup, repeats = model_label(model), spec.warmup.minimum, spec.repeats.minimum
    prompt = prompts[0]
    if prompt.is_own_prompt:
        tokens = in_short([str(one.tokens or "?") for one in prompts])
        sent = f"{tokens} prompt tokens" if len(prompts) == 1 else f"a prompt of {tokens} tokens"
        runs = f"{spec.repeats.words} {'run' if spec.repeats.words == '1' else 'runs'}"
        return f"Each cell: {spec.warmup.words} warm-up, {runs}, {sent} on {on}"
    times = spec.setups[task].repeats or repeats
    rows = sum(len(question.texts) for question in prompt.questions)
    what = f"{rows} rows" if rows else f"{len(prompt.questions)} questions"
    return f"Each cell of {task}: {warmup} warm-up, {what} × {times} on {on}"
