"""All columns of the view `results` as Apache Parquet, part by part: never all rows in memory.

Whole numbers, numbers and texts have types of their own, times are timestamps in UTC, and what is unknown is null. What
a column means and its unit stand in the metadata of each field, and once more as JSON in that of the file, for programs
that do not show those of fields.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, BinaryIO

from ollama_sweep.core.errors import ConfigError
from ollama_sweep.core.outcome import Status
from ollama_sweep.results.export import finite
from ollama_sweep.results.formats.columns import Column, described, names
from ollama_sweep.store.values import BROKEN, moment

if TYPE_CHECKING:
    import pyarrow

    from ollama_sweep.store.reader import Reader
    from ollama_sweep.store.rows import SweepRow

PARTS_IN_A_GROUP = 20
"""So many parts of the reader become one row group: large enough to be read quickly, small enough for any memory."""
_SOUND = frozenset({str, int, float, type(None)})
_TIMES = ("started_at", "finished_at")


def check() -> None:
    """Raises ConfigError with what to install, where that is missing."""
    try:
        import pyarrow.parquet  # noqa: F401 - only whether it is there
    except ImportError:
        raise ConfigError("parquet needs pyarrow. Run: pip install 'ollama-sweep[parquet]'", "--format") from None


def writing(reader: Reader, rows: Sequence[SweepRow]) -> Callable[[BinaryIO], None]:
    """What writes all cells of these sweeps to a stream."""
    import pyarrow.parquet

    columns = described(reader.result_types())
    schema = _schema(columns, rows)

    def write(stream: BinaryIO) -> None:
        with pyarrow.parquet.ParquetWriter(stream, schema) as writer:
            group: list[pyarrow.RecordBatch] = []
            for batch in _batches(reader, rows, columns, schema):
                group.append(batch)
                if len(group) == PARTS_IN_A_GROUP:
                    writer.write_table(pyarrow.Table.from_batches(group, schema))
                    group.clear()
            if group:
                writer.write_table(pyarrow.Table.from_batches(group, schema))

    return write


def _schema(columns: Iterable[Column], rows: Sequence[SweepRow]) -> pyarrow.Schema:
    import pyarrow

    columns = list(columns)
    fields = [
        pyarrow.field(column.name, _type(column), metadata={"description": column.words, "unit": column.unit})
        for column in columns
    ]
    told = {
        "sweeps": [{"name": row.name, "engine": row.engine, "machine": row.machine} for row in rows],
        "columns": {column.name: {"description": column.words, "unit": column.unit} for column in columns},
    }
    return pyarrow.schema(fields, metadata={"ollama_sweep": json.dumps(told, ensure_ascii=True)})


def _type(column: Column) -> pyarrow.DataType:
    import pyarrow

    if column.name in _TIMES:
        return pyarrow.timestamp("us", tz="UTC")
    kinds: Mapping[str, pyarrow.DataType] = {"INTEGER": pyarrow.int64(), "REAL": pyarrow.float64(),
                                             "TEXT": pyarrow.string(), "BOOLEAN": pyarrow.bool_()}  # fmt: skip
    return kinds[column.kind]


def _batches(
    reader: Reader, rows: Sequence[SweepRow], columns: Sequence[Column], schema: pyarrow.Schema
) -> Iterator[pyarrow.RecordBatch]:
    import pyarrow

    wanted = names(columns)
    status, known = wanted.index("status"), set(Status)
    for row in rows:
        for part in reader.in_parts(row.sweep_id, wanted):
            sound = [_checked(reader, wanted, one) for one in part if _is_known(reader, one[status], known)]
            turned = list(zip(*sound, strict=True)) if sound else [()] * len(wanted)
            arrays = [
                pyarrow.array([_value(reader, column, value) for value in values], type=field.type)
                for column, field, values in zip(columns, schema, turned, strict=True)
            ]
            yield pyarrow.RecordBatch.from_arrays(arrays, schema=schema)


def _is_known(reader: Reader, status: object, known: set[Status]) -> bool:
    """A cell whose status cannot be read is left out, as in every other form."""
    if status in known:
        return True
    reader.cannot_read("status of a cell")
    return False


def _checked(reader: Reader, wanted: Sequence[str], row: tuple[Any, ...]) -> Sequence[Any]:
    return row if _SOUND.issuperset(map(type, row)) else reader.checked_row(wanted, row)


def _value(reader: Reader, column: Column, value: Any) -> Any:
    """The value in the column's type; null, and noted, for one that is none of it."""
    if value is None:
        return None
    try:
        return moment(value) if column.name in _TIMES else _READ[column.kind](value)
    except BROKEN:
        reader.cannot_read(f"{column.name} of a cell")
        return None


def _whole(value: Any) -> int:
    if not isinstance(value, int | float) or value != int(value) or abs(value) >= 2**63:
        raise ValueError("no whole number")
    return int(value)


def _number(value: Any) -> Any:
    if not isinstance(value, int | float):
        raise TypeError("no number")
    return finite(float(value))


def _flag(value: Any) -> bool:
    if value not in (0, 1):
        raise ValueError("neither true nor false")
    return bool(value)


_READ: Mapping[str, Callable[[Any], Any]] = {"INTEGER": _whole, "REAL": _number, "TEXT": str, "BOOLEAN": _flag}
