"""Files that people give: every format, and what they are told when something is wrong with one."""

from __future__ import annotations

import csv
import json
import tomllib
from collections.abc import Callable
from pathlib import Path

import pyarrow as arrow
import pytest
from ollama_fixture import ROOT
from pyarrow import parquet

from ollama_sweep.core.errors import ConfigError
from ollama_sweep.core.strict_yaml import Node
from ollama_sweep.tasks.shared import data
from ollama_sweep.tasks.shared.data import Record

ROWS = [{"id": "a", "text": "one"}, {"id": "b", "text": "two"}]


def write(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def as_parquet(folder: Path) -> Path:
    path = folder / "rows.parquet"
    parquet.write_table(arrow.Table.from_pylist(ROWS), path)
    return path


FORMATS: dict[str, Callable[[Path], Path]] = {
    "jsonl": lambda folder: write(folder, "rows.jsonl", "".join(json.dumps(row) + "\n\n" for row in ROWS)),
    "json": lambda folder: write(folder, "rows.json", json.dumps(ROWS, indent=1)),
    "json with a list inside": lambda folder: write(folder, "rows.json", json.dumps({"items": ROWS})),
    "lines in .json": lambda folder: write(folder, "rows.json", "\n".join(json.dumps(row) for row in ROWS)),
    "csv": lambda folder: write(folder, "rows.csv", "id,text\na,one\nb,two\n"),
    "csv of Windows": lambda folder: write(folder, "rows.csv", b"\xef\xbb\xbfid,text\r\na,one\r\nb,two\r\n"),
    "yaml": lambda folder: write(
        folder, "rows.yaml", "version: 1\nprompts:\n  - {id: a, text: one}\n  - {id: b, text: two}\n"
    ),
    "parquet": as_parquet,
}


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_the_same_items(name: str, tmp_path: Path) -> None:
    path = FORMATS[name](tmp_path)
    records = data.read_records(path)
    assert [dict(record.fields) for record in records] == ROWS
    assert all(record.where.startswith(str(path)) for record in records)


def test_a_text_file_has_a_row_a_line(tmp_path: Path) -> None:
    records = data.read_records(write(tmp_path, "rows.txt", "first\n\n  second  \n"))
    assert [record.text("text") for record in records] == ["first", "second"]
    assert records[1].where.endswith("rows.txt:3")


def test_of_parquet_only_the_wanted_columns_are_read(tmp_path: Path) -> None:
    records = data.read_records(as_parquet(tmp_path), columns=("text", "label"))
    assert [dict(record.fields) for record in records] == [{"text": "one"}, {"text": "two"}]


def test_a_quoted_text_of_csv_may_go_over_lines_and_the_next_place_is_right(tmp_path: Path) -> None:
    path, limit = write(tmp_path, "rows.csv", 'id,text\na,"one\nmore"\nb,two\n'), csv.field_size_limit()
    first, second = data.read_records(path)
    assert csv.field_size_limit() == limit, "which belongs to the whole process"
    assert first.text("text") == "one\nmore"
    assert first.where == f"{path}:2"
    assert second.where == f"{path}:4"


def test_a_prompt_set_says_its_version_system_and_options(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        "set.yaml",
        "version: 3\nsystem: Be brief.\noptions: {num_predict: 7}\nprompts:\n  - id: a\n    prompt: hello\n",
    )
    found = data.read_set(path)
    assert (found.version, found.system, found.options["num_predict"].value) == (3, "Be brief.", 7)
    assert str(found.records[0].error("x", "prompt")) == f"{path}:6: x"


BAD: list[tuple[str, str | bytes, str, str]] = [
    ("a.jsonl", '{"id": 1}\n{"id": \n', ":2", "is not valid JSON"),
    ("a.jsonl", '{"id": 1}\n[1, 2]\n', ":2", "is a list; an item must be an object"),
    ("a.jsonl", '{"id": NaN}\n', ":1", "NaN is not a number of JSON"),
    ("a.jsonl", '{"id": 1, "id": 2}\n', ":1", "id is given twice"),
    ("a.jsonl", "[" * 100_000 + "\n", ":1", "is not valid JSON"),
    ("a.jsonl", b'{"id": 1}\n{"id": "\xff"}\n', ":2", "is not UTF-8 (byte 0xff)"),
    ("a.jsonl", '{"id": "a"}\n{"id": "b", "prompt": "Say hi \\ud83d"}\n', ":2", "prompt: holds half of a character"),
    ("a.jsonl", '{"id": "a", "x": [{"y": "\\ude00"}]}\n', ":1", "x.y: holds half of a character"),
    ("a.jsonl", f'{{"x": {"[" * 600}"\\ud83d"{"]" * 600}}}\n', ":1", "x: holds half of a character"),
    ("a.json", '[{"id": "a"}, {"\\ud800": "b"}]', ": item 2", "holds half of a character"),
    ("a.yaml", 'version: 1\nprompts:\n- {id: a,\n   prompt: "\\ud83d!"}\n', ":4", "prompt: holds half of a character"),
    ("a.csv", b"id,text\na,caf\xe9\n", ":2", "is not UTF-8 (byte 0xe9); save it again, in Excel as `CSV UTF-8`"),
    ("a.csv", "id;text\n1;Größe\n".encode("utf-16-le"), "", "is UTF-16 without a byte order mark; save it as UTF-8"),
    ("a.jsonl", '{"id": "1"}'.encode("utf-16-be"), "", "is UTF-16 without a byte order mark"),
    ("a.csv", "\ufeffid;text\n".encode("utf-16-le") + b"a", ":2", "is cut off or damaged"),
    ("a.jsonl", "\n\n", "", "has no items"),
    ("a.json", '[{"id": 1},\n {"id": 2}\n', ":3", "is not valid JSON"),
    ("a.json", '"text"', "", "it must be a list of objects"),
    ("a.json", "[]", "", "has no items"),
    ("a.json", '[{"id": 1}, 7]', ": item 2", "7 is a number; an item must be an object"),
    ("a.csv", "id,text\na,one,more\n", ":2", "has 3 columns; the header has 2"),
    ("a.csv", 'id,text\na,"one\n', ":2", "is not valid CSV"),
    ("a.csv", "id,id\na,b\n", ":1", "the header names a column twice"),
    ("a.csv", "id,text\n", "", "has no items"),
    ("a.csv", "", "", "has no items"),
    ("a.parquet", "no parquet at all", "", "is not a readable parquet file"),
    ("a.yaml", "", "", "the file is empty; a prompt set needs version and prompts"),
    ("a.yaml", "version: 1\nprompt: []\n", ":2", "unknown key prompt; known are version, system, options, prompts."),
    ("a.yaml", "prompts: [{id: a}]\n", ":1", "version is missing"),
    ("a.yaml", "version: 1\nprompts: []\n", "", "has no items"),
    ("a.yaml", "version: 1\nprompts: hello\n", ":2", "prompts: must be a list of items"),
    ("a.yaml", "version: 1\nprompts: [hello]\n", ":2", "an item must have named fields"),
    ("a.yaml", "version: one\nprompts: [{id: a}]\n", ":1", 'version: "one" is text'),
    ("a.yaml", "version: 1\noptions: 5\nprompts: [{id: a}]\n", ":2", "options: must be names and values"),
    ("a.yaml", "- id: a\n", ":1", "a prompt set is made of the keys"),
    ("a.toml", "x = 1", "", "its name must end with .jsonl"),
]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be", "utf-32"])
@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", "id;text\r\n1;Größe, 5\r\n"),
        ("a.csv", "id\ttext\r\n1\tGröße, 5\r\n"),
        ("a.csv", 'id,text\r\n1,"Größe, 5"\r\n'),
        ("a.csv", "sep=;\r\nid;text\r\n1;Größe, 5\r\n"),
        ("a.jsonl", '{"id": "1", "text": "Größe, 5"}\r\n'),
        ("a.json", '[{"id": "1", "text": "Größe, 5"}]'),
        ("a.yaml", "version: 1\nprompts:\n- {id: '1', text: 'Größe, 5'}\n"),
    ],
)
def test_files_as_windows_and_excel_write_them(name: str, content: str, encoding: str, tmp_path: Path) -> None:
    mark = "\ufeff" if encoding == "utf-16-be" else ""
    path = tmp_path / name
    path.write_bytes(f"{mark}{content}".encode(encoding))
    assert [dict(record.fields) for record in data.read_records(path)] == [{"id": "1", "text": "Größe, 5"}]


def test_a_character_written_in_two_halves_is_one(tmp_path: Path) -> None:
    for name, content in {
        "a.jsonl": '{"id": "1", "text": "hi \\ud83d\\ude00"}\n',
        "a.yaml": 'version: 1\nprompts:\n- {id: "1", text: "hi \\ud83d\\ude00"}\n',
    }.items():
        (record,) = data.read_records(write(tmp_path, name, content))
        assert record.text("text") == "hi 😀"


@pytest.mark.parametrize(("name", "content", "place", "message"), BAD, ids=range(len(BAD)))
def test_what_is_wrong_with_a_file_is_said_with_its_place(
    name: str, content: str | bytes, place: str, message: str, tmp_path: Path
) -> None:
    path = write(tmp_path, name, content)
    with pytest.raises(ConfigError) as caught:
        data.read_records(path)
    assert str(caught.value).startswith(f"{path}{place}: "), caught.value
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("name", ["big.jsonl", "big.csv", "big.parquet", "big.yaml"])
def test_a_file_of_100_mb_is_refused_without_being_read(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    with path.open("wb") as file:
        file.truncate(100 << 20)
    with pytest.raises(ConfigError, match=r"the limit is 4 MB|the limit is 64 MB|64 MB, which is the limit"):
        data.read_records(path)


def test_a_missing_file_names_a_similar_one_and_the_line_that_asked(tmp_path: Path) -> None:
    write(tmp_path, "items.jsonl", "{}")
    asked = Node(str(tmp_path / "item.jsonl"), "grid.yaml", 7)
    with pytest.raises(ConfigError, match=r"^grid\.yaml:7: .*file not found.* Did you mean items\.jsonl\?"):
        data.read_records(tmp_path / "item.jsonl", asked)


def test_a_folder_is_no_data_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is a folder, not a file"):
        data.read_records(tmp_path)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"promt": "x"}, "prompt is missing; the item has promt. Did you mean promt?"),
        ({"prompt": 5}, "prompt: 5 is a number; it must be text"),
        ({"prompt": True}, "prompt: true is true or false; it must be text"),
        ({"prompt": ["x"]}, "is a list; it must be text"),
        ({"prompt": {"x": 1}}, "is an object; it must be text"),
        ({"prompt": " \n"}, "prompt: is empty"),
        ({"prompt": None}, "prompt is missing"),
        ({}, "prompt is missing; the item has nothing"),
    ],
)
def test_a_field_that_is_missing_or_no_text(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Record(fields, "data.json: item 3").text("prompt")
    assert str(caught.value).startswith("data.json: item 3: ")
    assert message in str(caught.value)


def test_the_working_directory_comes_before_what_is_shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert data.shipped("prompts/chat.yaml") == ROOT / "prompts" / "chat.yaml"
    (tmp_path / "prompts").mkdir()
    write(tmp_path / "prompts", "chat.yaml", "version: 2\n")
    assert data.shipped("chat.yaml") == Path("prompts/chat.yaml")
    assert data.shipped("prompts/no_such_set.yaml") is None


def test_the_prompts_of_an_installed_package_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Installed they lie inside the package; in a checkout beside it."""
    installed = tmp_path / "ollama_sweep" / "shipped_prompts"
    installed.mkdir(parents=True)
    write(installed, "own.yaml", "version: 1\n")
    monkeypatch.setattr(data, "_PACKAGE", tmp_path / "ollama_sweep")
    monkeypatch.chdir(tmp_path)
    assert data.shipped("own.yaml") == installed / "own.yaml"


def test_every_folder_of_the_package_and_the_prompts_are_installed() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["setuptools"]
    folders = {".".join(path.parent.relative_to(ROOT).parts) for path in (ROOT / "ollama_sweep").rglob("__init__.py")}
    assert set(settings["packages"]) == folders | {"ollama_sweep.shipped_prompts", "ollama_sweep.shipped_configs"}
    assert settings["package-dir"] == {
        "ollama_sweep.shipped_prompts": "prompts",
        "ollama_sweep.shipped_configs": "configs",
    }
    assert settings["package-data"]["ollama_sweep.shipped_configs"] == ["sweep.schema.json"]


@pytest.mark.parametrize(
    "path", sorted((ROOT / "prompts").rglob("*.*ml")) + sorted((ROOT / "prompts").glob("*.jsonl")), ids=lambda p: p.name
)
def test_what_is_shipped_can_be_read(path: Path) -> None:
    assert data.read_records(path)
