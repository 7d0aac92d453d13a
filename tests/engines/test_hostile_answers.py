"""Numbers, objects and texts that cannot be, as an Ollama may send them: a cell's failure, or a server that is away."""

# ruff: noqa: F401, F811 - the fixtures are imported, and asked for by their names
from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from httpx import Client, MockTransport, Response
from ollama_sweeps import check_nothing_left, ollama, run, short_waits
from plain_engine import add_package
from scripted_ollama import ScriptedOllama
from sweeping import Program, program

from ollama_sweep.core.errors import CellFailed, EngineUnavailable
from ollama_sweep.core.generation import Generation
from ollama_sweep.engines.ollama.listed import asked_of, installed_in, loaded_in, shown_in
from ollama_sweep.engines.ollama.output import statistics
from ollama_sweep.engines.ollama.requests import Streamed, collect
from ollama_sweep.engines.shared import gate
from ollama_sweep.engines.shared.deadline import Deadline
from ollama_sweep.engines.shared.gate import Nonsense
from ollama_sweep.engines.shared.gguf import header_of
from ollama_sweep.store.reader import Reader

DONE: dict[str, Any] = {
    "done": True,
    "prompt_eval_count": 9,
    "prompt_eval_cached_count": 0,
    "prompt_eval_duration": 30_000_000,
    "eval_count": 2,
    "eval_duration": 10_000_000,
    "total_duration": 40_000_000,
    "load_duration": 1_000_000,
}
LABELS = {
    "prompt eval count": "9 token(s)",
    "prompt eval duration": "30ms",
    "prompt eval rate": "300.00 tokens/s",
    "eval count": "2 token(s)",
    "eval duration": "10ms",
    "total duration": "40ms",
    "load duration": "1ms",
}


def answered(field: str = "", value: str = "", text: str = '"Hello"') -> str:
    """What is streamed: one piece, and the last object with another value in one field."""
    fields = [f'"{name}": {value if name == field else json.dumps(known)}' for name, known in DONE.items()]
    return f'{{"response": {text}, "done": false}}\n{{{", ".join(fields)}}}\n'


def printed(label: str = "", value: str = "") -> str:
    """What `ollama run --verbose` prints, with another value behind one label."""
    return "\n".join(f"{name}: {value if name == label else known}" for name, known in LABELS.items())


JSON_VALUES = {
    "prompt_eval_duration": ["-5", "NaN", "-Infinity", "1e400", '"7"', "[]", "{}", "true", "9" * 400, "9" * 5000,
                             "1e30", "600000000000", "0.01"],
    "prompt_eval_count": ["-1", "8.5", "1e30", "99999999999999999999", '"9"', "true", "NaN", "9" * 5000, "10000001"],
    "prompt_eval_cached_count": ["-1", "10", "0.5", "[0]", "1e400"],
    "eval_count": ["1e30", "1.5", "99999999999999999999", "-2", '"2"'],
    "eval_duration": ["-1", "Infinity", "{}", "9" * 400, "0.1"],
    "total_duration": ["NaN", "-40", "1e300", "[1]"],
    "load_duration": ["-Infinity", "true", "9" * 5000],
    "done": ['"yes"', "1"],
}  # fmt: skip
LINES = {
    "prompt eval count": ["-5 token(s)", "9.5 token(s)", "9" * 400, "9" * 5000 + " token(s)", "1e3 token(s)", "NaN"],
    "prompt eval duration": ["-30ms", "30", "9" * 400 + "s", "9" * 5000 + "ms", "inf", "1e400s"],
    "prompt eval rate": ["nan tokens/s", "-3.00 tokens/s", "9" * 5000 + " tokens/s", "inf"],
    "eval count": ["99999999999999999999 token(s)", "-2 token(s)"],
    "total duration": ["-1s", "9" * 400 + "h"],
    "load duration": ["1.2.3s"],
}


def parse_errors(program: Program, fields: list[str]) -> None:
    """Each cell is the parse error of its field, and has no number."""
    rows = program.rows()
    assert len(rows) == len(fields)
    for row, field in zip(rows, fields, strict=True):
        assert (row["status"], row["reason"], row["prompt_eval_rate"]) == ("parse_error", "bad_value", None), field
        assert row["error"].startswith((field, "prompt_eval_rate", "eval_rate")), row["error"]
        assert len(row["error"]) < 300


def read(streamed_text: str) -> Generation:
    """What the engine makes of a streamed answer that took 0.1 s."""
    streamed = Streamed(duration_s=0.1)
    collect([streamed_text.encode()], streamed, Deadline(Response(200), 1))
    return streamed.generation()


@pytest.mark.parametrize("field", JSON_VALUES)
def test_a_number_that_is_none_is_a_parse_error_with_its_name(field: str) -> None:
    for value in JSON_VALUES[field]:
        with pytest.raises(CellFailed) as caught:
            gate.checked(read(answered(field, value)), fresh=True)
        found = caught.value
        assert (found.status, found.reason) == ("parse_error", "bad_value"), value
        assert found.error.startswith((field, "cached_count", "prompt_eval_rate", "eval_rate")), found.error
        assert len(found.error) < 200
        assert "Hello" in found.raw


def test_numbers_that_are_none_do_not_stop_a_sweep(program: Program, ollama: ScriptedOllama) -> None:
    bad = [("prompt_eval_duration", "-5"), ("prompt_eval_duration", "NaN"), ("eval_count", "9" * 5000)]
    ollama.script(raw={"/api/generate": [*(answered(field, value) for field, value in bad), answered()]})
    keys = {"num_ctx": [512 + 256 * number for number in range(len(bad))], "retries": 0}
    ended = run(program, ollama, "--engine", "ollama_http", **keys).must()
    assert "Traceback" not in ended.stderr
    parse_errors(program, [field for field, _ in bad])
    run(program, ollama, "--engine", "ollama_http", "--retry", "parse_error", **keys).must()
    assert {row["status"] for row in program.rows()} == {"ok"}
    check_nothing_left(program, ollama)


@pytest.mark.parametrize(("label", "value"), [(label, value) for label in LINES for value in LINES[label]])
def test_a_line_of_statistics_that_cannot_be(label: str, value: str) -> None:
    with pytest.raises(Nonsense, match=f"^{label}: ") as caught:
        statistics(printed(label, value))
    assert len(str(caught.value)) < 200


def test_statistics_that_cannot_be_are_the_cells_parse_error(program: Program, ollama: ScriptedOllama) -> None:
    """Also more time than the whole request took."""
    bad = [("prompt eval count", "9" * 5000), ("prompt eval rate", "99999999.00 tokens/s"), ("eval duration", "1h0m0s")]
    ollama.script(run=[{"says": printed(label, value)} for label, value in bad])
    run(program, ollama, num_ctx=[512, 1024, 2048], retries=0).must()
    parse_errors(program, ["prompt eval count", "prompt eval rate", "eval_duration_s"])
    assert "eval_duration_s: 3600.0 instead of at most the time of the whole request" in program.rows()[2]["error"]


HALF = r"\ud83d"


def test_halves_of_characters_are_joined_or_replaced_and_all_else_is_kept(
    program: Program, ollama: ScriptedOllama
) -> None:
    """A pair may be cut between two pieces; in an error, a name or a version a half does no harm."""
    pieces = "".join(f'{{"response": "{text}", "done": false}}\n' for text in (r"A \ud83d", r"\ude00\u202e B \ud83d"))
    ollama.script(version=json.loads(f'"0.34.0-{HALF}"'), raw={"/api/generate": pieces + answered(text='""')})
    tasks = program.asks({"id": "a", "category": "c", "prompt": "Hi"})
    keys = {"task": "items", "tasks": tasks, "prompt": {"text": "x"}, "retries": 0}
    run(program, ollama, "--engine", "ollama_http", **keys).must()
    with Reader.open(program.folder / "sweeps.db") as reader:
        (kept,) = reader.answers(reader.sweeps()[0].sweep_id)
    assert kept.answer.text == "A \U0001f600\u202e B \ufffd"
    ollama.script(raw={"/api/generate": f'{{"error": "bad {HALF} \\u001b[31m"}}\n'})
    run(program, ollama, "--engine", "ollama_http", **keys, num_ctx=[1024]).must()
    (row,) = program.rows()
    assert row["error"].endswith("the last: bad \ufffd \x1b[31m")


def test_an_answer_too_deep_to_be_read_is_the_cells(program: Program, ollama: ScriptedOllama) -> None:
    ollama.script(raw={"/api/generate": "[" * 100_000})
    run(program, ollama, "--engine", "ollama_http", retries=0).must()
    (row,) = program.rows()
    assert (row["status"], row["reason"]) == ("parse_error", "protocol")


# -- a server that talks nonsense --------------------------------------------------------------------------------------

ENTRY = '"name": "m:latest", "model": "m:latest", "digest": "ab"'
NO_ENGINE = {
    "no JSON": ("/api/ps", "<html>"),
    "a list": ("/api/ps", "[]"),
    "a number": ("/api/ps", "7"),
    "null": ("/api/ps", "null"),
    "another shape": ("/api/ps", '{"data": []}'),
    "models that are none": ("/api/ps", '{"models": {"a": 1}}'),
    "an entry that is none": ("/api/ps", '{"models": [7]}'),
    "no name": ("/api/ps", '{"models": [{"size": 7}]}'),
    "a size of 400 digits": ("/api/ps", f'{{"models": [{{{ENTRY}, "size": {"9" * 400}}}]}}'),
    "a negative size": ("/api/ps", f'{{"models": [{{{ENTRY}, "size": 7, "size_vram": -7}}]}}'),
    "a context that is a text": ("/api/ps", f'{{"models": [{{{ENTRY}, "context_length": "4096"}}]}}'),
    "too deep": ("/api/ps", "[" * 100_000),
    "tags without models": ("/api/tags", '{"error": "no"}'),
    "tags with a text for a size": ("/api/tags", f'{{"models": [{{{ENTRY}, "size": "big"}}]}}'),
    "a digest that is a number": ("/api/tags", '{"models": [{"name": "m:latest", "digest": 7}]}'),
    "show without an object": ("/api/show", '"m"'),
    "capabilities that are none": ("/api/show", '{"capabilities": "completion"}'),
    "a version that is a number": ("/api/version", '{"version": 7}'),
    "a version that is none": ("/api/version", "[]"),
}


READERS = {"/api/ps": loaded_in, "/api/tags": installed_in, "/api/show": shown_in}


@pytest.mark.parametrize("kind", [kind for kind, (path, _) in NO_ENGINE.items() if path in READERS])
def test_what_a_server_says_of_its_models_is_read_or_refused(kind: str) -> None:
    path, text = NO_ENGINE[kind]
    transport = MockTransport(lambda request: Response(200, text=text))
    expected = pytest.raises(EngineUnavailable, match=f"^{path} of the Ollama server at http://x answers nonsense: ")
    with Client(base_url="http://x", transport=transport) as http, expected as caught:
        asked_of(http, path, READERS[path], 1.0)
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize(("engine", "kind"), [("ollama", "no JSON"), ("ollama_http", "a negative size"),
                                              ("ollama_http", "a version that is none")])  # fmt: skip
def test_a_server_that_talks_nonsense_is_an_engine_that_is_away(
    program: Program, ollama: ScriptedOllama, engine: str, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line, exit 5, and nothing left behind."""
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    path, text = NO_ENGINE[kind]
    ollama.script(raw={path: text})
    ended = run(program, ollama, "--engine", engine, "--wait-engine", "0s").must(5)
    assert "Traceback" not in ended.stderr
    assert list(temporary.iterdir()) == []
    ollama.script(raw={"/api/generate": answered()})
    run(program, ollama, "--engine", engine).must()
    assert list(temporary.iterdir()) == []
    check_nothing_left(program, ollama)


def test_nonsense_is_waited_for(program: Program, ollama: ScriptedOllama) -> None:
    good = json.dumps({"models": []})
    ollama.script(raw={"/api/ps": ["<html>", good, "7", "[]", good], "/api/generate": answered()})
    ended = run(program, ollama, "--engine", "ollama_http").must()
    assert [row["status"] for row in program.rows()] == ["ok"]
    assert "/api/ps of the Ollama server" in ended.stderr + ended.stdout


@pytest.mark.parametrize("value", ["-5", "NaN", "1e400", '"8192"', "true", "9" * 400, "[1]", "0.5", '["x"]', "{}"])
def test_metadata_of_a_model_that_cannot_be_is_unknown(value: str) -> None:
    info = f'{{"general.architecture": "a", "a.context_length": {value}, "a.attention.head_count_kv": {value}}}'
    shown = shown_in(gate.loads(f'{{"model_info": {info}}}'))
    header = header_of(shown.metadata)
    assert (header.context_length, header.kv_bytes_per_token) == (None, None)


# -- an engine of another package --------------------------------------------------------------------------------------

WILD = """
from dataclasses import replace
from plain_engine import Engine as Plain
from ollama_sweep.core.errors import CellFailed
class Engine(Plain):
    def generate(self, cell, prompt, timeout_s, *, fresh=True):
        found = super().generate(cell, prompt, timeout_s)
        give = {2: lambda: replace(found, prompt_eval_count=10**400), 3: lambda: None, 5: lambda: found,
                4: lambda: replace(found, numbers={"joules": float("nan")}, text="\\ud83d")}
        if cell.num_batch == 6:
            raise CellFailed("melted", "heat", "half \\udead", b"raw")
        return give[cell.num_batch]()
"""


def test_what_an_engine_of_another_package_gives_is_looked_at_as_well(
    program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    (program.folder / "wild.py").write_text(WILD, "utf-8")
    add_package(program.folder, wild="wild")
    monkeypatch.syspath_prepend(program.folder)
    ended = program("run", program.grid(engine="wild", num_ctx=[512], num_batch=[2, 3, 4, 5, 6], retries=1)).must()
    assert "Traceback" not in ended.stderr
    assert [(row["status"], row["reason"]) for row in program.rows()] == [
        ("parse_error", "bad_value"), ("parse_error", "bad_value"), ("parse_error", "bad_value"), ("ok", ""),
        ("error", "heat"),
    ]  # fmt: skip
    assert [row["error"].partition(":")[0] for row in program.rows()] == [
        "prompt_eval_count", "generation", "numbers.joules", "", "half \ufffd"
    ]  # fmt: skip
