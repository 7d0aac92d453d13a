"""Sweep files and the command line: what they come to, and the one line for everything that is wrong with them."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Callable, Mapping
from fractions import Fraction
from pathlib import Path

import bad_sweeps
import pytest
from bad_sweeps import BASE, LENGTHS_OF_TIME, WHOLE_NUMBERS, cases, excluding
from hypothesis import given
from hypothesis import strategies as st

from ollama_sweep.core import strict_yaml
from ollama_sweep.core.errors import ConfigError
from ollama_sweep.plan import config, keys
from ollama_sweep.plan.exclude import parse_exclusion
from ollama_sweep.plan.spec import PromptSpec, Repeats, SweepSpec, Warmup

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a prompt."""
    (tmp_path / "p.txt").write_text("Tell me a story.\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def load(text: str | bytes, overrides: Mapping[str, object] | None = None, max_cells: int = 2_000_000) -> SweepSpec:
    content = text if isinstance(text, bytes) else text.encode()
    Path("s.yaml").write_bytes(content)
    return config.load_spec(Path("s.yaml"), overrides or {}, max_cells=max_cells)


def refusal(text: str | bytes, overrides: Mapping[str, object] | None = None) -> str:
    """The error's line, after a look that nothing was created."""
    Path("s.yaml").touch()
    before = sorted(Path().iterdir())
    with pytest.raises(ConfigError) as caught:
        load(text, overrides)
    assert sorted(Path().iterdir()) == before
    assert caught.value.exit_code == 2
    return str(caught.value)


# What a file comes to


def test_the_example_of_the_readme_is_a_grid_of_624_cells() -> None:
    Path("fast").write_text("FROM nemotron_f\n")
    spec = load(
        "model: nemotron_f\nmodelfile: fast\nprompt: p.txt\n"
        "num_ctx:   {start: 32768, end: 110592, step: 2048}\nnum_batch: {start: 128, end: 2048, step: 128}\n"
    )
    assert {name: (len(values), values[0], values[-1]) for name, values in spec.dimensions.items()} == {
        "num_ctx": (39, 32768, 110592),
        "num_batch": (16, 128, 2048),
    }


def test_defaults() -> None:
    assert load(BASE) == SweepSpec(
        model="m",
        dimensions={"num_ctx": (512,), "num_batch": (64,)},
        prompt=PromptSpec("Tell me a story.\n", source="p.txt"),
        options={"num_predict": 2},
        name="s",
        config_path=Path("s.yaml"),
        settings={
            "passes": 1,
            "second_look": 0.1,
            "prune": False,
            "mixed_lanes": False,
            "recording": None,
            "recording_seed": None,
        },
    )


def test_every_setting_is_read() -> None:
    Path("t").write_text("FROM x\nPARAMETER num_ctx 7\n")
    spec = load(
        "name: my sweep\nmodel: [a, b:1]\nmodelfile: t\nprompt: {tokens: 900}\ntask: [prompt_eval, chat]\n"
        "dimensions:\n  num_batch: 64\n  num_ctx: [512, 1024]\n  num_gpu: {start: 0, end: 5, step: 2}\n"
        "options: {use_mmap: false, temperature: 0}\nseed: 7\nnum_predict: 9\nwarmup: 0\n"
        "repeats: {min: 2, max: 9, until: 2.5 %}\ntimeout: 1h30m\nload_timeout: 90.5\nretries: 0\norder: row-first\n"
        "engine: llamacpp\nhost: http://box:11434\nollama: /opt/ollama\napi_key_env: KEY\n"
        "passes: 3\nsecond_look: 5%\n"
    )
    assert spec == SweepSpec(
        model="",
        dimensions={
            "model": ("a", "b:1"),
            "task": ("prompt_eval", "chat"),
            "num_batch": (64,),
            "num_ctx": (512, 1024),
            "num_gpu": (0, 2, 4),
        },
        prompt=PromptSpec(None, tokens=900),
        template="FROM x\nPARAMETER num_ctx 7\n",
        template_path=Path("t"),
        options={"use_mmap": False, "temperature": 0, "seed": 7, "num_predict": 9},
        engine="llamacpp",
        name="my sweep",
        config_path=Path("s.yaml"),
        warmup=Warmup(0, 0),
        repeats=Repeats(2, 9, 0.025, is_auto=False),
        timeout_s=5400.0,
        load_timeout_s=90.5,
        retries=0,
        order="row-first",
        host="http://box:11434",
        ollama="/opt/ollama",
        api_key_env="KEY",
        settings={
            "passes": 3,
            "second_look": 0.05,
            "prune": False,
            "mixed_lanes": False,
            "recording": None,
            "recording_seed": None,
        },
    )
    assert list(spec.dimensions) == ["model", "task", "num_batch", "num_ctx", "num_gpu"]


def test_num_predict_may_be_a_dimension() -> None:
    spec = load(BASE + "num_predict: [2, 128]\n")
    assert spec.dimensions["num_predict"] == (2, 128)
    assert spec.options == {}


def test_a_byte_order_mark_and_windows_line_ends_are_taken() -> None:
    assert load(b"\xef\xbb\xbf" + BASE.replace("\n", "\r\n").encode()).model == "m"


def test_texts_that_other_loaders_turn_into_something_else_stay_texts() -> None:
    assert load(BASE.replace("model: m", "model: 7:30") + "name: yes\n").model == "7:30"


def test_a_prompt_can_stand_in_the_file() -> None:
    spec = load(BASE.replace("p.txt", "{text: 'Say hello.'}"))
    assert spec.prompt == PromptSpec("Say hello.")


def test_a_prompt_keeps_its_line_ends_and_escapes() -> None:
    Path("p.txt").write_bytes(b"\xef\xbb\xbfa\r\n\x1b[1mb")
    assert load(BASE).prompt.text == "a\r\n\x1b[1mb"


def test_a_gguf_file_is_a_model(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(folder))
    (folder / "my model.gguf").write_bytes(b"GGUF")
    assert load(BASE.replace("model: m", "model: ~/my model.gguf")).model == f"{folder}/my model.gguf"


@pytest.mark.parametrize("config_file", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda path: path.name)
def test_every_shipped_config_loads(config_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    spec = config.load_spec(config_file, {"model": "m"})
    assert bool(spec.prompt.text or spec.prompt.tokens or any(spec.lengths)) is ("prompt_eval" in spec.task_names)
    of_another_engine = config_file.stem == "all_keys"  # it names a recording, which only a replay reads
    assert all("recording" in warning and of_another_engine for warning in spec.warnings)


@pytest.mark.parametrize(
    ("name", "cells"), [("quickstart", 20), ("quick_test", 4), ("default", 624), ("all_keys", 4 * 3 * 2 * 2)]
)
def test_sizes_of_the_shipped_grids(name: str, cells: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    spec = config.load_spec(ROOT / f"configs/{name}.yaml", {"model": "m"})
    assert math.prod(len(values) for values in spec.dimensions.values()) == cells


def test_the_commented_config_shows_every_key() -> None:
    text = (ROOT / "configs/all_keys.yaml").read_text()
    root = strict_yaml.parse(text, "all_keys.yaml")
    assert root
    assert "\n# pair: {" in text, "it would make two sweeps of the file"
    assert isinstance(root.value, dict)
    sections = [root.value[name].value for name in keys.SECTIONS]
    shown = {name for entries in (root.value, *sections) if isinstance(entries, dict) for name in entries}
    assert "\n# gpus: all\n" in text, "they say where it is measured, and so does `host`"
    assert shown == set(keys.BY_NAME) - {"pair", "gpus", "hosts"}


@pytest.mark.parametrize("kind", [SweepSpec, PromptSpec])
def test_each_field_of_a_sweep_is_identity_or_runtime(kind: type[SweepSpec | PromptSpec]) -> None:
    for field in dataclasses.fields(kind):
        assert field.metadata.get("role") in ("identity", "runtime"), field.name


# Ranges


@given(st.integers(1, 10**6), st.integers(1, 10**5), st.integers(0, 300), st.integers(0, 10**5))
def test_a_range_has_every_step_up_to_its_end(start: int, step: int, steps: int, more: int) -> None:
    end = min(start + step * steps + more % step, 10_000_000)
    values = axis("num_ctx", f"{{start: {start}, end: {end}, step: {step}}}")
    assert values == tuple(range(start, end + 1, step))


@given(st.integers(1, 5000), st.integers(2, 10), st.integers(0, 3))
def test_a_range_by_factor_includes_an_end_that_is_hit(start: int, factor: int, times: int) -> None:
    end = start * factor**times
    values = axis("num_batch", f"{{start: {start}, end: {end}, factor: {factor}}}")
    assert values == tuple(start * factor**index for index in range(times + 1))


@given(st.integers(1, 10**7), st.integers(1, 10**7), st.integers(101, 10**6))
def test_a_range_by_any_factor_rises_and_stays_inside(one: int, other: int, hundredths: int) -> None:
    start, end = sorted((one, other))
    values = axis("num_ctx", f"{{start: {start}, end: {end}, factor: {hundredths / 100}}}")
    whole = [int(str(value)) for value in values]
    assert whole[0] == start
    assert whole == sorted(set(whole))
    assert whole[-1] <= end < whole[-1] * Fraction(hundredths, 100) + 2


def test_a_range_of_decimals_is_exact() -> None:
    assert axis("temperature", "{start: 0, end: 0.3, step: 0.1}") == (0.0, 0.1, 0.2, 0.3)
    assert axis("top_p", "{start: 0.25, end: 1, factor: 2}") == (0.25, 0.5, 1.0)


def axis(name: str, text: str) -> tuple[object, ...]:
    node = strict_yaml.parse(text, "s.yaml")
    assert node
    return config._axis(name, node).build()


def test_the_size_of_a_grid_is_looked_at_before_it_is_built() -> None:
    ranges = "num_ctx: {start: 1, end: 1000000, step: 1}\nnum_batch: {start: 1, end: 1000, step: 1}\n"
    assert refusal("model: m\nprompt: p.txt\n" + ranges) == (
        "s.yaml: the grid has 1,000,000,000 cells (limit 2,000,000; --max-cells)"
    )
    with pytest.raises(ConfigError, match=r"the grid has 6 cells \(limit 5; --max-cells\)"):
        load(BASE.replace("512", "[1, 2]").replace("64", "[1, 2, 3]"), max_cells=5)


# Mistakes in the file


@pytest.mark.parametrize(
    ("text", "message"),
    cases(bad_sweeps.NO_MAPPINGS),
    ids=lambda value: str(value)[:40],
)
def test_files_that_are_not_a_plain_mapping(text: str | bytes, message: str) -> None:
    assert refusal(text) == message


@pytest.mark.parametrize(
    ("written", "what"),
    cases(bad_sweeps.NUMBERS),
    ids=lambda value: value[:40],
)
def test_values_that_are_not_whole_numbers(written: str, what: str) -> None:
    assert refusal(BASE.replace("64", written)) == f"s.yaml:4: num_batch: {what}"


@pytest.mark.parametrize(
    ("lines", "message"),
    cases(bad_sweeps.KEYS_AND_VALUES),
)  # fmt: skip
def test_keys_and_their_values(lines: str, message: str) -> None:
    assert refusal(BASE + lines + "\n") == f"s.yaml:{message}"


@pytest.mark.parametrize("key", ["timeout", "load_timeout"])
@pytest.mark.parametrize("written", [bad.written for bad in bad_sweeps.TIMES])
def test_times(key: str, written: str) -> None:
    assert refusal(f"{BASE}{key}: {written}\n") == f"s.yaml:5: {key}: {LENGTHS_OF_TIME}"


@pytest.mark.parametrize(
    ("written", "message"),
    cases(bad_sweeps.MODELS),
)
def test_models(written: str, message: str) -> None:
    Path("y.gguf").touch()
    Path("folder.gguf").mkdir()
    assert refusal(BASE.replace("model: m", f"model: {written}")) == f"s.yaml:1: {message}"


def test_a_cloud_model_can_be_allowed() -> None:
    assert load(BASE.replace("model: m", "model: m:cloud"), {"allow_cloud": True}).model == "m:cloud"


def test_the_file_of_a_model_is_looked_for_last() -> None:
    text = BASE.replace("model: m", "model: missing.gguf")
    assert refusal(text.replace("p.txt", "q.gone")) == "s.yaml:2: q.gone: file not found"
    assert refusal(text + "zzz: 1\n") == "s.yaml:5: unknown key zzz."
    assert refusal(text) == "s.yaml:1: missing.gguf: file not found"


@pytest.mark.parametrize(
    ("key", "remedy"),
    [
        ("model", "use --model NAME"),
        ("prompt", "use --prompt FILE"),
        ("num_ctx", "use --ctx-start, --ctx-end and --ctx-step"),
        ("num_batch", "use --batch-start, --batch-end and --batch-step"),
    ],
)
def test_missing_keys_name_the_option_that_gives_them(key: str, remedy: str) -> None:
    assert refusal(re.sub(rf"{key}: .*\n", "", BASE)) == f"s.yaml: {key} is missing; add it or {remedy}"


# Other files


def test_a_missing_file_names_a_similar_one(folder: Path) -> None:
    (folder / "sweep.yaml").touch()
    with pytest.raises(ConfigError, match=r"^swep\.yaml: file not found\. Did you mean sweep\.yaml\?$"):
        config.load_spec(Path("swep.yaml"), {})
    with pytest.raises(ConfigError, match=r"^nowhere/x\.yaml: file not found$"):
        config.load_spec(Path("nowhere/x.yaml"), {})


@pytest.mark.parametrize(
    ("written", "message"),
    cases(bad_sweeps.PROMPTS),
    ids=lambda value: value[:40],
)
def test_prompts(written: str, message: str, folder: Path) -> None:
    (folder / "blank.txt").write_text(" \n\t\n")
    (folder / "folder").mkdir()
    (folder / "latin.txt").write_bytes(b"a\ncaf\xe9")
    (folder / "nul.txt").write_bytes(b"a\nb\0")
    with (folder / "big.txt").open("wb") as big:
        big.truncate(50 << 20)
    assert refusal(BASE.replace("p.txt", written)) == f"s.yaml:2: {message}"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "s.yaml:5: fast: file not found"),
        (b"", "fast: the Modelfile is empty; it has no FROM line"),
        (b"FROM m\nFORM x\n", "fast:2: unknown command FORM. Did you mean FROM?"),
        (b"FROM m\nPARAMETER num_batchs 1\n", "fast:2: unknown parameter num_batchs. Did you mean num_batch?"),
        (b"FROM ./x.gguf\n", "fast:1: reads a local file; use --allow-local-gguf"),
        (b"FROM m\n\xff", "s.yaml:5: fast:2: is not UTF-8 (byte 0xff)"),
        (b"\x7fELF\0", "fast:1: contains a control character (U+007F)"),
        (b"#" * (2 << 20), "s.yaml:5: fast: is 2 MB; the limit is 1 MB"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_modelfiles(content: bytes | None, message: str) -> None:
    if content is not None:
        Path("fast").write_bytes(content)
    assert refusal(BASE + "modelfile: fast\n") == message


def test_a_modelfile_may_read_local_files_where_that_is_allowed() -> None:
    Path("fast").write_text("FROM ./x.gguf\n")
    assert load(BASE + "modelfile: fast\n", {"allow_local_gguf": True}).template == "FROM ./x.gguf\n"


# The command line


def test_the_two_ranges_of_an_old_file_and_the_command_line_are_enough() -> None:
    Path("t").write_text("FROM x\n")
    spec = load(
        "num_ctx: {start: 1024, end: 4096, step: 1024}\nnum_batch: {start: 64, end: 256, step: 64}\n",
        {"model": "7:30", "prompt": "p.txt", "modelfile": "t", "timeout": "90", "host": None, "set": ()},
    )
    assert (spec.model, spec.template, spec.timeout_s) == ("7:30", "FROM x\n", 90.0)


def test_no_file_at_all_is_needed() -> None:
    numbers = {
        "ctx_start": 512,
        "ctx_end": 1024,
        "ctx_step": 512,
        "batch_start": 8,
        "batch_end": "16",
        "batch_step": "8",
    }
    spec = config.load_spec(None, {"model": "m", "prompt": "p.txt", **numbers})
    assert spec.dimensions == {"num_ctx": (512, 1024), "num_batch": (8, 16)}
    assert spec.name == "sweep"
    with pytest.raises(ConfigError, match=r"^model is missing; add it or use --model NAME$"):
        config.load_spec(None, {})


def test_the_command_line_wins() -> None:
    Path("o.txt").write_text("Other.")
    text = BASE.replace("512", "{start: 512, end: 4096, factor: 2}") + "options: {seed: 1}\nexclude: num_ctx > 9999\n"
    changes = ("repeats=5", "dimensions.num_gpu=[0, 1]", "options.seed=2", "num_batch.start=4", "num_batch.end=8",
               "num_batch.step=4", "exclude=[]", "name='a: b'", "load_timeout=5m")  # fmt: skip
    spec = load(
        text,
        {
            "model": "n", "prompt": "o.txt", "timeout": "1m", "host": "box", "ollama": "/o", "engine": "fake",
            "ctx_end": 1536, "ctx_step": 512, "set": changes,
        },
    )  # fmt: skip
    assert spec.dimensions == {"num_ctx": (512, 1024, 1536), "num_batch": (4, 8), "num_gpu": (0, 1)}
    assert (spec.model, spec.prompt.text, spec.host, spec.ollama, spec.engine) == ("n", "Other.", "box", "/o", "fake")
    assert (spec.timeout_s, spec.load_timeout_s, spec.repeats) == (60.0, 300.0, Repeats(5, 5, is_auto=False))
    assert (spec.options, spec.exclude, spec.name) == ({"seed": 2, "num_predict": 2}, (), "a: b")


def test_a_part_of_the_prompt_replaces_the_prompt() -> None:
    assert load(BASE, {"set": ("prompt.tokens=900",)}).prompt == PromptSpec(None, 900)
    text = BASE.replace("p.txt", "{text: a}")
    assert load(text, {"set": ("prompt.tokens=900",)}).prompt == PromptSpec(None, 900)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"timeout": "0"}, f"--timeout: timeout: {LENGTHS_OF_TIME}"),
        ({"set": ("repeats=-1",)}, "--set repeats: repeats must be 1 to 1000"),
        ({"set": ("repeats=",)}, "--set repeats: repeats: has no value; write whole numbers like 3"),
        ({"set": ("repeats",)}, '--set: "repeats" is not key=value, for example repeats=5'),
        ({"set": ("=5",)}, '--set: "=5" is not key=value, for example repeats=5'),
        ({"set": ("a b=5",)}, '--set: "a b=5" is not key=value, for example repeats=5'),
        ({"set": ("repeat=5",)}, "--set repeat: unknown key repeat. Did you mean repeats?"),
        ({"set": ("load-timeout=5m",)}, "--set load-timeout: unknown key load-timeout. Did you mean load_timeout?"),
        ({"set": ("options=5",)}, "--set options: name what to set, for example --set options.num_gpu=0"),
        ({"set": ("options.seeed=5",)}, "--set options.seeed: unknown option seeed. Did you mean seed?"),
        ({"set": ("api_key=5",)}, "--set api_key: api_key must not be in the file; use api_key_env: NAME"),
        ({"set": ("num_ctx={start: 1, start: 2}",)}, "--set num_ctx: start is given twice"),
        ({"set": ("name=&a b",)}, "--set name: anchors (&name), aliases (*name) and << are not allowed"),
        ({"set": ("name=[",)}, "--set name: is not valid YAML: expected the node content, but found '<stream end>'"),
        ({"set": ("num_ctx.a.b=1",)}, f"--set num_ctx.a.b: num_ctx: unknown key a.b; {bad_sweeps.OF_A_RANGE}"),
        ({"set": ("timeout.x=1",)}, f"--set timeout.x: timeout: {LENGTHS_OF_TIME}"),
        ({"ctx_step": 0}, "--ctx-step: num_ctx: write {start, end, step} or {start, end, factor}"),
        ({"ctx_start": 1, "ctx_end": 9, "ctx_step": 0}, "--ctx-step: num_ctx.step: 0 is outside 1 to 10000000"),
        ({"ctx_start": "1_0", "ctx_end": 9, "ctx_step": 1},
         f'--ctx-start: num_ctx.start: "1_0" is text; {WHOLE_NUMBERS}'),
        ({"model": "a b"}, "--model: model: contains a space or control character (position 2)"),
        ({"model": "x.gguf"}, "--model: x.gguf: file not found"),
        ({"prompt": "gone"}, "--prompt: gone: file not found"),
        ({"modelfile": "gone"}, "--modelfile: gone: file not found"),
        ({"host": "http://a:b@c"}, "--host: put credentials into api_key_env, not into the URL"),
        ({"engine": "a-b"}, "--engine: engine: only letters, digits and _ (max 40)"),
    ],
)  # fmt: skip
def test_mistakes_on_the_command_line_name_the_option(overrides: dict[str, object], message: str) -> None:
    assert refusal(BASE, overrides) == message


# exclude


@pytest.mark.parametrize(
    ("line", "matching"),
    [
        ("num_batch > num_ctx", [(1, 2)]),
        ("num_ctx * 2 <= num_batch", [(1, 2)]),
        ("num_ctx == 2 and num_batch != 1", [(2, 2)]),
        ("not (num_ctx == 1 or num_batch == 1)", [(2, 2)]),
        ("1 < num_ctx <= num_batch", [(2, 2)]),
        ("-num_ctx + 3 - num_batch >= 1", [(1, 1)]),
        ("num_ctx % 2 == 1 and num_batch // 2 == 1", [(1, 2)]),
        ("num_ctx + temperature > 2.4 and num_batch < 2", [(2, 1)]),
        ("use_mmap == false and num_ctx == 1 and num_batch == 1", []),
        ("use_mmap and num_ctx * num_batch == 4", [(2, 2)]),
        ("'m' == \"m\" and num_ctx > num_batch", [(2, 1)]),
    ],
)
def test_exclusions_choose_cells(line: str, matching: list[tuple[int, int]]) -> None:
    kinds = {"num_ctx": int, "num_batch": int, "temperature": float, "use_mmap": bool}
    exclusion = parse_exclusion(line, kinds, "s.yaml:1")
    fixed = {"temperature": 0.5, "use_mmap": True}
    grid = [(num_ctx, num_batch) for num_ctx in (1, 2) for num_batch in (1, 2)]
    chosen = [pair for pair in grid if exclusion.matches({"num_ctx": pair[0], "num_batch": pair[1], **fixed})]
    assert chosen == matching


@pytest.mark.parametrize(
    ("written", "message"),
    cases(bad_sweeps.EXCLUSIONS),
)  # fmt: skip
def test_exclusions_that_are_refused(written: str, message: str) -> None:
    assert refusal(excluding(written)) == f"s.yaml:7: {message}"


def test_a_division_by_zero_is_the_persons_mistake() -> None:
    exclusion = parse_exclusion("8 // num_gpu > 1", {"num_gpu": int}, "s.yaml:3")
    with pytest.raises(ConfigError, match=r"^s\.yaml:3: exclude: \"8 // num_gpu > 1\" cannot be calculated: "):
        exclusion.matches({"num_gpu": 0})


# Warnings

OVERSIZED = "num_batch 2048 is larger than num_ctx 512; llama.cpp limits it, cells will repeat each other"


@pytest.mark.parametrize(
    ("lines", "warnings"),
    [
        ("", (OVERSIZED,)),
        ("exclude: num_ctx > 4096\n", (OVERSIZED,)),
        ("exclude: num_batch > num_ctx\n", ()),
        ("exclude: num_batch > num_ctx and num_gpu == 0\nnum_gpu: 0\n", ()),
        ("exclude: num_batch > num_ctx and num_gpu == 0\nnum_gpu: [0, 9]\n", (OVERSIZED,)),
        ("exclude: [num_batch > num_ctx and num_gpu == 0, num_gpu > 0 and num_ctx < 2048]\nnum_gpu: [0, 9]\n", ()),
    ],
)
def test_a_num_batch_above_num_ctx_is_warned_of_where_it_is_measured(lines: str, warnings: tuple[str, ...]) -> None:
    grid = BASE.replace("512", "[512, 2048]").replace("64", "[64, 2048]")
    assert load(grid + lines).warnings == warnings


# Anything at all


@given(st.text(alphabet=st.sampled_from(" \n\t:,-{}[]'\"#&*!|>%@`?0123.eabnum_ctx\\\u2028\x85"), max_size=80))
def test_any_text_is_read_or_refused_in_one_line(text: str) -> None:
    assert re.fullmatch(r"|s\.yaml:\d+: [^\n]+", fault_of(lambda: strict_yaml.parse(text, "s.yaml")))


def fault_of(action: Callable[[], object]) -> str:
    """The message of the refusal; nothing where there is none. Every other exception is a failure of the test."""
    try:
        action()
    except ConfigError as error:
        return str(error)
    return ""


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text("abc-_.:/ %m0", max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["start", "end", "step", "x"]), inner),
    max_leaves=5,
)


@given(st.sampled_from(sorted(keys.BY_NAME)), VALUES)
def test_any_value_of_any_key_is_taken_or_refused_in_one_line(key: str, value: object) -> None:
    text = BASE if f"{key}:" not in BASE else re.sub(rf"{key}: .*\n", "", BASE)
    fault = fault_of(lambda: load(f"{text}{key}: {json.dumps(value)}\n"))
    assert re.fullmatch(r"|s\.yaml:[^\n]+", fault)
