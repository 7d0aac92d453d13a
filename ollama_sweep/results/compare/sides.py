"""What A and B mean: a database, a sweep file, a sweep's name, or FILE:NAME, each with @N for its N-th segment."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from ollama_sweep.core.errors import ConfigError, StorageError, nearest
from ollama_sweep.machine import places
from ollama_sweep.results.find import find_sweep, name_of, segment_of, split_segment
from ollama_sweep.store.reader import Reader
from ollama_sweep.store.rows import SweepRow

_SQLITE = b"SQLite format 3\0"
_SWEEP_FILES = (".yaml", ".yml")
_SHOWN = 8


@dataclass(frozen=True)
class Side:
    """A sweep of a database, all of it or one segment.

    `segment` is the number that people give (1 is the first), `segment_id` that of the database; it has `segments`.
    `surroundings` are those of its last segment, or of the one that was asked for. `positions` are the places of its
    plan that are compared; None for all.
    """

    name: str
    reader: Reader
    sweep: SweepRow
    segment: int | None
    segment_id: int | None
    segments: int
    surroundings: Mapping[str, object]
    is_last: bool = False
    positions: Sequence[int] | None = None

    @property
    def where(self) -> tuple[str, int, int | None]:
        """The same for two names of the same thing; of a sweep with one segment that one is all of it."""
        return str(self.reader.path.resolve()), self.sweep.sweep_id, self.segment_id if self.segments > 1 else None

    def words(self) -> str:
        """`sweep grid of sweeps.db, segment 2`."""
        of = f", segment {self.segment}" if self.segment is not None else ""
        return f"sweep {self.sweep.name} of {self.reader.path}{of}"

    def as_dict(self) -> dict[str, object]:
        """For machines."""
        return {
            "name": self.name, "database": str(self.reader.path), "sweep": self.sweep.name, "engine": self.sweep.engine,
            "segment": self.segment, "segments": self.segments, "machine": self.sweep.machine,
            "surroundings": dict(self.surroundings),
        }  # fmt: skip


@dataclass(frozen=True)
class _Meaning:
    """One way to read a name: what kind of thing it is, and where that stands. `sweep` None: the one that ran last."""

    kind: str
    database: Path
    sweep: str | None
    segment: int | None


def find_sides(a: str, b: str, db: Path, opened: ExitStack) -> tuple[Side, Side]:
    """Both, open for reading until `opened` is closed. Raises ConfigError, DatabaseInUse, StorageError."""
    readers: dict[Path, Reader] = {}

    def reader_of(path: Path) -> Reader:
        place = path.resolve()
        if place not in readers:
            readers[place] = opened.enter_context(Reader.open(path))
            opened.enter_context(readers[place].snapshot())
        return readers[place]

    known = reader_of(db) if places.look(db) is not None else None
    first, second = (_side(name, known, db, reader_of) for name in (a, b))
    if first.where == second.where:
        raise ConfigError(
            f"A and B are both {first.words()}; give two sweeps, or two segments of one ({_segments(first)})"
        )
    return first, second


def _segments(side: Side) -> str:
    if side.segments < 2:
        return "it has one"
    return f"{side.sweep.name}@1 {side.sweep.name}@{side.segments}"


def _side(name: str, known: Reader | None, db: Path, reader_of: Callable[[Path], Reader]) -> Side:
    found = list(dict.fromkeys(_meanings(name, known, db, reader_of)))
    if not found:
        raise ConfigError(_unknown(name, known, db, reader_of))
    sides = [(meaning, _opened(name, meaning, reader_of(meaning.database))) for meaning in found]
    if len({side.where for _, side in sides}) > 1:
        said = " and ".join(f"{meaning.kind} ({side.words()})" for meaning, side in sides)
        raise ConfigError(f"{name} is {said}; write ./{name} for a file, FILE:NAME for a sweep")
    return sides[0][1]


def _meanings(name: str, known: Reader | None, db: Path, reader_of: Callable[[Path], Reader]) -> Iterator[_Meaning]:
    """Everything that this name fits."""
    for base, segment in dict.fromkeys([(name, None), split_segment(name)]):
        yield from _plain(base, segment, known, db)
        for path, sweep in _with_file(base):
            if reader_of(path).sweep_if_there(sweep) is not None:
                yield _Meaning("FILE:NAME", path, sweep, segment)


def _plain(base: str, segment: int | None, known: Reader | None, db: Path) -> Iterator[_Meaning]:
    path = Path(base)
    there = _is_file(path)
    if there and _is_database(path):
        yield _Meaning("a database", path, None, segment)
    elif there and (path.suffix in _SWEEP_FILES or _reads_as_sweep(path)):
        yield _Meaning("a sweep file", db, name_of(base), segment)
    if known is not None and known.sweep_if_there(base) is not None:
        yield _Meaning("a sweep's name", db, base, segment)
    elif (
        not there and path.suffix in _SWEEP_FILES and known is not None and known.sweep_if_there(path.stem) is not None
    ):
        yield _Meaning("a sweep file", db, path.stem, segment)


def _with_file(base: str) -> Iterator[tuple[Path, str]]:
    """Every FILE:NAME in it whose file is a database."""
    for at in (place for place, sign in enumerate(base) if sign == ":"):
        path, sweep = Path(base[:at]), base[at + 1 :]
        if base[:at] and sweep and _is_file(path) and _is_database(path):
            yield path, sweep


def _is_file(path: Path) -> bool:
    found = places.look(path)
    return found is not None and not places.kind(found)


def _is_database(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            start = file.read(len(_SQLITE))
    except OSError as error:
        raise StorageError(f"{path}: cannot be read ({error.strerror})") from None
    return start == _SQLITE or (not start and path.suffix not in _SWEEP_FILES)


def _reads_as_sweep(path: Path) -> bool:
    from ollama_sweep.core import strict_yaml
    from ollama_sweep.machine import files

    try:
        root = strict_yaml.parse(files.read_text(path, 1), str(path))
    except ConfigError:
        return False
    return root is not None and isinstance(root.value, dict)


def _opened(name: str, meaning: _Meaning, reader: Reader) -> Side:
    row = find_sweep(reader, meaning.sweep)
    numbers = reader.segments_of(row.sweep_id)
    chosen = segment_of(reader, row, name, meaning.segment) if meaning.segment is not None else None
    last = chosen if chosen is not None else numbers[-1] if numbers else None
    return Side(
        name=name, reader=reader, sweep=row, segment=meaning.segment, segment_id=chosen, segments=len(numbers),
        surroundings=reader.segments().get(last, {}) if last is not None else {},
        is_last=meaning.sweep is None and len(reader.sweeps()) > 1,
    )  # fmt: skip


def _unknown(name: str, known: Reader | None, db: Path, reader_of: Callable[[Path], Reader]) -> str:
    """Why a name fits nothing, with the nearest one that would."""
    base, _ = split_segment(name)
    for path, sweep in _with_file(base):
        names = [row.name for row in reader_of(path).sweeps()]
        return f"{path} has no sweep {sweep}; {_listed(names)}.{nearest(sweep, names)}"
    found = places.look(Path(base))
    if found is not None:
        what = places.kind(found) or "no database and no sweep file"
        return f"{name} is {what}; a database, a sweep file, a sweep's name or FILE:NAME is wanted"
    if known is None:
        return f"{name} is no file, and there is no database {db} in which a sweep could have that name"
    names = [row.name for row in known.sweeps()]
    return f"{name} is no file, and no sweep of {db}; {_listed(names)}.{nearest(base, names)}"


def _listed(names: Sequence[str]) -> str:
    return f"it has {', '.join(names[:_SHOWN])}{' …' if len(names) > _SHOWN else ''}" if names else "it has none"
