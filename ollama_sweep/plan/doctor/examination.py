"""The checks of `doctor`: can a sweep run here, and would its numbers be true? Looks, and leaves nothing behind.

A model is loaded only to count a prompt whose length no sweep has learned yet, with the smallest context, and only
where nothing else is loaded and no sweep runs: a look must not disturb a measurement.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from ollama_sweep import engines
from ollama_sweep.core.errors import CellFailed, SweepError
from ollama_sweep.core.finding import Finding, State, bad, of_error, ok
from ollama_sweep.engines.base import Engine, EngineSettings, ModelInfo
from ollama_sweep.engines.shared.look import Asked, Look
from ollama_sweep.machine import computer
from ollama_sweep.plan import prompts, ranges
from ollama_sweep.plan.doctor import disturbances, places
from ollama_sweep.plan.doctor import model as checked_model
from ollama_sweep.plan.doctor.model import Length, Subject
from ollama_sweep.plan.models import ALL, usable

BYTES_PER_TOKEN = 4
LARGEST_COUNTED_IMPORT_BYTES = 1 << 30
"""A larger .gguf is not imported only to count a prompt."""


class Examination:
    """One look at everything; `findings` yields a line after the other, and nothing is left when it ends."""

    def __init__(self, subject: Subject, settings: EngineSettings, db: Path, *, allow_network: bool = False) -> None:
        self._subject = subject
        self._settings = settings
        self._db = db
        self._allow_network = allow_network
        holder = places.writer(db)
        self._holder, self._sweep_runs = holder, holder is not None
        asked = Asked(subject.engine, subject.engine == engines.AUTO, subject.models, subject.server, self._sweep_runs)
        self._looks = {look: look(settings, asked) for look in _looks(subject.engine)}
        preferred = self._of(engines.PREFERRED)
        self._name = subject.engine
        if self._name == engines.AUTO:
            self._name = self._chosen(preferred)
        own = self._of(self._name)
        seen = preferred if own.environment is None else own
        self._environment, self._origin = seen.environment or {}, seen.origin

    def _chosen(self, preferred: Look) -> str:
        """What `auto` takes."""
        if preferred.is_there:
            return engines.PREFERRED
        with contextlib.suppress(SweepError):
            return engines.choose(self._settings)
        return engines.FALLBACK

    @property
    def _is_elsewhere(self) -> bool:
        """What measures is not on this computer, so nothing of this computer matters."""
        return self._of(self._name).is_elsewhere

    def _of(self, name: str) -> Look:
        return self._looks[engines.facts(name).look]

    def findings(self) -> Iterator[Finding]:
        """Engine, model, prompt, disk and database, then what would spoil numbers."""
        machine, quiet = computer.machine(), list[Finding]()
        if self._is_elsewhere:
            yield ok("machine", "the server's is not known from here, so nothing is said of its load, memory and GPUs")
        else:
            quiet += disturbances.findings(machine, self._environment, self._origin, sweep_runs=self._sweep_runs)
            yield ok("machine", machine.line())
        if self._subject.told:
            yield ok("sweep", self._subject.told)
        if self._holder is not None:
            text = f"a sweep is running (pid {self._holder.pid}): nothing is loaded or started beside it"
            yield ok("sweep", text, "Its progress: ollama-sweep status")
        yield from self._of_engine(machine)
        yield places.of_disk("the database", self._db.resolve().parent)
        for look in self._looks.values():
            for what, folder, importing_bytes in look.disks(measures=look is self._of(self._name)):
                yield places.of_disk(what, folder, importing_bytes)
        yield from places.of_database(self._db, allow_network=self._allow_network)
        yield from quiet

    # -- engine, model and prompt --------------------------------------------------------------------------------

    def _of_engine(self, machine: computer.Machine) -> Iterator[Finding]:
        """What can be seen from outside, then the engine that would measure, and through it the models."""
        own = self._of(self._name)
        is_bad = False
        for look in self._looks.values():
            for finding in look.findings(measures=look is own):
                is_bad = is_bad or (look is own and finding.state is State.BAD)
                yield finding
        if own.may_open:
            yield from self._of_opened(machine)
        elif not is_bad:
            yield ok("engine", f"{self._name} would measure")

    def _of_opened(self, machine: computer.Machine) -> Iterator[Finding]:
        engine: Engine | None = None
        try:
            engine = engines.load(self._name, self._settings)
            yield from self._of_connected(self._name, engine, machine)
        except SweepError as error:
            yield of_error("engine", error)
        finally:
            if engine is not None:
                engine.close()

    def _of_connected(self, name: str, engine: Engine, machine: computer.Machine) -> Iterator[Finding]:
        info = engine.describe()
        own = ", started for this check and stopped again" if info.details.get("server") == "own" else ""
        yield ok("engine", f"{name} {info.shown_version} would measure ({info.where}{own})")
        models = self._subject.models
        if models == (ALL,):
            models = usable(engine, self._subject.kinds, self._settings.say)
        for model in models:
            try:
                found = engine.model_info(model)
            except SweepError as error:
                yield of_error("model", error)
                continue
            yield from checked_model.of_model(found, self._subject)
            yield from self._of_model(name, engine, found, machine)

    def _of_model(self, name: str, engine: Engine, info: ModelInfo, machine: computer.Machine) -> Iterator[Finding]:
        room = ranges.room(computer.visible(machine.gpus, self._environment), machine.available_bytes)
        if self._is_elsewhere:
            room = ranges.UNKNOWN_ROOM
        factor, _ = ranges.cache_factor(self._environment)
        yield from checked_model.of_memory(info, self._subject, room, factor)
        try:
            lengths = self._lengths(name, engine, info)
        except (SweepError, CellFailed) as error:
            yield bad("prompt", f"its tokens cannot be counted, since {info.name} does not load: {error}")
            return
        for length in lengths:
            yield from checked_model.of_prompt(info, self._subject, length)

    def _lengths(self, name: str, engine: Engine, info: ModelInfo) -> list[Length]:
        """One for each length that the prompt has."""
        if self._subject.lengths:
            return [Length(tokens, "made to that length") for tokens in self._subject.lengths]
        length = self._length(name, engine, info)
        return [] if length is None else [length]

    def _length(self, name: str, engine: Engine, info: ModelInfo) -> Length | None:
        """The prompt's length: remembered, given, counted now where that disturbs nobody, else estimated."""
        prompt = self._subject.prompt
        if prompt is None:
            known = self._subject.prompt_tokens
            return None if known is None else Length(known, "counted when it ran last")
        if prompt.tokens is not None:
            return Length(prompt.tokens, "made to that length")
        known = places.prompt_tokens(self._db, name, info.digest, self._subject.modelfile, prompts.prompt_hash(prompt))
        if known is not None:
            return Length(known, "counted by an earlier run")
        text = prompts.with_nonce(prompts.new_nonce(), prompt.text or "")
        if self._may_load(info):
            counted = engine.count_tokens(info.name, text)
            if counted is not None:
                return Length(counted, "counted now")
        return Length(len(text.encode()) // BYTES_PER_TOKEN, "estimated; `plan` counts them", is_estimate=True)

    def _may_load(self, info: ModelInfo) -> bool:
        is_large_file = info.name.endswith(".gguf") and (info.size_bytes or 0) > LARGEST_COUNTED_IMPORT_BYTES
        is_shared = any(look.is_shared for look in self._looks.values())
        return not (self._sweep_runs or is_shared or is_large_file)


def _looks(name: str) -> dict[type[Look], None]:
    """At what `auto` may take, and at the engine that is named; engines of one kind have one look."""
    return dict.fromkeys(engines.facts(one).look for one in (engines.PREFERRED, engines.FALLBACK, name))
