"""Finds a sweep in a database, by its file, its name, or the one that ran last; its cells and the best, for Python."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ollama_sweep.core.errors import ConfigError
from ollama_sweep.store.reader import Reader
from ollama_sweep.store.rows import scout_of

if TYPE_CHECKING:
    from ollama_sweep.core.options import Scalar
    from ollama_sweep.core.outcome import CellResult
    from ollama_sweep.results.best import Best
    from ollama_sweep.store.rows import SweepRow


_SEGMENT = re.compile(r"(.+)@([0-9]{1,9})")


def split_segment(name: str) -> tuple[str, int | None]:
    """`grid@2` as `grid` and 2; None where it names no segment."""
    split = _SEGMENT.fullmatch(name)
    return (split[1], int(split[2])) if split else (name, None)


def segment_of(reader: Reader, row: SweepRow, name: str, number: int) -> int:
    """The database's number of a sweep's n-th segment, 1 is the first; `name` is how it was asked for.

    Raises ConfigError.
    """
    numbers = reader.segments_of(row.sweep_id)
    if not 1 <= number <= len(numbers):
        known = "none" if not numbers else "one, @1" if len(numbers) == 1 else f"@1 to @{len(numbers)}"
        raise ConfigError(f"{name}: sweep {row.name} of {reader.path} has no segment {number}; it has {known}")
    return numbers[number - 1]


@dataclass(frozen=True)
class Part:
    """A sweep, all of it or its n-th segment: `number` counts from 1, `segment_id` is that of the database."""

    row: SweepRow
    number: int | None = None
    segment_id: int | None = None


def find_part(reader: Reader, config: str | None) -> Part:
    """The sweep of a CONFIG or a name, with @N for its N-th segment. Raises ConfigError."""
    name, number = split_segment(config) if config is not None else (None, None)
    if number is None or reader.sweep_if_there(str(config)) is not None or Path(str(config)).is_file():
        return Part(find_sweep(reader, config))
    row = find_sweep(reader, name)
    return Part(row, number, segment_of(reader, row, str(config), number))


def replayed_words(row: SweepRow) -> str:
    """A line that says of a replayed sweep what it is; "" for one that was measured."""
    replays = row.spec.get("replays")
    return f"Replayed from {replays}: nothing of it was measured here." if replays else ""


def find_sweep(reader: Reader, config: str | None) -> SweepRow:
    """The sweep of a CONFIG or a name; left out, the one that ran last. Raises ConfigError, also for a pair."""
    found = find_sweeps(reader, config)
    if len(found) > 1:
        names = " or ".join(row.name for row in found)
        raise ConfigError(f"{pair_of(found)} is a pair of two sweeps; name one of them: {names}")
    return found[0]


def find_sweeps(reader: Reader, config: str | None) -> list[SweepRow]:
    """The same; of a pair both sweeps, by the pair's name or its file. Raises ConfigError."""
    if config is None:
        last = reader.last_sweep()
        if last is None:
            raise ConfigError("no sweep has run in this database yet. Start with: ollama-sweep run CONFIG")
        return _arms(reader, last.in_pair.pair) if last.in_pair else [last]
    names = {row.name for row in reader.sweeps()}
    if config in names:
        return [reader.sweep(config)]
    name, is_pair = _meant(config)
    arms = _arms(reader, name) if is_pair or name not in names else []
    if not arms and name not in names and scout_of(name) in names:
        return [reader.sweep(scout_of(name))]  # its own engine has measured nothing yet
    return arms or [reader.sweep(name)]


def apart(db: Path, configs: Sequence[str]) -> list[Sequence[str]]:
    """What is shown together: these sweeps, but those of a pair one by one: no mean and no picture mixes its arms."""
    if len(configs) > 1:
        return [configs]
    with Reader.open(db) as reader:
        found = find_sweeps(reader, configs[0] if configs else None)
    return [(row.name,) for row in found] if len(found) > 1 else [configs]


def pair_of(rows: Sequence[SweepRow]) -> str:
    """The name of the pair that these are both sweeps of, "" for anything else."""
    found = {row.in_pair.pair for row in rows if row.in_pair}
    return found.pop() if len(rows) > 1 and len(found) == 1 and all(row.in_pair for row in rows) else ""


def pair_words(rows: Sequence[SweepRow]) -> str:
    """`Pair grid: a is num_thread 1, b is num_thread 2`."""
    said = ", ".join(f"{row.in_pair.letter} is {row.in_pair.what}" for row in rows if row.in_pair)
    return f"Pair {pair_of(rows)}: {said}"


def _arms(reader: Reader, pair: str) -> list[SweepRow]:
    """The sweeps of a pair, a first; one where the other was not begun."""
    found = [row for row in reader.sweeps() if row.in_pair and row.in_pair.pair == pair]
    return sorted(found, key=lambda row: row.name)


def name_of(config: str) -> str:
    """The name of the sweep in a sweep file; of a file that is not there the one it would have. Raises ConfigError."""
    return _meant(config)[0]


def _meant(config: str) -> tuple[str, bool]:
    """That name, and whether the file says that it is a pair's."""
    path = Path(config)
    if not path.is_file():
        return path.stem if path.suffix in (".yaml", ".yml") else config, False
    from ollama_sweep.core import strict_yaml
    from ollama_sweep.machine import files

    root = strict_yaml.parse(files.read_text(path, 1), str(path))
    entries = root.value if root is not None and isinstance(root.value, dict) else {}
    return str(entries["name"].value) if "name" in entries else path.stem, "pair" in entries


@dataclass(frozen=True)
class SweepBest:
    """The best cells of a sweep; `text` says the same in words."""

    sweep: str
    cells: Best
    text: str


def rows(db: Path | str, sweep: str | None = None) -> list[dict[str, Scalar]]:
    """A row for each cell with every column of the view `results`: `pandas.DataFrame(rows("sweeps.db"))`.

    The sweep is named by its name or file; left out, it is the one that ran last. Raises ConfigError.
    """
    from ollama_sweep.results.export import long_rows

    return long_rows(_results(db, sweep)[1])


def best(db: Path | str, sweep: str | None = None, metric: str | None = None) -> SweepBest:
    """The best cells of a sweep, by that of its main task or by a column of the view. Raises ConfigError."""
    from ollama_sweep.results.best import best_cells, describe_best
    from ollama_sweep.results.likely.scouted import scouted_map, told

    with Reader.open(Path(db)) as reader, reader.snapshot():
        row = find_sweep(reader, sweep)
        results, spreads = list(reader.results(row.sweep_id)), reader.spreads(row.sweep_id)
        scouted = scouted_map(reader, row)
    text = told(describe_best(results, metric, spreads), row, scouted)
    return SweepBest(row.name, best_cells(results, metric, spreads), text)


def _results(db: Path | str, sweep: str | None) -> tuple[str, list[CellResult]]:
    with Reader.open(Path(db)) as reader, reader.snapshot():
        row = find_sweep(reader, sweep)
        return row.name, list(reader.results(row.sweep_id))
