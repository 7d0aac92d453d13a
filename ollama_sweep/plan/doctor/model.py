"""What can be said of a model, its prompt and its grid before a sweep: installed, fitting, filled. Pure.

`Subject` is what a check knows of the sweep; `plan` and `run` use the whole SweepSpec.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from ollama_sweep.core.cell import PROMPT_TOKENS, Cell
from ollama_sweep.core.finding import Finding, bad, ok, warning
from ollama_sweep.core.generation import EMBED, GENERATE
from ollama_sweep.core.judge import is_unfilled
from ollama_sweep.core.options import Options
from ollama_sweep.core.units import format_bytes
from ollama_sweep.engines.base import ModelInfo
from ollama_sweep.plan import fit, grid, ranges
from ollama_sweep.plan.models import can
from ollama_sweep.plan.spec import PromptSpec, SweepSpec
from ollama_sweep.store.rows import SweepRow


@dataclass(frozen=True)
class Subject:
    """What is to be measured, as far as it is known: of a sweep file, of the last sweep, or nothing at all.

    `told` says in words what it is; `modelfile` is the canonical template; `lengths` are those of the prompt where that
    is a dimension; `prompt_tokens` and `digests` are what the last run found; `server` are the settings of a server
    that the sweep starts itself; `kinds` are those of the tasks that ask these models.
    """

    told: str = ""
    models: tuple[str, ...] = ()
    kinds: frozenset[str] = frozenset({GENERATE})
    engine: str = "auto"
    contexts: tuple[int, ...] = ()
    batches: tuple[int, ...] = ()
    num_predict: int = 2
    prompt: PromptSpec | None = None
    lengths: tuple[int, ...] = ()
    modelfile: str = ""
    prompt_tokens: int | None = None
    digests: Mapping[str, str] = field(default_factory=dict)
    server: Options = ()


@dataclass(frozen=True)
class Length:
    """A prompt's number of tokens, and how it is known."""

    tokens: int
    how: str
    is_estimate: bool = False


def subject_of_spec(spec: SweepSpec) -> Subject:
    """What a sweep file wants."""
    from ollama_sweep.plan.survey import asked_kinds, canonical_modelfile

    answers = spec.dimensions.get("num_predict", (spec.options.get("num_predict"),))
    count = grid.combinations(spec)
    has_prompt = spec.prompt.text is not None or spec.prompt.tokens is not None
    swept = [f"{len(spec.dimensions[name])} {name}" for name in ("num_ctx", "num_batch") if name in spec.dimensions]
    return Subject(
        told=f"{spec.name}: {' x '.join(swept)}{', ' if swept else ''}"
        f"{count} cells{' less what exclude drops' if spec.exclude else ''}",
        models=tuple(str(model) for model in spec.dimensions.get("model", (spec.model,))),
        kinds=asked_kinds(spec),
        engine=spec.engine,
        contexts=_numbers(spec.dimensions.get("num_ctx", ())),
        batches=_numbers(spec.dimensions.get("num_batch", ())),
        num_predict=max(_numbers(answers), default=2),
        prompt=spec.prompt if has_prompt else None,
        lengths=_numbers(spec.dimensions.get(PROMPT_TOKENS, ())),
        modelfile=canonical_modelfile(spec),
        server=tuple(sorted(spec.server.items())),
    )


def subject_of_row(row: SweepRow) -> Subject:
    """What a sweep in the database wanted when it ran last."""
    dimensions, entries = row.spec.get("dimensions"), row.spec.get("model")
    swept = dimensions if isinstance(dimensions, dict) else {}
    named = [str(entry).rpartition(" ") for entry in entries] if isinstance(entries, list) else []
    answers = swept.get("num_predict", (row.spec.get("num_predict"),))
    return Subject(
        told=f"{row.name}, the one that ran last (for another: doctor CONFIG)",
        models=tuple(name for name, _, _ in named),
        engine=row.engine,
        contexts=_numbers(swept.get("num_ctx", ())),
        batches=_numbers(swept.get("num_batch", ())),
        num_predict=max(_numbers(answers), default=2),
        lengths=_numbers(swept.get(PROMPT_TOKENS, ())),
        prompt_tokens=next(iter(_numbers((row.spec.get("prompt_tokens"),))), None) or None,
        digests={name: digest for name, _, digest in named},
    )


def _numbers(values: Iterable[object]) -> tuple[int, ...]:
    return tuple(value for value in values if isinstance(value, int))


def of_model(info: ModelInfo, subject: Subject) -> Iterator[Finding]:
    """The model itself: which one it is, what it can, how long a context it takes."""
    facts = [f"digest {info.digest.removeprefix('sha256:')[:12]}" if info.digest else None]
    facts += [info.parameter_size and f"{info.parameter_size} parameters", info.quantization]
    facts += [f"trained for {info.context_length} tokens"] if info.context_length else []
    facts += [format_bytes(info.size_bytes)] if info.size_bytes else []
    yield ok("model", f"{info.name}: {', '.join(fact for fact in facts if fact)}")
    before = subject.digests.get(info.name)
    if before and info.digest and before != info.digest:
        yield warning("model", f"{info.name} is not the one of the last run: its cells will be measured again")
    able = f"({', '.join(info.capabilities)})"
    if GENERATE in subject.kinds and can(info, GENERATE) is False:
        yield bad("model", f"{info.name} cannot generate text {able}", "Use a model that can: that is what is measured")
    if EMBED in subject.kinds and can(info, EMBED) is False:
        yield bad("model", f"{info.name} cannot embed {able}", "Give the task a model that can: tasks.embeddings.model")
    longer = [value for value in subject.contexts if info.context_length and value > info.context_length]
    if longer:
        text = f"num_ctx {_listed(longer)} is more than it was trained for: the engine uses {info.context_length}"
        yield warning("model", text, f"End num_ctx at {info.context_length}, or these cells repeat each other")


def of_memory(info: ModelInfo, subject: Subject, room: ranges.Room, factor: float) -> Iterator[Finding]:
    """Whether the largest num_ctx fits the memory that is free now."""
    fitting = ranges.largest_context(info, room, factor)
    if fitting is None or not subject.contexts:
        return
    largest = min(max(subject.contexts), info.context_length or max(subject.contexts))
    needed = (info.size_bytes or 0) + round((fit.kv_cache_bytes(largest, info) or 0) * factor)
    text = f"num_ctx {largest} needs about {format_bytes(needed)} plus buffers; "
    text += room.told
    if fitting >= largest:
        yield ok("fit", f"{_short(info)}: {text}")
        return
    effect = "part of the model moves to the CPU (spilled)" if room.is_gpu else "it runs out of memory or swaps"
    where = f"above about num_ctx {fitting}" if fitting else "at every num_ctx"
    yield warning(
        "fit", f"{_short(info)}: {text}: {where} {effect}", "Such cells are results, too; leave them out if not"
    )


def of_prompt(info: ModelInfo, subject: Subject, length: Length) -> Iterator[Finding]:
    """Whether the prompt fits each num_ctx and fills each num_batch."""
    tokens = length.tokens
    told = f"{'about ' if length.is_estimate else ''}{tokens} tokens on {_short(info)} ({length.how})"
    needed = tokens + subject.num_predict + 1
    outside = [value for value in subject.contexts if not fit.fits(_cell(value, subject), info, tokens)]
    if outside and len(outside) == len(subject.contexts):
        is_longer = tokens > min(subject.lengths, default=tokens)
        which = "no cell of this length can run" if is_longer else "no cell can run"
        text = f"{told}: needs num_ctx {needed}, and the largest here is {max(subject.contexts)}: {which}"
        wrong = warning if length.is_estimate or is_longer else _bad_input
        yield wrong("prompt", text, "Shorten the prompt or raise num_ctx")
    elif outside:
        text = f"{told}: needs num_ctx {needed}, so the cells of num_ctx {_listed(outside)} are skipped"
        yield warning("prompt", text, "Start num_ctx higher or shorten the prompt")
    else:
        yield ok("prompt", f"{told}, fits every num_ctx")
    unfilled = [value for value in subject.batches if is_unfilled(value, tokens)]
    if unfilled:
        text = f"num_batch {_listed(unfilled)} is more than the prompt's {tokens} tokens: it cannot matter there"
        yield warning("prompt", text, f"Use a longer prompt, or end num_batch at {tokens}")


def _bad_input(check: str, text: str, hint: str) -> Finding:
    return bad(check, text, hint, exit_code=2)


def _cell(num_ctx: int, subject: Subject) -> Cell:
    return Cell((), "", (("num_ctx", num_ctx), ("num_predict", subject.num_predict)))


def _short(info: ModelInfo) -> str:
    """A name, or a file without its folders."""
    return info.name.rpartition("/")[2] if info.name.endswith(".gguf") else info.name


def _listed(values: list[int]) -> str:
    shown = sorted(values)
    return ", ".join(map(str, shown)) if len(shown) <= 4 else f"{shown[0]} to {shown[-1]} ({len(shown)} values)"
