"""The JSON Schema: it takes what the strict loader takes, and sees what of a bad file a schema can see."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import bad_sweeps
import pytest
from bad_sweeps import BASE, Bad
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from ollama_fixture import ROOT
from plain import plain

from ollama_sweep.core import strict_yaml
from ollama_sweep.core.errors import ConfigError
from ollama_sweep.machine.files import read_text
from ollama_sweep.plan import config, keys, schema

VALIDATOR = Draft202012Validator(schema.schema())
CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A working directory."""
    monkeypatch.chdir(tmp_path)


def faults(text: str) -> list[str]:
    """What the schema says of a file that the strict loader read."""
    root = strict_yaml.parse(text, "s.yaml")
    assert root is not None
    return [f"{error.json_path}: {error.message}" for error in VALIDATOR.iter_errors(plain(root))]


def is_seen(text: str | bytes) -> bool:
    """Whether the loader reads the file and finds data in it, and the schema refuses them."""
    file = Path("s.yaml")
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    try:
        read = read_text(file, 1)
        return strict_yaml.parse(read, "s.yaml") is not None and bool(faults(read))
    except ConfigError:
        return False


def test_it_is_a_schema() -> None:
    Draft202012Validator.check_schema(schema.schema())


@pytest.mark.parametrize("file", CONFIGS, ids=lambda path: path.name)
def test_every_sweep_file_names_it_and_passes(file: Path) -> None:
    text = file.read_text("utf-8")
    named = text.splitlines()[0].removeprefix("# yaml-language-server: $schema=")
    assert json.loads((file.parent / named).read_text("utf-8")) == schema.schema()
    assert faults(text) == []


def test_the_command_prints_the_file() -> None:
    command = [sys.executable, str(ROOT / "sweep.py"), "schema"]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert printed == (ROOT / "configs" / "sweep.schema.json").read_text("utf-8")


@pytest.mark.parametrize(
    ("text", "bad"), list(bad_sweeps.files()), ids=lambda value: value.message[:40] if isinstance(value, Bad) else ""
)
def test_a_bad_file_is_seen_or_not_as_it_is_marked(text: str | bytes, bad: Bad) -> None:
    assert is_seen(text) is bad.seen


def test_no_key_is_required() -> None:
    """Each may come from the command line, and so may the other parts of a range."""
    root = strict_yaml.parse((ROOT / "configs" / "all_keys.yaml").read_text("utf-8"), "all_keys.yaml")
    assert root
    whole = plain(root)
    assert isinstance(whole, dict)
    assert VALIDATOR.is_valid({})
    assert all(VALIDATOR.is_valid({name: value}) for name, value in whole.items())
    assert faults("num_ctx: {end: 4096}\nrepeats: {max: 9}\nprompt: {}\n") == []


@pytest.mark.parametrize(
    "lines",
    [
        "OLLAMA_KV_CACHE_TYPE: q8_0",
        "OLLAMA_NUM_PARALLEL: [1, 2]",
        "LLAMA_ARG_THREADS: 4",
        "dimensions: {OLLAMA_GPU_OVERHEAD: [0, 1000], kv_cache_type: [f16, q8_0], models: [a, b]}",
        "models: all",
        "tasks: {chat: {datasets: some/thing, download: true}, of_others: {whatever: [1]}, items: }",
        "tasks: {mmlu: {shots: 3, temperature: 0, limit: 2}}",
        "temperature: {start: 0, end: 1, step: 0.25}",
        "num_gpu: {start: 1, end: 64, factor: 1.5}",
        "interim: off",
        "control: 30m",
        "cooldown: off",
        "cooldown: 90",
        "cooldown: {gpu_c: 60}",
        "host: HTTP://box:1/api",
        "quiet_hours: 09:00-18:00, Sat 22:00 - 01:30",
        "exclude: []",
        "engine: of_others",
    ],
)
def test_what_the_loader_takes_is_taken(lines: str) -> None:
    assert faults(f"{lines}\n") == []


@pytest.mark.parametrize(
    ("lines", "where"),
    [
        ("OLLAMA_HOST: box", "$"),
        ("OLLAMA_DEBUG: {a: 1}", "$.OLLAMA_DEBUG"),
        ("dimensions: {LLAMA_ARG_X: }", "$.dimensions.LLAMA_ARG_X"),
        ("options: {kv_cache_type: f16}", "$.options"),
        ("tasks: {chat: 5}", "$.tasks.chat"),
        ("tasks: {chat: {num_predict: 0}}", "$.tasks.chat.num_predict"),
        ("tasks: {items: {limit: all}}", "$.tasks.items.limit"),
        ("engine_options: {devise: cpu}", "$.engine_options"),
        ("engine_options: {trust_remote_code: yes}", "$.engine_options.trust_remote_code"),
        ("server: yes", "$.server"),
        ("restart_command: systemctl restart ollama", "$.restart_command"),
        ("quiet_hours: at night", "$.quiet_hours"),
        ("only_on_ac: yes", "$.only_on_ac"),
        ("interim: never", "$.interim"),
        ("cooldown: {gpu: 60}", "$.cooldown"),
        ("cooldown: never", "$.cooldown"),
    ],
)
def test_a_mistake_is_shown_where_it_is(lines: str, where: str) -> None:
    assert [fault.partition(":")[0] for fault in faults(f"{lines}\n")] == [where]


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 2000) | st.floats(-1, 200) | st.text("abc-_.:/ %m0", max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["start", "end", "step", "chat", "min"]), inner)
    ),
    max_leaves=5,
)


@given(st.sampled_from(sorted(set(keys.BY_NAME) - {"prompt", "modelfile"})), VALUES)
def test_nothing_that_a_sweep_may_say_is_refused(key: str, value: object) -> None:
    line = f"{key}: {json.dumps(value)}\n"
    others = [one for one in BASE.splitlines(keepends=True) if one.partition(":")[0] not in (key, "prompt")]
    Path("s.yaml").write_text("".join([*others, line]))
    try:
        config.load_spec(Path("s.yaml"), {"set": ("prompt.tokens=9",), "allow_cloud": True})
    except ConfigError:
        return
    assert faults(line) == []
