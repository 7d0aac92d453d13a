"""Every family of wrong input, through `sweep.py run`: one line that helps, the right exit code, nothing created."""

# ruff: noqa: F401, F811 - the fixture is imported, and asked for by its name
from __future__ import annotations

import json
import re
import sqlite3
from pathlib import Path

import bad_sweeps
import pytest
from bad_sweeps import RUN_BASE as BASE
from bad_sweeps import cases, changed
from sweeping import GRID, Program, program


@pytest.fixture(autouse=True)
def prompt(program: Program) -> Path:
    """A prompt of three words."""
    file = program.folder / "p.txt"
    file.write_text("one two three\n")
    return file


def contents(folder: Path) -> dict[str, bytes]:
    """Every file with what is in it, and every folder."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else b""
        for path in sorted(folder.rglob("*"))
    }


def refused(program: Program, message: str, *words: str | Path, code: int = 2) -> None:
    """`run` with these words says the message (a pattern) in one line, and leaves the folder as it was."""
    before = contents(program.folder)
    ended = program("run", *words)
    assert ended.returncode == code, ended
    assert re.fullmatch(rf"error: {message}[^\n]*\n", ended.stderr), ended.stderr
    assert "Traceback" not in ended.stdout + ended.stderr
    assert not ended.stdout or program.events("count"), ended.stdout
    after = contents(program.folder)
    assert {name: after[name] for name in after if name != "journal.txt"} == before
    assert not program.events("generate")


# The sweep file


@pytest.mark.parametrize(
    ("text", "message"),
    cases(bad_sweeps.RUN_FILES),
    ids=lambda value: str(value)[:50],
)
def test_a_file_that_is_no_sweep(text: bytes, message: str, program: Program) -> None:
    (program.folder / "s.yaml").write_bytes(text)
    refused(program, message, "s.yaml")


def test_a_bomb_of_aliases_is_refused_at_its_first_anchor(program: Program) -> None:
    lines = ['a: &a ["x","x","x","x","x","x","x","x","x"]']
    lines += [
        f"{this}: &{this} [{','.join([f'*{last}'] * 9)}]" for last, this in zip("abcdefgh", "bcdefghi", strict=True)
    ]
    (program.folder / "s.yaml").write_text("\n".join(lines))
    refused(program, "s.yaml:1: anchors", "s.yaml")


def test_a_file_that_is_not_there(program: Program) -> None:
    (program.folder / "sweep.yaml").write_text(BASE)
    refused(program, r"swep.yaml: file not found\. Did you mean sweep.yaml\?", "swep.yaml")
    refused(program, ".*: is a folder, not a file", ".")
    refused(program, "model is missing; add it or use --model NAME")


@pytest.mark.parametrize(
    ("line", "message"),
    cases(bad_sweeps.RUN_VALUES),
    ids=lambda value: value[:40],
)
def test_a_value_that_cannot_be(line: str, message: str, program: Program) -> None:
    (program.folder / "s.yaml").write_text(changed(line))
    name = line.partition(":")[0]
    number = list(changed(line).splitlines()).index(line) + 1
    place = "" if name in ("engine", "task", "exclude") else f"s.yaml:{number}: "
    refused(program, place + (message if place else f"(?:s.yaml:{number}: )?(?:exclude: )?{message}"), "s.yaml")


def test_a_grid_too_large_is_refused_before_it_is_built(program: Program) -> None:
    text = changed("num_ctx: {start: 1, end: 1000000, step: 1}")
    (program.folder / "s.yaml").write_text(changed("num_batch: {start: 1, end: 1000, step: 1}", text))
    refused(program, r"s.yaml: the grid has 1,000,000,000 cells \(limit 2,000,000; --max-cells\)", "s.yaml")
    (program.folder / "s.yaml").write_text(changed("num_ctx: [512, 1024]"))
    refused(program, r"s.yaml: the grid has 2 cells \(limit 1; --max-cells\)", "s.yaml", "--max-cells", "1")


# Models


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("llama3:8b", r"llama3:8b is not installed here\. Run: ollama pull llama3:8b"),
        ("7:30", r"7:30 is not installed here\. Run: ollama pull 7:30"),
    ],
)
def test_a_model_that_is_not_installed(model: str, message: str, program: Program) -> None:
    program.script(missing_models=[model])
    (program.folder / "s.yaml").write_text(changed(f"model: {model}"))
    refused(program, message, "s.yaml", code=5)


def test_a_cloud_model_needs_a_word(program: Program) -> None:
    (program.folder / "s.yaml").write_text(changed("model: gpt-oss:120b-cloud"))
    refused(program, "s.yaml:1: gpt-oss:120b-cloud is a cloud model; use --allow-cloud", "s.yaml")


# Other files


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "s.yaml:6: fast: file not found"),
        (b"", "fast: the Modelfile is empty; it has no FROM line"),
        (b"SYSTEM Be brief.\n", "fast: has no FROM line"),
        (b"FROM m\nFORM x\n", r"fast:2: unknown command FORM\. Did you mean FROM\?"),
        (b"FROM m\nPARAMETER num_batchs 1\n", r"fast:2: unknown parameter num_batchs\. Did you mean num_batch\?"),
        (b"FROM ./x.gguf\n", "fast:1: reads a local file; use --allow-local-gguf"),
        (b"FROM m\nADAPTER ./x\n", "fast:2: reads a local file; use --allow-local-gguf"),
        (b"#" * (2 << 20), "s.yaml:6: fast: is 2 MB; the limit is 1 MB"),
        (b"\x7fELF\x00\x01", r"fast:1: contains a control character \(U\+007F\)"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_modelfile_that_cannot_be_used(content: bytes | None, message: str, program: Program) -> None:
    if content is not None:
        (program.folder / "fast").write_bytes(content)
    (program.folder / "s.yaml").write_text(changed("modelfile: fast"))
    refused(program, message, "s.yaml")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "s.yaml:2: p.txt: file not found"),
        (b"", "s.yaml:2: p.txt: the prompt is empty"),
        (b" \n\t\n", "s.yaml:2: p.txt: the prompt is empty"),
        (b"caf\xe9", r"s.yaml:2: p.txt:1: is not UTF-8 \(byte 0xe9\)"),
        (b"a\x00b", r"s.yaml:2: p.txt:1: contains a control character \(U\+0000\)"),
        (b"x" * (50 << 20), "s.yaml:2: p.txt: is 50 MB; the limit is 16 MB"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_prompt_that_cannot_be_sent(content: bytes | None, message: str, prompt: Path, program: Program) -> None:
    prompt.unlink()
    if content is not None:
        prompt.write_bytes(content)
    (program.folder / "s.yaml").write_text(BASE)
    refused(program, message, "s.yaml")


def test_a_prompt_that_fits_nowhere(program: Program) -> None:
    (program.folder / "s.yaml").write_text(changed("num_ctx: [4, 8]"))
    refused(program, "s?.*the prompt has 7 tokens and needs num_ctx 10; the largest .*is 8, so no cell fits", "s.yaml")


# The command line


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--timeout", "0"), "--timeout: timeout: write seconds"),
        (("--set", "repeats=-1"), "--set repeats: repeats must be 1 to 1000"),
        (("--set", "repeats"), '--set: "repeats" is not key=value'),
        (("--set", "num_ctxs=1"), r"--set num_ctxs: unknown key num_ctxs\. Did you mean num_ctx\?"),
        (("--retry", "oom,tiemout"), r"--retry: tiemout is not a failure\. .*Did you mean timeout\?"),
        (("--retry", "ok"), "--retry: ok is not a failure"),
        (("--wait-engine", "soon"), r"--wait-engine: soon: write seconds \(600\) or a time like 10m"),
        (("--wait-engine", "-1s"), "--wait-engine: -1s: write seconds"),
        (("--model", "a b"), "--model: model: contains a space"),
        (("--prompt", "gone"), "--prompt: gone: file not found"),
        (("--modelfile", "gone"), "--modelfile: gone: file not found"),
        (("--host", "http://a:b@c"), "--host: put credentials into api_key_env, not into the URL"),
        (("--engine", "fak"), r".*unknown engine fak\..* Did you mean fake\?"),
        (("--db", "nowhere/x.db"), "nowhere/x.db: the folder .* does not exist"),
        (("--db", "."), r"\. is a folder; --db takes a file"),
    ],
    ids=" ".join,
)
def test_an_option_that_cannot_be(words: tuple[str, str], message: str, program: Program) -> None:
    (program.folder / "s.yaml").write_text(BASE)
    refused(program, message, "s.yaml", *words)


# Databases


def test_another_programs_database(program: Program) -> None:
    (program.folder / "s.yaml").write_text(BASE)
    connection = sqlite3.connect(program.folder / "sweeps.db")
    connection.execute("CREATE TABLE customers (name TEXT)")
    connection.close()
    refused(program, r"sweeps.db belongs to another program \(tables: customers\)", "s.yaml", code=3)


def test_a_damaged_database(program: Program) -> None:
    (program.folder / "s.yaml").write_text(BASE)
    (program.folder / "sweeps.db").write_bytes(b"no database at all" * 100)
    refused(program, "sweeps.db is not a SQLite database, or it is damaged", "s.yaml", code=4)


# What looks wrong and is not


@pytest.mark.parametrize(
    "line",
    [
        "name: CON",
        "name: yes",
        "model: 7:30",
        "num_batch: 2048",
        "modelfile: fast",
        "prompt: {tokens: 12}",
        'prompt: "p.txt"',
        "host: http://127.0.0.1:1",
    ],
)
def test_what_is_unusual_and_allowed(line: str, program: Program) -> None:
    (program.folder / "fast").write_text("FROM other\nPARAMETER num_ctx 7\nPARAMETER num_batch 7\n")
    (program.folder / "s.yaml").write_text(changed(line))
    program("run", "s.yaml").must()
    assert [row["status"] for row in program.rows()] == ["ok"]


def test_a_batch_larger_than_its_context_is_warned_of(program: Program) -> None:
    (program.folder / "s.yaml").write_text(changed("num_batch: 2048"))
    said = program("run", "s.yaml").must().stdout
    assert (
        "Warning: num_batch 2048 is larger than num_ctx 512; llama.cpp limits it, cells will repeat each other" in said
    )


def test_a_sweep_file_may_be_json(program: Program) -> None:
    (program.folder / "s.yaml").write_text(json.dumps(dict(GRID)))
    program("run", "s.yaml").must()
    assert len(program.rows()) == 4
