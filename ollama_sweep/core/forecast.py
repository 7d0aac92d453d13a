"""How long a sweep will take, of what its last attempts took: the one clock of `run`, `plan`, `status` and `watch`."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean, median

from ollama_sweep.core.loading import costs
from ollama_sweep.core.loading.change import Change
from ollama_sweep.core.loading.controls import Rule
from ollama_sweep.core.loading.costs import Loaded

RECENT_ATTEMPTS = 50
"""So many of a sweep's last attempts speak for the cells to come: in its order neighbours are alike."""
SAMPLED_ATTEMPTS = 200
"""So many more, from all over the sweep, where its cells differ in what they ask or in what they need."""
LIKE_LENGTH = 0.1
STEEPEST = 2.0
"""Reading a prompt of twice the length takes at most four times as long."""
SHORTEST_SHARE = 0.25
"""Of the time between two controls so much at least is not spent on what one of them makes necessary."""
ERROR_OF_OTHERS, ERROR_OF_OTHER_MODELS = 0.25, 0.5
"""What cells of other work, or of other models, say of a cell may be off by so much."""


@dataclass(frozen=True)
class Work:
    """What a cell asks, as far as its time hangs on it: the prompt's tokens where lengths differ, questions at once;
    of which model (`parameters`: how many it has), and what it needs before: None where all cells need the same.
    """

    task: str = ""
    tokens: int | None = None
    at_once: int = 1
    model: str = ""
    needs: Change | None = None
    parameters: float | None = None


@dataclass(frozen=True)
class Took:
    """A finished attempt at a cell, failed ones and those before a retry among them.

    `asking_s` of its seconds were spent on requests, the rest on the load and around it.
    """

    cell: int
    seconds: float
    work: Work = Work()
    asking_s: float = 0.0


@dataclass(frozen=True)
class WorkLeft:
    """In what shares the cells to come ask and need what: one after the other, where one follows a load of the control
    cell, and what that load needs behind one of them. Empty for a sweep whose cells do not differ in that.
    """

    in_order: Mapping[Work, float] = field(default_factory=dict)
    after_control: Mapping[Work, float] = field(default_factory=dict)
    control: Mapping[Work, float] = field(default_factory=dict)


@dataclass(frozen=True)
class ControlsSeen:
    """The place of the control cell in the plan, None where none can be it, and what its last loads took, the newest
    first.
    """

    position: int | None = None
    took: Sequence[Took] = ()


@dataclass(frozen=True)
class Controls:
    """Loads of the control cell beside the cells to come: `count` of them, and one each `every_s` of the cells' time.

    `took` is what its last loads took; `rest_s` is the rest before one. `ends`: the last of them has no cell behind it.
    """

    count: int = 0
    every_s: float | None = None
    took: Sequence[Took] = ()
    rest_s: float = 0.0
    ends: bool = False

    def beside(self, cells_s: float, more_s: float) -> float:
        """How many there are beside cells that take so long, one that follows a control `more_s` longer."""
        if not self.every_s:
            return self.count
        return self.count + cells_s / max(self.every_s - more_s, SHORTEST_SHARE * self.every_s)


NO_CONTROLS = Controls()


def controls_to_come(rule: Rule, seen: ControlsSeen, left: int, total: int, rest_s: float = 0.0) -> Controls:
    """Beside the last `left` loads of `total`."""
    if seen.position is None or left <= 0:
        return NO_CONTROLS
    count = rule.to_come(left, total, is_new=not seen.took)
    return Controls(count, rule.seconds, seen.took, rest_s, ends=rule.ends(total))


@dataclass(frozen=True)
class Forecast:
    """The pace and the time left; `low` to `high` hold it 9 times in 10. None is unknown."""

    seconds_per_cell: float | None = None
    seconds_left: float | None = None
    seconds_left_low: float | None = None
    seconds_left_high: float | None = None


def rests_s(cooldown_s: object, seen: Sequence[float], cells: int) -> float:
    """How long so many cells will rest before they begin: the time that is asked for, else as long as the last ones."""
    each = cooldown_s if isinstance(cooldown_s, int | float) else median(seen) if seen else 0.0
    return max(0, cells) * each


def forecast(
    history: Iterable[Took],
    cells: int,
    begun_s: float = 0.0,
    rests_s: float = 0.0,
    work: WorkLeft | None = None,
    controls: Controls = NO_CONTROLS,
) -> Forecast:
    """What `cells` will take if they are like the last ones; `begun_s` of it are over at the cell at hand, `rests_s` is
    what they rest between them.

    What a cell took is the sum of its attempts: one that fails and is tried again takes all of them. The spread counts
    twice: the mean itself is uncertain, and so is the sum of the cells to come. `work` says in what shares the cells to
    come ask and need what: those that ask the same are like one another, a longer prompt takes longer to read, and what
    comes before the first run is what cells took that needed the same (`loading.costs`). Beside them the control cell
    is loaded, and the cell after it needs a load again. The pace is that of the last attempts; `history` has the newest
    first.
    """
    took, work = _by_cell(history), work or WorkLeft()
    if not took:
        return Forecast()
    mean = fmean([cell.seconds for cell in took[:RECENT_ATTEMPTS]])
    parts = _parts(took, cells, work.in_order)
    cells_s = _sum_s(parts)
    more_s = _sum_s(_parts(took, 1, work.after_control or work.in_order)) - cells_s / (cells or 1)
    if count := controls.beside(cells_s, max(0.0, more_s)):
        parts = _parts_beside_controls(took, cells, work, controls, count)
        rests_s += count * controls.rest_s
    at_hand_s = cells_s / cells if cells else mean
    left = max(0.0, _sum_s(parts) - min(begun_s, at_hand_s)) + rests_s
    variance, df = _relative_variance(took, by_work=bool(work.in_order))
    if not df or not cells:
        return Forecast(mean, left)
    doubt = math.fsum(part.variance(variance) for part in parts)
    spread = 1.64 * (1 + 1.5 / df) * math.sqrt(doubt)
    return Forecast(mean, left, max(rests_s, left - spread), left + spread)


@dataclass(frozen=True)
class _Part:
    """Cells to come that ask the same, and what one takes by `told_by` cells like it; 0: by others."""

    cells: float
    seconds: float
    told_by: int
    error: float = ERROR_OF_OTHERS

    def variance(self, relative: float) -> float:
        """Of what all of them take."""
        own = relative * self.seconds**2 * (self.cells + self.cells**2 / max(1, self.told_by))
        return own if self.told_by else own + (self.error * self.seconds * self.cells) ** 2


def _by_cell(history: Iterable[Took]) -> list[Took]:
    found: dict[int, Took] = {}
    for attempt in history:
        of_cell = found.get(attempt.cell)
        if of_cell is not None:
            work = of_cell.work if of_cell.work.tokens is not None else attempt.work
            work = replace(work, needs=attempt.work.needs)  # a retry is a load of its own, which is the cell's as well
            seconds, asking_s = of_cell.seconds + attempt.seconds, of_cell.asking_s + attempt.asking_s
            found[attempt.cell] = Took(attempt.cell, seconds, work, asking_s)
        else:
            found[attempt.cell] = attempt
    return list(found.values())


def _sum_s(parts: Iterable[_Part]) -> float:
    return math.fsum(part.cells * part.seconds for part in parts)


def _parts_beside_controls(
    took: Sequence[Took], cells: int, work: WorkLeft, controls: Controls, count: float
) -> list[_Part]:
    """So many cells follow a load of the control cell. What that takes is told by its last ones, else by cells."""
    behind = max(0.0, min(cells, count - controls.ends))
    of_controls = [*controls.took, *(took if work.control or not controls.took else ())]
    return [
        *_parts(took, cells - behind, work.in_order),
        *_parts(took, behind, work.after_control or work.in_order),
        *_parts(of_controls, count, work.control),
    ]


def _parts(took: Sequence[Took], cells: float, work: Mapping[Work, float]) -> list[_Part]:
    total = math.fsum(work.values())
    if not total:
        return [_Part(cells, fmean([cell.seconds for cell in took]), len(took))]
    known = {cell.work.model for cell in took}
    errors = {asked: ERROR_OF_OTHERS if asked.model in known else ERROR_OF_OTHER_MODELS for asked in work}
    return [_Part(cells * share / total, *_expected(took, asked), errors[asked]) for asked, share in work.items()]


def _expected(took: Sequence[Took], work: Work) -> tuple[float, int]:
    """What a cell that asks and needs this takes, and how many like it say so; 0 where it is told by others."""
    if work.needs is None:
        return _alike_s(took, work)
    as_large = [_as_of(work, cell) for cell in took]
    loading = [Loaded(cell.work.model, cell.work.needs, cell.seconds - cell.asking_s) for cell in as_large]
    around_s, loads = costs.expected_s(loading, work.model, work.needs)
    of_model = [cell for cell in as_large if cell.work.model == work.model]
    asked = [Took(cell.cell, cell.asking_s, cell.work, cell.asking_s) for cell in of_model or as_large]
    asking_s, like_it = _alike_s(asked, work)
    return around_s + asking_s, min(loads, like_it) if of_model else 0


def _as_of(work: Work, cell: Took) -> Took:
    """What a cell of another model would take of this one, if it went by the parameters."""
    wanted, has = work.parameters, cell.work.parameters
    if cell.work.model == work.model or not wanted or not has:
        return cell
    return replace(cell, seconds=cell.seconds * wanted / has, asking_s=cell.asking_s * wanted / has)


def _alike_s(took: Sequence[Took], work: Work) -> tuple[float, int]:
    """The seconds of cells that ask this, and how many say so; 0 where they are told by others."""
    of_task = [cell for cell in took if cell.work.task == work.task]
    if not of_task:
        return fmean([cell.seconds for cell in took]), 0
    nearest = min({cell.work.at_once for cell in of_task}, key=lambda count: abs(math.log(count / work.at_once)))
    alike = [cell for cell in of_task if cell.work.at_once == nearest]
    asked, by_length = work.tokens, _by_length(alike)
    if not asked or not by_length:
        alike = alike[:RECENT_ATTEMPTS]
        return fmean([cell.seconds for cell in alike]), len(alike) if nearest == work.at_once else 0
    length = min(by_length, key=lambda tokens: abs(math.log(tokens / asked)))
    if _is_like(length, asked):
        same = by_length[length]
        return fmean([cell.seconds for cell in same]), len(same) if nearest == work.at_once else 0
    around_s = fmean(cell.seconds - cell.asking_s for cells in by_length.values() for cell in cells)
    asking_s = fmean(cell.asking_s for cell in by_length[length])
    return around_s + asking_s * (asked / length) ** _steepness(by_length), 0


def _is_like(one: int, other: int) -> bool:
    return abs(math.log(one / other)) < LIKE_LENGTH


def _by_length(took: Sequence[Took]) -> dict[int, list[Took]]:
    """Those whose prompt's length is known; lengths that are nearly the same are one."""
    found: dict[int, list[Took]] = {}
    for cell in sorted(took, key=lambda cell: cell.work.tokens or 0):
        if tokens := cell.work.tokens:
            last = next(reversed(found), None)
            found.setdefault(last if last is not None and _is_like(last, tokens) else tokens, []).append(cell)
    return found


def _steepness(by_length: Mapping[int, Sequence[Took]]) -> float:
    """The power of its length by which a prompt takes longer, by the shortest and the longest; of one length 1."""
    shortest, longest = min(by_length), max(by_length)
    low, high = (fmean(cell.asking_s for cell in by_length[tokens]) for tokens in (shortest, longest))
    if shortest == longest or low <= 0 or high <= 0:
        return 1.0
    return min(STEEPEST, max(0.0, math.log(high / low) / math.log(longest / shortest)))


def _relative_variance(took: Sequence[Took], *, by_work: bool) -> tuple[float, int]:
    """Of cells that ask the same about their mean, as a share of it, and its degrees of freedom."""
    groups = list(_alike(took)) if by_work else [took]
    squares, df = 0.0, 0
    for cells in groups:
        seconds = [cell.seconds for cell in cells]
        mean = fmean(seconds)
        squares += math.fsum((one / mean - 1) ** 2 for one in seconds) if mean else 0.0
        df += len(seconds) - 1
    return (squares / df if df else 0.0), df


def _alike(took: Sequence[Took]) -> Iterator[Sequence[Took]]:
    """Cells that ask the same."""
    by_kind: dict[Work, list[Took]] = {}
    for cell in took:
        by_kind.setdefault(replace(cell.work, tokens=None), []).append(cell)
    for cells in by_kind.values():
        yield from _by_length(cells).values()
        if others := [cell for cell in cells if not cell.work.tokens]:
            yield others
