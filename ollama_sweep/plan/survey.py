"""What a sweep must know before its first cell: the models, the prompt's true length, which cells can be valid."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path

from ollama_sweep import engines, tasks
from ollama_sweep.core.cell import KEY_VERSION, PROMPT_TOKENS, Cell, cell_key
from ollama_sweep.core.errors import ConfigError
from ollama_sweep.core.options import is_server_setting
from ollama_sweep.core.outcome import Status
from ollama_sweep.engines.base import Engine, EngineInfo, ModelInfo
from ollama_sweep.engines.shared import modelfile
from ollama_sweep.machine.secrets import masked
from ollama_sweep.plan import at_once, fit, grid
from ollama_sweep.plan.lengths import Counting, PromptMemory, SentPrompt, question_hash
from ollama_sweep.plan.models import resolved
from ollama_sweep.plan.spec import SweepSpec
from ollama_sweep.store.again import Wanted
from ollama_sweep.store.rows import PAIR, PlannedCell
from ollama_sweep.tasks.base import Setup

_MEDIA = re.compile(r"(?:[./~\\]|[A-Za-z]:)\S*?\.(?:png|jpe?g|webp|wav)\b", re.IGNORECASE)


@dataclass(frozen=True)
class ArmOfPair:
    """What the other arm of a pair makes of a survey: where both would have one key, the arm is part of it.

    `twins` says so for each position of the plan, `other` is the fingerprint of the other arm. `cells` are the plan in
    the pair's order where that is not its own.
    """

    letter: str
    other: str
    twins: Sequence[int]
    cells: Sequence[Cell] | None = None


@dataclass(frozen=True)
class Survey:
    """Everything `plan` shows and `run` needs. `models` are by name, `prompts` by `Cell.asked`."""

    spec: SweepSpec
    engine: str
    info: EngineInfo
    models: Mapping[str, ModelInfo]
    prompts: Mapping[tuple[str, str, int | None], SentPrompt]
    modelfile: str
    arm: ArmOfPair | None = None

    def each_cell(self) -> Iterator[Cell]:
        """Every cell in order, one after the other: a sweep of a million cells is never in memory."""
        cells = self.arm.cells if self.arm is not None else None
        return grid.each_cell(self.spec) if cells is None else iter(cells)

    @cached_property
    def task_versions(self) -> dict[str, int]:
        """Version by name of every task of the sweep."""
        return {name: tasks.load(name).version for name in self.spec.task_names}

    @property
    def fingerprint(self) -> str:
        """Changes exactly when the materialised plan must be made again."""
        spec = self.spec
        content = {
            "key_version": KEY_VERSION,
            "engine": self.engine,
            "models": {name: model.digest for name, model in self.models.items()},
            "prompts": {
                " ".join(str(part) for part in asked if part is not None): [prompt.hash, prompt.tokens]
                for asked, prompt in self.prompts.items()
            },
            "tasks": self.task_versions,
            "setups": {name: _setup_picture(setup) for name, setup in spec.setups.items()},
            "modelfile": self.modelfile,
            "dimensions": [[name, *values] for name, values in spec.dimensions.items()],
            "options": dict(spec.options),
            "server": dict(spec.server),
            "exclude": [exclusion.text for exclusion in spec.exclude],
            "order": grid.order_of(spec),
            **self._reuse_picture(),
            **({"arm": [self.arm.letter, self.arm.other]} if self.arm is not None else {}),
        }
        text = json.dumps(content, sort_keys=True, separators=(",", ":"))
        return f"{KEY_VERSION}:{hashlib.sha256(text.encode()).hexdigest()[:32]}"

    @property
    def rounds(self) -> dict[str, int]:
        """How often each task with questions asks them."""
        minimum = self.spec.repeats.minimum
        return {name: one.repeats or minimum for name, one in self.spec.setups.items() if one.questions}

    def wanted(self) -> Wanted:
        """What decides which known cells are measured again."""
        return Wanted(
            self.spec.timeout_s, self.spec.repeats.minimum, rounds=self.rounds, reuses=self.spec.reuse_duplicates
        )

    def _reuse_picture(self) -> dict[str, object]:
        """Nothing for a sweep without it, which is what it always was."""
        return {"reuse_duplicates": True} if self.spec.reuse_duplicates else {}

    def lengths(self) -> Iterator[tuple[str, str, int]]:
        """What was counted: digest of the model, identity of the text, its tokens."""
        for (task, model, _), prompt in self.prompts.items():
            digest = self.models[model].digest
            if prompt.is_own_prompt and prompt.is_new and prompt.tokens is not None:
                yield digest, prompt.hash, prompt.tokens
            questions = {question.id: question for question in prompt.questions}
            for name, tokens in prompt.lengths.items():
                if tokens is not None:
                    yield digest, question_hash(self.spec.setups[task], questions[name]), tokens

    def planned(self) -> Iterator[PlannedCell]:
        """The cells with their keys, those that cannot fit the prompt as skipped; in the sweep's order.

        Raises ConfigError at the end where no cell fits.
        """
        fitting, same = 0, _Same(self)
        for number, cell in enumerate(self.each_cell()):
            planned = self._planned(cell, self.arm.letter if self.arm is not None and self.arm.twins[number] else "")
            fitting += planned.status is Status.PENDING
            yield same.marked(planned) if self.spec.reuse_duplicates else planned
        if not fitting:
            raise self._nothing_fits()

    def _nothing_fits(self) -> ConfigError:
        shortest = min((length for _, _, length in self.prompts if length is not None), default=None)
        asked = (prompt for (_, _, length), prompt in self.prompts.items() if length in (None, shortest))
        tokens = max(prompt.tokens or 0 for prompt in asked)
        largest = max(fit.usable_ctx(cell, self.models[cell.model]) for cell in self.each_cell())
        needed = tokens + min(cell.num_predict for cell in self.each_cell()) + 1
        what = "the prompt" if shortest is None else "the shortest prompt"
        return ConfigError(
            f"{what} has {tokens} tokens and needs num_ctx {needed}; the largest is {largest}, so no cell fits",
            self.spec.prompt.source or "prompt",
        )

    def key(self, cell: Cell, arm: str = "") -> str:
        """The identity of a cell's measurement; `arm` where both arms of a pair would have one key."""
        return cell_key(
            cell,
            engine=self.engine,
            model_digest=self.models[cell.model].digest,
            modelfile=self.modelfile,
            prompt_hash=self.prompts[cell.asked].hash,
            task_version=self.task_versions[cell.task],
            **({"arm": arm} if arm else {}),
        )

    def _planned(self, cell: Cell, arm: str) -> PlannedCell:
        model, prompt = self.models[cell.model], self.prompts[cell.asked]
        fitting = self.fits(cell)
        return PlannedCell(
            key=self.key(cell, arm),
            cell=cell,
            model_digest=model.digest,
            prompt_hash=prompt.hash,
            quantization=model.quantization,
            parameter_size=model.parameter_size,
            status=Status.PENDING if fitting else Status.SKIPPED,
            reason="" if fitting else "does_not_fit",
        )

    def fits(self, cell: Cell) -> bool:
        """The prompt fits the cell's context; true where its length is not known."""
        tokens = self.prompts[cell.asked].tokens
        return tokens is None or fit.fits(cell, self.models[cell.model], tokens)

    def too_long(self, cell: Cell) -> int:
        """How many of its task's questions do not fit the cell's context."""
        lengths = self.prompts[cell.asked].lengths.values()
        return sum(tokens is not None and not fit.fits(cell, self.models[cell.model], tokens) for tokens in lengths)

    def picture(self) -> dict[str, object]:
        """The sweep's settings as plain data, for people and for `changes`."""
        spec = self.spec
        own = {asked: prompt for asked, prompt in self.prompts.items() if prompt.is_own_prompt}
        is_one_length = len({length for _, _, length in own}) == 1
        return {
            "model": sorted({f"{name} {model.digest}" for name, model in self.models.items()}),
            "prompt": sorted({prompt.hash for prompt in self.prompts.values()}),
            "prompt_tokens": max(prompt.tokens or 0 for prompt in own.values()) if is_one_length else 0,
            "modelfile": self.modelfile,
            "template": spec.template,
            "options": dict(spec.options),
            "tasks": {name: _setup_picture(setup) for name, setup in spec.setups.items() if setup.questions},
            "server": dict(spec.server),
            "dimensions": {name: list(values) for name, values in spec.dimensions.items()},
            "num_predict": spec.options.get("num_predict"),
            "engine_version": masked(self.info.version),
            "repeats": spec.repeats.minimum,
            "rounds": self.rounds,
            "warmup": spec.warmup.minimum,
            "timeout_s": spec.timeout_s,
            "order": grid.order_of(spec),
            "host": masked(self.info.where),
            "cooldown": asdict(spec.cooldown),
            "control": spec.control_rule.as_dict(),
            "passes": spec.passes,
            **self._reuse_picture(),
            "models": {name: _facts(model) for name, model in self.models.items()},
            **({"replays": self.info.replays} if self.info.replays else {}),
            **({PAIR: asdict(spec.arm)} if spec.arm is not None else {}),
        }


class _Same:
    """Finds the first cell of each configuration, while the cells of a plan pass by."""

    def __init__(self, found: Survey) -> None:
        self._found = found
        self._kinds: dict[object, int] = {}
        self._first: dict[tuple[object, ...], str] = {}
        self._too_long: dict[tuple[str, str, int], int] = {}

    def marked(self, planned: PlannedCell) -> PlannedCell:
        """The cell with `same_as`, where an earlier one is the same configuration."""
        if planned.status is not Status.PENDING:
            return planned
        cell, found = planned.cell, self._found
        kind, sizes = fit.clamped(cell, found.models)
        number = self._kinds.setdefault(kind, len(self._kinds))
        whose = cell.task, cell.model, cell.num_ctx
        if whose not in self._too_long:
            self._too_long[whose] = found.too_long(cell)  # questions that are not sent make it another measurement
        first = self._first.setdefault((number, sizes, self._too_long[whose]), planned.key)
        return planned if first == planned.key else replace(planned, same_as=first)


def survey(
    spec: SweepSpec, engine_name: str, engine: Engine, memory: PromptMemory, say: Callable[[str], None]
) -> Survey:
    """Ask the engine what must be known. Raises ConfigError where no cell fits, EngineUnavailable."""
    refuse_what_cannot_be_set(spec, engine_name, engine)
    info = engine.describe()
    refuse_settings_of_a_strange_server(spec, engine_name)
    spec = resolved(spec, engine, asked_kinds(spec), say)
    asked = dict.fromkeys(
        (task, model, length)
        for task in spec.task_names
        for model in _models_of(spec, task)
        for length in spec.lengths_of(task)
    )
    engine.refuse(grid.each_cell(spec), {length: spec.prompt_of(length).tokens for length in spec.lengths})
    models = {name: engine.model_info(name) for name in dict.fromkeys(model for _, model, _ in asked)}
    for model in models.values():
        _refuse_media(spec, model)
    canonical = canonical_modelfile(spec)
    counting = Counting(spec, engine_name, engine, canonical, memory, say)
    sent = {(task, model, length): counting.sent(task, models[model], length) for task, model, length in asked}
    return Survey(spec, engine_name, info, models, sent, canonical)


def asked_kinds(spec: SweepSpec) -> frozenset[str]:
    """The kinds of the tasks that ask the sweep's own models."""
    return frozenset(tasks.load(task).kind for task in spec.task_names if not spec.setups.get(task, Setup()).model)


def _models_of(spec: SweepSpec, task: str) -> list[str]:
    own = spec.setups[task].model if task in spec.setups else ""
    return [own] if own else [str(name) for name in spec.dimensions.get("model", (spec.model,))]


def _facts(model: ModelInfo) -> dict[str, object]:
    """What the engine says of a model and no cell has."""
    return {
        "family": model.family,
        "context_length": model.context_length,
        "size_bytes": model.size_bytes,
        "kv_bytes_per_token": model.kv_bytes_per_token,
    }


def _setup_picture(setup: Setup) -> list[object]:
    return [dict(setup.options), {**setup.defaults, **setup.request}, setup.model, setup.hash]


def refuse_what_cannot_be_set(spec: SweepSpec, engine_name: str, engine: Engine) -> None:
    """Raise ConfigError where the engine has no way to set a dimension, or to do a task."""
    for task in spec.task_names:
        if tasks.load(task).kind not in engine.kinds:
            raise ConfigError(f"the engine {engine_name} cannot do the task {task}", "task")
    at_once.refuse_engine(spec, engine_name, engine)
    if engine.settable is None:
        return
    known = engine.settable | {"model", "task", PROMPT_TOKENS, at_once.KEY}
    implied = {"num_predict"} if "num_predict" not in spec.dimensions else set()
    for name in (*spec.dimensions, *spec.options, *spec.server):
        if name not in known | implied:
            can = ", ".join(sorted(engine.settable)) or "nothing"
            raise ConfigError(f"the engine {engine_name} cannot set {name}; it can set {can}", name)
    if spec.template and "modelfile" not in known:
        raise ConfigError(f"the engine {engine_name} takes no Modelfile", "modelfile")


def refuse_settings_of_a_strange_server(spec: SweepSpec, engine_name: str) -> None:
    named = [name for name in (*spec.server, *spec.dimensions) if is_server_setting(name)]
    if named and engines.facts(engine_name).needs_own_server and not spec.managed:
        raise ConfigError(f"{named[0]} is a setting of the whole server; it needs `server: managed`", named[0])


def _refuse_media(spec: SweepSpec, model: ModelInfo) -> None:
    """`ollama run` loads files that a prompt names as pictures or sound, and cuts their names out of the text."""
    if not {"vision", "audio"} & set(model.capabilities) or spec.prompt.text is None:
        return
    named = [match for match in _MEDIA.findall(spec.prompt.text) if Path(match).expanduser().is_file()]
    if named:
        raise ConfigError(
            f"Ollama would load {named[0]} as a picture or sound, because {model.name} understands them. "
            "Take the path out of the prompt",
            spec.prompt.source or "prompt",
        )


def canonical_modelfile(spec: SweepSpec) -> str:
    """The template's part of a cell's identity: without FROM, comments and what the sweep sets itself."""
    options = json.dumps(dict(spec.engine_options), sort_keys=True) if spec.engine_options else ""
    if not spec.template:
        return options
    own = {*spec.options, *spec.dimensions}
    return options + modelfile.canonical(modelfile.parse(spec.template, str(spec.template_path), allow_local=True), own)
