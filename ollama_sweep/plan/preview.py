"""What a run would do, without doing it: cells and order, what is done, what cannot be valid, memory, time left."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from ollama_sweep.core.forecast import forecast
from ollama_sweep.core.judge import is_unfilled
from ollama_sweep.core.options import Scalar
from ollama_sweep.engines.base import ModelInfo
from ollama_sweep.engines.shared import modelfile
from ollama_sweep.plan import fit, grid
from ollama_sweep.plan.changes import changes
from ollama_sweep.plan.lengths import NoMemory
from ollama_sweep.plan.opening import engine_name, engine_settings, opened, pinned_engine
from ollama_sweep.plan.spec import SweepSpec
from ollama_sweep.plan.survey import Survey, survey
from ollama_sweep.store import again
from ollama_sweep.store.reader import Reader

SHOWN_CELLS = 8


@dataclass(frozen=True)
class Memory:
    """What a load of so many tokens of context needs; None where the model does not say."""

    num_ctx: int
    kv_cache_bytes: int | None
    load_bytes: int | None


@dataclass(frozen=True)
class ModelPreview:
    """A model of the sweep, and its memory for each num_ctx."""

    digest: str
    quantization: str | None
    parameter_size: str | None
    context_length: int | None
    size_bytes: int | None
    memory: tuple[Memory, ...]


@dataclass(frozen=True)
class TaskPreview:
    """What a task with questions asks a model; `too_long` counts, by num_ctx, the questions that do not fit."""

    task: str
    model: str
    questions: int
    rows: int
    repeats: int
    too_long: Mapping[int, int]


@dataclass(frozen=True)
class Preview:
    """What a run would do. `why` counts the cells to run by the reason; `first` are labels of the first of them."""

    sweep: str
    engine: str
    engine_version: str
    where: str
    models: Mapping[str, ModelPreview]
    prompt: str
    prompt_tokens: Mapping[str, int | None]
    tasks: tuple[TaskPreview, ...]
    order: str
    dimensions: Mapping[str, tuple[Scalar, ...]]
    cells: int
    done: int
    to_run: int
    why: Mapping[str, int]
    first: tuple[str, ...]
    changes: tuple[str, ...]
    does_not_fit: tuple[int, ...]
    repeating: tuple[tuple[str, ...], ...]
    unfilled: tuple[int, ...]
    replaced_parameters: tuple[str, ...]
    seconds_left: float | None
    warnings: tuple[str, ...]

    def as_dict(self) -> dict[str, object]:
        """For machines."""
        return asdict(self)


def preview(
    spec: SweepSpec,
    db: Path | str | None = None,
    *,
    remote: bool = False,
    setup: bool = False,
    say: Callable[[str], None] = lambda line: None,
    trace: Callable[[str], None] = lambda line: None,
) -> Preview:
    """What a run of this sweep on this database would do; without one nothing is done yet.

    The engine is asked for the models. Where the prompt's length is not known yet, a model is loaded once with a very
    small context to count it. Raises ConfigError where no cell can be valid, EngineUnavailable, StorageError.
    """
    reader = None if db is None else Reader.if_there(Path(db))
    with reader or contextlib.nullcontext():
        settings = engine_settings(spec, say=say, trace=trace, remote=remote, setup=setup)
        name = engine_name(spec, settings, pinned_engine(reader, spec.name))
        with opened(name, settings) as engine:
            found = survey(spec, name, engine, reader or NoMemory(), say)
        return preview_of(found, reader)


def preview_of(found: Survey, reader: Reader | None) -> Preview:
    """What is known, put together with what the database has."""
    spec = found.spec
    cells = list(found.planned())
    known = reader.measured_again((planned.key for planned in cells), found.wanted()) if reader else {}
    why = [again.why(planned, known) for planned in cells]
    to_run = [planned for planned, reason in zip(cells, why, strict=True) if reason]
    unfit = [planned for planned in cells if planned.reason == "does_not_fit"]
    row = reader.sweep_if_there(spec.name) if reader else None
    history = reader.history(row.sweep_id) if reader and row else []
    return Preview(
        sweep=spec.name,
        engine=found.engine,
        engine_version=found.info.version,
        where=found.info.where,
        models={name: _model(model, found) for name, model in found.models.items()},
        prompt=spec.prompt.source or "text",
        prompt_tokens={model: sent.tokens for (_, model), sent in found.prompts.items() if sent.is_own_prompt},
        tasks=tuple(_tasks(found)),
        order=spec.order,
        dimensions={name: tuple(spec.dimensions[name]) for name in grid.nesting(spec)},
        cells=len(cells),
        done=len(cells) - len(to_run) - len(unfit),
        to_run=len(to_run),
        why=dict(Counter(reason for reason in why if reason)),
        first=tuple(planned.cell.label() for planned in to_run[:SHOWN_CELLS]),
        changes=tuple(changes(row.spec, found)) if row else (),
        does_not_fit=tuple(sorted({planned.cell.num_ctx for planned in unfit})),
        repeating=tuple(tuple(cell.label() for cell in group) for group in fit.repeating(found.cells, found.models)),
        unfilled=_unfilled(found),
        replaced_parameters=_replaced(found),
        seconds_left=forecast(history, len(to_run)).seconds_left,
        warnings=spec.warnings,
    )


def _model(model: ModelInfo, found: Survey) -> ModelPreview:
    contexts = sorted({cell.num_ctx for cell in found.cells if cell.model == model.name})
    memory = (Memory(size, fit.kv_cache_bytes(size, model), fit.load_bytes(size, model)) for size in contexts)
    return ModelPreview(
        digest=model.digest,
        quantization=model.quantization,
        parameter_size=model.parameter_size,
        context_length=model.context_length,
        size_bytes=model.size_bytes,
        memory=tuple(memory),
    )


def _tasks(found: Survey) -> Iterator[TaskPreview]:
    """What the tasks with questions ask, and how many questions are too long for which num_ctx."""
    rounds = found.rounds
    for (task, model), sent in found.prompts.items():
        if sent.is_own_prompt:
            continue
        cells = {cell.num_ctx: cell for cell in found.cells if (cell.task, cell.model) == (task, model)}
        long = {num_ctx: found.too_long(cell) for num_ctx, cell in sorted(cells.items())}
        yield TaskPreview(
            task=task,
            model=model,
            questions=len(sent.questions),
            rows=sum(len(question.texts) for question in sent.questions),
            repeats=rounds[task],
            too_long={num_ctx: count for num_ctx, count in long.items() if count},
        )


def _unfilled(found: Survey) -> tuple[int, ...]:
    """num_batch values above the prompt's tokens: they cannot differ from one another."""
    tokens = max((prompt.tokens or 0 for prompt in found.prompts.values() if prompt.is_own_prompt), default=0)
    cells = (cell for cell in found.cells if found.prompts[cell.task, cell.model].is_own_prompt)
    return tuple(sorted({cell.num_batch for cell in cells if is_unfilled(cell.num_batch, tokens)}))


def _replaced(found: Survey) -> tuple[str, ...]:
    """What the Modelfile sets and the sweep sets, too."""
    spec = found.spec
    if not spec.template:
        return ()
    own = {name for name, _ in found.cells[0].options}
    written = modelfile.parameters_set(modelfile.parse(spec.template, str(spec.template_path), allow_local=True))
    return tuple(name for name in written if name in own)
