"""What a sweep must know before its first cell: the models, the prompt's true length, which cells can be valid."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

from ollama_sweep import modelfile, plan, prompts, tasks
from ollama_sweep.cells import KEY_VERSION, Cell, Scalar, Status, cell_key, is_server_setting, model_label
from ollama_sweep.engine import Engine, EngineInfo, ModelInfo
from ollama_sweep.errors import ConfigError
from ollama_sweep.spec import SweepSpec
from ollama_sweep.store.records import PlannedCell

_MEDIA = re.compile(r"(?:[./~\\]|[A-Za-z]:)\S*?\.(?:png|jpe?g|webp|wav)\b", re.IGNORECASE)


class PromptMemory(Protocol):
    """What earlier sweeps have learned of prompts; a Reader or a Store has these."""

    def prompt_tokens(self, engine: str, model_digest: str, modelfile: str, prompt_hash: str) -> int | None: ...

    def made_prompt(self, engine: str, model_digest: str, modelfile: str, spec_text: str) -> str | None: ...


class NoMemory:
    """For the first sweep of a database."""

    def prompt_tokens(self, engine: str, model_digest: str, modelfile: str, prompt_hash: str) -> int | None:
        return None

    def made_prompt(self, engine: str, model_digest: str, modelfile: str, spec_text: str) -> str | None:
        return None


@dataclass(frozen=True)
class SentPrompt:
    """The prompt of one model: its text without nonce, its identity, its true tokens with nonce and template."""

    text: str
    hash: str
    tokens: int | None
    is_made: bool = False
    is_new: bool = False


@dataclass(frozen=True)
class Survey:
    """Everything `plan` shows and `run` needs. `models` and `prompts` are by model name."""

    spec: SweepSpec
    engine: str
    info: EngineInfo
    models: Mapping[str, ModelInfo]
    prompts: Mapping[str, SentPrompt]
    modelfile: str

    @cached_property
    def cells(self) -> tuple[Cell, ...]:
        """Every cell in order. Made only where it is needed: a sweep of a million cells goes on without it."""
        return tuple(plan.cells(self.spec))

    @cached_property
    def task_versions(self) -> dict[str, int]:
        """Version by name of every task of the sweep."""
        return {name: tasks.load(name).version for name in task_names(self.spec)}

    @property
    def fingerprint(self) -> str:
        """Changes exactly when the materialised plan must be made again."""
        spec = self.spec
        content = {
            "key_version": KEY_VERSION,
            "engine": self.engine,
            "models": {name: model.digest for name, model in self.models.items()},
            "prompts": {name: [prompt.hash, prompt.tokens] for name, prompt in self.prompts.items()},
            "tasks": self.task_versions,
            "modelfile": self.modelfile,
            "dimensions": [[name, *values] for name, values in spec.dimensions.items()],
            "options": dict(spec.options),
            "server": dict(spec.server),
            "exclude": [exclusion.text for exclusion in spec.exclude],
            "order": spec.order,
        }
        text = json.dumps(content, sort_keys=True, separators=(",", ":"))
        return f"{KEY_VERSION}:{hashlib.sha256(text.encode()).hexdigest()[:32]}"

    def planned(self) -> Iterator[PlannedCell]:
        """The cells with their keys, those that cannot fit the prompt as skipped; in the sweep's order.

        Raises ConfigError at the end where no cell fits.
        """
        fitting = 0
        for cell in self.cells:
            planned = self._planned(cell)
            fitting += planned.status is Status.PENDING
            yield planned
        if not fitting:
            raise self._nothing_fits()

    def _nothing_fits(self) -> ConfigError:
        tokens = max(prompt.tokens or 0 for prompt in self.prompts.values())
        largest = max(plan.usable_ctx(cell, self.models[cell.model]) for cell in self.cells)
        needed = tokens + min(cell.num_predict for cell in self.cells) + 1
        return ConfigError(
            f"the prompt has {tokens} tokens and needs num_ctx {needed}; the largest is {largest}, so no cell fits",
            self.spec.prompt.source or "prompt",
        )

    def _planned(self, cell: Cell) -> PlannedCell:
        model, prompt = self.models[cell.model], self.prompts[cell.model]
        key = cell_key(
            cell,
            engine=self.engine,
            model_digest=model.digest,
            modelfile=self.modelfile,
            prompt_hash=prompt.hash,
            task_version=self.task_versions[cell.task],
        )
        fitting = self.fits(cell)
        return PlannedCell(
            key=key,
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
        tokens = self.prompts[cell.model].tokens
        return tokens is None or plan.fits(cell, self.models[cell.model], tokens)

    def picture(self) -> dict[str, object]:
        """The sweep's settings as plain data, for people and for `changes`."""
        spec = self.spec
        return {
            "model": sorted({f"{name} {model.digest}" for name, model in self.models.items()}),
            "prompt": sorted({prompt.hash for prompt in self.prompts.values()}),
            "prompt_tokens": max((prompt.tokens or 0 for prompt in self.prompts.values()), default=0),
            "modelfile": self.modelfile,
            "template": spec.template,
            "options": dict(spec.options),
            "server": dict(spec.server),
            "dimensions": {name: list(values) for name, values in spec.dimensions.items()},
            "num_predict": spec.options.get("num_predict"),
            "engine_version": self.info.version,
            "repeats": spec.repeats.minimum,
            "warmup": spec.warmup,
            "timeout_s": spec.timeout_s,
            "order": spec.order,
            "host": self.info.where,
        }


def survey(
    spec: SweepSpec, engine_name: str, engine: Engine, memory: PromptMemory, say: Callable[[str], None]
) -> Survey:
    """Ask the engine what must be known. Raises ConfigError where no cell fits, EngineUnavailable, CellFailed."""
    info = engine.describe()
    _refuse_settings_of_a_strange_server(spec, engine_name)
    names = [str(name) for name in spec.dimensions.get("model", (spec.model,))]
    models = {name: engine.model_info(name) for name in names}
    for model in models.values():
        _refuse_media(spec, model)
    canonical = canonical_modelfile(spec)
    sent = {name: _sent_prompt(spec, engine_name, engine, models[name], canonical, memory, say) for name in names}
    return Survey(spec, engine_name, info, models, sent, canonical)


def task_names(spec: SweepSpec) -> tuple[str, ...]:
    """The tasks of a sweep, in the order of the file."""
    return tuple(str(name) for name in spec.dimensions.get("task", (spec.task,)))


def _refuse_settings_of_a_strange_server(spec: SweepSpec, engine_name: str) -> None:
    named = [name for name in (*spec.server, *spec.dimensions) if is_server_setting(name)]
    if named and engine_name.startswith("ollama") and not spec.managed:
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
    if not spec.template:
        return ""
    own = {*spec.options, *spec.dimensions}
    return modelfile.canonical(modelfile.parse(spec.template, str(spec.template_path), allow_local=True), own)


def _sent_prompt(
    spec: SweepSpec,
    engine_name: str,
    engine: Engine,
    model: ModelInfo,
    canonical: str,
    memory: PromptMemory,
    say: Callable[[str], None],
) -> SentPrompt:
    identity = prompts.prompt_hash(spec.prompt)
    nonce = prompts.new_nonce()

    def count(text: str) -> int | None:
        return engine.count_tokens(model.name, prompts.with_nonce(nonce, text))

    tokens = memory.prompt_tokens(engine_name, model.digest, canonical, identity)
    if spec.prompt.tokens is None:
        text = spec.prompt.text or ""
        if tokens is not None:
            return SentPrompt(text, identity, tokens)
        say(f"Counting the prompt's tokens on {model_label(model.name)}")
        return SentPrompt(text, identity, count(text), is_new=True)
    made = memory.made_prompt(engine_name, model.digest, canonical, identity)
    if made is not None and tokens is not None:
        return SentPrompt(made, identity, tokens, is_made=True)
    say(f"Making a prompt of {spec.prompt.tokens} tokens on {model_label(model.name)}")
    made = prompts.make_text(spec.prompt.tokens, count)
    if made is None:
        raise ConfigError(f"no text of {spec.prompt.tokens} tokens can be made with {model.name}", "prompt.tokens")
    return SentPrompt(made, identity, count(made), is_made=True, is_new=True)


def changes(old: Mapping[str, object], new: Survey) -> list[str]:
    """What differs from the last run of this sweep, in words; empty where nothing does."""
    picture = new.picture()
    lines = [
        f"{name} changed: cells will be measured again, the old ones are kept"
        for name in ("model", "prompt", "modelfile", "options", "server")
        if old.get(name, picture[name]) != picture[name]
    ]
    before, now = old.get("dimensions"), picture["dimensions"]
    if isinstance(before, dict) and isinstance(now, dict):
        lines += _dimension_changes(before, now, new)
    if old.get("engine_version") != picture["engine_version"]:
        lines.append(f"the engine was {old.get('engine_version')}, now it is {picture['engine_version']}")
    return lines


def _dimension_changes(before: Mapping[str, list[Scalar]], now: Mapping[str, list[Scalar]], new: Survey) -> list[str]:
    lines = []
    for name in now:
        added = [value for value in now[name] if value not in before.get(name, [])]
        gone = [value for value in before.get(name, []) if value not in now[name]]
        if added:
            count = sum(dict(cell.coordinates).get(name) in added for cell in new.cells)
            lines.append(f"{name} {_listed(added)} is new ({count} cells)")
        if gone:
            lines.append(f"{name} {_listed(gone)} is gone (its cells are kept)")
    lines += [f"dimension {name} is gone" for name in before if name not in now]
    return lines


def _listed(values: list[Scalar]) -> str:
    shown = ", ".join(str(value) for value in values[:6])
    return shown if len(values) <= 6 else f"{shown}, … ({len(values)} values)"
