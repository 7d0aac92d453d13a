"""Settings of a managed server as dimensions: where they lie, what `plan` says of them, and when they are refused."""

# ruff: noqa: F401, F811 - the fixture is imported, and asked for by its name
from __future__ import annotations

import socket
from typing import Any

import pytest
from sweeping import Program, json_of, program

ALL: dict[str, Any] = {
    "server": "managed",
    "num_gpu": [0, 9],
    "kv_cache_type": ["f16", "q8_0"],
    "OLLAMA_SCHED_SPREAD": [0, 1],
    "num_parallel": [1, 2],
    "flash_attention": True,
    "dimensions": {"LLAMA_ARG_THREADS": [1, 2]},
}
NESTED = [
    "kv_cache_type",
    "OLLAMA_SCHED_SPREAD",
    "num_parallel",
    "LLAMA_ARG_THREADS",
    "num_gpu",
    "num_ctx",
    "num_batch",
]
VALUES: dict[str, Any] = {
    "flash_attention": "true", "kv_cache_type": "q8_0", "num_parallel": "2", "OLLAMA_SCHED_SPREAD": "1",
    "LLAMA_ARG_CACHE_RAM": "0",
}  # fmt: skip


def refused(program: Program, *words: str, text: str) -> None:
    """Each command that takes a sweep says this in one line; nothing is made and nothing is started."""
    for command in ("plan", "run"):
        found = program(command, *words).must(2)
        assert found.stderr.startswith("error: ")
        assert text in found.stderr
        assert len(found.stderr.splitlines()) == 1
        assert found.stdout == ""
        assert program.files() <= {"grid.yaml"}


def test_they_lie_outermost_so_that_a_server_is_started_once_for_each_of_them(program: Program) -> None:
    config = program.grid(**ALL)
    found = json_of(program("plan", config, "--json"))
    assert list(found["dimensions"]) == NESTED
    assert found["cells"] == 2**7
    program("run", config, "--set", "warmup=0", "--set", "repeats=1", "--set", "control=off").must()
    rows = program.rows()
    for number, name in enumerate(NESTED):
        block = 2 ** (6 - number)
        values = [row[name] for row in rows]
        assert all(len(set(values[start : start + block])) == 1 for start in range(0, len(values), block))
        assert len(set(values)) == 2
    assert {row["kv_cache_type"] for row in rows} == {"f16", "q8_0"}
    assert {(row["OLLAMA_SCHED_SPREAD"], row["LLAMA_ARG_THREADS"]) for row in rows} == {
        (one, other) for one in ("0", "1") for other in ("1", "2")
    }


def test_plan_shows_them_first(program: Program) -> None:
    said = program("plan", program.grid(**ALL)).must().stdout.splitlines()
    shown = [line.strip() for line in said if line.startswith("  ") and "values)" in line]
    assert shown[:4] == [
        "kv_cache_type: f16, q8_0  (2 values)",
        "OLLAMA_SCHED_SPREAD: 0, 1  (2 values)",
        "num_parallel: 1, 2  (2 values)",
        "LLAMA_ARG_THREADS: 1, 2  (2 values)",
    ]
    assert "Would run: 128 cells (new)" in said


def test_another_value_beside_the_grid_is_said_and_measured(program: Program) -> None:
    program("run", program.grid(server="managed", kv_cache_type="f16")).must()
    said = program("run", program.grid(server="managed", kv_cache_type="q8_0")).must().stdout
    assert "server changed: 4 cells will be measured again" in said
    assert "0 of 4 cells already done, 4 to run" in said


@pytest.mark.parametrize("engine", ["ollama", "ollama_http"])
@pytest.mark.parametrize("name", VALUES)
@pytest.mark.parametrize("is_swept", [True, False], ids=["swept", "beside the grid"])
def test_without_a_server_of_the_sweeps_own_they_are_refused_before_anything_is_asked(
    engine: str, name: str, is_swept: bool, program: Program
) -> None:
    value = f"[{VALUES[name]}]" if is_swept else VALUES[name]
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        host = f"127.0.0.1:{nobody.getsockname()[1]}"
        refused(
            program, str(program.grid()), "--engine", engine, "--ollama", "/bin/true", "--host", host,
            "--set", f"{name}={value}",
            text=f"{name} is a setting of the whole server; it needs `server: managed`",
        )  # fmt: skip


@pytest.mark.parametrize(
    ("keys", "text"),
    [
        ({"flash_attention": [True, 3]}, "flash_attention: 3 is a number; write true or false"),
        ({"flash_attention": "q8_0"}, 'flash_attention: "q8_0" is text; write true or false'),
        ({"num_parallel": "two"}, 'num_parallel: "two" is text; write whole numbers'),
        ({"num_parallel": [0]}, "num_parallel: 0 is outside 1 to "),
        ({"kv_cache_type": [8]}, "kv_cache_type must be text; put it in quotes"),
        ({"kv_cache_type": "q8 0"}, "kv_cache_type: only letters, digits and _"),
        ({"kv_cache_type": []}, "kv_cache_type: the list is empty"),
        ({"OLLAMA_DEBUG": {"a": 1}}, "OLLAMA_DEBUG: a range needs numbers; write a list"),
        ({"OLLAMA_HOST": "127.0.0.1:1"}, "OLLAMA_HOST is set by the sweep itself"),
        ({"OLLAMA_MODELS": ["/a", "/b"]}, "OLLAMA_MODELS is set by the sweep itself"),
        ({"kv_cache_typ": "f16"}, "unknown key kv_cache_typ. Did you mean kv_cache_type?"),
        ({"ollama_debug": "1"}, "unknown key ollama_debug"),
        ({"CUDA_VISIBLE_DEVICES": "0"}, "unknown key CUDA_VISIBLE_DEVICES"),
        ({"server": "mine"}, 'server: "mine" is not known; the only value is managed'),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_wrong_type_and_an_unknown_name_are_refused(keys: dict[str, Any], text: str, program: Program) -> None:
    refused(program, str(program.grid(**{"server": "managed", **keys})), text=text)
