"""`models`, and `model: all`: what is installed, what of it can do a sweep's tasks, and what becomes of it."""

# ruff: noqa: F401, F811 - the fixture is imported, and asked for by its name
from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from blobs import SMALLEST_GGUF, install, installed
from lm_studio import SMALL, Studio, book, said, server, settings, studio
from ollama_fixture import MODEL, RealOllama, Servers, script_output
from sweeping import Program, json_of, program

from ollama_sweep import engines
from ollama_sweep.engines.base import EngineSettings

THREE: dict[str, Any] = {
    "models": ["qwen", "e5", "gemma:2b"],
    "only_embedding": ["e5"],
    "not_embedding": ["qwen", "gemma:2b"],
}
CHAT: dict[str, Any] = {"task": "chat", "tasks": {"chat": {"limit": 1, "repeats": 1}}, "prompt": None, "num_ctx": [512]}


def names(program: Program) -> list[str]:
    return sorted({str(row["model"]) for row in program.rows()})


# -- the command -----------------------------------------------------------------------------------------------------


def test_what_is_installed_is_listed(program: Program) -> None:
    program.script(**THREE)
    head, *rows, last = program("models", "--engine", "fake").must().stdout.splitlines()
    assert head.split() == ["NAME", "PARAMETERS", "QUANTIZATION", "SIZE", "CONTEXT", "CAN", "LOADED"]
    assert [row.split()[0] for row in rows] == ["e5", "gemma:2b", "qwen"]
    assert rows[0].split() == ["e5", "135M", "Q4_1", "93.5", "MiB", "131072", "embed", "no"]
    assert "answer" in rows[1]
    assert last == "3 installed for fake 1.0 at in this process"
    assert "sweeps.db" not in program.files()


def test_what_is_installed_for_programs(program: Program) -> None:
    program.script(**THREE)
    found = json_of(program("models", "--engine", "fake", "--json"))
    assert (found["engine"], found["version"]) == ("fake", "1.0")
    assert [(model["name"], model["can_answer"], model["can_embed"]) for model in found["models"]] == [
        ("e5", False, True),
        ("gemma:2b", True, False),
        ("qwen", True, False),
    ]
    assert found["models"][0]["is_loaded"] is False


def test_nothing_installed_is_one_line(program: Program) -> None:
    program.script(models=[])
    ended = program("models", "--engine", "fake").must()
    assert ended.stdout == "No model is installed for fake 1.0 at in this process\n"
    assert json_of(program("models", "--engine", "fake", "--json"))["models"] == []


def test_a_model_nothing_is_known_of_is_listed_with_the_reason(program: Program) -> None:
    program.script(models=["m", "broken"], missing_models=["broken"])
    lines = program("models", "--engine", "fake").must().stdout.splitlines()
    assert lines[1].startswith("broken")
    assert "broken is not installed here" in lines[1]
    assert lines[2].startswith("m ")


def test_no_engine_is_exit_5(program: Program) -> None:
    ended = program("models", "--engine", "ollama", "--ollama", "/nowhere/ollama", "--host", "127.0.0.1:9").must(5)
    assert len(ended.stderr.splitlines()) == 1
    assert ended.stdout == ""


def test_an_unknown_engine_is_the_persons_mistake(program: Program) -> None:
    assert "Did you mean fake?" in program("models", "--engine", "fak").must(2).stderr


# -- models: all -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["model", "models"])
def test_all_is_every_model_that_can_answer(program: Program, key: str) -> None:
    program.script(**THREE)
    keys: dict[str, Any] = {"model": None, "num_batch": [4], key: "all"}
    ended = program("run", program.grid(**keys)).must()
    assert names(program) == ["gemma:2b", "qwen"]
    assert "model: all is gemma:2b, qwen; left out: e5 (cannot answer)" in ended.stdout


def test_plan_shows_what_all_is(program: Program) -> None:
    program.script(**THREE)
    found = json_of(program("plan", program.grid(models="all", model=None), "--json"))
    assert found["dimensions"]["model"] == ["gemma:2b", "qwen"]
    assert (found["cells"], set(found["models"])) == (8, {"gemma:2b", "qwen"})


def test_all_on_the_command_line(program: Program) -> None:
    program.script(**THREE)
    program("run", program.grid(num_batch=[4]), "--model", "all").must()
    assert names(program) == ["gemma:2b", "qwen"]


def test_all_for_vectors_is_every_model_that_embeds(program: Program) -> None:
    program.script(**THREE)
    program("run", program.grid(**{**CHAT, "task": "embeddings", "tasks": {}}, models="all", model=None)).must()
    assert names(program) == ["e5"]


def test_a_task_with_a_model_of_its_own_is_not_affected(program: Program) -> None:
    program.script(**THREE)
    tasks = {**CHAT["tasks"], "embeddings": {"model": "e5", "rows": 2, "warmup_rows": 1}}
    program(
        "run", program.grid(**{**CHAT, "task": ["chat", "embeddings"], "tasks": tasks}, models="all", model=None)
    ).must()
    asked = {(row["task"], row["model"]) for row in program.rows()}
    assert asked == {("chat", "gemma:2b"), ("chat", "qwen"), ("embeddings", "e5")}


def test_a_model_that_comes_later_is_measured_and_nothing_else_again(program: Program) -> None:
    program.script(models=["a", "b"])
    grid = program.grid(models="all", model=None, num_batch=[4], num_ctx=[512])
    program("run", grid).must()
    before = program.measured()
    program("run", grid).must()
    assert program.measured() == before
    program.script(models=["a", "b", "c"])
    ended = program("run", grid).must()
    assert "model c is new (1 cells)" in ended.stdout
    assert set(program.measured() - before) == {"model c, num_ctx 512, num_batch 4"}


def test_an_exclusion_may_name_the_models_of_all(program: Program) -> None:
    program.script(models=["a", "b"])
    program("run", program.grid(models="all", model=None, exclude=['model == "a" and num_ctx > 512'])).must()
    assert {(row["model"], row["num_ctx"]) for row in program.rows()} == {("a", 512), ("b", 512), ("b", 1024)}


@pytest.mark.parametrize(
    ("script", "keys", "text"),
    [
        ({"models": []}, {}, "model: all: no model is installed for fake"),
        (
            {"models": ["e"], "only_embedding": ["e"]},
            {},
            "model: all: no installed model can do this sweep's tasks: e (cannot answer)",
        ),
        ({"models": ["m:cloud", "n-cloud"]}, {}, "m:cloud (runs in a cloud), n-cloud (runs in a cloud)"),
        (
            {"models": ["a", "e"], "only_embedding": ["e"], "not_embedding": ["a"]},
            {**CHAT, "task": ["chat", "embeddings"]},
            "a (cannot embed), e (cannot answer)",
        ),
    ],
)
def test_all_of_nothing_is_one_line(program: Program, script: dict[str, Any], keys: dict[str, Any], text: str) -> None:
    program.script(**script)
    for command in ("run", "plan"):
        ended = program(command, program.grid(models="all", model=None, **keys)).must(2)
        assert text in ended.stderr
        assert len(ended.stderr.splitlines()) == 1
    assert "sweeps.db" not in program.files()


def test_model_and_models_are_one_key(program: Program) -> None:
    ended = program("run", program.grid(models="all")).must(2)
    assert "model is given twice (first on line 1) (models is the same key)" in ended.stderr
    program("plan", program.grid(dimensions={"models": ["a", "b"]}, model=None)).must()
    program("plan", program.grid(), "--set", "models=[a, b]").must()


def test_all_stands_alone(program: Program) -> None:
    ended = program("run", program.grid(model=["m", "all"])).must(2)
    assert "all is every installed model and stands alone; one so called is all:latest" in ended.stderr


def test_a_model_that_is_called_all(program: Program) -> None:
    program.script(models=["a", "all:latest"])
    program("run", program.grid(model="all:latest", num_batch=[4])).must()
    assert names(program) == ["all:latest"]


def test_doctor_looks_at_every_model_of_all(program: Program) -> None:
    program.script(**THREE)
    found = program("doctor", program.grid(models="all", model=None)).stdout
    assert "gemma:2b: digest" in found
    assert "qwen: digest" in found
    assert "e5" not in found


def test_doctor_asks_a_model_for_what_the_tasks_need(program: Program) -> None:
    program.script(**THREE)
    vectors = {**CHAT, "task": "embeddings", "tasks": {}, "num_ctx": None, "num_batch": None}
    assert "e5 cannot generate" not in program("doctor", program.grid(**{**vectors, "model": "e5"})).stdout
    assert "qwen cannot embed" in program("doctor", program.grid(**{**vectors, "model": "qwen"})).stdout
    assert "e5 cannot generate text" in program("doctor", program.grid(model="e5")).stdout


# -- the engines -----------------------------------------------------------------------------------------------------


def test_the_embedded_engine_lists_what_it_can_read_of_ollamas_models(installed: Path) -> None:
    hub = "registry.ollama.ai"
    for name in ("library/smol/latest", "library/smol/8b", "someone/own/q4", "library/ollama-sweep-scratch-1/latest"):
        install(installed, f"{hub}/{name}", {"model": SMALLEST_GGUF})
    install(installed, "hf.co/someone/repo/Q4", {"model": SMALLEST_GGUF})
    install(installed, f"{hub}/library/cloud/latest", {"license": b"MIT"})
    install(installed, f"{hub}/library/broken/latest", {"model": b"not a model"})
    (installed / "manifests" / hub / "library" / "half" / "latest").parent.mkdir()
    (installed / "manifests" / hub / "library" / "half" / "latest").write_text("{")
    engine = engines.load("llamacpp", EngineSettings())
    assert engine.models() == ("hf.co/someone/repo:Q4", "smol:8b", "smol:latest", "someone/own:q4")


def test_the_embedded_engine_without_any_models(installed: Path) -> None:
    assert engines.load("llamacpp", EngineSettings()).models() == ()


def test_lm_studio_lists_what_is_downloaded(studio: Studio, settings: EngineSettings) -> None:
    embedder = {**SMALL, "type": "embedding", "modelKey": "nomic-embed", "path": "nomic/embed.gguf"}
    studio.put(models=[SMALL, embedder])
    with closing(engines.load("lmstudio", settings)) as engine:
        assert engine.models() == ("nomic-embed", "smollm2-135m-instruct")
        assert engine.model_info("nomic-embed").capabilities == ("embedding",)


@pytest.fixture
def full_server(real_ollama: Servers) -> Iterator[RealOllama]:
    """A real server with the small model, an embedding model, and what a killed sweep has left."""
    made = real_ollama("0.34.0")
    modelfile = made.folder / "Modelfile-models"
    modelfile.write_text(f"FROM {script_output('get_model', '--variant', 'embedding')}\n", "utf-8")
    assert made.command("create", "embedder", "-f", str(modelfile)).returncode == 0
    assert made.command("cp", MODEL, "ollama-sweep-scratch-0").returncode == 0
    yield made
    for name in ("embedder", "ollama-sweep-scratch-0"):
        made.command("rm", name)


@pytest.mark.real
def test_what_a_real_server_has(full_server: RealOllama, program: Program) -> None:
    server = full_server
    where = ["--host", server.host, "--ollama", str(server.binary)]
    server.load(MODEL)
    for engine in ("ollama", "ollama_http"):
        found = json_of(program("models", "--engine", engine, *where, "--json"))
        models = {model["name"]: model for model in found["models"]}
        assert set(models) == {f"{MODEL}:latest", "embedder:latest"}
        small, embedder = models[f"{MODEL}:latest"], models["embedder:latest"]
        assert (small["can_answer"], small["is_loaded"], small["quantization"]) == (True, True, "Q4_1")
        assert (embedder["can_answer"], embedder["can_embed"], embedder["is_loaded"]) == (False, True, False)
        assert small["context_length"] == 8192
    server.command("stop", MODEL)
    openai = json_of(program("models", "--engine", "openai", "--host", f"http://{server.host}/v1", "--json"))
    assert {model["name"] for model in openai["models"]} == {f"{MODEL}:latest", "embedder:latest"}
