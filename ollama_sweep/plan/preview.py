"""What a run would do, without doing it: cells and order, what is done, what cannot be valid, memory, time left."""

from __future__ import annotations

import contextlib
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from pathlib import Path

from ollama_sweep import engines
from ollama_sweep.core.cell import Cell
from ollama_sweep.core.forecast import ControlsSeen, Work, WorkLeft, controls_to_come, forecast, rests_s
from ollama_sweep.core.judge import is_unfilled
from ollama_sweep.core.loading.change import Change, Counting, Loading, change, counted, is_more_than_reloads
from ollama_sweep.core.options import Scalar
from ollama_sweep.core.outcome import Purpose
from ollama_sweep.core.units import parameters_of
from ollama_sweep.engines.base import ModelInfo
from ollama_sweep.engines.shared import modelfile
from ollama_sweep.machine.sensing.thermometer import Thermometer
from ollama_sweep.plan import fit, grid
from ollama_sweep.plan.changes import changes
from ollama_sweep.plan.goals import scouts
from ollama_sweep.plan.goals.goal import Expected, check, expected
from ollama_sweep.plan.goals.scouts import Way
from ollama_sweep.plan.lengths import NoMemory
from ollama_sweep.plan.memory import limits
from ollama_sweep.plan.opening import engine_name, engine_settings, machine_of, opened, pinned_engine
from ollama_sweep.plan.pairs.arms import in_words
from ollama_sweep.plan.spec import Cooldown, SweepSpec
from ollama_sweep.plan.survey import Survey, survey
from ollama_sweep.store import again
from ollama_sweep.store.goals.keeping import settled
from ollama_sweep.store.reader import Reader
from ollama_sweep.store.rows import SCOUT, PlannedCell, SweepRow

SHOWN_CELLS = 8
CELLS_AT_ONCE = 2000
COMPARED_CELLS = 20_000
"""Of a larger grid it is not said what another order would come to: that takes two more walks over it."""


@dataclass(frozen=True, slots=True)
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
class LoadsPreview:
    """What is loaded beside each cell's own load.

    A pass after the first one has `per_pass` loads, as far as the cells have a value; `controls` None: after a time.
    A second look takes at most this share of the time of all others. `waiting` loads are wanted already, beside those
    of cells that are to run.
    """

    passes: int
    per_pass: int
    controls: int | None
    second_look_share: float
    waiting: int


@dataclass(frozen=True)
class LengthPreview:
    """A length of the prompt where that is a dimension: its true length by model, None where it is not known, and the
    num_ctx that it does not fit and the num_batch that it does not fill."""

    prompt_tokens: int
    tokens: Mapping[str, int | None]
    does_not_fit: tuple[int, ...]
    unfilled: tuple[int, ...]


@dataclass(frozen=True)
class Last:
    """What comes last: so many cells, because so many ran out of memory before. What was free then, in bytes: on GPUs
    where they say so, else of the computer; the least and the most of it."""

    cells: int = 0
    failures: int = 0
    is_gpu: bool = False
    free_low_bytes: int | None = None
    free_high_bytes: int | None = None


@dataclass(frozen=True)
class Preview:
    """What a run would do. `why` counts the cells to run by the reason; `first` are labels of the first of them.

    `prompt_tokens` is the prompt's true length by model, the largest one where the length is a dimension;
    `prompt_lengths` has each of these then, and is empty else.

    `repeats` counts the groups of cells that are the same configuration once the engine has clamped them; `repeating`
    has the labels of the first groups. `pruned` cells are left out because of `witnesses`; `in_doubt` ones ran out of
    memory once. `last` says what comes last. `saved` counts the cells that take the result of another one and have none
    yet, where `measured_once` is true. `goal`: how many of them a planner usually chooses; None where there is no
    goal. `ways`: of a sweep that is scouted, what each way to measure it takes. `loading`: what the cells to run need,
    in this order; `loading_by_auto`: what the whole grid would need in the order `auto`, where that is less than in its
    own. `swaps_contexts`: each of these loads is a context of a model that stays loaded, and no server is started.

    A pair has its two sweeps in `arms`, what they are in words in `pair`, and `matched` cells of both; the counts and
    the time are those of both, `first` is in turns, all else is that of the first arm.
    """

    sweep: str
    engine: str
    engine_version: str
    where: str
    models: Mapping[str, ModelPreview]
    prompt: str
    prompt_tokens: Mapping[str, int | None]
    prompt_lengths: tuple[LengthPreview, ...]
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
    repeats: int
    unfilled: tuple[int, ...]
    replaced_parameters: tuple[str, ...]
    seconds_left: float | None
    loads: LoadsPreview
    warnings: tuple[str, ...]
    pruned: int = 0
    witnesses: int = 0
    in_doubt: int = 0
    last: Last = Last()
    measured_once: bool = False
    saved: int = 0
    pair: str = ""
    arms: tuple[Preview, ...] = ()
    matched: int = 0
    first_positions: tuple[int, ...] = ()
    goal: Expected | None = None
    ways: tuple[Way, ...] = ()
    loading: Loading = field(default_factory=Loading)
    loading_by_auto: Loading | None = None
    swaps_contexts: bool = False

    def as_dict(self) -> dict[str, object]:
        """For machines; what only a pair has is left out elsewhere."""
        found = {**asdict(self), "goal": self.goal.as_dict() if self.goal else None}
        del found["first_positions"]
        if not self.arms:
            for name in ("pair", "arms", "matched"):
                del found[name]
        else:
            found["arms"] = [arm.as_dict() for arm in self.arms]
        return found


def preview(
    spec: SweepSpec,
    db: Path | str | None = None,
    *,
    remote: bool = False,
    setup: bool = False,
    scout: bool | None = None,
    say: Callable[[str], None] = lambda line: None,
    trace: Callable[[str], None] = lambda line: None,
) -> Preview:
    """What a run of this sweep on this database would do; without one nothing is done yet.

    The engine is asked for the models. Where the prompt's length is not known yet, a model is loaded once with a very
    small context to count it. `scout`: the grid is scouted first, or not; None: as it was before. Raises ConfigError
    where no cell can be valid, EngineUnavailable, StorageError.
    """
    reader = None if db is None else Reader.if_there(Path(db))
    with reader or contextlib.nullcontext():
        found = []
        for one in spec.arms or (spec,):
            settings = engine_settings(one, say=say, trace=trace, remote=remote, setup=setup)
            name = engine_name(one, settings, pinned_engine(reader, one.name))
            with opened(name, settings) as engine:
                found.append(survey(one, name, engine, reader or NoMemory(), say))
        if not spec.arms:
            return preview_of(found[0], reader, scout)
        if scout:
            scouts.check(scouts.WHOLE_MAP, spec)
        return _of_pair(spec, found[0], found[1], reader)


def _of_pair(spec: SweepSpec, a: Survey, b: Survey, reader: Reader | None) -> Preview:
    """Both arms of a pair, put together."""
    from ollama_sweep.plan.pairs.matching import joined

    *found, places = joined(a, b)
    arms = [preview_of(one, reader) for one in found]
    left = [arm.seconds_left for arm in arms if arm.seconds_left is not None]
    return replace(
        arms[0],
        sweep=spec.name,
        cells=sum(arm.cells for arm in arms),
        done=sum(arm.done for arm in arms),
        to_run=sum(arm.to_run for arm in arms),
        first=tuple(islice(_in_turns(arms, places.loads), SHOWN_CELLS)),
        seconds_left=sum(left) if len(left) == len(arms) else None,
        pair=in_words(spec),
        arms=tuple(arms),
        matched=places.matched,
    )


def _in_turns(arms: Sequence[Preview], loads: Sequence[Sequence[int]]) -> Iterator[str]:
    """The first cells of both as they will be measured, each with its arm."""
    of_both = [
        (loads[number][position], (number + loads[number][position]) % 2, position, f"{'ab'[number]} {label}")
        for number, arm in enumerate(arms)
        for position, label in zip(arm.first_positions, arm.first, strict=False)
    ]
    return (label for _, _, _, label in sorted(of_both))


def preview_of(found: Survey, reader: Reader | None, scout: bool | None = None) -> Preview:
    """What is known, put together with what the database has."""
    spec = found.spec
    row = reader.sweep_if_there(spec.name) if reader else None
    stored = row.sweep_id if row and row.plan_fingerprint == found.fingerprint else None
    left_out = limits.left_out(found, reader, stored)
    record = _record(found, reader)
    controls = reader.controls_seen(row.sweep_id) if reader and row else ControlsSeen()
    at = controls.position if stored is not None else None
    control = None if at is None else next(islice(found.each_cell(), at, None), None)
    seen = _look_through(found, reader, left_out, record, control)
    repeats, repeating = seen.repeats.groups(found.each_cell())
    loads = reader.waiting_loads(row.sweep_id) if reader and row else {}
    waiting = sum(count for purpose, count in loads.items() if purpose is not Purpose.REPEATS)
    to_run, saved = sum(seen.why.values()), seen.saved
    return Preview(
        sweep=spec.name,
        engine=found.engine,
        engine_version=found.info.version,
        where=found.info.where,
        models={name: _model(model, seen.contexts[name]) for name, model in found.models.items()},
        prompt=spec.prompt.source or "text",
        prompt_tokens=_longest(found),
        prompt_lengths=tuple(_lengths(found, seen)),
        tasks=tuple(_tasks(found, seen)),
        order=spec.order,
        dimensions={name: tuple(spec.dimensions[name]) for name in grid.nesting(spec)},
        cells=seen.cells,
        done=seen.cells - to_run - seen.unfit - saved - len(left_out.places),
        to_run=to_run,
        why=dict(seen.why),
        first=tuple([label for _, label in [*seen.first, *seen.late_first]][:SHOWN_CELLS]),
        first_positions=tuple([position for position, _ in [*seen.first, *seen.late_first]][:SHOWN_CELLS]),
        changes=tuple(changes(row.spec, found)) if row else (),
        does_not_fit=_together(seen.does_not_fit),
        repeating=tuple(repeating),
        repeats=repeats,
        unfilled=_together(seen.unfilled),
        replaced_parameters=_replaced(found),
        seconds_left=_seconds_left(spec, reader, row, seen, controls, to_run + waiting),
        loads=LoadsPreview(
            passes=spec.passes,
            per_pass=seen.cells - seen.unfit - seen.same - len(left_out.places),
            controls=_controls(spec, seen.cells),
            second_look_share=float(spec.settings.get("second_look") or 0.0),
            waiting=waiting,
        ),
        warnings=(*spec.warnings, *_cooldown_warnings(spec.cooldown)),
        pruned=len(left_out.places),
        witnesses=left_out.witnesses,
        in_doubt=left_out.in_doubt,
        last=_last(seen, record, reader, stored),
        measured_once=spec.reuse_duplicates,
        saved=saved,
        goal=_expected(spec, reader, row),
        ways=_ways(found, reader, row, seen.cells, scout),
        loading=seen.loading.found + seen.late_loading.found,
        loading_by_auto=_by_auto(spec, seen.cells),
        swaps_contexts=engines.facts(found.engine).swaps_contexts,
    )


def _seconds_left(
    spec: SweepSpec, reader: Reader | None, row: SweepRow | None, seen: _Seen, controls: ControlsSeen, left: int
) -> float | None:
    """What so many loads will take; None as long as nothing says so."""
    if reader is None or row is None:
        return None
    work = WorkLeft(seen.work, seen.after_control, seen.controls) if is_more_than_reloads(spec.dimensions) else None
    resting_s, rest_s = (_rests_s(spec.cooldown, reader, row, count) for count in (left - 1, 1))
    beside = controls_to_come(spec.control_rule, controls, left, seen.cells * spec.passes, rest_s)
    return forecast(reader.history(row.sweep_id), left, 0.0, resting_s, work, beside).seconds_left


def _ways(
    found: Survey, reader: Reader | None, row: SweepRow | None, cells: int, scout: bool | None
) -> tuple[Way, ...]:
    """What each way takes, of a sweep that is scouted. Raises ConfigError where it cannot be."""
    spec = found.spec
    is_wanted = bool(row and row.spec.get(SCOUT)) if scout is None else scout
    if not is_wanted or (scout is None and spec.goal is not None and spec.goal.is_off):
        return ()
    wanted, _ = settled(spec.goal, reader.goal(row.sweep_id) if reader and row else None)
    goal = wanted or scouts.WHOLE_MAP
    scouts.engine_of(found.engine)
    scouts.check(goal, spec)
    return scouts.ways(goal, spec, cells, list(reader.history(row.sweep_id)) if reader and row else [])


def _by_auto(spec: SweepSpec, cells: int) -> Loading | None:
    """What the grid needs in the order `auto`, where its own order needs more of anything."""
    if spec.order == grid.AUTO or cells > COMPARED_CELLS:
        return None
    own, by_auto = (counted(grid.each_cell(one)) for one in (spec, replace(spec, order=grid.AUTO)))
    return by_auto if by_auto.is_less_than(own) else None


def _expected(spec: SweepSpec, reader: Reader | None, row: SweepRow | None) -> Expected | None:
    """What the goal that a run would have usually needs."""
    stored = reader.goal(row.sweep_id) if reader and row else None
    wanted, _ = settled(spec.goal, stored)
    if wanted is None or wanted.is_off:
        return None
    check(wanted, spec)
    return expected(wanted, spec)


def _rests_s(wanted: Cooldown, reader: Reader | None, row: SweepRow | None, cells: int) -> float:
    seen = reader.rests(row.sweep_id) if reader and row and wanted.gpu_c is not None else []
    return rests_s(wanted.seconds, seen, cells)


def _cooldown_warnings(wanted: Cooldown) -> Iterator[str]:
    if wanted.gpu_c is not None and not Thermometer(os.environ).celsius():
        yield f"cooldown: {{gpu_c: {wanted.gpu_c}}}: no GPU here says how warm it is, so a run is refused"


def _record(found: Survey, reader: Reader | None) -> limits.Record:
    """What ran out of memory before where this sweep would run; this computer is looked at only where there is any."""
    if reader is None or not reader.has_failures():
        return limits.Record()
    here = machine_of(found.info)
    return limits.Record(reader.known_failures(limits.surroundings(found.engine, found.info, here, found.modelfile)))


def _last(seen: _Seen, record: limits.Record, reader: Reader | None, stored: int | None) -> Last:
    """A plan that is stored keeps the order it has."""
    cells = seen.late if stored is None or reader is None else reader.late(stored)
    failures = record.of(frozenset(seen.frontiers)) if cells else []
    on_gpu = [one.free.gpu_bytes for one in failures if one.free.gpu_bytes is not None]
    free = on_gpu or [one.free.memory_bytes for one in failures if one.free.memory_bytes is not None]
    return Last(cells, len(failures), bool(on_gpu), min(free, default=None), max(free, default=None))


@dataclass
class _Seen:
    """What is kept of the cells while they pass by, one after the other: counts, and the values of dimensions.

    `does_not_fit` and `unfilled` are by the prompt's wanted length, None where that is no dimension. `too_long` counts
    by task and model, for each num_ctx, the questions that do not fit. `done_as` are the keys of first cells of a
    configuration of which another cell is done already.
    """

    repeats: fit.Repeats
    cells: int = 0
    unfit: int = 0
    saved: int = 0
    same: int = 0
    why: Counter[str] = field(default_factory=Counter)
    first: list[tuple[int, str]] = field(default_factory=list)
    late_first: list[tuple[int, str]] = field(default_factory=list)
    late: int = 0
    work: Counter[Work] = field(default_factory=Counter)
    after_control: Counter[Work] = field(default_factory=Counter)
    controls: Counter[Work] = field(default_factory=Counter)
    control: Cell | None = None
    loading: Counting = field(default_factory=Counting)
    late_loading: Counting = field(default_factory=Counting)
    frontiers: set[int] = field(default_factory=set)
    contexts: defaultdict[str, set[int]] = field(default_factory=lambda: defaultdict(set))
    does_not_fit: defaultdict[int | None, set[int]] = field(default_factory=lambda: defaultdict(set))
    done_as: set[str] = field(default_factory=set)
    unfilled: defaultdict[int | None, set[int]] = field(default_factory=lambda: defaultdict(set))
    too_long: defaultdict[tuple[str, str], dict[int, int]] = field(default_factory=lambda: defaultdict(dict))


def _look_through(
    found: Survey, reader: Reader | None, left_out: limits.LeftOut, record: limits.Record, control: Cell | None
) -> _Seen:
    """Go through the plan once; the database is asked for some cells at a time."""
    seen, wanted = _Seen(fit.Repeats(found.models), control=control), found.wanted()
    tokens: dict[int | None, int] = {}
    for (_, _, length), prompt in found.prompts.items():
        if prompt.is_own_prompt:
            tokens[length] = max(tokens.get(length, 0), prompt.tokens or 0)
    plan = record.behind(found.planned())
    while some := list(islice(plan, CELLS_AT_ONCE)):
        known = reader.measured_again((planned.key for planned in some), wanted) if reader else {}
        for planned in some:
            reason = "" if seen.cells in left_out.places else _why(planned, known, seen)
            _look_at(planned, found, seen, reason, tokens.get(planned.cell.prompt_tokens))
    _save_first_ones(found, reader, seen)
    return seen


def _why(planned: PlannedCell, known: Mapping[str, str], seen: _Seen) -> str:
    """Why the cell would be measured; "" where it would not, also where it takes the result of another one."""
    reason = again.why(planned, known)
    seen.same += bool(planned.same_as)
    if reason == again.TAKEN or (planned.same_as and reason in (again.NEW, again.NOT_YET)):
        seen.saved += 1
        return ""
    if planned.same_as and not reason:
        seen.done_as.add(planned.same_as)
    return reason


def _save_first_ones(found: Survey, reader: Reader | None, seen: _Seen) -> None:
    """The first cell of a configuration is not measured either where a later one has been."""
    known = reader.measured_again(seen.done_as, found.wanted()) if reader else {}
    for key in seen.done_as:
        reason = known.get(key, again.NEW)
        if reason in (again.NEW, again.NOT_YET):
            seen.why[reason] -= 1
            seen.saved += 1
    seen.why = +seen.why


def _look_at(planned: PlannedCell, found: Survey, seen: _Seen, reason: str, tokens: int | None) -> None:
    cell = planned.cell
    seen.cells += 1
    seen.repeats.add(cell)
    if planned.reason == "does_not_fit":
        seen.unfit += 1
        seen.does_not_fit[cell.prompt_tokens].add(cell.num_ctx)
    if reason:
        seen.why[reason] += 1
        needs = (seen.late_loading if planned.frontier else seen.loading).add(cell)
        seen.work[_work(found, cell, needs)] += 1
        if seen.control is not None:
            seen.after_control[_work(found, cell, change(seen.control.load_key, cell.load_key))] += 1
            again = change(cell.load_key, seen.control.load_key, is_released=True)
            seen.controls[_work(found, seen.control, again)] += 1
        seen.late += bool(planned.frontier)
        seen.frontiers.add(planned.frontier)
        first = seen.late_first if planned.frontier else seen.first
        if len(first) < SHOWN_CELLS:
            first.append((seen.cells - 1, cell.label()))
    seen.contexts[cell.model].add(cell.num_ctx)
    if found.prompts[cell.asked].is_own_prompt:
        if is_unfilled(cell.num_batch, tokens):
            seen.unfilled[cell.prompt_tokens].add(cell.num_batch)
        return
    long = seen.too_long[cell.task, cell.model]
    if cell.num_ctx not in long:
        long[cell.num_ctx] = found.too_long(cell)


def _work(found: Survey, cell: Cell, needs: Change) -> Work:
    parameters = parameters_of(found.models[cell.model].parameter_size)
    return Work(cell.task, cell.prompt_tokens, cell.concurrency, cell.model, needs, parameters)


def _controls(spec: SweepSpec, cells: int) -> int | None:
    """How often the control cell is measured."""
    loads, rule = cells * spec.passes, spec.control_rule
    return None if rule.seconds is not None else rule.to_come(loads, loads, is_new=True)


def _together(by_length: Mapping[int | None, set[int]]) -> tuple[int, ...]:
    return tuple(sorted(set().union(*by_length.values())))


def _longest(found: Survey) -> dict[str, int | None]:
    """The true length of the prompt on each model; of several wanted lengths the largest."""
    counts: dict[str, int | None] = {}
    for (_, model, _), sent in found.prompts.items():
        if sent.is_own_prompt:
            counts[model] = max(sent.tokens or 0, counts.get(model) or 0) or None
    return counts


def _lengths(found: Survey, seen: _Seen) -> Iterator[LengthPreview]:
    own = {asked: sent for asked, sent in found.prompts.items() if sent.is_own_prompt}
    for length in (length for length in found.spec.lengths if length is not None):
        yield LengthPreview(
            prompt_tokens=length,
            tokens={model: sent.tokens for (_, model, wanted), sent in own.items() if wanted == length},
            does_not_fit=tuple(sorted(seen.does_not_fit[length])),
            unfilled=tuple(sorted(seen.unfilled[length])),
        )


def _model(model: ModelInfo, contexts: Iterable[int]) -> ModelPreview:
    memory = (Memory(size, fit.kv_cache_bytes(size, model), fit.load_bytes(size, model)) for size in sorted(contexts))
    return ModelPreview(
        digest=model.digest,
        quantization=model.quantization,
        parameter_size=model.parameter_size,
        context_length=model.context_length,
        size_bytes=model.size_bytes,
        memory=tuple(memory),
    )


def _tasks(found: Survey, seen: _Seen) -> Iterator[TaskPreview]:
    """What the tasks with questions ask, and how many questions are too long for which num_ctx."""
    rounds = found.rounds
    for (task, model, _), sent in found.prompts.items():
        if sent.is_own_prompt:
            continue
        long = seen.too_long[task, model]
        yield TaskPreview(
            task=task,
            model=model,
            questions=len(sent.questions),
            rows=sum(len(question.texts) for question in sent.questions),
            repeats=rounds[task],
            too_long={num_ctx: long[num_ctx] for num_ctx in sorted(long) if long[num_ctx]},
        )


def _replaced(found: Survey) -> tuple[str, ...]:
    """What the Modelfile sets and the sweep sets, too."""
    spec = found.spec
    if not spec.template:
        return ()
    own = {name for name, _ in next(found.each_cell()).options}
    written = modelfile.parameters_set(modelfile.parse(spec.template, str(spec.template_path), allow_local=True))
    return tuple(name for name in written if name in own)
