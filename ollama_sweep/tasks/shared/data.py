"""Data files of people, read whole: JSON, JSONL, CSV, parquet, text and YAML prompt sets, with the place of every item.

A path is looked for from the working directory; what begins with `prompts/` also in what this program ships.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from ollama_sweep.core import separated, strict_yaml
from ollama_sweep.core.errors import ConfigError, nearest
from ollama_sweep.core.strict_yaml import Node
from ollama_sweep.core.text import half_in, one_line, strict_json
from ollama_sweep.machine.files import check_file, expanded, read_text

LIMIT_MB = 64
YAML_LIMIT_MB = 4
MAX_ITEMS = 1_000_000
FOLDER = "prompts"
SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".parquet", ".yaml", ".yml", ".txt")
TITLE = "act"
"""The column that says what a prompt is about in `fka/awesome-chatgpt-prompts`: act, prompt, …"""
_SET_KEYS = ("version", "system", "options", "prompts")
_LISTS = ("items", "prompts", "questions", "rows", "data")
_PACKAGE = Path(__file__).parents[2]


@dataclass(frozen=True)
class Record:
    """One item of a file: its fields, and where it stands (`FILE:LINE`, `FILE: item 3`).

    `lines` are those of single fields where the file's format tells them. `made_id` is the id of an item in a file
    where no item has one.
    """

    fields: Mapping[str, object]
    where: str
    lines: Mapping[str, int] = field(default_factory=dict)
    made_id: str = ""

    def error(self, message: str, name: str = "") -> ConfigError:
        """The error that names this item, or the line of one of its fields."""
        if name in self.lines:
            return ConfigError(message, f"{self.where.rpartition(':')[0]}:{self.lines[name]}")
        return ConfigError(message, self.where)

    def text(self, name: str) -> str:
        """A field that must be there and hold text. Raises ConfigError."""
        value = self.fields.get(name)
        if value is None:
            known = ", ".join(one_line(known) for known in self.fields) or "nothing"
            raise self.error(f"{name} is missing; the item has {known}.{nearest(name, self.fields)}")
        if not isinstance(value, str):
            raise self.error(f"{name}: {_shown(value)} is {_kind(value)}; it must be text", name)
        if not value.strip():
            raise self.error(f"{name}: is empty", name)
        return value

    def optional_text(self, name: str) -> str:
        """A field that may be missing, null or empty ("" then) and else holds text. Raises ConfigError."""
        return "" if self.fields.get(name) in (None, "") else self.text(name)

    def identifier(self) -> str:
        """The field `id`, text or a whole number, as text; `made_id` where the file has no ids. Raises ConfigError."""
        if self.made_id:
            return self.made_id
        name, value = "id", self.fields.get("id")
        return str(value) if isinstance(value, int) and not isinstance(value, bool) else self.text(name).strip()


@dataclass(frozen=True)
class PromptSet:
    """The items of a file; a YAML file also gives the set's version, system prompt and request options."""

    records: tuple[Record, ...]
    version: int | None = None
    system: str = ""
    options: Mapping[str, Node] = field(default_factory=dict)


def folders() -> tuple[Path, ...]:
    """Where prompt sets may lie: `prompts/` of the working directory, then what is shipped."""
    installed = _PACKAGE / "shipped_prompts"
    return (Path(FOLDER), installed if installed.is_dir() else _PACKAGE.parent / FOLDER)


def shipped(name: str) -> Path | None:
    """The file or folder `prompts/NAME` of the working directory, else the shipped one; None where there is none."""
    inner = name.removeprefix(f"{FOLDER}/")
    return next((folder / inner for folder in folders() if (folder / inner).exists()), None)


def located(asked: Node, name: str) -> Path:
    """The path that a key names; where nothing is there, the shipped file of that name if there is one."""
    text = asked.line_of_text(name)
    path = expanded(text)
    found = shipped(text) if text.startswith(f"{FOLDER}/") and not path.exists() else None
    return found or path


def read_records(path: Path, asked: Node | None = None, columns: Sequence[str] = ()) -> list[Record]:
    """The items of a file, at least one; its ending says its format. `asked` is the key that names it.

    Of parquet only `columns` are read, where any are named. Raises ConfigError with the line or the item.
    """
    return list(read_set(path, asked, columns).records)


def read_set(path: Path, asked: Node | None = None, columns: Sequence[str] = ()) -> PromptSet:
    """The items of a file with what a YAML prompt set says beside them. Raises ConfigError."""
    suffix = path.suffix.lower()
    check_file(path, asked)
    if suffix not in SUFFIXES:
        raise _at(path, f"is no data file; its name must end with {', '.join(SUFFIXES)}", asked)
    if suffix in (".yaml", ".yml"):
        found = _yaml_set(path, asked)
    elif suffix == ".parquet":
        found = PromptSet(tuple(identified(_parquet(path, asked, columns))))
    else:
        read = {".csv": _csv, ".txt": _text_lines, ".json": _json}.get(suffix, _json_lines)
        found = PromptSet(tuple(identified(read(read_text(path, LIMIT_MB, asked), str(path)))))
    if not found.records:
        raise _at(path, "has no items", asked)
    return found


def identified(records: Iterable[Record]) -> list[Record]:
    """The same items, each with a `made_id` where none has an id: its `act` where all differ, else its number.

    The number is that of its line or row, by which messages name it.
    """
    found = list(records)
    if any("id" in record.fields for record in found):
        return found
    titles = [" ".join(str(record.fields.get(TITLE) or "").split()) for record in found]
    if not all(titles) or len(set(titles)) < len(titles):
        titles = [record.where.replace(":", " ").rpartition(" ")[2] for record in found]
    return [replace(record, made_id=title) for record, title in zip(found, titles, strict=True)]


def read_table(path: Path, asked: Node | None = None) -> list[tuple[list[str], str]]:
    """The rows of a CSV file without a header, each with its place. Raises ConfigError."""
    return list(_csv_rows(read_text(path, LIMIT_MB, asked), str(path)))


def plain(node: Node) -> object:
    """A YAML value without its places."""
    if isinstance(node.value, dict):
        return {name: plain(inner) for name, inner in node.value.items()}
    return [plain(inner) for inner in node.value] if isinstance(node.value, list) else node.value


def _at(path: Path, what: str, asked: Node | None) -> ConfigError:
    return asked.error(f"{path}: {what}") if asked else ConfigError(what, str(path))


def _shown(value: object) -> str:
    return one_line(json.dumps(value, ensure_ascii=False, default=str))


def _kind(value: object) -> str:
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, int | float):
        return "a number"
    return "an object" if isinstance(value, Mapping) else "a list" if isinstance(value, list) else "no text"


# -- JSON ------------------------------------------------------------------------------------------------------------


def _json(text: str, where: str) -> Iterator[Record]:
    """A list of objects, or an object with one such list; lines of objects in a file named .json are taken, too."""
    try:
        value = strict_json(text)
    except json.JSONDecodeError as error:
        if error.msg == "Extra data":
            yield from _json_lines(text, where)
            return
        raise ConfigError(f"is not valid JSON: {error.msg} (column {error.colno})", f"{where}:{error.lineno}") from None
    except ValueError as error:
        raise ConfigError(f"is not valid JSON: {error}", where) from None
    if isinstance(value, dict):
        value = next((value[name] for name in _LISTS if isinstance(value.get(name), list)), [value])
    if not isinstance(value, list):
        raise ConfigError(f"holds {_shown(value)}; it must be a list of objects", where)
    for number, item in enumerate(value, 1):
        yield _record(item, f"{where}: item {number}")


def _json_lines(text: str, where: str) -> Iterator[Record]:
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                item = strict_json(line)
            except json.JSONDecodeError as error:
                message = f"is not valid JSON: {error.msg} (column {error.colno}); every line must be one JSON object"
                raise ConfigError(message, f"{where}:{number}") from None
            except ValueError as error:
                raise ConfigError(f"is not valid JSON: {error}", f"{where}:{number}") from None
            yield _record(item, f"{where}:{number}")


def _record(item: object, where: str) -> Record:
    if not isinstance(item, dict):
        raise ConfigError(f"{_shown(item)} is {_kind(item)}; an item must be an object with named fields", where)
    if found := half_in(item):
        raise ConfigError(found, where)
    return Record(item, where)


# -- text and CSV ----------------------------------------------------------------------------------------------------


def _text_lines(text: str, where: str) -> Iterator[Record]:
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            yield Record({"text": line.strip()}, f"{where}:{number}")


def _csv_rows(text: str, where: str) -> Iterator[tuple[list[str], str]]:
    try:
        for row, line in separated.rows(text):
            yield row, f"{where}:{line}"
    except separated.NotRows as error:
        raise ConfigError(f"is not valid CSV: {error}", f"{where}:{error.line}") from None


def _csv(text: str, where: str) -> Iterator[Record]:
    rows = _csv_rows(text, where)
    header, place = next(rows, ([], where))
    names = [name.strip() for name in header]
    if len(set(names)) < len(names):
        raise ConfigError(f"the header names a column twice: {one_line(', '.join(names))}", place)
    for row, here in rows:
        if len(row) != len(names):
            raise ConfigError(f"has {len(row)} columns; the header has {len(names)}", here)
        yield Record(dict(zip(names, row, strict=True)), here)


# -- parquet ---------------------------------------------------------------------------------------------------------


def _parquet(path: Path, asked: Node | None, columns: Sequence[str]) -> Iterator[Record]:
    if check_file(path, asked) > LIMIT_MB << 20:
        raise _at(path, f"is larger than {LIMIT_MB} MB, which is the limit", asked)
    try:
        import pyarrow as arrow
        from pyarrow import parquet
    except ImportError:
        raise _at(path, "needs the package pyarrow: pip install 'ollama-sweep[data]'", asked) from None
    try:
        with parquet.ParquetFile(path) as file:
            if file.metadata.num_rows > MAX_ITEMS:
                raise _at(path, f"has {file.metadata.num_rows:,} rows; the limit is {MAX_ITEMS:,}", asked)
            wanted = [name for name in file.schema_arrow.names if not columns or name in columns]
            rows: list[dict[str, object]] = file.read(columns=wanted).to_pylist()
    except (arrow.ArrowException, OSError, ValueError) as error:
        raise _at(path, f"is not a readable parquet file ({one_line(str(error))})", asked) from None
    for number, row in enumerate(rows, 1):
        yield Record(row, f"{path}: row {number}")


# -- YAML prompt sets ------------------------------------------------------------------------------------------------


def _yaml_set(path: Path, asked: Node | None) -> PromptSet:
    root = strict_yaml.parse(read_text(path, YAML_LIMIT_MB, asked), str(path))
    if root is None:
        raise _at(path, "the file is empty; a prompt set needs version and prompts", asked)
    if not isinstance(root.value, dict):
        raise root.error("a prompt set is made of the keys version, system, options and prompts")
    for name, node in root.value.items():
        if name not in _SET_KEYS:
            raise node.error(
                f"unknown key {one_line(name)}; known are {', '.join(_SET_KEYS)}.{nearest(name, _SET_KEYS)}"
            )
    version, prompts = (_needed(root, name) for name in ("version", "prompts"))
    if not isinstance(prompts.value, list):
        raise prompts.error("prompts: must be a list of items with id and prompt")
    options = root.value.get("options")
    if options and not isinstance(options.value, dict):
        raise options.error("options: must be names and values such as num_predict: 100")
    return PromptSet(
        records=tuple(_yaml_record(node) for node in prompts.value),
        version=int(version.within("version", int, 1, 1_000_000)),
        system=root.value["system"].text("system") if "system" in root.value else "",
        options=options.value if options and isinstance(options.value, dict) else {},
    )


def _needed(root: Node, name: str) -> Node:
    assert isinstance(root.value, dict)
    if name not in root.value:
        raise root.error(f"{name} is missing; a prompt set needs version and prompts")
    return root.value[name]


def _yaml_record(node: Node) -> Record:
    if not isinstance(node.value, dict):
        raise node.error("an item must have named fields such as id and prompt")
    fields = {name: plain(inner) for name, inner in node.value.items()}
    return Record(fields, node.place, {name: inner.line for name, inner in node.value.items()})
