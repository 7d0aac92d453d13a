"""The worked example "A new key" of docs/architecture.md, done on a copy of the program: one row is enough."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from ollama_fixture import ROOT

PROGRAM = ("sweep.py", "ollama_sweep", "scripts", "configs", "docs")
GRID = "model: m\nengine: fake\nprompt: {text: hello}\nnum_ctx: 64\nnum_batch: 8\n"
SHOW = """
import click
from ollama_sweep import cli
from ollama_sweep.cli import shared

@click.command()
@shared.sweep_options
def show(config, **given):
    click.echo(shared.spec_from(config, given).settings["pause_after"])

cli.cli = show
cli.main()
"""
"""A command with the options of `run` that says what the sweep has of the key."""


def example() -> str:
    """The row of the page."""
    section = (ROOT / "docs" / "architecture.md").read_text("utf-8").partition("\n## A new key\n")[2]
    return section.partition("```python\n")[2].partition("```")[0]


@pytest.fixture(scope="module")
def copied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the program with the row at the end of the table."""
    folder = tmp_path_factory.mktemp("copy")
    for name in PROGRAM:
        source = ROOT / name
        copy = shutil.copytree if source.is_dir() else shutil.copy
        copy(source, folder / name)
    table = folder / "ollama_sweep" / "plan" / "keys.py"
    row = textwrap.indent(example().rstrip() + ",\n", "    ")
    text, count = re.subn(
        r"^(KEYS: .*?\n)(?=\))", lambda found: found[1] + row, table.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL
    )
    assert count == 1
    table.write_text(text, "utf-8")
    (folder / "show.py").write_text(SHOW, "utf-8")
    return folder


def call(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """A Python program of the copy."""
    return subprocess.run([sys.executable, *words], cwd=folder, check=False, capture_output=True, text=True)


def test_one_row_is_a_key_of_everything(copied: Path) -> None:
    for script in ("scripts/make_key_docs", "scripts/make_cli_docs"):
        assert call(copied, script, "--check").returncode == 1, "the documents lack it, and that is noticed"
        assert call(copied, script).returncode == 0
        assert call(copied, script, "--check").returncode == 0
    words = "a pause for the person after so many cells, 0 to 1000; 0 is never"
    assert f"| `pause_after` | 0 | {words} |" in (copied / "docs" / "configuration.md").read_text("utf-8")
    assert "pause_after: 20\n" in (copied / "configs" / "all_keys.yaml").read_text("utf-8")
    assert "  --pause-after COUNT " in call(copied, "sweep.py", "run", "--help").stdout

    schema = json.loads(call(copied, "sweep.py", "schema").stdout)
    assert schema == json.loads((copied / "configs" / "sweep.schema.json").read_text("utf-8"))
    row = schema["properties"]["pause_after"]
    assert {name: row[name] for name in ("type", "minimum", "maximum", "default")} == {
        "type": "integer", "minimum": 0, "maximum": 1000, "default": 0,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("lines", "words", "said"),
    [
        ("", (), "0"),
        ("pause_after: 7\n", (), "7"),
        ("pause_after: 7\n", ("--pause-after", "8"), "8"),
        ("pause_after: 7\n", ("--set", "pause_after=9"), "9"),
        ("pause_after: 1001\n", (), "error: s.yaml:6: pause_after must be 0 to 1000"),
        ("", ("--pause-after", "x"), 'error: --pause-after: pause_after: "x" is text; write whole numbers like 0'),
        ("pause_aftr: 7\n", (), "error: s.yaml:6: unknown key pause_aftr. Did you mean pause_after?"),
    ],
)
def test_it_is_checked_and_found(copied: Path, lines: str, words: tuple[str, ...], said: str) -> None:
    (copied / "s.yaml").write_text(GRID + lines, "utf-8")
    ended = call(copied, "show.py", "s.yaml", *words)
    assert (ended.stderr or ended.stdout).strip() == said
    assert ended.returncode == (2 if said.startswith("error: ") else 0)
