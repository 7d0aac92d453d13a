"""The shipped sweeps over tasks: each runs to its end, on the fake engine and, made small, on a real model."""

# ruff: noqa: F401, F811 - the fixture is imported, and asked for by its name
from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from ollama_fixture import MODEL, ROOT, RealOllama, Servers, script_output
from sweep_runner import Sweep
from sweeping import Program, program

CONFIGS = {
    "small_models": {"items"},
    "embeddings_and_chat": {"embeddings", "chat"},
    "embeddings": {"embeddings"},
    "latency_quality": {"chat", "json_quality"},
    "mmlu": {"mmlu"},
    "quality_cliff": {"prompt_eval", "chat", "items", "json_quality", "mmlu"},
}
EMBEDDER, OTHER = "embedder", "other"


def config(name: str) -> Path:
    return ROOT / "configs" / f"{name}.yaml"


def mmlu_folder(folder: Path) -> Path:
    """A folder as the original MMLU files lie in it, with questions made here."""
    for split in ("dev", "test"):
        (folder / split).mkdir(parents=True)
        rows = [f"How much is {number} plus 1?,{number},{number + 1},{number + 2},7{number},B" for number in range(6)]
        file = folder / split / f"abstract_algebra_{split}.csv"
        file.write_text("".join(f"{row}\n" for row in rows), "utf-8")
    return folder


def settings(name: str, folder: Path, model: str, embedder: str) -> list[str]:
    """What the command line must say so that a file runs without what a newcomer has to fetch first."""
    if name == "small_models":
        return []
    if name == "embeddings_and_chat":
        return ["--model", model, "--set", f"tasks.embeddings.model={embedder}"]
    if name == "embeddings":
        return ["--model", embedder]
    if name == "mmlu":
        return ["--model", model, "--set", f"tasks.mmlu.data={mmlu_folder(folder / 'mmlu')}"]
    return ["--model", model]


def tiny(name: str) -> list[str]:
    """Sizes for a machine with two slow cores."""
    common = ["timeout=600", "warmup=0", "num_thread=1", "repeats=1"]
    of_task = {
        "chat": ["limit=1", "repeats=1", "max_tokens=4"],
        "items": ["limit=2", "max_tokens=4"],
        "json_quality": ["limit=1", "max_tokens=4"],
        "mmlu": ["limit=1", "max_tokens=4"],
        "embeddings": ["rows=4", "warmup_rows=1", "repeats=1"],
    }
    given = [f"tasks.{task}.{option}" for task in sorted(CONFIGS[name] & of_task.keys()) for option in of_task[task]]
    sizes = ["num_ctx=[64, 512]", "num_batch=64", "prompt.tokens=40", "tasks.mmlu.shots=0"]
    given += sizes if name == "quality_cliff" else ["num_ctx=512", "num_batch=64"]
    return [word for setting in [*common, *given] for word in ("--set", setting)]


# -- on the fake engine ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CONFIGS)
def test_a_shipped_sweep_runs_to_its_end(program: Program, name: str) -> None:
    program.script(models=["e", "m", "n"], only_embedding=["e"], answers={"": "B"})
    given = [str(config(name)), "--engine", "fake", *settings(name, program.folder, "m", "e")]
    program("plan", *given).must()
    program("run", *given).must()
    rows = program.rows()
    assert {row["task"] for row in rows} == CONFIGS[name]
    assert {row["sweep"] for row in rows} == {name}
    failed = [row for row in rows if row["status"] not in ("ok", "skipped")]
    assert not failed or name == "quality_cliff", failed
    before = program.measured()
    program("run", *given).must()
    assert program.measured() == before, "a second run measures nothing"


def test_what_a_file_says_is_what_is_asked(program: Program) -> None:
    """The numbers that people know from the older tools."""
    program.script(models=["e", "m", "n"], only_embedding=["e"])
    program("run", config("small_models"), "--engine", "fake").must()
    assert {row["model"] for row in program.rows()} == {"m", "n"}
    options = [json.loads(row["options"]) for row in program.rows(sql="select options from cells")]
    assert {(one["num_predict"], one["temperature"]) for one in options} == {(100, 0.7)}


def test_the_embedding_models_that_people_know(program: Program) -> None:
    """Those of the older tool, with its sizes: 50 rows of warm-up, then 100 rows in batches of 16, three times."""
    known = ["thenlper/gte-large", "nomic-ai/modernbert-embed-base"]
    program.script(models=known, only_embedding=known)
    program("run", config("embeddings"), "--engine", "fake").must()
    assert {row["model"] for row in program.rows()} == set(known)
    options = [json.loads(row["task_options"]) for row in program.rows(sql="select task_options from cells")]
    assert {(one["rows"], one["batch_size"]) for one in options} == {(100, 16)}
    assert {row["answers"] for row in program.rows()} == {3}
    ended = program("plan", config("embeddings")).must(5)
    assert "pip install 'ollama-sweep[embeddings]'" in ended.stderr or "hf download thenlper/gte-large" in ended.stderr


def test_the_cliff(program: Program) -> None:
    """Where the context is too small nothing is asked, and the larger it is the more is answered."""
    program.script(models=["m"])
    program("run", config("quality_cliff"), "--engine", "fake", "--model", "m").must()
    answered = {
        task: [row["answers"] or 0 for row in program.rows() if row["task"] == task]
        for task in CONFIGS["quality_cliff"]
    }
    for task in CONFIGS["quality_cliff"] - {"prompt_eval"}:
        assert answered[task] == sorted(answered[task]), (task, answered[task])
        assert answered[task][0] < answered[task][-1], (task, answered[task])


def test_the_questions_of_mmlu_are_asked_for_where_they_are_missing(program: Program) -> None:
    ended = program("run", config("mmlu"), "--engine", "fake").must(2)
    assert "data/mmlu: file not found" in ended.stderr
    assert ended.stderr.startswith(f"error: {config('mmlu')}:")
    assert "sweeps.db" not in program.files()


# -- on a real Ollama ------------------------------------------------------------------------------------------------


@pytest.fixture
def ollama(real_ollama: Servers) -> Iterator[RealOllama]:
    """A server with the small model, one more that answers, and one that only embeds."""
    server = real_ollama("0.34.0")
    added = {OTHER: script_output("get_model", "--variant", "wide")}
    added[EMBEDDER] = script_output("get_model", "--variant", "embedding")
    for name, gguf in added.items():
        modelfile = server.folder / f"Modelfile-{name}"
        modelfile.write_text(f"FROM {gguf}\n", "utf-8")
        done = server.command("create", name, "-f", str(modelfile))
        assert done.returncode == 0, done.stderr
    yield server
    for name in added:
        server.command("rm", name)


class Watcher:
    """Looks at /api/ps all the time and keeps what was loaded together."""

    def __init__(self, server: RealOllama) -> None:
        self._server = server
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._look)
        self.seen: list[frozenset[str]] = []

    def _look(self) -> None:
        while not self._ends.wait(0.02):
            self.seen.append(frozenset(entry["name"] for entry in self._server.ps()))

    def __enter__(self) -> Watcher:
        self._thread.start()
        return self

    def __exit__(self, *ended: object) -> None:
        self._ends.set()
        self._thread.join()


@pytest.mark.real
@pytest.mark.timeout(1800)
def test_every_shipped_sweep_on_the_small_model(sweep: Sweep, ollama: RealOllama) -> None:
    """All of them over one server; `models: all` takes the two models that answer and never holds both of them."""
    server = ["--engine", "ollama_http", "--host", ollama.host, "--ollama", str(ollama.binary)]
    for name, tasks in CONFIGS.items():
        given = [str(config(name)), *server, *settings(name, sweep.folder, MODEL, EMBEDDER), *tiny(name)]
        db = f"{name}.db"
        with Watcher(ollama) as watcher:
            sweep("run", *given, "--db", db).must()
        rows = sweep.rows(db)
        assert {row["task"] for row in rows} == tasks, name
        expected = {f"{MODEL}:latest", f"{OTHER}:latest"} if name == "small_models" else {MODEL}
        assert {row["model"] for row in rows if row["task"] != "embeddings"} == (
            expected if name != "embeddings" else set()
        )
        together = {loaded for loaded in watcher.seen if loaded}
        assert max(map(len, together)) == 1, f"{name}: loaded together: {together}"
        assert ollama.ps() == [], "nothing stays loaded after a sweep"
        if name == "small_models":
            assert {next(iter(loaded)) for loaded in together} == expected, "both were loaded, one after the other"
        if name != "quality_cliff":
            assert {row["status"] for row in rows} == {"ok"}, [(row["task"], row["error"]) for row in rows]
            continue
        small, large = ([row for row in rows if row["num_ctx"] == size] for size in (64, 512))
        assert {row["status"] for row in large} == {"ok"}, [(row["task"], row["error"]) for row in large]
        assert sum(row["answers"] or 0 for row in small) < sum(row["answers"] or 0 for row in large)
