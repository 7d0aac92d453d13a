"""What the record of memory says of a plan before it runs: which cells come last, and which `prune` leaves out."""

from __future__ import annotations

import json
from array import array
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from typing import TYPE_CHECKING

from ollama_sweep.core.options import LOAD_OPTIONS
from ollama_sweep.core.outcome import Status
from ollama_sweep.store import again
from ollama_sweep.store.memory.failures import KnownFailure, Surroundings
from ollama_sweep.store.memory.pruning import SEVERAL, Decided, Witness, is_probed, staircase
from ollama_sweep.store.plans import options_json

if TYPE_CHECKING:
    from ollama_sweep.core.cell import Cell
    from ollama_sweep.engines.base import EngineInfo
    from ollama_sweep.machine.computer import Machine, OtherMachine
    from ollama_sweep.plan.survey import Survey
    from ollama_sweep.store.reader import Reader
    from ollama_sweep.store.rows import PlannedCell

AXES = frozenset({"num_ctx", "num_batch"})
_AT_ONCE = 2000


class Steps:
    """Which of some cells of one kind is at most as large as another one, in both axes."""

    def __init__(self, cells: Iterable[Witness]) -> None:
        self._steps = staircase(cells)
        self._contexts = [step.num_ctx for step in self._steps]

    def below(self, num_ctx: int, num_batch: int) -> Witness | None:
        """The step that is; None where none is."""
        place = bisect_right(self._contexts, num_ctx) - 1
        return self._steps[place] if place >= 0 and self._steps[place].num_batch <= num_batch else None


# -- what comes last -------------------------------------------------------------------------------------------------


def load_options(cell: Cell) -> str:
    """The options that decide what a load needs, without num_ctx and num_batch, as JSON."""
    return options_json(tuple(pair for pair in cell.options if pair[0] in LOAD_OPTIONS - AXES))


def surroundings(engine: str, info: EngineInfo, here: Machine | OtherMachine, modelfile: str) -> Surroundings:
    """What the memory of a load depends on, beside the load itself."""
    machine = json.dumps(here.memory_fingerprint(), sort_keys=True, separators=(",", ":"))
    return Surroundings(engine, info.version, machine, modelfile)


@dataclass(frozen=True)
class Record:
    """What ran out of memory before in these surroundings: a frontier for each kind of load, numbered from 1."""

    failures: Sequence[KnownFailure] = ()

    @cached_property
    def _frontiers(self) -> dict[tuple[str, str, str], tuple[int, Steps]]:
        kinds: defaultdict[tuple[str, str, str], list[Witness]] = defaultdict(list)
        for one in self.failures:
            kind = one.model_digest, one.load_options, one.server
            kinds[kind].append(Witness(0, "", one.num_ctx, one.num_batch))
        return {kind: (number, Steps(kinds[kind])) for number, kind in enumerate(sorted(kinds), 1)}

    def frontier(self, cell: Cell, digest: str) -> int:
        """The number of the frontier beyond which a cell lies; 0 for none."""
        found = self.failures and self._frontiers.get((digest, load_options(cell), options_json(cell.server)))
        return found[0] if found and found[1].below(cell.num_ctx, cell.num_batch) else 0

    def behind(self, planned: Iterable[PlannedCell]) -> Iterator[PlannedCell]:
        """The same cells, those that come last with the number of their frontier."""
        for one in planned:
            frontier = self.frontier(one.cell, one.model_digest)
            yield replace(one, frontier=frontier) if frontier else one

    def of(self, frontiers: frozenset[int]) -> list[KnownFailure]:
        """What ran out of memory at these frontiers, each load once, as it did last."""
        found = {
            (one.model_digest, one.load_options, one.server, one.num_ctx, one.num_batch): one for one in self.failures
        }
        return [one for kind, one in found.items() if self._frontiers[kind[:3]][0] in frontiers]


# -- what `prune` leaves out -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LeftOut:
    """What a run with `prune` would leave out: places of the plan, and how many witnesses do so. `in_doubt` cells of
    the plan ran out of memory once; they leave nothing out until a second load has failed."""

    places: frozenset[int] = frozenset()
    witnesses: int = 0
    in_doubt: int = 0


_Kind = tuple[object, ...]


def _kind(one: PlannedCell) -> _Kind:
    """Equal for cells that differ in num_ctx and num_batch alone."""
    cell = one.cell
    rest = (tuple(pair for pair in pairs if pair[0] not in AXES) for pairs in (cell.options, cell.coordinates))
    return one.model_digest, cell.server, cell.task, cell.task_options, one.prompt_hash, *rest


def left_out(found: Survey, reader: Reader | None, sweep_id: int | None) -> LeftOut:
    """What would be left out. `sweep_id` is that of the sweep whose stored plan is this one, if there is one.

    The same rules as `store.memory.pruning`, for a plan that need not be stored.
    """
    if reader is None or not found.spec.settings.get("prune"):
        return LeftOut()
    known = reader.out_of_memory()
    if not known.witnesses | known.in_doubt:
        return LeftOut()
    witnesses: defaultdict[_Kind, list[Witness]] = defaultdict(list)
    keys: list[str] = []
    in_doubt: list[tuple[_Kind, int, int]] = []
    for one in found.planned():
        if one.key in known.in_doubt:
            in_doubt.append((_kind(one), one.cell.num_ctx, one.cell.num_batch))
        if one.key in known.witnesses:
            witnesses[_kind(one)].append(Witness(len(keys), "", one.cell.num_ctx, one.cell.num_batch))
            keys.append(one.key)
    if not keys:
        return LeftOut(in_doubt=len(in_doubt))
    seen = _Seen(witnesses, keys)
    plan = enumerate(found.planned())
    while some := list(islice(plan, _AT_ONCE)):
        seen.look(some, found, reader)
    decided = reader.decided(sweep_id) if sweep_id is not None else Decided()
    places, used = seen.decide(decided)
    return LeftOut(places, used, sum(not seen.is_beyond(*one) for one in in_doubt))


class _Seen:
    """What lies beyond witnesses, as numbers: its place, kind, size, whether it is to be measured, its own witness."""

    def __init__(self, witnesses: Mapping[_Kind, list[Witness]], keys: Sequence[str]) -> None:
        self._witnesses, self._keys = witnesses, keys
        self._numbers = {kind: number for number, kind in enumerate(witnesses)}
        self._own = {key: number for number, key in enumerate(keys)}
        self._steps = {kind: Steps(members) for kind, members in witnesses.items()}
        self._refuted: set[int] = set()
        self._rows = array("q")

    def look(self, some: Sequence[tuple[int, PlannedCell]], found: Survey, reader: Reader) -> None:
        large = []
        for place, one in some:
            kind = _kind(one)
            steps = self._steps.get(kind) if one.status is Status.PENDING else None
            if steps and steps.below(one.cell.num_ctx, one.cell.num_batch):
                large.append((place, one, kind))
        if not large:
            return
        keys = [one.key for _, one, _ in large]
        tried, reasons = reader.tried(keys), reader.measured_again(keys, found.wanted())
        for place, one, kind in large:
            size = one.cell.num_ctx, one.cell.num_batch
            if tried.get(one.key):  # it was measured, so there was memory
                self._refuted |= {witness.cell_id for witness in self._witnesses[kind]
                                  if witness.num_ctx <= size[0] and witness.num_batch <= size[1]}  # fmt: skip
            is_open = bool(again.why(one, reasons))
            self._rows.extend((place, self._numbers[kind], *size, is_open, self._own.get(one.key, -1)))

    def is_beyond(self, kind: _Kind, num_ctx: int, num_batch: int) -> bool:
        """A witness leaves such a cell out."""
        return kind in self._numbers and self._steps_left[self._numbers[kind]].below(num_ctx, num_batch) is not None

    @cached_property
    def _steps_left(self) -> list[Steps]:
        """By the number of the kind, once everything was looked at."""
        return [Steps(one for one in members if one.cell_id not in self._refuted)
                for members in self._witnesses.values()]  # fmt: skip

    def decide(self, decided: Decided) -> tuple[frozenset[int], int]:
        """The places that are left out, and how many witnesses leave some out."""
        steps = self._steps_left
        open_ones: defaultdict[int, set[int]] = defaultdict(set)
        smallest: dict[int, tuple[int, int, int]] = {}
        for at in range(0, len(self._rows), 6):
            place, kind, num_ctx, num_batch, is_open, own = self._rows[at : at + 6]
            witness = steps[kind].below(num_ctx, num_batch)
            if witness is None or witness.cell_id == own:
                continue
            size = num_ctx * num_batch, num_ctx, place
            smallest[witness.cell_id] = min(size, smallest.get(witness.cell_id, size))
            if is_open:
                open_ones[witness.cell_id].add(place)
        probes = set(decided.probes)
        for number, members in open_ones.items():
            if self._keys[number] not in decided.witnesses and len(members) >= SEVERAL:
                probes.add(smallest[number][-1])
        left = [[place for place in members if not is_probed(place) and place not in probes]
                for members in open_ones.values()]  # fmt: skip
        return frozenset(place for members in left for place in members), sum(map(bool, left))
