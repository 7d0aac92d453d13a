"""A recording in the place of an engine: each load and each run takes, and says, what was recorded of its cell.

Nothing is measured and nothing is invented: `core/recording/drawing` says which recorded load answers. The clock is
that of the run, which goes as fast as it can, so a sweep of a day is over in seconds. What is asked must be in the
recording; another grid is refused before anything is made.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from functools import cached_property

from ollama_sweep.core.cell import MAIN_TASK, PROMPT_TOKENS, Cell, content_hash
from ollama_sweep.core.errors import CellFailed, ConfigError, EngineMissing, SweepError, nearest
from ollama_sweep.core.finding import Finding, of_error, ok
from ollama_sweep.core.generation import Generation
from ollama_sweep.core.options import Scalar
from ollama_sweep.core.outcome import Effective, Status
from ollama_sweep.core.recording.drawing import DrawnLoad, load_of
from ollama_sweep.core.recording.model import FailedIn, RecordedCell, RecordedModel, RecordedRun, Recording
from ollama_sweep.core.recording.reading import MOST_BYTES, read
from ollama_sweep.core.text import in_short
from ollama_sweep.engines.base import READ_AGAIN, EngineInfo, EngineSettings, Kept, ModelInfo
from ollama_sweep.engines.base import Engine as Base
from ollama_sweep.engines.shared import gate
from ollama_sweep.engines.shared.look import Asked, Look
from ollama_sweep.machine import files

ONLY_MODEL = "recorded"
"""The model of a recording that has only one, whatever its name."""
KEY = "recording"
Place = tuple[tuple[str, Scalar], ...]


def read_file(named: str | None) -> Recording:
    """The recording of a sweep. Raises ConfigError, in one line."""
    if not named:
        raise ConfigError("recording is missing; add it or use --recording FILE", KEY)
    path = files.expanded(named)
    try:
        if path.stat().st_size > MOST_BYTES:
            raise ConfigError(f"is larger than {MOST_BYTES // 2**20} MiB, which no recording is", str(path))
        return read(path.read_bytes(), str(path))
    except (OSError, ValueError) as error:
        said = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(f"cannot be read: {said}", str(path)) from None


class ReplayLook(Look):
    """The recording itself: there is no program and no server."""

    is_elsewhere = True

    def __init__(self, settings: EngineSettings, asked: Asked) -> None:
        super().__init__(settings, asked)
        self._trouble: SweepError | None = None
        try:
            self._found = read_file(settings.recording)
        except SweepError as error:
            self._trouble = error

    def findings(self, *, measures: bool) -> Iterator[Finding]:
        """Whether it can be read, and what it holds."""
        if self._trouble is not None:
            yield of_error(KEY, self._trouble, "Make one: ollama-sweep export SWEEP --format recording -o FILE")
        elif measures:
            found = self._found
            remark = f". {found.remark}" if found.remark else ""
            text = f"{_in_words(found)}: {len(found.measured)} of {len(found.cells)} cells were measured{remark}"
            yield ok(KEY, text, "Nothing is measured here: its numbers are replayed")

    @property
    def is_there(self) -> bool:
        """`auto` never takes it."""
        return False

    @property
    def may_open(self) -> bool:
        """Only what can be read."""
        return self._trouble is None


class Engine(Base):
    """See `base.Engine`. A cell is answered by the one recorded cell that has all of its options."""

    settable = None
    default_model = ONLY_MODEL
    takes_files = False
    is_replayed = True
    loads_without_a_prompt = True
    look = ReplayLook

    def __init__(self, settings: EngineSettings) -> None:
        super().__init__(settings)
        if settings.template:
            raise ConfigError("a recording takes no Modelfile: its templates are what they were", "modelfile")
        self._recording = read_file(settings.recording)
        self._loads_of: Callable[[Cell], int] | None = None
        self._made: dict[RecordedCell, int] = {}
        self._drawn: DrawnLoad | None = None
        self._requests = 0
        self._lengths: Mapping[int | None, int | None] = {}
        self._places: dict[tuple[str, ...], dict[tuple[str, Place], list[RecordedCell]]] = {}
        settings.clock.at_least(datetime.fromisoformat(self._recording.recorded_at).timestamp())

    @classmethod
    def has_own_sizes(cls) -> bool:
        """A recording may have been made of an engine with sizes of its own."""
        return True

    @classmethod
    def read_again(cls, kept: Kept) -> Mapping[str, float | None]:
        """What is kept of a run is what the recording has of it."""
        head, _, numbers = kept.raw.partition("\n")
        if not head.startswith("replayed "):
            raise gate.Nonsense("this engine says other words")
        return gate.mapping("numbers", gate.loads(numbers))

    def describe(self) -> EngineInfo:
        found = self._recording
        details = {
            "replays": _in_words(found),
            "machine": f"{found.engine_in_words} on {found.machine}",
            **({"has_gpu": "yes"} if found.has_gpu else {}),
        }
        return EngineInfo("replay", found.engine_in_words, f"the recording {found.name}", details)

    def models(self) -> tuple[str, ...]:
        return tuple(sorted(model.name for model in self._recording.models))

    def model_info(self, model: str) -> ModelInfo:
        """The digest is that of the recording, so that nothing replayed is ever taken for something measured."""
        found, seed = self._model(model), self._settings.recording_seed
        digest = content_hash(f"{self._recording.digest}\n{found.name}\n{'' if seed is None else seed}")
        return ModelInfo(**{**asdict(found), "name": model, "digest": digest}, capabilities=("completion",))

    def _model(self, name: str) -> RecordedModel:
        known = {model.name: model for model in self._recording.models}
        if name == ONLY_MODEL and name not in known and len(known) == 1:
            return self._recording.models[0]
        if name not in known:
            raise EngineMissing(
                f"{name} is not in the recording. There is {in_short(list(known))}.{nearest(name, known)}"
            )
        return known[name]

    def count_tokens(self, model: str, prompt: str, *, system: str = "") -> int | None:
        """The recorded length where there is only one, whatever the text; else one token a word."""
        name = self._model(model).name
        lengths = {cell.tokens for cell in self._recording.cells if cell.model == name and cell.tokens}
        return lengths.pop() if len(lengths) == 1 else len(f"{system} {prompt}".split())

    # -- which recorded cell answers ---------------------------------------------------------------------------------

    def refuse(self, cells: Iterable[Cell], lengths: Mapping[int | None, int | None]) -> None:
        self._lengths = lengths
        for cell in cells:
            if cell.task != MAIN_TASK:
                raise ConfigError(f"a recording holds no answers, so {cell.task} cannot be replayed", "task")
            found = self._cell(cell)
            if not found.loads and not found.is_skipped:
                text = f"{cell.label()} was not measured in the recording; leave it out (exclude), or record it"
                raise ConfigError(text, self._where)

    @property
    def _where(self) -> str:
        return str(self._settings.recording)

    def _cell(self, cell: Cell) -> RecordedCell:
        """The one recorded cell with all that this one asks for. Raises ConfigError."""
        asked = {**dict(cell.options), **dict(cell.server)}
        length = cell.prompt_tokens if cell.prompt_tokens is not None else self._lengths.get(None)
        if PROMPT_TOKENS in self._recording.dimensions and length is not None:
            asked[PROMPT_TOKENS] = length
        elif length is not None:
            self._check_length(length)
        names, model = tuple(sorted(asked)), self._model(cell.model).name
        found = self._at(names).get((model, _place(asked, names)), [])
        if len(found) == 1:
            return found[0]
        raise self._varies(found, names) if found else self._another(cell, asked, model)

    def _at(self, names: tuple[str, ...]) -> dict[tuple[str, Place], list[RecordedCell]]:
        """The recorded cells by model and by these options; what one does not have is None."""
        if names not in self._places:
            index: dict[tuple[str, Place], list[RecordedCell]] = {}
            for cell in self._recording.cells:
                index.setdefault((cell.model, _place(_known(cell), names)), []).append(cell)
            self._places[names] = index
        return self._places[names]

    @cached_property
    def _values(self) -> dict[str, list[Scalar]]:
        """The values of each option in the recording."""
        found: dict[str, dict[Scalar, None]] = {}
        for cell in self._recording.cells:
            for name, value in _known(cell).items():
                found.setdefault(name, {})[value] = None
        return {name: list(values) for name, values in found.items()}

    def _check_length(self, wanted: int) -> None:
        known = self._recording.prompt_tokens or next((c.tokens for c in self._recording.cells if c.tokens), None)
        if known is not None and wanted != known:
            text = f"a prompt of {wanted} tokens is not in the recording, whose prompt has {known}"
            raise ConfigError(text, f"{self._where}: prompt.tokens")

    def _varies(self, found: Sequence[RecordedCell], names: Sequence[str]) -> ConfigError:
        """Several cells have all that was asked for: what sets them apart is not said."""
        known = [_known(cell) for cell in found]
        apart = sorted({name for one in known for name in one if name not in names
                        and len({str(other.get(name)) for other in known}) > 1})  # fmt: skip
        said = "; ".join(f"{name} ({in_short([str(value) for value in self._values[name]])})" for name in apart)
        return ConfigError(f"the recording varies {said}: say which", self._where)

    def _another(self, cell: Cell, asked: Mapping[str, Scalar], model: str) -> ConfigError:
        """A cell of another grid: the first option with a value that was not recorded, or the whole place."""
        for name, value in asked.items():
            values = self._values.get(name)
            if values is None:
                return ConfigError(f"{name} {value} is not in the recording, where it was not set", self._where)
            if not any(_same(value, known) for known in values):
                known = in_short([str(one) for one in values])
                return ConfigError(f"{name} {value} is not in the recording, which has {known}", self._where)
        return ConfigError(f"{cell.label()} is not in the recording of {model}", self._where)

    # -- a load and its requests -------------------------------------------------------------------------------------

    def go_on(self, loads_of: Callable[[Cell], int]) -> None:
        self._loads_of = loads_of

    def prepare(self, cell: Cell) -> Effective:
        found, clock = self._cell(cell), self._settings.clock
        self._drawn = None
        if not found.loads:
            raise CellFailed(Status.TRUNCATED, "does_not_fit", f"{cell.label()} was skipped in the recording")
        drawn = load_of(found, self._number(cell, found), self._settings.recording_seed)
        load = drawn.load
        if load.load_s > self._settings.load_timeout_s and load.status is not Status.TIMEOUT:
            clock.sleep(self._settings.load_timeout_s)
            raise CellFailed(Status.TIMEOUT, "load", f"the recorded load took {load.load_s:.0f} s")
        clock.sleep(load.load_s)
        if load.failed_in is FailedIn.LOAD:
            raise self._failure(drawn)
        self._drawn, self._requests = drawn, 0
        return load.effective

    def _number(self, cell: Cell, found: RecordedCell) -> int:
        """How many loads of this cell came before."""
        if self._loads_of is not None:
            return self._loads_of(cell)
        self._made[found] = self._made.get(found, -1) + 1
        return self._made[found]

    def _failure(self, drawn: DrawnLoad) -> CellFailed:
        load = drawn.load
        text = f"as recorded: {load.status}" + (f" ({load.reason})" if load.reason else "")
        return CellFailed(load.status, load.reason, text, text)

    def generate(self, cell: Cell, prompt: str, timeout_s: float, *, fresh: bool = True) -> Generation:
        clock = self._settings.clock
        if self._drawn is None:
            self.prepare(cell)
        assert self._drawn is not None
        run = self._drawn.request(self._requests)
        self._requests += 1
        if run is None:
            clock.sleep(min(self._drawn.load.failure_s, timeout_s))
            raise self._failure(self._drawn)
        if run.client_duration_s > timeout_s:
            clock.sleep(timeout_s)
            raise CellFailed(Status.TIMEOUT, "run", f"the recorded run took {run.client_duration_s:.0f} s")
        clock.sleep(run.client_duration_s)
        return _generation(run)

    def release(self, *, failed: bool) -> None:
        self._drawn = None


def _in_words(found: Recording) -> str:
    """`the recording grid of ollama 0.34.0 on AMD EPYC, 2 cores, 2026-11-02`."""
    return f"the recording {found.name} of {found.engine_in_words} on {found.machine}, {found.recorded_at[:10]}"


def _known(cell: RecordedCell) -> dict[str, Scalar]:
    """All that a sweep can ask of a recorded cell, by name."""
    more = {name: value for name, value in cell.coordinates if name == PROMPT_TOKENS}
    return {**dict(cell.options), **dict(cell.server), **more}


def _place(options: Mapping[str, Scalar], names: Sequence[str]) -> Place:
    return tuple((name, _plain(options.get(name))) for name in names)


def _plain(value: Scalar) -> Scalar:
    """True and 1 are not the same option; 1 and 1.0 are."""
    return str(value).lower() if isinstance(value, bool) else value


def _same(one: Scalar, other: Scalar) -> bool:
    return _plain(one) == _plain(other)


def _generation(run: RecordedRun) -> Generation:
    """The run as an engine gives it; its text was not recorded."""
    numbers = {name: getattr(run, name) for name in READ_AGAIN}
    return Generation(text="", **numbers, raw=f"replayed {'warm-up' if run.warmup else 'run'}\n{json.dumps(numbers)}")
