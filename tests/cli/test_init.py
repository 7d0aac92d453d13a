"""`init`: a sweep file that loads and runs as it stands, whatever the model is called, and lays over nothing."""

# ruff: noqa: F401, F811 - the fixture is imported, and asked for by its name
from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import yaml
from gguf_maker import LLAMA, gguf
from hypothesis import given, settings
from hypothesis import strategies as st
from ollama_fixture import MODEL, RealOllama
from sweep_runner import Sweep
from sweeping import Program, json_of, program

from ollama_sweep.core import strict_yaml
from ollama_sweep.engines.base import ModelInfo
from ollama_sweep.plan import ranges
from ollama_sweep.plan.config import load_spec
from ollama_sweep.plan.keys import BY_NAME, Part
from ollama_sweep.plan.written.sweep_file import OFTEN_WANTED, brief, commented

KNOWN = ModelInfo("m", "sha256:1", context_length=8192, size_bytes=1 << 27, kv_bytes_per_token=1 << 14)
RAM = ranges.Room(1 << 34, ranges.RAM_RESERVE_BYTES, "RAM")
FAKE = ("--engine", "fake")


def test_from_a_model_to_results(program: Program) -> None:
    program.script(context_length=300)
    said = program("init", "m:3b", *FAKE).must().stdout
    assert said.startswith("m-3b.yaml: ")
    shown = [line.split("#")[0].split() for line in said.splitlines()[1:]]
    assert [words[1] for words in shown] == ["plan", "run", "best"]
    assert program.files() == {"m-3b.yaml"}
    for words in shown:
        program(*words[1:]).must()
    rows = program.rows()
    assert {(row["status"], row["flags"]) for row in rows} == {("ok", "")}
    assert len(rows) == int(re.search(r"= (\d+) cells", said)[1])  # type: ignore[index]


def test_the_grid_is_that_of_params(program: Program) -> None:
    program("init", "m", "made.yaml", *FAKE).must()
    spec = load_spec(program.folder / "made.yaml", {})
    found = json_of(program("params", "m", *FAKE, "--json"))
    for name in ("num_ctx", "num_batch"):
        values = [*spec.dimensions[name]]
        assert (values[0], values[-1]) == (found[name]["start"], found[name]["end"])
    assert spec.prompt.tokens == found["prompt"]["tokens"]
    assert spec.engine == "fake"


def test_an_editor_finds_the_schema_that_the_file_names_after_what_it_says(program: Program) -> None:
    (program.folder / "sub").mkdir()
    program("init", "m", "sub/made.yaml", *FAKE).must()
    written = (program.folder / "sub/made.yaml").read_text()
    assert "$schema=sweep.schema.json" in written
    assert "# Editors complete this file after: ollama-sweep schema > sub/sweep.schema.json" in written
    (program.folder / "sub/sweep.schema.json").write_text(program("schema").must().stdout)
    program("init", "m", "sub/other.yaml", *FAKE).must()
    assert "Editors" not in (program.folder / "sub/other.yaml").read_text()


def test_what_stands_behind_a_comment_sign_is_valid_too(tmp_path: Path) -> None:
    text = commented(KNOWN, RAM, ranges.suggest(KNOWN, RAM), [], {})
    file = tmp_path / "sweep.yaml"
    for name in OFTEN_WANTED:
        server = "server|" if BY_NAME[name].part is Part.SERVER else ""
        switched_on = re.sub(rf"^# (?=(?:{server}{name}): )", "", text, flags=re.MULTILINE)
        assert name in yaml.safe_load(switched_on)
        file.write_text(switched_on, "utf-8")
        assert load_spec(file, {}).warnings == (), name


def test_a_model_that_cannot_write_is_asked_for_vectors(program: Program) -> None:
    info = replace(KNOWN, capabilities=("embedding",))
    found = ranges.suggest(info, RAM)
    for text in (commented(info, RAM, found, [], {"engine": "fake"}), f"{brief(info, RAM, found, [])}engine: fake\n"):
        (program.folder / "made.yaml").write_text(text, "utf-8")
        spec = load_spec(program.folder / "made.yaml", {})
        assert (spec.task, spec.prompt.tokens) == ("embeddings", None)


TEXTS = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=30) | st.sampled_from(
    [
        "null",
        "Yes",
        "1e3",
        ".5",
        ".inf",
        "~",
        "- a",
        "a: b",
        "a #b",
        "{x}",
        "'",
        '"',
        "x\ny: 1",
        "\u2028",
        "😀",
        "a:",
    ]
)


@settings(max_examples=60, deadline=None)
@given(name=TEXTS)
def test_texts_of_others_are_texts_in_the_file_and_nothing_else(name: str) -> None:
    info = replace(KNOWN, name=name, quantization=f"4 {name}", parameter_size=name)
    found = ranges.suggest(info, RAM)
    plain = keys_of(commented(KNOWN, RAM, found, [], {"host": "h"}))
    read = keys_of(commented(info, RAM, found, [f"has {name}", name], {"host": name}))
    short = keys_of(brief(info, RAM, found, [f"has {name}", name]))
    assert read.keys() == plain.keys()
    assert read["model"] == read["host"] == short["model"] == name


def keys_of(text: str) -> dict[str, Any]:
    node = strict_yaml.parse(text, "made.yaml")
    assert node is not None
    assert isinstance(node.value, dict)
    return {name: one.value for name, one in node.value.items()}


@pytest.mark.parametrize(
    ("model", "file"),
    [
        ("llama3:8b", "llama3-8b.yaml"),
        ("hf.co/someone/Some-GGUF:Q4_K_M", "Some-GGUF-Q4_K_M.yaml"),
        ("con", "_con.yaml"),
        ("x" * 80, f"{'x' * 80}.yaml"),
    ],
)
def test_the_files_name_is_that_of_the_model(model: str, file: str, program: Program) -> None:
    program("init", model, *FAKE).must()
    assert program.files() == {file}
    assert load_spec(program.folder / file, {}).model == model


def test_a_file_of_weights_needs_no_engine(program: Program) -> None:
    weights = program.folder / 'my "own" model #1.gguf'
    weights.write_bytes(gguf(LLAMA, [(4096, 4096)]))
    with mock.patch("ollama_sweep.engines.load", side_effect=AssertionError("no engine is asked")):
        program("init", weights).must()
    assert load_spec(program.folder / "my--own--model--1.yaml", {}).model == str(weights)


def test_a_file_that_is_there_stays_as_it_is(program: Program) -> None:
    (program.folder / "m.yaml").write_text("mine", "utf-8")
    ended = program("init", "m", *FAKE).must(2)
    assert ended.stderr == "error: m.yaml: exists; use --force, or name another file\n"
    assert (program.folder / "m.yaml").read_text("utf-8") == "mine"
    program("init", "m", *FAKE, "--force").must()
    assert load_spec(program.folder / "m.yaml", {}).model == "m"


def test_it_can_be_printed(program: Program) -> None:
    printed = program("init", "m", "-", *FAKE).must().stdout
    assert yaml.safe_load(printed)["model"] == "m"
    assert program.files() == set()


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (["missing", *FAKE], 5, "missing is not installed here"),
        (["nothing.gguf"], 2, "nothing.gguf"),
        (["gpt:cloud"], 2, "does not run on this machine"),
        (["m", "--engine", "oolama"], 2, "Did you mean ollama?"),
        (["..", *FAKE], 2, "neither a name like"),
        (["a\nb: c", *FAKE], 2, "error: model: contains a space or control character (position 2)"),
        (["x" * 81, *FAKE], 2, "max 80"),
        (["m", "folder", *FAKE], 2, "is a folder, not a file"),
        (["m", f"{'n' * 256}.yaml", *FAKE], 2, "too long"),
        ([], 2, "Missing argument 'MODEL'"),
    ],
)
def test_mistakes_make_nothing(words: list[str], code: int, text: str, program: Program) -> None:
    program.script(missing_models=["missing"])
    (program.folder / "folder").mkdir()
    ended = program("init", *words).must(code)
    assert text in ended.stderr
    assert (ended.stdout, program.files()) == ("", {"folder"})


@pytest.mark.parametrize("command", ["init", "params"])
def test_without_an_engine_one_line_says_what_to_do(command: str, program: Program) -> None:
    nothing = {"PATH": "/nowhere", "OLLAMA_HOST": "", "XDG_CACHE_HOME": str(program.folder)}
    ended = program(command, "llama3:8b", env=nothing).must(5)
    assert re.fullmatch(r"error: no Ollama was found: [^\n]*ollama\.com[^\n]*\.gguf[^\n]*\n", ended.stderr)
    assert program.files() == set()


@pytest.mark.real
def test_plan_takes_the_file_for_a_model_of_a_real_server(server: RealOllama, sweep: Sweep) -> None:
    sweep("init", MODEL, "--host", server.host, "--ollama", server.binary).must()
    planned = json.loads(sweep("plan", f"{MODEL}.yaml", "--json").must().stdout)
    assert (planned["does_not_fit"], planned["unfilled"], planned["to_run"]) == ([], [], 18)
