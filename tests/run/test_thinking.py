"""Sweeps of models that think: told to or not to, and what they thought is kept and never judged."""

# ruff: noqa: F401, F811 - the fixtures are imported, and asked for by their names
from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ollama_sweeps import ollama as ollama
from scripted_ollama import ScriptedOllama
from sweeping import Program, json_of, program

from ollama_sweep.core.outcome import AnswerRow
from ollama_sweep.plan import config, grid
from ollama_sweep.store.reader import Reader

QUESTION = "What is the capital of France?\nA. London\nB. Paris\nC. Rome\nD. Oslo\nAnswer:"
MMLU = "What is the capital of France?,London,Paris,Rome,Oslo,B\n"
THOUGHT = "The user asks for the capital. London is option A. Perhaps the answer: A? No, Paris."


def mmlu(program: Program, **keys: Any) -> Path:
    (program.folder / "geography_test.csv").write_text(MMLU)
    given = {"num_ctx": [512], "num_batch": [64], "task": "mmlu", "prompt": None, "warmup": 0, "retries": 0,
             "tasks": {"mmlu": {"data": "geography_test.csv"}}, "interim": "off", "control": "off"}  # fmt: skip
    return program.grid(**{**given, **keys})


def rows(program: Program) -> list[dict[str, Any]]:
    return list(json_of(program("export", "--format", "json"))["results"])


def kept(program: Program) -> list[AnswerRow]:
    with Reader.open(program.folder / "sweeps.db") as reader:
        return list(reader.answers(reader.sweeps()[0].sweep_id))


@pytest.mark.parametrize(
    ("printed", "score", "thought", "answer"),
    [
        (f"Thinking...\n{THOUGHT}\n...done thinking.\n\nB", 1, THOUGHT, "B"),
        ("Thinking...\nPerhaps the answer: B.\n...done thinking.\n\nLondon", 0, "Perhaps the answer: B.", "London"),
        (f"<think>{THOUGHT}</think>B", 1, THOUGHT, "B"),
        ("B", 1, "", "B"),
    ],
)
def test_what_ollama_prints_of_thoughts_is_kept_and_not_judged(
    printed: str, score: int, thought: str, answer: str, ollama: ScriptedOllama, program: Program
) -> None:
    ollama.script(run=[{"prints": printed}], capabilities=["completion", "thinking"])
    program("run", mmlu(program), *ollama.options()).must()
    assert [row["score"] for row in rows(program)] == [score]
    (found,) = kept(program)
    assert (found.answer.text, found.answer.thoughts, found.thinking_count) == (answer, thought, None)
    assert ollama.did("think") == ["false"]


def test_only_thoughts_are_no_answer(ollama: ScriptedOllama, program: Program) -> None:
    ollama.script(run=[{"prints": f"Thinking...\n{THOUGHT}"}], capabilities=["completion", "thinking"])
    program("run", mmlu(program, num_predict=2, retries=3), *ollama.options()).must()
    (row,) = rows(program)
    assert (row["status"], row["reason"], row["attempts"]) == ("error", "only_thoughts", 1)
    assert "only thoughts and no answer: num_predict 2 ended them" in row["error"]
    (found,) = kept(program)
    assert (found.answer.thoughts, found.answer.text, found.scores) == (THOUGHT, "", {})
    assert len(ollama.did("run")) == 1, "asking again would take as long"
    assert (
        "Only thoughts" in program("best").stdout + program("status").stdout + row["reason"].replace("_", " ").title()
    )


def test_think_is_told_to_ollama_in_its_words(ollama: ScriptedOllama, program: Program) -> None:
    ollama.script(capabilities=["completion", "thinking"])
    program("run", mmlu(program, think=[False, True, "low", "high"]), *ollama.options()).must()
    assert ollama.did("think") == ["false", "true", "low", "high"]
    assert [row["think"] for row in rows(program)] == [0, 1, "low", "high"]


@pytest.mark.parametrize("engine", ["ollama", "ollama_http"])
def test_a_model_that_cannot_think_is_told_once(engine: str, ollama: ScriptedOllama, program: Program) -> None:
    words = [*ollama.options(), "--engine", engine]
    program("run", mmlu(program, think=True, retries=3), *words).must()
    (row,) = rows(program)
    assert (row["status"], row["reason"], row["attempts"]) == ("error", "cannot_think", 1)
    assert row["error"] == "m does not support thinking, and `think` asks for it"
    assert not ollama.did("run")


# -- the key ----------------------------------------------------------------------------------------------------------


def test_false_is_the_cell_that_a_file_without_the_key_has(program: Program) -> None:
    program.script(thoughts={"France": THOUGHT}, answers={"France": "B"})
    plain, swept = mmlu(program), mmlu(program, name="swept", think=[False, True, "high"])
    program("run", plain).must()
    assert "1 of 3 cells already done" in program("run", swept).must().stdout
    written = program("run", mmlu(program, name="written", think=False)).must().stdout
    assert "1 of 1 cells already done" in written
    assert "1 of 1 cells already done" in program("run", plain, "--think", "high").must().stdout
    told = program.rows(sql="SELECT json_extract(options, '$.think') AS think FROM cells ORDER BY id")
    assert [row["think"] for row in told] == [None, 1, "high"]


def test_numbers_of_thinking_stand_beside_the_answers(program: Program) -> None:
    program.script(thoughts={"France": THOUGHT}, answers={"France": "B"})
    program("run", mmlu(program, num_predict=40, think=[False, True])).must()
    without, told = rows(program)
    assert (without["thinking_count"], told["thinking_count"]) == (None, len(THOUGHT.split()))
    assert told["thinking_duration_s"] == pytest.approx(0.01 * len(THOUGHT.split()))
    assert (without["score"], told["score"]) == (1, 1)
    program("report", "--out", "out").must()
    (run,) = (program.folder / "out").rglob("run_*.json")
    results = json.loads(run.read_text())["results"]
    assert [result.get("thoughts") for result in results] == [None, THOUGHT]
    assert [result["metrics"].get("thinking_tokens") for result in results] == [None, len(THOUGHT.split())]
    for words in (["heatmap", "--metric", "thinking_count"], ["plot", "grid"], ["best"], ["plan", mmlu(program)]):
        program(*words).must()


def test_vectors_are_made_without_a_thought(program: Program) -> None:
    (program.folder / "rows.jsonl").write_text('{"text": "a"}\n{"text": "b"}\n')
    tasks = {"embeddings": {"data": "rows.jsonl", "rows": 2}}
    program.script(not_thinking=["m"])
    program("run", mmlu(program, task="embeddings", tasks=tasks, think=True)).must()
    assert [row["status"] for row in rows(program)] == ["ok"]


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("hihg", 'think: "hihg" is not known; known are true, false, low, medium, high. Did you mean high?'),
        ("1", "think: 1 is not known; known are true, false, low, medium, high."),
        ("[true, true]", "think: true is listed twice"),
        ("{start: 1, end: 2, step: 1}", "think: a range needs numbers; write a list"),
    ],
)
def test_what_is_no_way_to_think_is_one_line(written: str, said: str, program: Program) -> None:
    ended = program("run", mmlu(program), "--set", f"think={written}").must(2)
    assert said in ended.stderr
    assert len(ended.stderr.splitlines()) == 1


def test_an_engine_that_cannot_be_told_refuses(program: Program) -> None:
    (program.folder / "rows.jsonl").write_text('{"text": "a"}\n')
    path = program.config(engine="fake", model="m", task="embeddings", think=True)
    assert "cannot set think" in program("plan", path, "--engine", "sentence_transformers").must(2).stderr


def test_exclude_knows_truth_and_words(program: Program) -> None:
    exclude = ['think == "high" and num_ctx > 512', "think == false", "not (think == true or think != true)"]
    path = mmlu(program, think=[False, True, "high"], num_ctx=[512, 1024], exclude=exclude)
    left = [dict(cell.coordinates) for cell in grid.cells(config.load_spec(path, {}))]
    assert [(cell["think"], cell["num_ctx"]) for cell in left] == [(True, 512), ("high", 512), (True, 1024)]
    assert "a number" in program("plan", mmlu(program, think=[True], exclude=["think > 1"])).must(2).stderr
