"""`params`: ranges that fit the model and the machine, written as a sweep file that loads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from gguf_maker import LLAMA, U32, gguf
from hypothesis import given
from hypothesis import strategies as st
from ollama_fixture import MODEL, RealOllama
from sweep_runner import Sweep
from sweeping import Program, json_of
from sweeping import program as program  # a fixture

from ollama_sweep.engines.base import ModelInfo
from ollama_sweep.machine.computer import Gpu
from ollama_sweep.plan import ranges
from ollama_sweep.plan.config import load_spec
from ollama_sweep.plan.ranges import Range, Room, suggest
from ollama_sweep.plan.written.sweep_file import brief

GIB = 1 << 30
RAM = Room(64 * GIB, ranges.RAM_RESERVE_BYTES, "RAM")
POWERS = {1 << power for power in range(31)}


def info(**facts: Any) -> ModelInfo:
    """An 8B model in 4 bits, with these facts instead."""
    usual: dict[str, Any] = {
        "name": "llama3:8b", "digest": "sha256:1", "parameter_size": "8.0B", "quantization": "Q4_K_M",
        "context_length": 131072, "size_bytes": 5 * GIB, "kv_bytes_per_token": 128 * 1024,
    }  # fmt: skip
    return ModelInfo(**{**usual, **facts})


# -- ranges ----------------------------------------------------------------------------------------------------------


def test_a_model_that_fits_goes_up_to_its_training_context() -> None:
    found = suggest(info(), RAM)
    assert found.num_ctx.values() == [4096, 8192, 16384, 32768, 65536, 131072]
    assert found.num_batch.values() == [32, 64, 128, 256, 512, 1024, 2048]
    assert found.prompt_tokens == 2048
    assert found.cells == 42
    assert found.notes == ()
    assert "trained for 131072" in found.reasons["num_ctx"]


def test_memory_ends_the_range_and_the_end_is_part_of_it() -> None:
    found = suggest(info(), Room(16 * GIB, GIB, "GPU memory", is_gpu=True))
    fitting = ranges.largest_context(info(), Room(16 * GIB, GIB, "GPU memory"))
    assert fitting is not None
    assert found.num_ctx.end == fitting // 2048 * 2048
    assert found.num_ctx.values()[-1] == found.num_ctx.end
    assert len(found.num_ctx.values()) <= ranges.MOST_CONTEXTS
    assert "what fits" in found.reasons["num_ctx"]


def test_what_fits_is_weights_cache_buffers_and_a_reserve() -> None:
    room = Room(10 * GIB, GIB, "RAM")
    fitting = ranges.largest_context(info(), room)
    assert fitting is not None
    assert (5 * GIB + fitting * 128 * 1024) * 1.1 + GIB <= 10 * GIB
    assert (5 * GIB + (fitting + 256) * 128 * 1024) * 1.1 + GIB > 10 * GIB


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"kv_bytes_per_token": None}, "what fits is not known"),
        ({"size_bytes": None}, "what fits is not known"),
        ({"context_length": None}, "what context it was trained for"),
        ({"context_length": None, "size_bytes": None, "kv_bytes_per_token": None}, "what fits is not known"),
        ({"size_bytes": 90 * GIB}, "do not fit"),
    ],
)
def test_unknown_or_unfit_models_get_cautious_ranges_that_say_so(facts: dict[str, Any], words: str) -> None:
    found = suggest(info(**facts), RAM)
    assert found.num_ctx.end <= ranges.CAUTIOUS_CTX
    assert words in found.notes[0]
    assert "cautious" in found.reasons["num_ctx"]


def test_a_model_whose_cache_does_not_grow_fits_everywhere() -> None:
    assert suggest(info(kv_bytes_per_token=0), RAM).num_ctx.end == 131072


def test_a_model_that_cannot_generate_is_named() -> None:
    assert "cannot generate" in suggest(info(capabilities=("embedding",)), RAM).notes[-1]
    assert suggest(info(capabilities=("completion", "vision")), RAM).notes == ()


def test_all_gpus_are_summed_and_each_keeps_its_reserve() -> None:
    gpus = [Gpu("L4", 24 * GIB, 20 * GIB, "1"), Gpu("L4", 24 * GIB, 10 * GIB, "1")]
    found = ranges.room(gpus, 100 * GIB)
    assert (found.free_bytes, found.reserve_bytes, found.is_gpu) == (30 * GIB, 2 * GIB, True)
    assert "2 GPUs summed" in found.where
    assert ranges.room([], 100 * GIB).free_bytes == 100 * GIB


def test_a_gpu_that_does_not_say_its_memory_gives_a_cautious_range_and_says_so() -> None:
    memory = ranges.room([Gpu("NVIDIA GB10", None, None, "580"), Gpu("NVIDIA L4", 24 * GIB, 20 * GIB, "580")], GIB)
    assert (memory.free_bytes, memory.is_gpu) == (None, True)
    found = suggest(info(), memory)
    assert found.num_ctx.end == ranges.CAUTIOUS_CTX
    assert "is not known" in " ".join(found.notes)
    assert ranges.largest_context(info(), memory) is None


@pytest.mark.parametrize(
    ("settings", "factor"),
    [
        ({}, 1.0),
        ({"OLLAMA_KV_CACHE_TYPE": "Q8_0"}, 34 / 64),
        ({"OLLAMA_NUM_PARALLEL": "4"}, 4.0),
        ({"OLLAMA_KV_CACHE_TYPE": "q4_0", "OLLAMA_NUM_PARALLEL": "2"}, 36 / 64),
        ({"OLLAMA_KV_CACHE_TYPE": "odd", "OLLAMA_NUM_PARALLEL": "many"}, 1.0),
    ],
)
def test_settings_of_ollama_change_the_cache(settings: dict[str, str], factor: float) -> None:
    assert ranges.cache_factor(settings)[0] == factor
    notes = suggest(info(), RAM, settings).notes
    assert bool(notes) is (factor != 1.0)


@given(
    trained=st.none() | st.integers(64, 2_000_000),
    size=st.none() | st.integers(1 << 20, 1 << 40),
    cache=st.none() | st.integers(0, 1 << 22),
    free=st.integers(0, 1 << 40),
)
def test_every_suggestion_can_be_measured(
    trained: int | None, size: int | None, cache: int | None, free: int
) -> None:  # fmt: skip
    model = info(context_length=trained, size_bytes=size, kv_bytes_per_token=cache)
    found = suggest(model, Room(free, 1 << 29, "RAM"))
    contexts, batches = found.num_ctx.values(), found.num_batch.values()
    assert contexts == sorted(set(contexts))
    assert contexts[-1] == found.num_ctx.end
    assert found.num_ctx.end <= (trained or ranges.CAUTIOUS_CTX)
    assert len(contexts) <= 10
    assert found.prompt_tokens + 3 <= contexts[0], "the prompt fits the smallest num_ctx"
    assert max(batches) <= found.prompt_tokens, "the prompt fills the largest num_batch"
    assert set(batches) <= POWERS
    assert found.cells <= 100


def test_the_values_of_a_range() -> None:
    assert Range(4096, 10240, step=2048).values() == [4096, 6144, 8192, 10240]
    assert Range(256, 1024, factor=2).values() == [256, 512, 1024]
    assert Range(300, 300).picture() == {"start": 300, "end": 300, "step": 1}


# -- the sweep file --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["llama3:8b", "7:30", "null", "hf.co/someone/Model-GGUF:Q4_K_M", "1e3", "yes"])
@pytest.mark.parametrize("trained", [300, 2048, 40960, 131072, None])
def test_what_is_printed_is_a_sweep_file_of_the_same_grid(name: str, trained: int | None, tmp_path: Path) -> None:
    model = info(name=name, context_length=trained, parameter_size="8B\nmodel: other")
    found = suggest(model, RAM)
    file = tmp_path / "sweep.yaml"
    file.write_text(brief(model, RAM, found, []), "utf-8")
    spec = load_spec(file, {})
    assert spec.model == name
    assert list(spec.dimensions["num_ctx"]) == found.num_ctx.values()
    assert list(spec.dimensions["num_batch"]) == found.num_batch.values()
    assert spec.prompt.tokens == found.prompt_tokens
    assert spec.warnings == ()


def test_a_file_with_an_odd_name(program: Program) -> None:
    file = program.folder / 'my "own" model #1.gguf'
    file.write_bytes(gguf(LLAMA, [(4096, 4096)]))
    printed = program("params", file.name).must().stdout
    config = program.folder / "made.yaml"
    config.write_text(printed.replace(file.name.replace('"', '\\"'), str(file).replace('"', '\\"')), "utf-8")
    assert load_spec(config, {}).model == str(file)
    assert "trained for 8192 tokens" in printed


def test_a_file_without_metadata_gets_a_cautious_range(program: Program) -> None:
    (program.folder / "bare.gguf").write_bytes(gguf([("general.quantization_version", U32, 2)]))
    printed = program("params", "bare.gguf").must().stdout
    assert "a cautious range" in printed
    assert "KV cache: unknown" in printed


def test_the_fake_engine_from_params_to_results(program: Program) -> None:
    program.script(context_length=1024)
    made = program("params", "m", "--engine", "fake").must().stdout
    (program.folder / "made.yaml").write_text(made, "utf-8")
    program("run", "made.yaml", "--engine", "fake", "--set", "repeats=1").must()
    rows = program.rows()
    assert {row["status"] for row in rows} == {"ok"}
    assert {row["flags"] for row in rows} == {""}, "nothing is clamped, and the prompt fills every batch"
    again = program("params", "m", "--engine", "fake").must().stdout
    assert "results of it already: ollama-sweep best made" in again


def test_json(program: Program) -> None:
    found = json_of(program("params", "m", "--engine", "fake", "--json"))
    assert found["num_ctx"]["end"] <= 131072
    assert found["prompt"]["tokens"] == found["num_batch"]["end"]
    assert found["yaml"].startswith("# yaml-language-server: $schema=sweep.schema.json\n# m: ")
    assert program.files() == set()


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (["missing", "--engine", "fake"], 5, "missing is not installed here"),
        (["nothing.gguf"], 2, "nothing.gguf"),
        (["gpt:cloud"], 2, "does not run on this machine"),
        (["m", "--engine", "oolama"], 2, "Did you mean ollama?"),
        ([], 2, "Missing argument 'MODEL'"),
    ],
)
def test_mistakes(words: list[str], code: int, text: str, program: Program) -> None:
    program.script(missing_models=["missing"])
    ended = program("params", *words).must(code)
    assert text in ended.stderr
    assert ended.stdout == ""
    assert program.files() == set()


# -- real ------------------------------------------------------------------------------------------------------------


@pytest.mark.real
def test_an_installed_model_and_its_file_get_the_same_ranges(
    server: RealOllama, sweep: Sweep, small_model: Path
) -> None:  # fmt: skip
    words = ["--host", server.host, "--ollama", str(server.binary), "--json"]
    installed = json.loads(sweep("params", MODEL, *words).must().stdout)
    file = json.loads(sweep("params", small_model, "--json").must().stdout)
    same = ("num_ctx", "num_batch", "prompt", "kv_bytes_per_token", "context_length", "quantization")
    assert {name: installed[name] for name in same} == {name: file[name] for name in same}
    assert installed["num_ctx"] == {"start": 2048, "end": 8192, "factor": 2}
    assert set(server.installed()) == {f"{MODEL}:latest"}
    assert not list(sweep.folder.glob("*.db*"))


@pytest.mark.real
def test_its_prompt_fills_and_fits_on_the_real_model(server: RealOllama, sweep: Sweep) -> None:
    where = ["--host", server.host, "--ollama", str(server.binary)]
    (sweep.folder / "made.yaml").write_text(sweep("params", MODEL, *where).must().stdout, "utf-8")
    planned = json.loads(sweep("plan", "made.yaml", *where, "--json").must().stdout)
    assert planned["prompt_tokens"][MODEL] == 1024
    assert (planned["does_not_fit"], planned["unfilled"], planned["repeating"]) == ([], [], [])
    assert planned["to_run"] == 18
