"""What a sweep learns before its first cell: identities, the prompt's true length, which cells cannot be valid."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sweeping import PROMPT_TOKENS, WORDS

from ollama_sweep import tasks
from ollama_sweep.core.errors import ConfigError, EngineMissing
from ollama_sweep.core.options import Scalar
from ollama_sweep.core.outcome import Status
from ollama_sweep.engines.base import EngineSettings
from ollama_sweep.engines.fake import Engine
from ollama_sweep.plan.changes import changes
from ollama_sweep.plan.exclude import parse_exclusion
from ollama_sweep.plan.lengths import NoMemory, PromptMemory
from ollama_sweep.plan.setups import with_tasks
from ollama_sweep.plan.spec import PromptSpec, Repeats, SweepSpec, Warmup
from ollama_sweep.plan.survey import Survey, survey
from ollama_sweep.store.writer import Store
from ollama_sweep.tasks.base import Setup

SPEC = SweepSpec(
    model="m",
    dimensions={"num_ctx": (512, 1024), "num_batch": (2, 4)},
    prompt=PromptSpec(WORDS, source="p.txt"),
    template="FROM x\nSYSTEM Be brief.\nPARAMETER num_ctx 7\n",
    options={"num_predict": 2},
)
IDENTITY: dict[str, Any] = {
    "model": "other",
    "dimensions": {"num_ctx": (513, 1025), "num_batch": (2, 4)},
    "prompt": PromptSpec(WORDS + " six"),
    "template": "FROM x\nSYSTEM Be long.\n",
    "options": {"num_predict": 3},
    "server": {"OLLAMA_KV_CACHE_TYPE": "q8_0"},
    "task": "chat",
    "setups": {"prompt_eval": Setup(options=(("shots", 5),))},
    "engine_options": {"max_seq_length": "256"},
    "engine": "other",
}
"""Another value for every field; where a field is missing here, one is made by its type."""
RUNTIME: dict[str, Any] = {
    "exclude": (parse_exclusion("num_ctx > 512", {"num_ctx": int}, "s.yaml:1"),),
    "task_options": {"prompt_eval": {}},
    "name": "another",
    "template_path": Path("elsewhere"),
    "config_path": Path("elsewhere.yaml"),
    "warmup": 0,
    "repeats": Repeats(9, 12, 0.02),
    "timeout_s": 5.0,
    "load_timeout_s": 5.0,
    "retries": 7,
    "order": "row-first",
    "host": "http://elsewhere:1",
    "ollama": "/elsewhere/ollama",
    "api_key_env": "KEY",
    "settings": {"further": 1},
    "warnings": ("beware",),
}


@pytest.fixture(autouse=True)
def journal(tmp_path: Path, fake_script: Callable[..., Path]) -> Path:
    fake_script(journal=str(tmp_path / "journal.txt"), context_length=8192)
    return tmp_path / "journal.txt"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "sweeps.db") as opened:
        yield opened


def seen(spec: SweepSpec = SPEC, memory: PromptMemory | None = None, said: list[str] | None = None) -> Survey:
    engine = "fake" if spec.engine == "auto" else spec.engine
    say = (lambda line: None) if said is None else said.append
    return survey(spec, engine, Engine(EngineSettings()), memory or NoMemory(), say)


def keys(spec: SweepSpec) -> set[str]:
    return {planned.key for planned in seen(spec).planned()}


def field_names(role: str) -> list[str]:
    return sorted(field.name for field in dataclasses.fields(SweepSpec) if field.metadata["role"] == role)


def with_other(name: str) -> SweepSpec:
    """SPEC with another value of this field."""
    now = getattr(SPEC, name)
    others = {**IDENTITY, **RUNTIME}
    if name not in others:
        others[name] = {bool: not now, tuple: ("x",), int: 7, float: 7.0}.get(type(now), "x")
    return replace(SPEC, **{name: others[name]})


# Identity


@pytest.mark.parametrize("name", field_names("identity"))
def test_every_identity_field_changes_every_key(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    task = tasks.load("prompt_eval")
    monkeypatch.setattr(tasks, "load", lambda wanted: task)
    changed = with_other(name)
    assert len(keys(changed)) == 4
    assert not keys(changed) & keys(SPEC)
    assert seen(changed).fingerprint != seen().fingerprint


@pytest.mark.parametrize("name", field_names("runtime"))
def test_no_runtime_field_changes_a_key(name: str) -> None:
    changed = with_other(name)
    assert changed != SPEC
    assert keys(changed) <= keys(SPEC)
    assert len(keys(changed)) == (2 if name == "exclude" else 4)
    same_plan = seen(changed).fingerprint == seen().fingerprint
    assert same_plan is (name not in ("exclude", "order", "reuse_duplicates"))


def test_a_key_does_not_depend_on_the_other_cells() -> None:
    larger = replace(SPEC, dimensions={"num_batch": (1, 4, 2, 8), "num_ctx": (2048, 1024, 512)}, order="shuffled")
    assert keys(SPEC) < keys(larger)
    assert len(keys(larger)) == 12


def test_an_option_may_stand_in_the_grid_or_beside_it() -> None:
    swept = replace(SPEC, dimensions={**SPEC.dimensions, "num_gpu": (0, 9)})
    beside = replace(SPEC, options={**SPEC.options, "num_gpu": 9})
    assert keys(beside) < keys(swept)


def test_a_model_may_stand_in_the_grid_or_beside_it() -> None:
    assert keys(SPEC) < keys(replace(SPEC, model="", dimensions={**SPEC.dimensions, "model": ("n", "m")}))


def test_what_the_sweep_sets_itself_is_no_part_of_the_template() -> None:
    layout = 'FROM other\n# a comment\n\nPARAMETER num_ctx 9999\nPARAMETER num_batch 1\nSYSTEM "Be brief."\n'
    assert keys(replace(SPEC, template=layout)) == keys(SPEC)
    assert not keys(replace(SPEC, template=layout + "PARAMETER seed 1\n")) & keys(SPEC)


def test_a_prompts_place_is_not_identity_and_its_text_is() -> None:
    assert keys(replace(SPEC, prompt=PromptSpec(WORDS, source="elsewhere"))) == keys(SPEC)
    assert not keys(replace(SPEC, prompt=PromptSpec(WORDS + "\n"))) & keys(SPEC)
    assert not keys(replace(SPEC, prompt=PromptSpec(None, 9))) & keys(SPEC)


# The prompt


def test_the_prompt_is_counted_once_with_its_nonce_and_then_known(store: Store, journal: Path) -> None:
    said: list[str] = []
    first = seen(said=said, memory=store).prompts["prompt_eval", "m", None]
    assert (first.text, first.tokens, first.is_new) == (WORDS, PROMPT_TOKENS, True)
    assert said == ["Counting the prompt's tokens on m"]
    assert journal.read_text() == "count\tm\n"
    found = seen()
    store.save_prompt_tokens("fake", "sha256:fake-m", found.modelfile, first.hash, PROMPT_TOKENS)
    journal.unlink()
    again = seen(said=said, memory=store).prompts["prompt_eval", "m", None]
    assert (again.tokens, again.is_new, len(said), journal.exists()) == (PROMPT_TOKENS, False, 1, False)
    assert seen(replace(SPEC, template=""), store).prompts["prompt_eval", "m", None].is_new


def test_a_prompt_is_made_once_for_each_model(store: Store) -> None:
    said: list[str] = []
    spec = replace(SPEC, prompt=PromptSpec(None, 400))
    made = seen(spec, store, said).prompts["prompt_eval", "m", None]
    assert (made.tokens, made.is_made, made.is_new, made.hash) == (400, True, True, "tokens:400:1")
    assert said == ["Making a prompt of 400 tokens on m"]
    store.save_prompt_tokens("fake", "sha256:fake-m", seen(spec).modelfile, made.hash, 400)
    store.save_made_prompt("fake", "sha256:fake-m", seen(spec).modelfile, made.hash, made.text)
    again = seen(spec, store, said).prompts["prompt_eval", "m", None]
    assert (again.text, again.is_new, len(said)) == (made.text, False, 1)


def test_a_prompt_that_cannot_be_made_is_a_mistake() -> None:
    with pytest.raises(ConfigError, match=r"^prompt\.tokens: no text of 3 tokens can be made with m$"):
        seen(replace(SPEC, prompt=PromptSpec(None, 3)))


def test_each_model_has_its_own_count(journal: Path) -> None:
    both = replace(SPEC, model="", dimensions={**SPEC.dimensions, "model": ("a", "b")})
    assert {model for _, model, _ in seen(both).prompts} == {"a", "b"}
    assert journal.read_text() == "count\ta\ncount\tb\n"


# What fits


def test_a_cell_that_the_prompt_does_not_fit_is_skipped() -> None:
    long = replace(SPEC, prompt=PromptSpec(" ".join(["word"] * 505)))
    found = seen(long)
    assert found.prompts["prompt_eval", "m", None].tokens == 509
    statuses = [(planned.cell.num_ctx, planned.status, planned.reason) for planned in found.planned()]
    assert statuses == [(512, Status.PENDING, "")] * 2 + [(1024, Status.PENDING, "")] * 2
    found = seen(replace(long, options={"num_predict": 3}))
    statuses = [(planned.cell.num_ctx, planned.status, planned.reason) for planned in found.planned()]
    assert statuses == [(512, Status.SKIPPED, "does_not_fit")] * 2 + [(1024, Status.PENDING, "")] * 2


def test_where_no_cell_fits_it_says_what_is_needed() -> None:
    long = replace(SPEC, prompt=PromptSpec(" ".join(["word"] * 2000), source="p.txt"))
    with pytest.raises(ConfigError) as caught:
        list(seen(long).planned())
    assert str(caught.value) == (
        "p.txt: the prompt has 2004 tokens and needs num_ctx 2007; the largest is 1024, so no cell fits"
    )


def test_a_context_beyond_the_models_training_does_not_help() -> None:
    long = replace(
        SPEC, prompt=PromptSpec(" ".join(["word"] * 9000)), dimensions={"num_ctx": (16384,), "num_batch": (2,)}
    )
    with pytest.raises(ConfigError, match="the largest is 8192, so no cell fits"):
        list(seen(long).planned())


def test_a_missing_model_is_found_before_anything_is_counted(fake_script: Callable[..., Path], journal: Path) -> None:
    fake_script(journal=str(journal), missing_models=["gone"])
    both = replace(SPEC, model="", dimensions={**SPEC.dimensions, "model": ("m", "gone")})
    with pytest.raises(EngineMissing, match=r"^gone is not installed here\. Run: ollama pull gone$"):
        seen(both)
    assert not journal.exists()


# What changed


def changed(spec: SweepSpec, old: SweepSpec = SPEC) -> list[str]:
    """What is said of `spec` after a run of `old`, as it comes back out of a database."""
    return changes(json.loads(json.dumps(seen(old).picture())), seen(spec))


def test_nothing_changed_is_nothing_said() -> None:
    assert changed(SPEC) == []
    assert changed(replace(SPEC, timeout_s=1.0, repeats=Repeats(9, 9), warmup=Warmup(0, 0), order="shuffled")) == []


AGAIN = "cells will be measured again, the old ones are kept (cells that were measured like this before count)"


@pytest.mark.parametrize(
    ("name", "value", "line"),
    [
        ("model", "other", f"model changed: 4 {AGAIN}"),
        ("prompt", PromptSpec("x"), f"prompt changed: 4 {AGAIN}"),
        ("template", "FROM x\n", f"modelfile changed: 4 {AGAIN}"),
        ("options", {"num_predict": 3}, f"options changed: 4 {AGAIN}"),
        ("server", {"OLLAMA_KV_CACHE_TYPE": "q8_0"}, f"server changed: 4 {AGAIN}"),
    ],
)
def test_what_changed_is_said(name: str, value: object, line: str) -> None:
    assert changed(replace(SPEC, **{name: value})) == [line]  # type: ignore[arg-type]


def test_only_cells_that_the_last_run_had_and_that_fit_are_measured_again() -> None:
    prompt = PromptSpec(" ".join(["word"] * 600))
    assert changed(replace(SPEC, prompt=prompt)) == [f"prompt changed: 2 {AGAIN}"]
    grown = replace(SPEC, prompt=prompt, dimensions={"num_ctx": (512, 1024, 2048), "num_batch": (2, 4, 8)})
    assert changed(grown) == [
        f"prompt changed: 2 {AGAIN}", "num_ctx 2048 is new (3 cells)", "num_batch 8 is new (3 cells)",
    ]  # fmt: skip
    excluded = replace(SPEC, prompt=PromptSpec("x"), exclude=RUNTIME["exclude"])
    assert changed(excluded) == [f"prompt changed: 2 {AGAIN}"]


def test_where_all_cells_are_new_a_change_is_still_said() -> None:
    elsewhere = replace(SPEC, dimensions={"num_ctx": (2048,), "num_batch": (2, 4)})
    gone = ["num_ctx 2048 is new (2 cells)", "num_ctx 512, 1024 is gone (its cells are kept)"]
    assert changed(replace(elsewhere, prompt=PromptSpec("x"))) == ["prompt changed", *gone]
    assert changed(replace(elsewhere, options={"num_predict": 3})) == ["options changed", *gone]


def test_a_model_that_is_added_or_taken_away_costs_the_others_nothing() -> None:
    one = replace(SPEC, model="", dimensions={**SPEC.dimensions, "model": ("a",)})
    both = replace(SPEC, model="", dimensions={**SPEC.dimensions, "model": ("a", "b")})
    assert changed(both, one) == ["model b is new (4 cells)"]
    assert changed(one, both) == ["model b is gone (its cells are kept)"]


def test_a_model_that_was_pulled_again_costs_its_own_cells_only() -> None:
    both = replace(SPEC, model="", dimensions={**SPEC.dimensions, "model": ("a", "b")})
    old = json.loads(json.dumps(seen(both).picture()))
    old["model"] = ["a sha256:fake-a", "b sha256:older"]
    assert changes(old, seen(both)) == [f"model changed: 4 {AGAIN}"]


def test_a_task_that_is_added_costs_the_others_nothing() -> None:
    one = with_tasks(replace(SPEC, dimensions={**SPEC.dimensions, "task": ("prompt_eval",)}))
    both = with_tasks(replace(SPEC, dimensions={**SPEC.dimensions, "task": ("prompt_eval", "chat")}))
    assert changed(both, one) == ["task chat is new (4 cells)"]


@pytest.mark.parametrize(
    ("dimensions", "lines"),
    [
        ({"num_ctx": (512, 1024, 2048)}, ["num_ctx 2048 is new (2 cells)"]),
        ({"num_ctx": (512,)}, ["num_ctx 1024 is gone (its cells are kept)"]),
        (
            {"num_ctx": (512, 2048), "num_batch": (2, 4, 8)},
            [
                "num_ctx 2048 is new (3 cells)",
                "num_ctx 1024 is gone (its cells are kept)",
                "num_batch 8 is new (2 cells)",
            ],
        ),
        ({"seed": (1, 2)}, ["seed 1, 2 is new (8 cells)"]),
        ({"num_batch": (2, 4, *range(10, 18))}, ["num_batch 10, 11, 12, 13, 14, 15, … (8 values) is new (16 cells)"]),
    ],
)
def test_new_and_gone_values_are_said(dimensions: Mapping[str, tuple[Scalar, ...]], lines: list[str]) -> None:
    assert changed(replace(SPEC, dimensions={**SPEC.dimensions, **dimensions})) == lines


def test_a_dimension_that_is_gone_is_said() -> None:
    old = replace(SPEC, dimensions={**SPEC.dimensions, "seed": (1, 2)})
    assert changed(SPEC, old) == ["dimension seed is gone"]


def test_another_version_of_the_engine_is_said(fake_script: Callable[..., Path]) -> None:
    old = json.loads(json.dumps(seen().picture()))
    fake_script(version="2.0", context_length=8192)
    assert changes(old, seen()) == ["the engine was 1.0, now it is 2.0"]
