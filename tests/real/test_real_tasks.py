"""Every task in one sweep on a real Ollama, with llama-server's own log as the truth about loads."""

from __future__ import annotations

import csv
import json
import signal
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
from ollama_fixture import (
    MODEL,
    RealOllama,
    Servers,
    free_port,
    is_answering,
    script_output,
    stand_still,
    until,
)
from openai_server import llama_server
from sweep_runner import ONE_LOAD, Sweep

from ollama_sweep.core.outcome import AnswerRow
from ollama_sweep.store.reader import Reader

pytestmark = [pytest.mark.real, pytest.mark.timeout(1800)]

TASKS = ("prompt_eval", "chat", "items", "json_quality", "mmlu", "embeddings")
PATIENCE_S = 900.0
LONG = "Which river runs past the old stone bridge? " * 27
SUMS = [("What is 2 + 3?", 5), ("What is 4 + 4?", 8), ("What is 9 - 2?", 7), ("What is 6 + 3?", 9)]


@pytest.fixture
def server(real_ollama: Servers) -> RealOllama:
    return real_ollama("0.34.0")


def mmlu_files(folder: Path) -> Path:
    """A few questions in the format of the original files."""
    for split in ("test", "dev"):
        with (folder / f"elementary_mathematics_{split}.csv").open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([text, right, right + 1, right + 2, right + 3, "A"] for text, right in SUMS)
    return folder


def settings(folder: Path, **keys: Any) -> dict[str, Any]:
    """All tasks, as small as they get; what is not given here is as in docs/tasks.md."""
    embedder = script_output("get_model", "--variant", "embedding")
    items = folder / "items.jsonl"
    short = {"id": "short", "category": "Extraction", "prompt": "Repeat: river", "expect": {"facts": ["river"]}}
    long = {"id": "long", "category": "Summarization", "prompt": LONG}
    items.write_text(f"{json.dumps(short)}\n{json.dumps(long)}\n")
    return {
        "prompt": {"text": "Name the three largest rivers of the world and the seas that they flow into. " * 3},
        "num_ctx": [256, 1024],
        "num_batch": [128],
        "num_thread": 1,
        "warmup": 0,
        "repeats": 1,
        "task": list(TASKS),
        "tasks": {
            "chat": {"num_predict": 8, "limit": 2},
            "items": {"data": str(items), "num_predict": 8, "temperature": 0, "max_retries": 0},
            "json_quality": {"num_predict": 16, "limit": 1},
            "mmlu": {"data": str(mmlu_files(folder)), "subjects": ["elementary_mathematics"], "limit": 2},
            "embeddings": {"model": str(embedder), "rows": 4, "warmup_rows": 1},
        },
        **ONE_LOAD,
        **keys,
    }


def answers(sweep: Sweep) -> Iterator[AnswerRow]:
    with Reader.open(sweep.folder / "sweeps.db") as reader:
        yield from reader.answers(reader.sweeps()[0].sweep_id)


def place(row: dict[str, Any]) -> tuple[int, str]:
    return row["num_ctx"], row["task"]


def test_six_tasks_share_their_loads_and_survive_kill_9(server: RealOllama, sweep: Sweep) -> None:
    config = sweep.config(**settings(sweep.folder))
    words = ["run", str(config), *server.sweep_options()]
    first = server.log_size()
    died = sweep(*words, env={"SWEEP_CRASH_AT": "before_finish:9"}, timeout_s=PATIENCE_S)
    assert died.returncode == -signal.SIGKILL
    before = sweep.rows(sql="select * from attempts where status = 'ok'")
    assert len(before) == 8

    sweep(*words, timeout_s=PATIENCE_S).must()
    after = sweep.rows(sql="select * from attempts order by id")
    assert [row for row in after if row["id"] in {old["id"] for old in before}] == before
    assert Counter(row["status"] for row in after) == {"ok": 12, "interrupted": 1}
    assert Counter(row["cell_id"] for row in after if row["status"] == "ok").most_common(1)[0][1] == 1
    rows = {place(row): row for row in sweep.rows()}
    assert set(rows) == {(num_ctx, task) for num_ctx in (256, 1024) for task in TASKS}
    small, large = rows[256, "items"], rows[1024, "items"]
    assert (small["answers"], small["failed_answers"]) == (1, 1), "the long item does not fit 256 tokens"
    assert (large["answers"], large["failed_answers"]) == (2, 0)
    assert {row["embedding_dimension"] for row in rows.values() if row["task"] == "embeddings"} == {576}
    # 256 and 1024 for the model that answers and the one that embeds, counting the prompt, and one load after the kill.
    assert len(server.loads(first)) <= 4 + 2 + 1
    assert set(server.installed()) == {f"{MODEL}:latest"}
    assert server.ps() == []


def test_two_models_at_every_task_and_every_file_and_picture_of_it(server: RealOllama, sweep: Sweep) -> None:
    second = script_output("get_model", "--variant", "wide")
    config = sweep.config(**settings(sweep.folder, num_ctx=[1024]), model=[MODEL, str(second)])
    options = [word for word in server.sweep_options() if word not in ("--model", MODEL)]
    first = server.log_size()
    sweep("run", config, *options, timeout_s=PATIENCE_S).must()
    rows = sweep.rows()
    assert [row["status"] for row in rows] == ["ok"] * 2 * len(TASKS)
    assert all(row["load_duration_s"] is not None for row in rows)
    embedded = [row for row in rows if row["task"] == "embeddings"]
    assert len({row["cell"] for row in embedded}) == 1, "the embedding model is the same, so it is measured once"
    assert len(sweep.rows(sql="select * from attempts")) == 2 * len(TASKS) - 1
    assert Counter(server.loads(first))[1024, 128] == 3, "one for each model that answers, one for the one that embeds"
    assert len({row.model for row in answers(sweep) if row.task == "chat"}) == 2
    assert_everything_is_drawn(sweep)
    assert_every_file_is_written(sweep)


def assert_everything_is_drawn(sweep: Sweep) -> None:
    """Each plot has a picture of its own, but those of a dimension or controls that it has not, and of two sweeps."""
    listed = sweep("plot", "--list").must().stdout
    sweep("plot", "all", "--out", "pictures", "--cost-per-token", "0.000001", timeout_s=PATIENCE_S).must()
    drawn = {path.stem for path in (sweep.folder / "pictures").rglob("*.png") if path.read_bytes()[1:4] == b"PNG"}
    names = [line.split()[0] for line in listed.splitlines() if line.strip()]
    others = {"concurrency", "ratio", "drift"}
    assert others < set(names)
    assert not [stem for stem in drawn if stem.startswith(tuple(others))]
    for name in (name for name in names if name not in others):
        picture = name.replace("token_heatmap", "latency_heatmap")
        assert any(stem.startswith(picture) for stem in drawn), (name, drawn)


def assert_every_file_is_written(sweep: Sweep) -> None:
    """The files of earlier tools, for each task that keeps answers; the embedding model has a run of its own."""
    sweep("report", "--out", "files", "--cost-per-token", "0.000001", timeout_s=PATIENCE_S).must()
    folder = sweep.folder / "files"
    assert {path.name for path in folder.iterdir() if path.is_dir()} == set(TASKS) - {"prompt_eval"}
    assert [path.name.partition("_")[0] for path in sorted(folder.glob("*.json"))] == ["comparison", "report"]
    for task in folder.glob("*/"):
        models = 1 if task.name == "embeddings" else 2
        assert len(list(task.glob("run_*.json"))) == models
        for name in ("results_local.csv", "model_summary.csv", "benchmark_log.csv"):
            with (task / name).open(newline="", encoding="utf-8") as file:
                assert len({row["model"] for row in csv.DictReader(file)}) == models, (task.name, name)


@dataclass(frozen=True)
class Asked:
    """What one engine answered to the chat."""

    prompt_tokens: list[int | None]
    streamed: bool


def test_engines_agree_on_what_was_asked(server: RealOllama, sweep: Sweep) -> None:
    found = {}
    base = settings(sweep.folder)
    tasks = {"chat": {**base["tasks"]["chat"], "temperature": 0}}
    common = {"task": "chat", "tasks": tasks, "warmup": 0, "repeats": 1, **ONE_LOAD}
    sized = {"num_ctx": [1024], "num_batch": [128], "num_thread": 1}
    gguf = str(script_output("get_model"))
    runs: dict[str, tuple[dict[str, Any], list[str]]] = {
        "ollama": ({**common, **sized}, server.sweep_options()),
        "ollama_http": ({**common, **sized}, ["--engine", "ollama_http", *server.sweep_options()[2:]]),
        "openai": (common, ["--engine", "openai", "--model", MODEL, "--host", f"http://{server.host}/v1"]),
        "llamacpp": ({**common, **sized}, ["--engine", "llamacpp", "--model", gguf]),
    }
    for engine, (keys, options) in runs.items():
        sweep("run", sweep.config(engine, **keys), *options, timeout_s=PATIENCE_S).must()
        rows = list(answers(sweep))
        assert [row.engine for row in rows] == [engine] * 2
        found[engine] = Asked(
            [row.prompt_eval_count for row in rows], all(row.ttft_s and row.ttft_s <= row.latency_s for row in rows)
        )
    assert all(asked.streamed for asked in found.values())
    counts = [asked.prompt_tokens for asked in found.values()]
    assert all(count == counts[0] for count in counts), found
    server.unload_all()


def test_nonsense_a_server_that_dies_and_a_question_that_never_fits(small_model: Path, sweep: Sweep) -> None:
    """A llama-server is killed while it answers the first question, and is back at its port a little later."""
    base, port, log = settings(sweep.folder), free_port(), sweep.folder / "llama-server.log"
    tasks = {name: base["tasks"][name] for name in ("items", "json_quality")}
    config = sweep.config(
        task=["chat", "items", "json_quality"], tasks={"chat": {"num_predict": 64, "limit": 2}, **tasks},
        warmup=0, repeats=1, engine="openai", model=small_model.name, host=f"http://127.0.0.1:{port}/v1", **ONE_LOAD,
    )  # fmt: skip
    with llama_server(small_model, log, "-c", "256", port=port):
        server = next(one for one in psutil.process_iter(["cmdline"]) if str(port) in (one.info["cmdline"] or ()))
        started = sweep.start("run", config, "--wait-engine", "10m")
        until("it is held in an answer", lambda: is_held_in_an_answer(server, log), PATIENCE_S, pause_s=0.002)
        server.kill()
    with llama_server(small_model, log, "-c", "256", port=port):
        started.wait(PATIENCE_S).must()
    rows = {row["task"]: row for row in sweep.rows()}
    assert {row["status"] for row in rows.values()} == {"ok"}
    asked_again = [row.answer.item for row in answers(sweep) if row.task == "chat" and row.answer.tries > 1]
    assert asked_again or len(sweep.rows(sql="select * from attempts")) > len(rows), "half an answer is none"
    assert (rows["chat"]["answers"], rows["chat"]["failed_answers"]) == (2, 0)
    assert (rows["items"]["answers"], rows["items"]["failed_answers"], rows["items"]["success_rate"]) == (1, 1, 0.5)
    nonsense = rows["json_quality"]
    assert (nonsense["answers"], nonsense["valid_json"], nonsense["quality"]) == (1, 0, 0), "it was answered, wrongly"
    kept = {row.answer.item: row.answer for row in answers(sweep)}
    assert kept["long"].failure
    assert kept["short"].text


def is_held_in_an_answer(server: psutil.Process, log: Path) -> bool:
    """Whether a llama-server stands still after it has taken a question and before it has answered."""
    if not is_answering(log.read_text("utf-8", "replace")) or not stand_still(server):
        return False
    if not is_answering(log.read_text("utf-8", "replace")):
        server.resume()
        return False
    return True
