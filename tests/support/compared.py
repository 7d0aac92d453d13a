"""Sweeps to compare, of which the truth is known: every cell in so many loads, by a seed."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import store_helpers

from ollama_sweep.core.judge import NOISY_WIDTH
from ollama_sweep.core.outcome import Effective, Flag, Outcome, Purpose, Status
from ollama_sweep.core.stats import median
from ollama_sweep.core.summary import summarize
from ollama_sweep.store import attempts
from ollama_sweep.store.writer import Store, utc_now

RUNS = 3
LOAD_SIGMA, RUN_SIGMA = 0.012, 0.015


@dataclass(frozen=True)
class Made:
    """A sweep. `factor` says how fast a cell is by its position, `special` how else one ends.

    The first cell is measured as the control so many times more, and looked at again in so many loads.
    """

    name: str
    seed: int = 1
    factor: Callable[[int], float] = lambda position: 1.0
    loads: int = 2
    contexts: Sequence[int] = (1024, 2048, 4096, 8192)
    batches: Sequence[int] = (64, 128, 256, 512)
    special: Mapping[int, Outcome] = field(default_factory=dict)
    engine: str = "fake"
    machine: str = "a machine"
    controls: int = 0
    looks: int = 0
    run_sigma: float = RUN_SIGMA
    digest: str = store_helpers.DIGEST
    prompt: str = store_helpers.PROMPT


def ok(rates: Sequence[float], *flags: Flag) -> Outcome:
    """A measured cell with these rates, without any flag that is not given."""
    runs = tuple(store_helpers.run(number + 1, rate=rate) for number, rate in enumerate(rates))
    effective = Effective(4096, 64, 1000, 900, 1.5)
    return Outcome(Status.OK, flags=frozenset(flags), runs=runs, summary=summarize(runs), effective=effective)


def save(path: Path, made: Made) -> Path:
    """Write the sweep into a database, its surroundings as a segment of its own."""
    cells = [
        replace(cell, key=f"c1:{made.name}{number:08d}", model_digest=made.digest, prompt_hash=made.prompt)
        for number, cell in enumerate(store_helpers.grid(made.contexts, made.batches))
    ]
    header = replace(store_helpers.header(made.name, engine=made.engine), machine=made.machine)
    with Store.open(path, say=lambda line: None) as store:
        sweep = store.register_sweep(header, cells, timeout_s=600, repeats_minimum=RUNS, retry=frozenset())
        _measure(store, sweep, made, made.name)
    return path


def again(path: Path, made: Made) -> Path:
    """The same cells once more in other surroundings: a second segment of the sweep that is there."""
    with Store.open(path, say=lambda line: None) as store:
        ((sweep,),) = store_helpers.rows(path, "SELECT id FROM sweeps WHERE name = ?", made.name)
        assert isinstance(sweep, int)
        _measure(store, sweep, made, f"{made.name} again")
    return path


def _measure(store: Store, sweep: int, made: Made, version: str) -> None:
    """All attempts in one transaction, which saves the disk."""
    store.segment(sweep, {"engine_version": version})
    chance, now = random.Random(made.seed), utc_now()
    with store.transaction() as connection:
        places = connection.execute("SELECT position, cell_id FROM plan WHERE sweep_id = ? ORDER BY position", (sweep,))
        for position, cell in places.fetchall():
            for outcome in _outcomes(made, position, chance):
                attempt = attempts.begin(connection, sweep, cell, 600.0, now, None)
                attempts.finish(connection, attempt, outcome, outcome.status, now)
            for outcome in _outcomes(replace(made, loads=made.controls), position, chance) if not position else []:
                attempt = attempts.begin(connection, sweep, cell, 600.0, now, None, Purpose.CONTROL)
                attempts.end(connection, attempt, outcome, now)
            for outcome in _outcomes(replace(made, loads=made.looks), position, chance) if not position else []:
                attempt = attempts.begin(connection, sweep, cell, 600.0, now, None, Purpose.SECOND_LOOK)
                connection.execute("UPDATE attempts SET choice = 1 WHERE id = ?", (attempt,))
                attempts.end(connection, attempt, outcome, now)
                attempts.update_cell(connection, cell, attempt, outcome, outcome.status)


def _outcomes(made: Made, position: int, chance: random.Random) -> list[Outcome]:
    """One for each load; of a cell that ends otherwise only that."""
    if position in made.special:
        return [made.special[position]]
    middle = 100 * (1 + position / 10) * made.factor(position)
    levels = [middle * math.exp(chance.gauss(0, LOAD_SIGMA)) for _ in range(made.loads)]
    return [_load([level * math.exp(chance.gauss(0, made.run_sigma)) for _ in range(RUNS)]) for level in levels]


def _load(rates: Sequence[float]) -> Outcome:
    """Flagged as the program flags it."""
    return ok(rates, *([Flag.NOISY] if max(rates) - min(rates) > NOISY_WIDTH * median(rates) else []))
