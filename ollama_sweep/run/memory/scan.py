"""How far memory reaches, found by loads without a prompt: `run --scan`. No cell and no attempt is touched.

Memory is monotone in num_ctx and num_batch with all else the same, so a few loads along the staircase decide the rest:
at most as many as there are values of num_ctx and of num_batch together, for each combination of what else decides a
load. Running out of memory is believed when it happens in two loads.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from ollama_sweep import engines
from ollama_sweep.core.cell import Cell, model_label
from ollama_sweep.core.crashpoints import reached
from ollama_sweep.core.errors import ConfigError, EngineUnavailable
from ollama_sweep.core.events import CellStarted, Loaded, SweepFinished, SweepStarted
from ollama_sweep.core.options import Scalar
from ollama_sweep.core.outcome import Flag, Outcome, Status
from ollama_sweep.plan.memory.staircase import Place, Staircase
from ollama_sweep.plan.survey import Survey
from ollama_sweep.run.loop import Execution
from ollama_sweep.run.stopping import StopNow
from ollama_sweep.store.scans import FITS, OOM, SPILLED, ScannedLoad, combination_of, settings_of

TRIES = 2


def refuse_to_scan(engine: str) -> None:
    """Raise ConfigError for an engine that cannot load without a prompt."""
    if not engines.facts(engine).loads_without_a_prompt:
        text = f"the engine {engine} cannot load a num_ctx and num_batch without a prompt, so there is nothing to scan"
        raise ConfigError(text, "--scan")


@dataclass(frozen=True)
class Reach:
    """How far something holds at a num_ctx: the largest num_batch for which it does, None where there is none.

    `open` are the values above that for which nobody knows.
    """

    num_batch: int | None
    open: tuple[int, ...] = ()


@dataclass(frozen=True)
class ScannedColumn:
    """A num_ctx: how far the model fits, and how far it stays on the GPU (None where there is none)."""

    num_ctx: int
    fits: Reach
    on_gpu: Reach | None


@dataclass(frozen=True)
class Scanned:
    """What is known of one combination of everything else that decides a load: its settings, by name.

    `loads` were made now, `known` ones before; `failed` ones say nothing of memory. `is_contradicted`: memory sufficed
    where less had not been enough.
    """

    settings: Mapping[str, Scalar]
    columns: tuple[ScannedColumn, ...]
    loads: int
    known: int
    failed: tuple[ScannedLoad, ...] = ()
    is_contradicted: bool = False

    @property
    def is_open(self) -> bool:
        """Something is left for a further scan."""
        return any(reach.open for column in self.columns for reach in (column.fits, column.on_gpu) if reach)

    def label(self) -> str:
        """`model smol, num_gpu 0`."""
        return ", ".join(f"{name} {model_label(str(value))}" for name, value in self.settings.items())

    def as_dict(self) -> dict[str, object]:
        """For machines."""
        return {
            "settings": dict(self.settings),
            "columns": [
                {
                    "num_ctx": column.num_ctx,
                    "fits": column.fits.num_batch,
                    "fits_open": list(column.fits.open),
                    "on_gpu": column.on_gpu.num_batch if column.on_gpu else None,
                    "on_gpu_open": list(column.on_gpu.open) if column.on_gpu else [],
                }
                for column in self.columns
            ],
            "loads": self.loads,
            "known": self.known,
            "failed": [load.as_dict() for load in self.failed],
            "contradicted": self.is_contradicted,
        }


@dataclass
class _Grid:
    """The cells of one combination by their (num_ctx, num_batch), and what is known of each of these places.

    `positions` are those of the first cell at each place, -1 where the sweep has none.
    """

    combination: str
    contexts: Sequence[int]
    batches: Sequence[int]
    positions: array[int]
    uses_gpu: bool
    asks_for_gpu: bool
    results: dict[Place, list[ScannedLoad]] = field(default_factory=dict)
    known: int = 0

    def __post_init__(self) -> None:
        self.fits = Staircase(len(self.contexts), len(self.batches))
        self.on_gpu = Staircase(len(self.contexts), len(self.batches))

    @property
    def most(self) -> int:
        """The limit for the loads of one scan, second tries of failures not counted."""
        return len(self.contexts) + len(self.batches)

    @property
    def has_gpu(self) -> bool:
        """Whether the model stays on a GPU can be told."""
        return self.asks_for_gpu and self.uses_gpu

    def position(self, place: Place) -> int:
        return self.positions[place[0] * len(self.batches) + place[1]]

    def may_ask(self, place: Place) -> bool:
        return self.position(place) >= 0 and not self.is_settled(place)

    def tries(self, place: Place) -> int:
        """How often memory did not suffice there."""
        return sum(load.result == OOM for load in self.results.get(place, ()))

    def is_settled(self, place: Place) -> bool:
        """It was loaded, memory did not suffice twice, or it failed in a way that says nothing."""
        found = self.results.get(place, [])
        return bool(found) and (found[-1].result != OOM or self.tries(place) >= TRIES)

    def take(self, load: ScannedLoad) -> None:
        """One more load. What it says is taken once it is settled."""
        place = self._place(load)
        self.results.setdefault(place, []).append(load)
        self.uses_gpu |= bool(load.effective.size_vram_bytes)
        if load.is_loaded or (load.result == OOM and self.is_settled(place)):
            self.fits.learn(place, holds=load.is_loaded)
            self.on_gpu.learn(place, holds=load.result == FITS)

    def has(self, load: ScannedLoad) -> bool:
        """It is of this combination, at a place of this grid."""
        if load.combination != self.combination or load.num_ctx not in self.contexts:
            return False
        return load.num_batch in self.batches and self.position(self._place(load)) >= 0

    def _place(self, load: ScannedLoad) -> Place:
        return self.contexts.index(load.num_ctx), self.batches.index(load.num_batch)

    def owed(self) -> Place | None:
        """A place where memory did not suffice once, so that it is loaded again."""
        return next((place for place in self.results if not self.is_settled(place)), None)

    def next_place(self, left: int) -> Place | None:
        """The frontier of memory comes first."""
        found = self.fits.next_place(left, self.may_ask)
        if found is None and self.has_gpu:
            found = self.on_gpu.next_place(left, self.may_ask)
        return found

    def scanned(self, made: int) -> Scanned:
        """What is known by now."""
        columns = []
        for column, num_ctx in enumerate(self.contexts):
            if any(self.position((column, row)) >= 0 for row in range(len(self.batches))):
                on_gpu = self._reach(self.on_gpu, column) if self.has_gpu else None
                columns.append(ScannedColumn(num_ctx, self._reach(self.fits, column), on_gpu))
        failed = [load for loads in self.results.values() for load in loads
                  if not load.is_loaded and load.result != OOM]  # fmt: skip
        contradicted = self.fits.is_contradicted or (self.has_gpu and self.on_gpu.is_contradicted)
        return Scanned(settings_of(self.combination), tuple(columns), made, self.known, tuple(failed), contradicted)

    def _reach(self, found: Staircase, column: int) -> Reach:
        rows = [row for row in range(len(self.batches)) if self.position((column, row)) >= 0]
        held = [self.batches[row] for row in rows if row < found.holds[column]]
        unknown = tuple(self.batches[row] for row in rows if found.holds[column] <= row < found.fails[column])
        return Reach(held[-1] if held else None, unknown)


@dataclass(kw_only=True)
class Scan(Execution):
    """One `run --scan`: loads in place of cells, in the same surroundings and with the same care."""

    found: Survey
    is_done: Callable[[tuple[Scanned, ...]], None] = lambda scanned: None
    beyond: frozenset[int] = frozenset()
    """Positions at which the model is known not to fit, once it has run."""

    def run(self) -> None:
        """Load until everything is known or the limit is reached. Raises as `Execution.run` does."""
        grids = list(self._grids())
        self._look_at_engine()
        known = self.store.scanned_loads(self.sweep_id)
        for grid in grids:
            for load in filter(grid.has, known):
                grid.take(load)
            grid.known = len(grid.results)
        total = sum(grid.most for grid in grids)
        self.emit(SweepStarted(self.spec.name, total, 0, {Status.PENDING: total}))
        self.is_done(tuple(grid.scanned(self._scan(grid)) for grid in grids))
        self.beyond = frozenset(self._beyond(grids))
        self.look_at_clock()
        self.emit(SweepFinished(self.spec.name, stopped=False))

    def _grids(self) -> Iterator[_Grid]:
        """One for each combination, in the order of the sweep; the cells are walked over, never kept."""
        found: dict[str, _Grid] = {}
        for position, cell in enumerate(self.found.each_cell()):
            combination = combination_of(cell, self.found.models[cell.model].digest, self.found.modelfile)
            if combination not in found:
                found[combination] = self._grid(combination, cell)
            grid = found[combination]
            place = grid.contexts.index(cell.num_ctx) * len(grid.batches) + grid.batches.index(cell.num_batch)
            if grid.positions[place] < 0:
                grid.positions[place] = position
        yield from found.values()

    def _beyond(self, grids: Sequence[_Grid]) -> Iterator[int]:
        by_combination = {grid.combination: grid for grid in grids}
        for position, cell in enumerate(self.found.each_cell()):
            grid = by_combination[combination_of(cell, self.found.models[cell.model].digest, self.found.modelfile)]
            column, row = grid.contexts.index(cell.num_ctx), grid.batches.index(cell.num_batch)
            if row >= grid.fits.fails[column]:
                yield position

    def _grid(self, combination: str, cell: Cell) -> _Grid:
        contexts, batches = self._values("num_ctx", cell.num_ctx), self._values("num_batch", cell.num_batch)
        places = array("q", [-1]) * (len(contexts) * len(batches))
        return _Grid(combination, contexts, batches, places, self.measuring.has_gpu, cell.option("num_gpu") != 0)

    def _values(self, name: str, one: int) -> list[int]:
        return sorted({value for value in self.spec.dimensions.get(name, (one,)) if isinstance(value, int)})

    def _scan(self, grid: _Grid) -> int:
        """Load along the stairs of one combination; how many loads that were, second tries left out.

        A scan that was cut goes on within its limit. One that had reached it begins a new one.
        """
        left = grid.most - grid.known
        left, made = left if left > 0 else grid.most, 0
        while True:
            place = grid.owed()
            if place is None and made < left:
                place = grid.next_place(left - made)
                made += place is not None
            if place is None:
                return made
            grid.take(self._loaded(grid, place, made))

    def _loaded(self, grid: _Grid, place: Place, number: int) -> ScannedLoad:
        """One load, made and kept. Raises Stopped, EngineUnavailable, StorageError."""
        cell, tried = self.cell_at(grid.position(place)), grid.tries(place)
        while True:
            if self.stopping.requested:
                self._stop()
            self._hold()
            self.look_at_clock()
            self._look_at_engine()
            self.emit(CellStarted(cell, tried + 1))
            started = self.clock.monotonic_s()
            try:
                with self.stopping.interruptible():
                    outcome = self.measuring.load(cell)
                break
            except StopNow:
                self._stop()
            except EngineUnavailable as error:
                self._wait_for_engine(error)
        self._missed = 0
        load = ScannedLoad(grid.combination, grid.contexts[place[0]], grid.batches[place[1]], _result(outcome),
                           outcome.reason, outcome.error, outcome.effective)  # fmt: skip
        self._when_there_is_room(lambda: self.store.save_scanned_load(self.sweep_id, load))
        reached("after_finish")
        again = load.result == OOM and tried + 1 < TRIES
        took_s = self.clock.monotonic_s() - started
        self.emit(Loaded(cell, outcome, load.result, took_s, number, grid.most, will_retry=again))
        self._check_for_bugs(outcome)
        if outcome.status is Status.OK:
            self.unload()
        else:
            self._bring_to_rest()
        return load


def _result(outcome: Outcome) -> str:
    if outcome.status is Status.OK:
        return SPILLED if Flag.SPILLED in outcome.flags else FITS
    return str(outcome.status)
