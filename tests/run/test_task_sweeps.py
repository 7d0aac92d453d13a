"""Tasks as dimensions of a sweep: asked, judged, kept, gone on with; what failed stands apart."""

# ruff: noqa: F401, F811 - the fixture is imported, and asked for by its name
from __future__ import annotations

import json
import shutil
import signal
import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from ollama_fixture import until
from sweeping import Program, program

from ollama_sweep.core.outcome import AnswerRow
from ollama_sweep.run.words.summaries import summaries
from ollama_sweep.store.reader import Reader

CAPITALS: Sequence[Mapping[str, Any]] = (
    {"id": "france", "category": "europe", "prompt": "Name the capital of France.", "expect": {"facts": ["Paris"]}},
    {"id": "japan", "category": "asia", "prompt": "Name the capital of Japan.", "expect": {"facts": ["Tokyo"]}},
    {"id": "spain", "category": "europe", "prompt": "Name the capital of Spain.", "expect": {"facts": ["Madrid"]}},
)
RIGHT = {"France": "It is Paris.", "Japan": "It is Tokyo.", "Spain": "It is Madrid."}


@pytest.fixture
def data(program: Program) -> str:
    """A file of questions beside the sweep."""
    return write(program.folder / "capitals.jsonl", CAPITALS)


def write(path: Path, items: Sequence[Mapping[str, Any]]) -> str:
    path.write_text("".join(json.dumps(item) + "\n" for item in items))
    return path.name


def items_grid(program: Program, data: str, **keys: Any) -> Path:
    tasks = {"items": {"data": data, **keys.pop("options", {})}}
    return program.grid(**{"task": "items", "tasks": tasks, "prompt": None, **keys})


def rows(program: Program) -> list[dict[str, Any]]:
    return list(json.loads(program("export", "--format", "json").must().stdout)["results"])


def answers(program: Program) -> list[AnswerRow]:
    with Reader.open(program.folder / "sweeps.db") as reader:
        return list(reader.answers(reader.sweeps()[0].sweep_id))


# -- one task --------------------------------------------------------------------------------------------------------


def test_every_answer_is_kept_and_scored(program: Program, data: str) -> None:
    program.script(answers=RIGHT)
    program("run", items_grid(program, data, num_ctx=[512], num_batch=[4])).must()
    (row,) = rows(program)
    assert (row["status"], row["task"], row["answers"], row["failed_answers"]) == ("ok", "items", 3, 0)
    assert (row["score"], row["quality"], row["success_rate"]) == (1.0, 1.0, 1.0)
    kept = answers(program)
    assert [(answer.answer.item, answer.answer.text) for answer in kept] == [
        ("france", "It is Paris."), ("japan", "It is Tokyo."), ("spain", "It is Madrid."),
    ]  # fmt: skip
    assert [answer.answer.prompt for answer in kept] == [item["prompt"] for item in CAPITALS]
    assert all(answer.config["num_predict"] and answer.latency_s > 0 for answer in kept)


def test_a_wrong_answer_lowers_the_score_of_its_cell_and_category(program: Program, data: str) -> None:
    program.script(answers={**RIGHT, "Japan": "I do not know."})
    program("run", items_grid(program, data, num_ctx=[512], num_batch=[4])).must()
    (row,) = rows(program)
    assert row["score"] == pytest.approx(2 / 3)
    assert (row["score_europe"], row["score_asia"]) == (1.0, 0.0)
    assert row["success_rate"] == 1.0


def test_an_item_that_always_fails_is_kept_apart(program: Program, data: str) -> None:
    program.script(answers=RIGHT, item_failures={"Japan": ["error"]})
    program("run", items_grid(program, data, num_ctx=[512], num_batch=[4], options={"max_retries": 0})).must()
    (row,) = rows(program)
    assert (row["status"], row["answers"], row["failed_answers"]) == ("ok", 2, 1)
    assert (row["score"], row["quality"]) == (1.0, pytest.approx(2 / 3))
    (failed,) = [answer for answer in answers(program) if answer.answer.failure]
    assert (failed.answer.item, failed.answer.text, failed.scores) == ("japan", "", {})


def test_an_item_that_fails_once_is_asked_again(program: Program, data: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ollama_sweep.run.questions.RETRY_PAUSE_S", 0)
    program.script(answers=RIGHT, item_failures={"Japan": ["error", "ok"]})
    program("run", items_grid(program, data, num_ctx=[512], num_batch=[4])).must()
    assert {answer.answer.item: answer.answer.tries for answer in answers(program)} == {
        "france": 1, "japan": 2, "spain": 1,
    }  # fmt: skip
    assert rows(program)[0]["success_rate"] == 1.0


def test_a_cell_without_any_answer_has_failed(program: Program, data: str) -> None:
    program.script(item_failures={"capital": ["error"]})
    grid = items_grid(program, data, num_ctx=[512], num_batch=[4], options={"max_retries": 0}, retries=0)
    program("run", grid).must()
    (row,) = rows(program)
    assert (row["status"], row["reason"]) == ("error", "no_answers")
    assert "none of 3 questions was answered" in row["error"]
    assert row.get("score") is None


def test_a_crash_takes_the_cell_and_not_the_sweep(program: Program, data: str) -> None:
    program.script(answers=RIGHT, cells={"num_ctx 512, num_batch 4": ["crashed"]})
    program("run", items_grid(program, data, num_ctx=[512, 1024], num_batch=[4], retries=0)).must()
    assert [row["status"] for row in rows(program)] == ["crashed", "ok"]


def test_an_item_too_long_for_a_context_is_not_asked_there(program: Program) -> None:
    long = {"id": "long", "category": "long", "prompt": "word " * 600 + "France?", "expect": {"facts": ["Paris"]}}
    data = write(program.folder / "long.jsonl", [*CAPITALS, long])
    program.script(answers=RIGHT)
    program("run", items_grid(program, data, num_ctx=[512, 1024], num_batch=[4], num_predict=20)).must()
    small, large = rows(program)
    assert (small["answers"], small["failed_answers"], small["quality"]) == (3, 1, 0.75)
    assert (large["answers"], large["quality"]) == (4, 1.0)
    (failed,) = [answer for answer in answers(program) if answer.answer.failure]
    assert failed.answer.item == "long"
    assert "needs num_ctx 625 (604 tokens) and has 512" in failed.answer.failure
    assert failed.answer.tries == 1


def test_a_context_that_no_item_fits_is_skipped(program: Program) -> None:
    long = [{"id": "a", "category": "c", "prompt": "word " * 600}]
    program("run", items_grid(program, write(program.folder / "l.jsonl", long), num_batch=[4])).must()
    assert [(row["status"], row["reason"]) for row in rows(program)] == [("skipped", "does_not_fit"), ("ok", "")]


# -- tasks as a dimension --------------------------------------------------------------------------------------------


def test_tasks_of_a_configuration_follow_each_other(program: Program, data: str) -> None:
    program.script(answers=RIGHT)
    grid = program.grid(task=["prompt_eval", "items"], tasks={"items": {"data": data}})
    program("run", grid).must()
    prepared = program.events("prepare")
    assert [label.rpartition("task ")[2] for label in prepared] == ["prompt_eval", "items"] * 4
    assert {row["status"] for row in rows(program)} == {"ok"}


def test_a_sweep_of_tasks_goes_on_and_asks_nothing_twice(program: Program, data: str) -> None:
    program.script(answers=RIGHT)
    grid = program.grid(task=["prompt_eval", "items"], tasks={"items": {"data": data}})
    program("run", grid).must()
    before = len(program.events("generate"))
    program("run", grid).must()
    assert len(program.events("generate")) == before


def test_other_questions_are_other_cells(program: Program, data: str) -> None:
    program.script(answers=RIGHT)
    grid = items_grid(program, data, num_ctx=[512], num_batch=[4])
    program("run", grid).must()
    write(program.folder / data, CAPITALS[:2])
    ended = program("run", grid).must()
    assert "tasks changed: 1 cells will be measured again, the old ones are kept" in ended.stdout
    assert rows(program)[0]["answers"] == 2


def test_more_repeats_of_a_task_are_measured(program: Program, data: str) -> None:
    program.script(answers=RIGHT)
    program("run", items_grid(program, data, num_ctx=[512], num_batch=[4])).must()
    first = len(program.events("generate"))
    program("run", items_grid(program, data, num_ctx=[512], num_batch=[4], options={"repeats": 2})).must()
    assert rows(program)[0]["answers"] == 6
    assert len(program.events("generate")) == 2 * first, "the first round was not asked again"


def test_a_file_that_is_the_model_of_a_task_must_be_there(program: Program) -> None:
    grid = program.grid(task="embeddings", prompt=None, tasks={"embeddings": {"model": "~/nowhere/e5.gguf"}})
    ended = program("run", grid).must(2)
    assert "e5.gguf" in ended.stderr
    assert "~" not in ended.stderr
    assert program.files() == {"grid.yaml"}


def test_each_model_is_summed_up_when_its_cells_are_done(program: Program, data: str) -> None:
    program.script(answers=RIGHT)
    ended = program("run", items_grid(program, data, model=["a", "b"], num_ctx=[512], num_batch=[4])).must()
    lines = ended.stdout.splitlines()
    (first,) = [number for number, line in enumerate(lines) if "2/2" in line]
    assert any("items: 3 of 3 answered (100 %)" in line for line in lines[:first])
    log = (program.folder / "results" / "benchmark_log.csv").read_text().splitlines()
    assert log[0] == "timestamp,model,avg_tps,avg_ttft,avg_decode_tps,success_rate,total_items"
    assert [line.split(",")[1] for line in log[1:]] == ["a", "b"]


def test_the_system_prompt_reaches_the_engine_and_is_part_of_the_identity(program: Program, data: str) -> None:
    program.script(answers=RIGHT)
    plain = items_grid(program, data, num_ctx=[512], num_batch=[4])
    program("run", plain).must()
    count = rows(program)[0]["prompt_eval_count"]
    told = items_grid(program, data, num_ctx=[512], num_batch=[4], options={"system": "Be brief and very kind."})
    program("run", told).must()
    assert rows(program)[0]["prompt_eval_count"] == count + 5


def test_embeddings_use_a_model_of_their_own(program: Program, data: str) -> None:
    program.script(answers=RIGHT)
    grid = program.grid(
        task=["items", "embeddings"], prompt=None, num_ctx=[512], num_batch=[4],
        tasks={"items": {"data": data}, "embeddings": {"model": "embedder", "rows": 20, "warmup_rows": 4}},
    )  # fmt: skip
    program("run", grid).must()
    items, embeddings = rows(program)
    assert (items["model"], embeddings["model"]) == ("m", "embedder")
    assert embeddings["rows_per_s"] > 0
    assert embeddings["embedding_dimension"] > 0


def test_sizes_that_are_not_given_are_left_to_the_engine(program: Program, data: str) -> None:
    program.script(answers=RIGHT)
    program("run", items_grid(program, data, num_ctx=None, num_batch=None)).must()
    (row,) = rows(program)
    assert (row["status"], row["num_ctx"], row["num_batch"]) == ("ok", None, None)
    assert row["effective_num_ctx"] == 4096
    assert row["flags"] == ""


# -- refused before the first cell -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"task": "itemz"}, "unknown task itemz. Known: "),
        ({"task": "prompt_eval", "tasks": {"items": {}}, "prompt": {"text": "x"}}, "this sweep does not run it"),
        ({"task": "items", "tasks": {"items": {"tempo": 1}}}, "nearest"),
        ({"task": "items", "tasks": {"items": {"data": "nowhere.jsonl"}}}, "nowhere.jsonl"),
        ({"task": "items", "tasks": "items"}, "write the names of tasks and their options below it"),
    ],
)
def test_a_wrong_task_is_one_line_and_nothing_is_created(
    keys: Mapping[str, Any], message: str, program: Program
) -> None:
    ended = program("run", program.grid(**{"prompt": None, **keys})).must(2)
    assert len(ended.stderr.splitlines()) == 1
    assert message.replace("nearest", "") in ended.stderr
    assert program.files() == {"grid.yaml"}


def test_a_model_that_cannot_embed_is_a_failed_cell_with_its_reason(program: Program) -> None:
    program.script(not_embedding=["m"])
    program("run", program.grid(task="embeddings", prompt=None, num_ctx=[512], num_batch=[4], retries=0)).must()
    (row,) = rows(program)
    assert row["status"] == "error"
    assert "cannot_embed" in row["reason"] or "embed" in row["error"]


# -- more repeats ----------------------------------------------------------------------------------------------------


def chat_grid(program: Program, data: str, repeats: int, **keys: Any) -> Path:
    """A sweep of one cell over `chat`, whose questions are asked as often as the sweep says."""
    options = {"data": data, "max_retries": 0}
    return program.grid(
        task="chat", tasks={"chat": options}, prompt=None, num_ctx=[512], num_batch=[4], repeats=repeats, warmup=0,
        **keys,
    )  # fmt: skip


def test_a_larger_repeats_asks_every_question_so_many_times_more(program: Program, data: str) -> None:
    program("run", chat_grid(program, data, 3)).must()
    assert (rows(program)[0]["answers"], len(program.events("generate"))) == (9, 9)
    more = chat_grid(program, data, 5)
    assert json.loads(program("plan", more, "--json").must().stdout)["why"] == {
        "has 3 runs, 5 are asked for now": 1,
    }  # fmt: skip
    program("run", more).must()
    (row,) = rows(program)
    assert (row["answers"], row["runs"], len(program.events("generate"))) == (15, 15, 15)
    assert sorted(answer.number for answer in answers(program)) == list(range(1, 16))
    program("run", more).must()
    assert len(program.events("generate")) == 15


def test_what_failed_in_an_earlier_round_still_counts_and_its_round_is_not_made_again(
    program: Program, data: str
) -> None:
    program.script(answers=RIGHT, item_failures={"Japan": ["error"]})
    program("run", chat_grid(program, data, 1)).must()
    program.script(answers=RIGHT)
    program("run", chat_grid(program, data, 2)).must()
    (row,) = rows(program)
    assert (row["answers"], row["failed_answers"]) == (5, 1)
    assert (row["success_rate"], row["quality"]) == (pytest.approx(5 / 6), pytest.approx(5 / 6))
    assert (row["score_europe"], row["success_rate_asia"]) == (1.0, 0.5)
    assert len(program.events("generate")) == 6


def test_the_sweeps_repeats_are_not_those_of_a_task_that_has_its_own(program: Program, data: str) -> None:
    program.script(answers=RIGHT)
    keys = {"num_ctx": [512], "num_batch": [4]}
    program("run", items_grid(program, data, repeats=3, **keys)).must()
    asked = len(program.events("generate"))
    more = items_grid(program, data, repeats=20, **keys)
    assert json.loads(program("plan", more, "--json").must().stdout)["to_run"] == 0
    program("run", more).must()
    assert len(program.events("generate")) == asked
    own = items_grid(program, data, repeats=20, options={"repeats": 3}, **keys)
    assert json.loads(program("plan", own, "--json").must().stdout)["why"] == {"has 1 runs, 3 are asked for now": 1}
    program("run", own).must()
    assert rows(program)[0]["answers"] == 9
    assert len(program.events("generate")) == asked + 6 + 1, "two rounds and their warm-up"


def test_the_range_of_embeddings_covers_the_runs_of_every_attempt(program: Program) -> None:
    def grid(repeats: int) -> Path:
        options = {"rows": 20, "warmup_rows": 4}
        return program.grid(
            task="embeddings", tasks={"embeddings": options}, prompt=None, num_ctx=[512], num_batch=[4],
            repeats=repeats,
        )  # fmt: skip

    program.script(rate=400)
    program("run", grid(1)).must()
    fast = rows(program)[0]["rows_per_s"]
    program.script(rate=100)
    program("run", grid(3)).must()
    (row,) = rows(program)
    assert row["answers"] == 3
    assert row["rows_per_s_max"] == fast > row["rows_per_s"] == row["rows_per_s_min"]


def test_until_of_a_task_with_questions_is_said_not_to_hold(program: Program, data: str) -> None:
    tasks = {"chat": {"data": data}, "items": {"data": data}}
    until = {"min": 2, "max": 5, "until": "2%"}
    keys: dict[str, Any] = {"tasks": tasks, "num_ctx": [512], "num_batch": [4]}
    both = program.grid(task=["prompt_eval", "chat", "items"], repeats=until, **keys)
    line = "Warning: repeats.until holds for the main task only; questions are asked a fixed number of times: chat 2, "
    for command in ("plan", "run"):
        said = [text for text in program(command, both).must().stdout.splitlines() if "repeats.until" in text]
        assert said == [f"{line}items 1"]
    for fine in ({"repeats": 2, "task": ["prompt_eval", "chat", "items"], **keys}, {"repeats": until}):
        assert "repeats.until" not in program("plan", program.grid(**fine)).must().stdout


# -- the log of all runs ---------------------------------------------------------------------------------------------


def logged(program: Program, folder: str = "results") -> list[tuple[str, str]]:
    """Model and number of answers of each line of a log."""
    path = program.folder / folder / "benchmark_log.csv"
    lines = path.read_text("utf-8").splitlines()[1:] if path.exists() else []
    return [(fields[1], fields[-1]) for fields in (line.split(",") for line in lines)]


def test_a_stopped_run_logs_no_model_whose_cells_are_not_all_done(program: Program, data: str) -> None:
    gate = program.folder / "gate"
    program.script(answers=RIGHT, gate=str(gate))
    grid = items_grid(program, data, num_batch=[4])
    started = program.start("run", grid, env=program.environment())
    until("a cell is being measured", lambda: bool(program.events("generate")))
    started.kill(signal.SIGTERM)
    until("it was heard", lambda: "Stopping after this cell" in started._files[0].read_text("utf-8"))
    gate.touch()
    assert "items: 3 of 3 answered (100 %)" in started.wait().must(143).stdout
    assert logged(program) == []
    program("run", grid).must()
    assert logged(program) == [("m", "6")]
    program("run", grid).must()
    assert logged(program) == [("m", "6")]


def test_a_model_is_logged_once_also_where_the_order_mixes_the_models(program: Program, data: str) -> None:
    program.script(answers=RIGHT)
    keys = {"model": ["a", "b"], "num_ctx": [512, 1024, 2048], "num_batch": [2, 4], "order": "shuffled"}
    lines = program("run", items_grid(program, data, **keys)).must().stdout.splitlines()
    models = [label.partition("model ")[2][0] for label in program.events("prepare")]
    assert models != sorted(models), "this order does not mix them"
    assert sorted(logged(program)) == [("a", "18"), ("b", "18")]
    (last,) = [number for number, line in enumerate(lines) if "12/12" in line]
    early = [line for line in lines[:last] if "items: 18 of 18 answered" in line]
    assert len(early) == 1, "the model that is done first is said before the other one goes on, and only once"


def test_a_model_of_a_tasks_own_has_one_line_in_the_tasks_folder(program: Program, data: str) -> None:
    program.script(answers=RIGHT)
    tasks = {"items": {"data": data}, "embeddings": {"model": "embedder", "rows": 20, "warmup_rows": 4, "repeats": 1}}
    grid = program.grid(
        task=["embeddings", "items"], tasks=tasks, prompt=None, model=["a", "b"], num_ctx=[512], num_batch=[4]
    )
    program("run", grid).must()
    assert logged(program, "results/items") == [("a", "3"), ("b", "3")]
    assert logged(program, "results/embeddings") == [("embedder", "1")]
    assert logged(program) == []


def test_only_models_that_are_done_are_logged(program: Program, data: str, monkeypatch: pytest.MonkeyPatch) -> None:
    program.script(answers=RIGHT)
    program("run", items_grid(program, data, model=["a", "b"], num_ctx=[512], num_batch=[2, 4])).must()
    shutil.rmtree(program.folder / "results")
    with sqlite3.connect(program.folder / "sweeps.db") as connection:
        connection.execute("UPDATE cells SET status = 'pending' WHERE model = 'b' AND num_batch = 4")
    monkeypatch.chdir(program.folder)
    said = summaries(Path("sweeps.db"), "grid")
    assert sum("answered" in line for line in said) == 2, "what b has so far is said"
    assert said[-1] == "Log: results/benchmark_log.csv"
    assert logged(program) == [("a", "6")]
