"""The files of a sweep of very many cells: the same as `pictures` writes, and never a row for each cell in memory."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from ollama_sweep.core.errors import SweepError
from ollama_sweep.core.options import Scalar
from ollama_sweep.core.outcome import Status
from ollama_sweep.machine.files import clear_leftovers, write_whole
from ollama_sweep.results.export import csv_cell, finite
from ollama_sweep.results.grids import Grid, file_suffixes
from ollama_sweep.results.pictures import folder_of, short
from ollama_sweep.results.plots.shared.figures import all_written, tried

if TYPE_CHECKING:
    from ollama_sweep.results.large.columns import Part
    from ollama_sweep.store.reader import Reader
    from ollama_sweep.store.rows import SweepRow


_SOUND = frozenset({str, int, float, type(None)})
"""The types of what can be read; a text that is not UTF-8 has another."""
_REMEMBERED = 100


class Stopped(Exception):
    """The person does not want to wait for the files."""


def draw_sweep(
    reader: Reader, row: SweepRow, folder: Path, *, metric: str | None = None, suffix: str = ".png"
) -> list[Path]:
    """Write both tables and the pictures of a sweep; their paths, pictures first. Raises ConfigError, StorageError."""
    from ollama_sweep.results.large import columns

    parts = list(columns.parts_of(columns.read(reader, row, metric), row.machine))
    target = folder_of(row, folder)
    pictures = all_written(draw_each(parts, target, suffix=suffix))
    return [*pictures, *save_tables(reader, row, parts, target)]


def draw_each(parts: Sequence[Part], target: Path, *, suffix: str = ".png") -> Iterator[Path | SweepError]:
    """Draw the pictures into the sweep's folder: the path of each, or why there is none."""
    from ollama_sweep.results.plots.shared import heatmap_figure

    clear_leftovers(target)
    for part, name in zip(parts, _suffixes(parts), strict=True):
        what = "highlighted" if part.is_own else part.metric.name
        path = target / f"heatmap_{what}{name}{suffix}"
        yield tried(path, lambda part=part, path=path: heatmap_figure.write(part.drawn(), path))  # type: ignore[misc]


def save_tables(
    reader: Reader,
    row: SweepRow,
    parts: Sequence[Part],
    target: Path,
    is_stopped: Callable[[], bool] = lambda: False,
) -> list[Path]:
    """Write the tables and `results.csv`, each whole or not at all; their paths. Raises StorageError, Stopped."""
    paths = []
    for part, name in zip(parts, _suffixes(parts), strict=True):
        stem = "results_table" if part.is_own else f"results_table_{part.metric.name}"
        paths.append(target / f"{stem}{name}.csv")
        _write(paths[-1], _table(part), is_stopped)
    paths.append(target / "results.csv")
    _write(paths[-1], _long(reader, row), is_stopped)
    return paths


def _suffixes(parts: Sequence[Part]) -> list[str]:
    return file_suffixes([Grid(part.field.about.combination, "", (), (), {}) for part in parts])


def _write(path: Path, rows: Iterable[Sequence[Scalar]], is_stopped: Callable[[], bool]) -> None:
    def write(stream: BinaryIO) -> None:
        text = io.TextIOWrapper(stream, encoding="utf-8", newline="", write_through=False)
        writer = csv.writer(text, lineterminator="\n")
        for row in rows:
            if is_stopped():
                raise Stopped
            writer.writerow([_guarded(value) if type(value) is str else value for value in row])
        text.flush()
        text.detach()

    write_whole(path, write)


def _guarded(text: str) -> str:
    """A text as it stands in a CSV file; most are the same in row after row."""
    return _guarded_before(text) if len(text) <= _REMEMBERED else csv_cell(text)


@lru_cache(maxsize=4096)
def _guarded_before(text: str) -> str:
    return csv_cell(text)


def _table(part: Part) -> Iterator[list[Scalar]]:
    about, words = part.field.about, part.words
    yield ["num_batch", *about.columns]
    for y, values, labels in zip(about.rows, part.field.values.tolist(), part.labels.tolist(), strict=True):
        yield [y, *(short(value) if value == value else words[label] or None
                    for value, label in zip(values, labels, strict=True))]  # fmt: skip


def _long(reader: Reader, row: SweepRow) -> Iterator[Sequence[Scalar]]:
    names = reader.result_columns()
    yield names
    status, known = names.index("status"), set(Status)
    for rows in reader.in_parts(row.sweep_id, names):
        for one in rows:
            if one[status] not in known:
                continue  # `columns` has noted that it cannot be read
            is_sound = _SOUND.issuperset(map(type, one))
            sound = one if is_sound else reader.checked_row(names, one)
            yield [finite(value) if type(value) is float else value for value in sound]
