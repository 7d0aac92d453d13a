"""--data-path, --max-tokens, --temperature and --max-retries: what people of the older tools type."""

from __future__ import annotations

import json
from typing import Any

import pytest
from sweep_runner import ONE_LOAD
from sweeping import Program, program  # noqa: F401 - the fixture is asked for by its name

ITEMS = [{"id": "a", "category": "Extraction", "prompt": "Say one"}]


@pytest.fixture
def own(program: Program) -> Program:  # noqa: F811
    """A folder with a file of items, in a folder whose name YAML would take for something else."""
    (program.folder / "a: b #c").mkdir()
    (program.folder / "a: b #c" / "items.json").write_text(json.dumps(ITEMS), "utf-8")
    return program


def asked(own: Program, *words: str, **entries: Any) -> dict[str, dict[str, Any]]:
    """The options of the request with which each task was asked."""
    config = own.config(
        "grid", **{"model": "m", "engine": "fake", "num_ctx": 512, "num_batch": 64, **ONE_LOAD, **entries}
    )
    own("run", config, *words).must()
    rows = own.rows(sql="select task, options, task_options from cells")
    return {row["task"]: json.loads(row["options"]) | json.loads(row["task_options"]) for row in rows}


def items_asked(own: Program) -> set[str]:
    """The ids of what the task `items` asked, without its warm-up."""
    sql = (
        "select answers.item from answers join attempts on attempts.id = answers.attempt_id join cells on "
        "cells.id = attempts.cell_id where cells.task = 'items' and answers.item <> 'warmup'"
    )
    return {row["item"] for row in own.rows(sql=sql)}


def test_the_options_reach_the_items(own: Program) -> None:
    words = ["--data-path", "a: b #c/items.json", "--max-tokens", "7", "--temperature", "0.2", "--max-retries", "5"]
    found = asked(own, *words, task="items")["items"]
    assert (found["num_predict"], found["temperature"], found["max_retries"]) == (7, 0.2, 5)
    assert items_asked(own) == {"a"}


def test_every_task_gets_what_it_has(own: Program) -> None:
    """The prompt's speed has no options, and vectors have no tokens of an answer."""
    own.script(models=["m", "e"], only_embedding=["e"])
    found = asked(
        own, "--max-tokens", "7", "--max-retries", "1",
        task=["prompt_eval", "chat", "items", "latency_quality", "embeddings"], prompt={"text": "hello"},
        tasks={"embeddings": {"model": "e"}, "chat": {"num_predict": 90}, "items": {"max_tokens": 80}},
    )  # fmt: skip
    assert {task: options["num_predict"] for task, options in found.items() if task in ("chat", "items")} == {
        "chat": 7, "items": 7,
    }  # fmt: skip
    assert found["latency_quality"]["num_predict"] == 7
    assert found["prompt_eval"]["num_predict"] == 2
    assert {options["max_retries"] for task, options in found.items() if task != "prompt_eval"} == {1}


def test_a_file_goes_to_the_one_task_that_reads_files(own: Program) -> None:
    asked(own, "--data-path", "a: b #c/items.json", task=["prompt_eval", "latency_quality", "items"],
          prompt={"text": "hello"})  # fmt: skip
    assert items_asked(own) == {"a"}


@pytest.mark.parametrize("command", ["run", "plan"])
@pytest.mark.parametrize(
    ("words", "task", "message"),
    [
        (
            ["--max-tokens", "7"],
            "prompt_eval",
            "error: --max-tokens: no task of this sweep has it; it runs prompt_eval",
        ),
        (
            ["--temperature", "0"],
            ["prompt_eval", "embeddings"],
            "error: --temperature: no task of this sweep has it; it runs prompt_eval, embeddings",
        ),
        (
            ["--data-path", "x.json"],
            ["chat", "items"],
            "error: --data-path: chat, items read files of their own; say whose this is, for example --set tasks.chat",
        ),
        (["--max-tokens", "many"], "chat", 'error: --set tasks.chat.max_tokens: tasks.chat.max_tokens: "many" is text'),
        (["--max-retries", "-1"], "chat", "error: --set tasks.chat.max_retries: tasks.chat.max_retries: -1 is outside"),
        (["--data-path", "x.json"], "items", "error: --set tasks.items.data: x.json: file not found"),
    ],
)
def test_what_fits_no_task_is_one_line(
    own: Program, command: str, words: list[str], task: str | list[str], message: str
) -> None:
    config = own.config("grid", model="m", engine="fake", num_ctx=512, num_batch=64, prompt={"text": "x"}, task=task)
    ended = own(command, config, *words).must(2)
    assert ended.stderr.startswith(message), ended.stderr
    assert ended.stderr.count("\n") == 1
    assert "sweeps.db" not in own.files()


def test_the_interview_asks_for_tasks_itself(own: Program) -> None:
    ended = own("run", "--interactive", "--max-tokens", "7").must(2)
    assert ended.stderr.startswith("error: --max-tokens: not together with --interactive")
