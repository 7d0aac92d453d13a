"""The documents say what is true: commands parse, examples load and run, links lead somewhere, nothing is left out."""

from __future__ import annotations

import ast
import re
import shlex
import sqlite3
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from ollama_fixture import ROOT
from sweep_runner import Sweep

from ollama_sweep.cli import COMMANDS, cli
from ollama_sweep.core import errors
from ollama_sweep.core.options import LIMITS, LOAD_OPTIONS
from ollama_sweep.core.outcome import Flag, Status
from ollama_sweep.engines.shared import failures
from ollama_sweep.plan import config, keys
from ollama_sweep.store.writer import Store

PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]
each_page = pytest.mark.parametrize("name", NAMES)

_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#{1,6} (.+)$", re.MULTILINE)
_CONFIG = re.compile(r"configs/[\w.-]+\.ya?ml")
_MADE_HERE = re.compile(r">\s*(configs/[\w.-]+\.ya?ml)")
_SCRIPT = re.compile(r"(?:scripts|benchmarks|tests|modelfiles|prompts)/[\w.-]*\w")
_OPERATORS = {"|", ">", ">>", "<", "&&", ";", "&"}


def text_of(name: str) -> str:
    return (ROOT / name).read_text("utf-8")


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its text, and where it stands."""

    kind: str
    text: str
    place: str


def blocks(kind: str, names: Iterable[str] = NAMES) -> list[Block]:
    """All fenced blocks of a language."""
    found = []
    for name in names:
        text = text_of(name)
        for match in _BLOCK.finditer(text):
            line = text.count("\n", 0, match.start()) + 1
            found.append(Block(match[1], match[2], f"{name}:{line}"))
    return [block for block in found if block.kind == kind]


def each_block(kind: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("block", [pytest.param(block, id=block.place) for block in blocks(kind)])


# -- commands --------------------------------------------------------------------------------------------------------


def commands(block: Block) -> Iterator[list[str]]:
    """The words of every command in a shell block, without comments, pipes and redirections."""
    for line in block.text.replace("\\\n", " ").splitlines():
        words: list[str] = []
        for word in [*shlex.split(line, comments=True), ";"]:
            if word in _OPERATORS:
                if words:
                    yield words
                words = []
                if word in (">", ">>", "<", "|"):
                    break
            else:
                words.append(word)


def of_this_program(words: list[str]) -> list[str] | None:
    """The arguments where the words call this program, also in a container or by a program that installs it."""
    starts = [["ollama-sweep"], ["python", "sweep.py"]]
    if "ollama-sweep" in words and (words[:2] in (["docker", "run"], ["pipx", "run"]) or words[0] == "uvx"):
        starts += [words[: words.index("ollama-sweep") + 1]] if "ollama-sweep" in words else []
    return next((words[len(start) :] for start in starts if words[: len(start)] == start), None)


@each_block("sh")
def test_commands_parse(block: Block) -> None:
    for words in commands(block):
        given = of_this_program(words)
        if given is not None:
            check_call(given, block.place)
        elif words[0] == "make":
            assert re.search(rf"^{re.escape(words[1])}:", text_of("Makefile"), re.MULTILINE), f"{block.place}: {words}"


def check_call(given: list[str], place: str) -> None:
    """The command exists and takes these options; nothing is run."""
    assert given, place
    assert given[0] in COMMANDS, f"{place}: unknown command {given[0]}"
    with click.Context(cli, info_name="ollama-sweep") as context:
        command = cli.get_command(context, given[0])
        if isinstance(command, click.Group) and given[1:] and not given[1].startswith("-"):
            command, given = command.get_command(context, given[1]), given[1:]
        assert command is not None, f"{place}: {given}"
        try:
            command.make_context(given[0], list(given[1:]), parent=context).close()
        except click.exceptions.Exit:
            return  # --help was asked for
        except click.ClickException as error:
            pytest.fail(f"{place}: {shlex.join(given)}: {error.format_message()}")


def test_a_wrong_command_would_be_noticed() -> None:
    with pytest.raises(pytest.fail.Exception):
        check_call(["run", "--no-such-option"], "here")
    with pytest.raises(AssertionError):
        check_call(["no-such-command"], "here")


def test_the_pages_show_commands() -> None:
    called = {given[0] for block in blocks("sh") for words in commands(block) if (given := of_this_program(words))}
    assert {"plan", "run", "status", "best", "doctor", "export"} <= called


def test_the_page_of_the_command_line_is_what_the_program_says() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "make_cli_docs"), "--check"],
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, f"{done.stderr}\n{done.stdout[:2000]}"


def test_what_is_made_of_the_table_of_keys_is_what_the_table_says() -> None:
    """The schema, the commented sweep file, and the tables of docs/configuration.md."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "make_key_docs"), "--check"],
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


# -- sweep files -----------------------------------------------------------------------------------------------------


@each_block("yaml")
def test_yaml_examples_load(block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a file of their own; what they leave to the command line is given there, files that are not here as well."""
    monkeypatch.chdir(ROOT)
    path = tmp_path / "example.yaml"
    path.write_text(block.text, "utf-8")
    spec = config.load_spec(path, missing_parts(yaml.safe_load(block.text)))
    assert spec.dimensions["num_ctx"], block.place


def missing_parts(content: object) -> dict[str, object]:
    """Overrides for what a file leaves out, and for files that exist only in the example."""
    assert isinstance(content, dict)
    dimensions = content.get("dimensions") or {}
    given: dict[str, object] = {}
    for name, value in (("model", "some-model"), ("prompt", "prompts/p.txt")):
        named = content.get(name)
        is_gone = isinstance(named, str) and "/" in named and not (ROOT / named).exists()
        if named is None or is_gone:
            given[name] = value
    for name, option in (("num_ctx", "ctx"), ("num_batch", "batch")):
        if name not in content and name not in dimensions:
            given.update({f"{option}_start": "1024", f"{option}_end": "1024", f"{option}_step": "1"})
    return given


@each_page
def test_configs_that_are_named_exist(name: str) -> None:
    text = text_of(name)
    for found in set(_CONFIG.findall(text)) - set(_MADE_HERE.findall(text)):
        assert (ROOT / found).is_file() or f"> {found}" in text_of("docs/cli.md"), f"{name} names {found}"


@each_page
def test_files_that_are_named_exist(name: str) -> None:
    for found in set(_SCRIPT.findall(text_of(name))):
        assert found == "modelfiles/tuned" or (ROOT / found).exists(), f"{name} names {found}"


def test_every_key_is_documented_with_its_limits() -> None:
    text = text_of("docs/configuration.md")
    rows = {cell: line for line in text.splitlines() if line.startswith("| `") for cell in cells_of(line)}
    for key in keys.BY_NAME:
        assert key in rows, f"docs/configuration.md lacks the key {key}"
    section = text.partition("\n## Options")[2].partition("\n## ")[0]
    options = {
        line.split("`")[1]: line for line in section.splitlines() if re.match(r"\| `\w+` \| (whole|number|true)", line)
    }
    assert set(options) == set(keys.OPTIONS)
    for key, line in options.items():
        if key in LIMITS:
            low, high = LIMITS[key]
            assert f"| {low} to {high} |" in line, line
        assert ("| yes |" in line) == (key in LOAD_OPTIONS), line


def cells_of(line: str) -> list[str]:
    """The words in backticks in the first column of a table's row."""
    return re.findall(r"`([^`]+)`", line.split(" | ")[0])


def test_every_option_of_the_command_line_that_is_a_key_is_documented() -> None:
    text = text_of("docs/configuration.md")
    for _, override in keys.OVERRIDES:
        assert f"`{override.option}`" in text, override.option


def test_every_exit_code_is_documented() -> None:
    text = text_of("docs/configuration.md").partition("## Exit codes")[2]
    classes = [value for value in vars(errors).values() if isinstance(value, type)]
    codes = {kind.exit_code for kind in classes if issubclass(kind, errors.SweepError)}
    for code in codes | {0, 129, 130, 143}:
        assert re.search(rf"^\| [\d, ]*\b{code}\b[\d, ]* \|", text, re.MULTILINE), code


# -- results ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small sweep of the scripted engine."""
    with closing(Sweep(tmp_path_factory.mktemp("docs"))) as sweep:
        made = sweep.config(
            "quickstart", model="m", engine="fake", prompt={"text": "hello"}, num_ctx=[4096], num_batch=[64, 128]
        )
        sweep("run", made).must()
        return sweep.folder / "sweeps.db"


def test_every_column_and_every_table_is_documented(tmp_path: Path) -> None:
    Store.open(tmp_path / "new.db").close()
    with closing(sqlite3.connect(tmp_path / "new.db")) as connection:
        columns = [row[1] for row in connection.execute("pragma table_info(results)")]
        sql = "select name from sqlite_master where type = 'table' and name not glob 'sqlite*' and name not glob '_*'"
        tables = [row[0] for row in connection.execute(sql)]
    documented = {
        cell for line in text_of("docs/results.md").splitlines() if line[:3] == "| `" for cell in cells_of(line)
    }
    assert columns
    assert tables
    assert set(columns) <= documented, f"docs/results.md lacks {sorted(set(columns) - documented)}"
    assert set(tables) <= documented, f"docs/results.md lacks {sorted(set(tables) - documented)}"


def test_every_status_and_every_flag_is_documented() -> None:
    documented = {
        cell for line in text_of("docs/results.md").splitlines() if line[:3] == "| `" for cell in cells_of(line)
    }
    assert {str(word) for word in (*Status, *Flag)} <= documented


@each_block("sql")
def test_queries_run(block: Block, database: Path) -> None:
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        assert connection.execute(block.text).description


# -- the program -----------------------------------------------------------------------------------------------------


def test_the_architecture_names_every_module_and_no_other() -> None:
    text = text_of("docs/architecture.md").partition("## Modules")[2].partition("\n## ")[0]
    rows = [line for line in text.splitlines() if line.startswith("| `")]
    named = {word for line in rows for word in re.findall(r"`(\w+)`", line)}
    package = ROOT / "ollama_sweep"
    own = {path.stem for path in package.rglob("*.py") if path.parent.name != "commands"} - {"__init__", "__main__"}
    assert own <= named, f"docs/architecture.md lacks {sorted(own - named)}"
    known = {path.stem for path in package.rglob("*.py")}
    assert named <= known, f"docs/architecture.md names {sorted(named - known)}, which are not there"


def test_the_floors_are_those_of_the_contract() -> None:
    text = text_of("docs/architecture.md").partition("## Floors")[2].partition("```")[2].partition("```")[0]
    drawn = [line.split()[0] for line in text.strip().splitlines()]
    (contract,) = [one for one in settings()["importlinter"]["contracts"] if one["type"] == "layers"]
    assert drawn == [layer.split(" | ")[0].removeprefix("ollama_sweep.") for layer in contract["layers"]]


def settings() -> dict[str, Any]:
    tools: dict[str, Any] = tomllib.loads(text_of("pyproject.toml"))["tool"]
    return tools


def test_files_of_the_project_that_a_page_names_are_there() -> None:
    named = {
        (page, path)
        for page in [
            *(file.relative_to(ROOT).as_posix() for file in ROOT.glob("docs/*.md")),
            "CONTRIBUTING.md",
            "README.md",
        ]
        for path in re.findall(r"`((?:ollama_sweep|tests|scripts|benchmarks)/[\w./]+)`", text_of(page))
    }
    assert named
    missing = sorted(f"{page}: {path}" for page, path in named if not (ROOT / path).exists())
    assert not missing, "\n".join(missing)


def test_benchmarks_are_named() -> None:
    text = text_of("docs/benchmarks.md")
    for path in ROOT.glob("benchmarks/[!_]*.py"):
        assert f"benchmarks/{path.name}" in text, path.name


# -- what is printed -------------------------------------------------------------------------------------------------


def symptoms(head: str) -> list[list[str]]:
    """The rows of the tables of docs/troubleshooting.md whose first column has this head, without backticks."""
    tables = re.findall(rf"^\| {head} \|.*\n\|[-|]+\n((?:\|.*\n)+)", text_of("docs/troubleshooting.md"), re.MULTILINE)
    rows = [line.removeprefix("| `").split(" | ") for table in tables for line in table.splitlines()]
    return [[row[0].removesuffix("`"), *row[1:]] for row in rows]


def test_the_program_can_say_each_text_of_troubleshooting() -> None:
    """A text with `…` for what differs is a piece of one of the program's own."""
    said = [text for path in (ROOT / "ollama_sweep").rglob("*.py") for text in texts_in(path)]
    asked = [row[0] for row in symptoms("it says")]
    missing = [text for text in asked if not any(like(text).search(one) for one in said)]
    assert len(asked) > 30
    assert not missing, "\n".join(missing)


def texts_in(path: Path) -> Iterator[str]:
    """The texts of a module, with `…` for what is put into them."""
    tree = ast.parse(path.read_text("utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def like(text: str) -> re.Pattern[str]:
    parts = [re.escape(part) for part in text.strip("…").split("…")]
    return re.compile("(?:…|.{1,40})".join(parts))


def test_each_text_of_an_engine_is_told_apart_as_troubleshooting_says() -> None:
    rows = symptoms("the engine says")
    assert len(rows) > 8
    for row in rows:
        status, reason = failures.classify(row[0])
        assert row[1] == f"`{status}`, `{reason}`", row[0]


# -- all pages -------------------------------------------------------------------------------------------------------


def anchor(heading: str) -> str:
    """What a heading is linked by."""
    return re.sub(r"[^\w\- ]", "", re.sub(r"[`*]", "", heading).lower()).strip().replace(" ", "-")


@each_page
def test_links_lead_somewhere(name: str) -> None:
    without_code = _BLOCK.sub("", text_of(name))
    for target in _LINK.findall(without_code):
        if "://" in target or target.startswith("mailto:"):
            continue
        path, _, fragment = target.partition("#")
        file = (ROOT / name).parent / path if path else ROOT / name
        assert file.exists(), f"{name} links {target}"
        if fragment:
            headings = {anchor(found) for found in _HEADING.findall(_BLOCK.sub("", file.read_text("utf-8")))}
            assert fragment in headings, f"{name} links {target}"


def test_every_page_is_linked_from_the_readme() -> None:
    linked = set(_LINK.findall(text_of("README.md")))
    assert {str(page.relative_to(ROOT)) for page in ROOT.glob("docs/*.md")} <= linked


def test_no_file_names_a_place_on_somebodys_machine() -> None:
    home, here = str(Path.home()), str(ROOT)
    places = {place.encode() for place in (home + "/", here) if place.count("/") > 1}
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=False, capture_output=True)
    if listed.returncode != 0:
        pytest.skip("not a checkout")
    for file in listed.stdout.decode().rstrip("\0").split("\0"):
        path = ROOT / file
        content = path.read_bytes() if path.is_file() else b""
        for place in places:
            assert place not in content, f"{file} names {place.decode()}"
