"""Text of others reaches a person harmless, whatever a command says or writes; in the database it stays as it was."""

# ruff: noqa: F401, F811 - the fixture is imported, and asked for by its name
from __future__ import annotations

import csv
import io
import json
import re
import sqlite3
import unicodedata
import zlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sweeping import Program, program

from ollama_sweep import cli
from ollama_sweep.core.text import LONG, as_json, harmless, harmless_lines, whole_line
from ollama_sweep.results.export import csv_text

EVIL = "\x1b]0;pwned\x07\x1b[31mred\x1b[2J\x9b31m \r\n\u2028bad \u202e\u2066\u200b\ufeff\U000e0041 $\\frac{$ |<b>|"
SHOWN = r"\x1b]0;pwned\x07\x1b[31mred\x1b[2J\x9b31m \r\n\u2028bad \u202e\u2066\u200b\ufeff\U000e0041 $\frac{$ |<b>|"
TASKS = ["prompt_eval", "items"]
ITEMS = "version: 1\nprompts:\n  - {id: a, prompt: What is it, expect: {equals: x}, category: Good}\n"
COLUMNS = {
    "attempts": ["error", "reason"],
    "cells": ["model", "quantization", "parameter_size"],
    "answers": ["item", "category", "failure"],
    "sweeps": ["name", "machine", "config_path", "engine"],
}
"""What may have come from others, and what they may have made of a database."""
COMMANDS = [
    "status", "status --json", "watch", "export", "export --format md", "export --format json", "export --format jsonl",
    "export -o x.csv", "export --format json -o x.json", "best", "best --json", "report", "report --json",
    "report --out files", "heatmap --json", "plot avg_by_model_score", "logs", "recover --to new.db", "pause",
    "continue", "stop", "doctor", "plan grid.yaml", "models --engine fake", "models --engine fake --json",
    "params m --engine fake", "init m --engine fake", "completion bash", "explain 0", "explain 0 --json", "explain 3",
    "verify", "verify --json", "schema", "service grid.yaml --for systemd", "compare grid@1 grid",
]  # fmt: skip
MAY_REFUSE = {"stop", "continue", "doctor", "recover", "verify", "compare"}
"""There is no sweep to stop, a sweep is compared with itself, and what the test has changed was not measured so."""
TRIED_ELSEWHERE = {"run", "import", "serve", "hosts", "scheduler", "worker"}


def is_harmless(text: str, *, may_break: bool = True) -> bool:
    """No sign that a terminal obeys, that turns text around, or that nobody sees."""
    allowed = "\n\t" if may_break else ""
    kinds = ("Cc", "Cf", "Cs", "Zl", "Zp")
    return not any(unicodedata.category(sign) in kinds and sign not in allowed for sign in text)


@pytest.fixture
def hostile(program: Program) -> Program:
    """A sweep whose engine, model, answers and failures are hostile, and a database that says more of the kind."""
    (program.folder / "prompts").mkdir()
    (program.folder / "prompts/items.yaml").write_text(ITEMS)
    program.script(
        version=f"1.0{EVIL}" + "9" * 5000,
        oom_above=2048,
        models=["m", f"m{EVIL}"],
        answers={"What is it": EVIL},
    )
    config = program.grid(task=TASKS, prompt={"text": "one two"})
    ended = program("run", config)
    assert ended.returncode == 0, ended
    assert is_harmless(ended.stdout + ended.stderr), ended
    assert "9" * 100 not in ended.stdout
    with sqlite3.connect(program.folder / "sweeps.db") as connection:
        for table, columns in COLUMNS.items():
            for column in columns:
                where = "" if column != "error" else "WHERE error <> ''"
                connection.execute(f"UPDATE {table} SET {column} = {column} || ? {where}", (EVIL,))
        connection.execute(
            "UPDATE plan SET coordinates = json_insert(coordinates, '$[#]', json_array('kind', ?))", (EVIL,)
        )
    (program.folder / "sweeps.db.log").write_text(EVIL)
    return program


def test_every_command_is_tried() -> None:
    assert set(cli.COMMANDS) - TRIED_ELSEWHERE <= {words.split()[0] for words in COMMANDS}


def test_no_command_lets_it_through(hostile: Program) -> None:
    assert f"grid{SHOWN}" in hostile("status").must().stdout
    for words in COMMANDS:
        ended = hostile(*words.split())
        said = ended.stdout + ended.stderr
        assert "Traceback" not in said, (words, said)
        assert is_harmless(said), (words, said)
        assert ended.returncode == 0 or words.split()[0] in MAY_REFUSE, (words, ended)
        if "json" in words and "-o" not in words:
            for line in ended.stdout.splitlines() if "jsonl" in words else [ended.stdout]:
                json.loads(line)
    for file in hostile.folder.rglob("*"):
        if file.suffix in (".csv", ".json", ".md") and file.name != "fake.json":
            assert is_harmless(file.read_text("utf-8")), file

    with sqlite3.connect(hostile.folder / "sweeps.db") as connection:
        outputs = [zlib.decompress(one).decode() for (one,) in connection.execute("SELECT output FROM answers")]
    assert EVIL in outputs, "it is stored as it was"


def test_what_a_person_wrote_is_quoted_harmless(program: Program) -> None:
    (program.folder / "s\x1b[2J.yaml").write_text("model: 'm\\x1b'\nnum_ctx\u202e: 1\n")
    said = program("run", "s\x1b[2J.yaml").must(2).stderr
    assert re.fullmatch(r"error: s\\x1b\[2J.yaml:2: unknown key num_ctx\\u202e\.[^\n]*\n", said), said
    for words in (
        ["export", "--format", "\x1b"],
        ["\x1b]0;x\x07"],
        ["status", "--db", "\u202e.db"],
        ["run", "--set", "\x9b"],
    ):
        ended = program(*words)
        assert ended.returncode == 2
        assert is_harmless(ended.stderr), ended


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain ü 日本 ★ – – \\", None),
        ("👨‍👩‍👧 ❤️‍🔥 می‌خواهم क्‍ष", None),
        ("a\u200db\u200c", r"a\u200db\u200c"),
        ("\x00\x07\x1b\x7f\x9b\xad", r"\x00\x07\x1b\x7f\x9b\xad"),
        ("a\r\nb\tc\u0085\u2028\u2029", r"a\r\nb\tc\x85\u2028\u2029"),
        ("\u061c\u200e\u202a\u202e\u2066\u2069", r"\u061c\u200e\u202a\u202e\u2066\u2069"),
        ("\u200b\u2060\ufeff\u3164\u115f\u034f\U000e0020", r"\u200b\u2060\ufeff\u3164\u115f\u034f\U000e0020"),
        ("\ud83d", r"\ud83d"),
    ],
)
def test_what_is_written_out_and_what_is_not(text: str, shown: str | None) -> None:
    assert harmless(text) == (text if shown is None else shown)
    assert json.loads(as_json({"a": text})) == {"a": text}


def test_a_line_has_an_end() -> None:
    assert whole_line("9" * 5000) == "9" * LONG + "… (3,000 more characters)"


@settings(max_examples=40)
@given(st.text())
def test_nothing_gets_through(text: str) -> None:
    visible = "".join(sign for sign in harmless(text) if sign not in "\u200c\u200d")
    assert is_harmless(visible, may_break=False)
    assert is_harmless("".join(sign for sign in harmless_lines(text) if sign not in "\u200c\u200d"))
    assert json.loads(as_json([text])) == [text]


@pytest.mark.parametrize("sign", ["=", "+", "-", "@", "\t", "\r", "＝", "＋", "－", "＠", "﹦"])
@pytest.mark.parametrize("before", ["", " ", "\n", " \r\n\u00a0", "\u3000"])
def test_no_cell_of_a_csv_file_is_a_formula(sign: str, before: str) -> None:
    rows = list(csv.reader(io.StringIO(csv_text([[f"{before}{sign}1+1", "a=1", -5, -0.5, "", None, True]]))))
    assert rows[0][0].startswith("'")
    assert rows[0][1:] == ["a=1", "-5", "-0.5", "", "", "true"]
