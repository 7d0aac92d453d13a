"""The table of keys: each row agrees with the sweep it is read into, and says what it must."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from ollama_sweep.core import strict_yaml
from ollama_sweep.core.options import LIMITS
from ollama_sweep.machine.conditions import Conditions
from ollama_sweep.plan import config, fields, keys
from ollama_sweep.plan.keys import IDENTITY, KEYS, Key, Kind
from ollama_sweep.plan.spec import PromptSpec, SweepSpec

EMPTY = SweepSpec(model="m", dimensions={}, prompt=PromptSpec(None))
ROLES = {field.name: field.metadata["role"] for field in dataclasses.fields(SweepSpec)} | {
    field.name: "runtime" for field in dataclasses.fields(Conditions)
}

SETTINGS = ("prompt.tokens=9", "num_ctx=[64]", "num_batch=[8]")
MAIN: dict[str, object] = {"model": "m", "set": SETTINGS}
"""A small sweep without a file."""

DEFAULT_SETTINGS = {"passes": 1, "second_look": 0.1}

each_key = pytest.mark.parametrize("key", KEYS, ids=lambda key: key.name)


def node(text: str, name: str) -> strict_yaml.Node:
    found = strict_yaml.parse(text, name)
    assert found
    return found


def test_no_name_stands_there_twice() -> None:
    assert len(keys.BY_NAME) == len(KEYS)
    given = [override.name for _, override in keys.OVERRIDES]
    assert len(given) == len(set(given))


@each_key
def test_a_key_has_the_role_of_its_field(key: Key) -> None:
    """What has no field of its own is looked up in `settings`, which no cell's key knows."""
    if key.field:
        assert ROLES[key.field] == key.role
    else:
        assert key.role != IDENTITY


@each_key
def test_a_default_is_what_a_sweep_without_the_key_does(key: Key) -> None:
    if key.default is None:
        return
    if key.field == "options":
        written = {**MAIN, "keys": {key.name: str(key.default).lower()}}
        assert config.load_spec(None, written).options == config.load_spec(None, MAIN).options
        return
    said = fields.read(key, strict_yaml.Node(key.default, key.name, 0, str(key.default)))
    owner = EMPTY.conditions if hasattr(EMPTY.conditions, key.field) else EMPTY
    assert said == (getattr(owner, key.field) if key.field else fields.setting(key, None))


@each_key
def test_a_row_says_what_the_key_is_for_and_what_it_allows(key: Key) -> None:
    assert key.words
    assert key.example or key.kind is Kind.SECTION
    in_words = (Kind.COUNT, Kind.REPEATS, Kind.PROMPT)
    assert key.kind not in in_words or f"{key.low} to {key.high}" in key.text
    assert (key.low is None) == (key.high is None)
    assert key.name not in LIMITS or (key.low, key.high) == LIMITS[key.name]


@each_key
def test_every_kind_has_a_reader(key: Key) -> None:
    by_config = {
        Kind.PAIR,
        Kind.WHOLE,
        Kind.NUMBER,
        Kind.MODEL,
        Kind.MODELFILE,
        Kind.PROMPT,
        Kind.EXCLUSIONS,
        Kind.TASKS,
    }
    assert key.kind in {*by_config, Kind.SECTION, *fields.READERS}


def test_a_key_without_a_field_is_found_in_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = (
        Key("cool_down", Kind.SECONDS, keys.Part.HOW, "rest between cells", default="5s"),
        Key("label", Kind.TEXT, keys.Part.HOW, "a word of the person"),
    )
    monkeypatch.setattr(config, "KEYS", (*KEYS, *rows))
    monkeypatch.setattr(config, "BY_NAME", {**keys.BY_NAME, **{key.name: key for key in rows}})
    settings = config.load_spec(None, MAIN).settings
    assert {row.name: settings[row.name] for row in rows} == {"cool_down": 5.0, "label": None}
    settings = config.load_spec(None, {**MAIN, "set": (*SETTINGS, "cool_down=1m", "label=a")}).settings
    assert {row.name: settings[row.name] for row in rows} == {"cool_down": 60.0, "label": "a"}


def test_the_examples_are_a_sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for file in ("modelfiles/nemotron_fast", "prompts/p.txt"):
        (tmp_path / file).parent.mkdir()
        (tmp_path / file).write_text("FROM m\n")
    monkeypatch.chdir(tmp_path)
    kept_out = (Kind.SECTION, Kind.PAIR, Kind.GPUS, Kind.HOSTS)
    given = {key.name: node(key.example, key.name) for key in KEYS if key.kind not in kept_out}
    spec = config.spec_of({**given, "model": node("m", "model")}, None, {})
    assert spec.task_names == ("prompt_eval", "chat")
