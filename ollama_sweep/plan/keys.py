"""Every key of a sweep file, one row each: its kind, its limits, its default, its words.

The checks of `config`, the options of the command line, the JSON Schema, the tables of docs/configuration.md and
configs/all_keys.yaml are made of these rows. The options of an engine have theirs in `core/options`. No I/O.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from enum import StrEnum

from ollama_sweep.core import options
from ollama_sweep.core.options import Option, Scalar
from ollama_sweep.core.surface import goal

IDENTITY, RUNTIME = "identity", "runtime"
EFFORTS = ("low", "medium", "high")
ORDERS = ("auto", "column-first", "columns-bisected", "row-first", "shuffled")


class Kind(StrEnum):
    """What a key takes. `fields` has the reader of each, `schema` its shape."""

    WHOLE = "a whole number between two limits"
    NUMBER = "a number between two limits"
    TRUTH = "true or false"
    WORD = "letters, digits and _"
    MODEL = "an installed model or a file"
    MODELFILE = "the path of a Modelfile"
    TEXT = "one line of text"
    COUNT = "how many"
    SECONDS = "a length of time"
    CHOICE = "one of some words"
    ADDRESS = "the address of a server"
    WORDS = "a command as a list of words"
    HOURS = "times of the week"
    INTERVAL = "a number of cells, a time, or off"
    WARMUP = "a number of runs, or auto"
    REPEATS = "a number of runs, min, max and until, or auto"
    SHARE = "a percentage, or off"
    COOLDOWN = "a time, the warmth of the GPUs, or off"
    PROMPT = "a path, text or tokens"
    EXCLUSIONS = "comparisons"
    GOAL = "map, best, per-context, largest, or off"
    TASKS = "options by task"
    ENGINE_OPTIONS = "what only some engines know"
    THOUGHT = "true, false, or how hard"
    GPUS = "all, or numbers of GPUs"
    HOSTS = "servers, each with a name"
    SECTION = "other keys"
    PAIR = "a key with two values"


TEXTS = frozenset({Kind.WORD, Kind.MODEL, Kind.MODELFILE, Kind.TEXT, Kind.PROMPT, Kind.ADDRESS, Kind.CHOICE})
"""Kinds whose value on the command line is text as it stands, also where it looks like a number."""
VALUES = {int: Kind.WHOLE, float: Kind.NUMBER, bool: Kind.TRUTH, str: Kind.WORD}

STEP_LIMITS: dict[Kind, tuple[float, float]] = {Kind.WHOLE: (1, 10_000_000), Kind.NUMBER: (1e-6, 100)}
"""How far apart the values of a range may lie."""
OWN_VARIABLES = frozenset({"OLLAMA_HOST", "OLLAMA_MODELS"})
"""Variables of a server that the sweep sets itself."""


class Part(StrEnum):
    """Where a key stands in docs/configuration.md and in configs/all_keys.yaml: the heading."""

    WHAT = "What is measured"
    OPTIONS = "Options"
    SERVER = "Settings of the server"
    EXCLUDE = "Leaving cells out"
    HOW = "How it is measured"
    WHEN = "When it may run"
    WHERE = "Where it is measured"


@dataclass(frozen=True)
class Override:
    """An option of the command line that gives a key, or one `part` of it such as the start of a range."""

    option: str
    words: str
    metavar: str = ""
    part: str = ""

    @property
    def name(self) -> str:
        """The option as a name in Python."""
        return self.option.lstrip("-").replace("-", "_")


@dataclass(frozen=True)
class Key:
    """One key.

    `LOW` and `HIGH` in `words` stand for the limits. `default` is a value as the file would have it; where there is
    no such value, `absent` says what holds without the key. `example` is the value in all_keys.yaml. `field` is the
    field of `SweepSpec` (or of its conditions) that the value goes to; without one it is found in `settings` under
    the key's name, so a key that is identity has one. `sweeps`: several values make a dimension.
    """

    name: str
    kind: Kind
    part: Part
    words: str
    role: str = RUNTIME
    default: Scalar = None
    absent: str = ""
    low: int | None = None
    high: int | None = None
    choices: tuple[str, ...] = ()
    example: str = ""
    field: str = ""
    sweeps: bool = False
    overrides: tuple[Override, ...] = ()
    needed: str = ""
    """How to give it, for the refusal of a sweep without it."""

    @property
    def text(self) -> str:
        """The words with the limits."""
        return self.words.replace("LOW", str(self.low)).replace("HIGH", str(self.high))

    @property
    def sentence(self) -> str:
        """The text without links, with a capital and a full stop."""
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", re.sub(r"\[(\w+\.md)\]", r"[docs/\1]", self.text))
        return f"{plain[:1].upper()}{plain[1:]}."


def _option(option: Option, part: Part = Part.OPTIONS) -> Key:
    field = "server" if part is Part.SERVER else "options"
    return Key(
        option.name, VALUES[option.kind], part, option.words, IDENTITY, low=option.low, high=option.high,
        example=option.example, field=field, sweeps=True,
    )  # fmt: skip


def _size(option: Option, word: str, example: str) -> Key:
    """One of the two main dimensions."""
    asked = {"start": "First {}.", "end": "Last {}.", "step": "Step of {}."}
    given = [Override(f"--{word}-{part}", text.format(option.name), "TOKENS", part) for part, text in asked.items()]
    names = [one.option for one in given]
    words = (
        "the two main dimensions: one value, a list or a range ({start, end, step} or {start, end, factor}). A sweep "
        "of other tasks may leave them out; then the engine chooses, and `effective_num_ctx` says what it took"
    )
    return replace(
        _option(option, Part.WHAT),
        words=words,
        absent="needed for `prompt_eval`",
        field="dimensions",
        example=example,
        needed=f"add it or use {names[0]}, {names[1]} and {names[2]}",
        overrides=tuple(given),
    )


_OPTIONS = {option.name: option for option in options.OPTIONS}
_WITH_OWN_ROWS = ("num_ctx", "num_batch", "num_predict")

KEYS: tuple[Key, ...] = (
    Key(
        "model", Kind.MODEL, Part.WHAT,
        "an installed name (`llama3.2:3b`) or the path of a `.gguf` file; a list makes it a dimension, and `all` is "
        "every installed model that can do the tasks (a model called all is `all:latest`). The key may be written "
        "`models`. A file is imported into Ollama once and removed again at the end. A model that is missing is never "
        "pulled. `:cloud` models need `--allow-cloud`",
        IDENTITY, absent="needed", field="model", sweeps=True, needed="add it or use --model NAME",
        example="~/.cache/ollama-sweep/models/SmolLM2-135M-Instruct.Q4_1.gguf",
        overrides=(Override("--model", "An installed name or a .gguf path."),),
    ),
    Key(
        "modelfile", Kind.MODELFILE, Part.WHAT,
        "a Modelfile as [template](#the-modelfile-template): its FROM is replaced by the model, its TEMPLATE, SYSTEM "
        "and other lines stay",
        IDENTITY, absent="just `FROM model`", field="template", example="modelfiles/nemotron_fast",
        overrides=(Override("--modelfile", "Template for the scratch model; its FROM is replaced."),),
    ),
    Key(
        "prompt", Kind.PROMPT, Part.WHAT,
        'the path of a text file; or `{text: "Tell me …"}`; or `{tokens: 4096}`, LOW to HIGH: a text of that length, '
        "made and counted on the model (as near below it as the tokenizer allows). Several lengths, as a list "
        "(`{tokens: [1024, 8192]}`) or a range, make the dimension `prompt_tokens`",
        IDENTITY, absent="needed for `prompt_eval`", low=1, high=10_000_000, field="prompt",
        needed="add it or use --prompt FILE", example="prompts/p.txt",
        overrides=(Override("--prompt", "The prompt's file."),),
    ),
    _size(_OPTIONS["num_ctx"], "ctx", "{start: 1024, end: 4096, step: 1024}"),
    _size(_OPTIONS["num_batch"], "batch", "{start: 64, end: 256, factor: 2}"),
    replace(
        _option(_OPTIONS["num_predict"], Part.WHAT), default=2, example="2",
        words="tokens to generate in a run. 2 is enough for the speed of reading a prompt. More gives a better "
        "`eval_rate` and takes longer. 0 and -1 are refused: Ollama would generate without an end",
    ),
    Key(
        "think", Kind.THOUGHT, Part.WHAT,
        "whether a model that can think does so before it answers: `true`, `false`, or how hard it tries: `low`, "
        "`medium`, `high`. A model that cannot think is `error` (`cannot_think`) where it is told to: "
        "[tasks.md](tasks.md#thoughts)",
        IDENTITY, default=False, choices=EFFORTS, field="options", sweeps=True, example="false",
        overrides=(Override("--think", "true, false, low, medium or high.", "VALUE"),),
    ),
    Key(
        "concurrency", Kind.WHOLE, Part.WHAT,
        "how many of a task's questions are in flight at once, LOW to HIGH. For tasks with questions, on engines that "
        "ask over HTTP: [tasks.md](tasks.md#several-questions-at-once)",
        IDENTITY, default=1, low=1, high=512, field="options", sweeps=True, example="1",
    ),
    Key(
        "task", Kind.WORD, Part.WHAT,
        "what is asked and how the answer is judged; a list makes it a dimension. [tasks.md](tasks.md) has them all",
        IDENTITY, default="prompt_eval", field="task", sweeps=True, example="[prompt_eval, chat]",
    ),
    Key(
        "tasks", Kind.TASKS, Part.WHAT,
        "options of the tasks by name, such as `chat: {num_predict: 50}`; each task checks its own. On the command "
        "line: `--set tasks.chat.num_predict=50`",
        IDENTITY, field="setups", example="{chat: {num_predict: 50, temperature: 0}}",
    ),
    Key(
        "pair", Kind.PAIR, Part.WHAT,
        "two sweeps in place of one, `NAME.a` and `NAME.b`, that differ in a key: `{KEY: [x, y]}`. They are measured "
        "in turns, load by load, so that what the machine does meanwhile meets both: [compare.md](compare.md#pairs)",
        absent="none", field="arms", example="{ollama: [ollama-0.33, ollama-0.34]}",
    ),
    Key(
        "dimensions", Kind.SECTION, Part.WHAT,
        "further dimensions. `num_ctx` and `num_batch` may stand here, too",
        IDENTITY, field="dimensions", example="{num_thread: [1, 2]}",
    ),
    Key(
        "options", Kind.SECTION, Part.WHAT,
        "options with one value for every cell. They may also stand at the top of the file",
        IDENTITY, field="options",
    ),
    *(_option(option) for option in options.OPTIONS if option.name not in _WITH_OWN_ROWS),
    Key(
        "server", Kind.CHOICE, Part.SERVER,
        "`managed`: the sweep starts an Ollama server of its own on a free port, watches it and stops it. Only then "
        "can settings of the server be set or swept (outermost)",
        choices=("managed",), field="managed", example="managed",
    ),
    *(_option(option, Part.SERVER) for option in options.SERVER_OPTIONS),
    Key(
        "exclude", Kind.EXCLUSIONS, Part.EXCLUDE,
        "one comparison or a list of them. A cell for which one is true is not part of the sweep",
        absent="none", field="exclude", example="[num_batch > num_ctx, num_thread == 1 and num_ctx * 2 > 4096]",
    ),
    Key(
        "prune", Kind.TRUTH, Part.EXCLUDE,
        "true: leave out what is at least as large, in num_ctx and num_batch, as a cell that ran out of memory in two "
        "fresh loads; a few are measured all the same: [measurement.md](measurement.md#memory)",
        default=False, example="true",
    ),
    Key(
        "name", Kind.TEXT, Part.HOW, "the sweep's name in the database, and the folder of its pictures",
        absent="the file's name without its ending", field="name", example="all keys",
    ),
    Key(
        "warmup", Kind.WARMUP, Part.HOW,
        "LOW to HIGH runs before the measured ones; they are kept and not counted. `auto`: until a run is no faster "
        "than the one before it, at most 5: [measurement.md](measurement.md#warm-up-and-repeats)",
        default="auto", low=0, high=100, field="warmup", example="1",
    ),
    Key(
        "repeats", Kind.REPEATS, Part.HOW,
        "LOW to HIGH measured runs in a cell. Or `{min: 3, max: 20, until: 2%}`: go on until the interval of the runs "
        "is that narrow. `auto`: 3, and 6 where these differ more than runs do here",
        default="auto", low=1, high=1000, field="repeats", example="{min: 3, max: 10, until: 2%}",
    ),
    Key(
        "passes", Kind.COUNT, Part.HOW,
        "the grid is measured so often, LOW to HIGH times, each time in another order and in fresh loads: what loads "
        "differ by is seen in every cell",
        default=1, low=1, high=100, example="2",
    ),
    Key(
        "second_look", Kind.SHARE, Part.HOW,
        "when every cell has been measured, those that nobody should believe as they are (the best ones, and what is "
        "noisy, disturbed or off) get a further load, within this share of the time that the sweep has taken; `off`: "
        "none: [measurement.md](measurement.md#the-second-look)",
        default="10%", example="10%",
    ),
    Key(
        "timeout", Kind.SECONDS, Part.HOW,
        "the longest a run may take: seconds (`600`) or a time (`90s`, `10m`, `1h30m`), at most 168h",
        default="10m", field="timeout_s", example="5m",
        overrides=(Override("--timeout", "Longest time of one run, e.g. 600 or 10m.", "TIME"),),
    ),
    Key(
        "load_timeout", Kind.SECONDS, Part.HOW, "the longest a load may take, written as `timeout`",
        default="10m", field="load_timeout_s", example="10m",
    ),
    Key(
        "retries", Kind.COUNT, Part.HOW,
        "LOW to HIGH further attempts after `crashed`, `parse_error` and `error`. The other failures would fail the "
        "same way again",
        default=1, low=0, high=100, field="retries", example="1",
    ),
    Key(
        "order", Kind.CHOICE, Part.HOW, "the order of the cells: `" + "`, `".join(ORDERS[:-1]) + f"` or `{ORDERS[-1]}`",
        default=ORDERS[0], choices=ORDERS, field="order", example="columns-bisected",
    ),
    Key(
        "reuse_duplicates", Kind.TRUTH, Part.HOW,
        "true: cells that are the same configuration once the engine has clamped them are measured once. The others "
        "take that result and carry the flag `reused`",
        default=False, field="reuse_duplicates", example="false",
    ),
    Key(
        "goal", Kind.GOAL, Part.HOW,
        "what the sweep is for, where not every cell is wanted in full: `" + "`, `".join(goal.KINDS) + "`, or "
        "`{largest: {ttft_s: 10, rate: 90%}}`; `off`: every cell. A goal is kept: the next run goes on with it. "
        "[goals.md](goals.md) has them all",
        absent="every cell", choices=goal.KINDS, field="goal", example="off",
        overrides=(Override("--goal", "What is wanted: map, best, per-context, largest, or off.", "GOAL"),),
    ),
    Key(
        "quiet_hours", Kind.HOURS, Part.WHEN,
        "nothing starts then: `09:00-18:00`, `22:00-07:00`, `mon-fri 09:00-18:00`; several as a list or with commas. "
        "Local time. Put it in quotes",
        absent="none", field="quiet", example='["mon-fri 09:00-18:00", "sat 22:00-01:30"]',
    ),
    Key(
        "only_on_ac", Kind.TRUTH, Part.WHEN, "true: wait while the machine lives on its battery",
        default=False, field="only_on_ac", example="true",
    ),
    Key(
        "wait_for_idle_gpu", Kind.TRUTH, Part.WHEN,
        "true: wait while another program computes on a GPU (NVIDIA and AMD)",
        default=False, field="wait_for_idle_gpu", example="true",
    ),
    Key(
        "engine", Kind.WORD, Part.WHERE,
        "`auto`, `ollama`, `ollama_http`, `libllama`, `openai`, `lmstudio`, `llamacpp`, `sentence_transformers`, "
        "`replay` or `fake` ([engines.md](engines.md)). What `auto` chose is kept for the sweep",
        IDENTITY, default="auto", field="engine", example="auto",
        overrides=(Override("--engine", "auto, ollama, ollama_http, libllama, openai, lmstudio …"),),
    ),
    Key(
        "host", Kind.ADDRESS, Part.WHERE,
        "where the Ollama server answers: `127.0.0.1:11434` or `http://gpu-box:11434`. Another machine needs "
        "`--remote`; no credentials here",
        absent="`OLLAMA_HOST`, else 127.0.0.1:11434", field="host", example="127.0.0.1:11434",
        overrides=(Override("--host", "Where the Ollama server answers."),),
    ),
    Key(
        "gpus", Kind.GPUS, Part.WHERE,
        "`all`, or the numbers of GPUs (`[0, 1, 3]`): a managed server on each, and all of them measure this sweep "
        "together: [lanes.md](lanes.md)",
        absent="one server", low=0, high=1023, field="gpus", example="all",
    ),
    Key(
        "hosts", Kind.HOSTS, Part.WHERE,
        "Ollama servers that measure this sweep together, each with a name and its address "
        "(`{name: a, host: gpu-box:11434}`); other machines need `--remote`: [lanes.md](lanes.md)",
        absent="one server", field="hosts", example="[{name: a, host: gpu-box:11434}]",
    ),
    Key(
        "mixed_lanes", Kind.TRUTH, Part.WHERE,
        "true: lanes that are not alike (another GPU, driver, version of the engine) measure it all the same. What "
        "they differ by is then part of how far loads differ: "
        "[lanes.md](lanes.md#which-numbers-may-stand-beside-each-other)",
        default=False, example="true",
    ),
    Key(
        "ollama", Kind.TEXT, Part.WHERE, "the ollama program", absent="the one in PATH", field="ollama",
        example="ollama", overrides=(Override("--ollama", "The ollama program."),),
    ),
    Key(
        "restart_command", Kind.WORDS, Part.WHERE,
        "how to bring a server back that is down or stuck (not for a managed one), as a list of words: "
        "`[systemctl, --user, restart, ollama]`",
        absent="none", field="restart_command", example="[systemctl, --user, restart, ollama]",
    ),
    Key(
        "api_key_env", Kind.WORD, Part.WHERE,
        "the name of the variable, in the environment or `.env`, with the key for `openai` and `lmstudio`. The key "
        "never stands in the file",
        absent="`LLM_API_KEY`", field="api_key_env", example="OLLAMA_API_KEY",
    ),
    Key(
        "engine_options", Kind.ENGINE_OPTIONS, Part.WHERE,
        "what only some engines know ([engines.md](engines.md)): `device`, `max_seq_length`, `trust_remote_code`",
        IDENTITY, field="engine_options", example="{device: cpu}",
    ),
    Key(
        "recording", Kind.TEXT, Part.WHERE,
        "for the engine `replay`: the recording that it answers from, a file of `export --format recording` "
        "([engines.md](engines.md#replay))",
        absent="none", example="quickstart.jsonl.gz",
        overrides=(Override("--recording", "The recording that the engine replay answers from.", "FILE"),),
    ),
    Key(
        "recording_seed", Kind.COUNT, Part.WHERE,
        "for the engine `replay`: draw every load anew among those of its cell, by this number, LOW to HIGH",
        absent="the loads come as they were recorded", low=0, high=2**31 - 1, example="1",
    ),
    Key(
        "interim", Kind.INTERVAL, Part.HOW,
        "pictures while the sweep runs: after so many cells (`20`), after a time (`10m`), or `off`",
        default="30m", low=1, high=1_000_000, field="interim", example="10m",
        overrides=(Override("--interim", "Pictures after so many cells (20) or so long (10m), or off.", "WHEN"),),
    ),
    Key(
        "control", Kind.INTERVAL, Part.HOW,
        "the first cell is measured again after so many cells (`50`), after a time (`30m`), or never (`off`), to see "
        "whether the machine drifts and how far loads differ: [measurement.md](measurement.md#the-machine)",
        absent="at the start, at the end and evenly between, at least 5 times", low=1, high=1_000_000, field="control",
        example="50",
    ),
    Key(
        "cooldown", Kind.COOLDOWN, Part.HOW,
        "a rest between two cells: a time (`30s`), or `{gpu_c: 60}`: until every GPU of the engine is at most that "
        "warm (LOW to HIGH °C), at most 10 minutes, after which the cell is measured and has the flag `warm`. "
        "`off`: none. [measurement.md](measurement.md#the-machine) says more",
        default="off", low=20, high=110, field="cooldown", example="30s",
    ),
)  # fmt: skip

ENGINE_OPTIONS = {
    key.name: key
    for key in (
        Key("device", Kind.TEXT, Part.WHERE, "where it computes, such as cpu or cuda", IDENTITY),
        Key("max_seq_length", Kind.COUNT, Part.WHERE, "the longest text in tokens", IDENTITY, 512, "", 1, 1_000_000),
        Key("trust_remote_code", Kind.TRUTH, Part.WHERE, "true: a model may bring code of its own", IDENTITY),
    )
}
"""The keys of `engine_options`."""
BY_NAME = {key.name: key for key in KEYS}
ALIASES = {"models": "model"}
SECTIONS = tuple(key.name for key in KEYS if key.kind is Kind.SECTION)
DIMENSIONS = {key.name: key for key in KEYS if key.sweeps}
"""Keys of which several values make a dimension."""
LENGTHS = replace(BY_NAME["prompt"], name="prompt.tokens", kind=Kind.WHOLE)
"""Several lengths of the prompt make a dimension, though the key is no plain one."""
AXES = {**DIMENSIONS, LENGTHS.name: LENGTHS}
"""What takes a list or a range, as a person writes it."""
OPTIONS = {name: BY_NAME[name] for name in (*(option.name for option in options.OPTIONS), *options.MATTER_OF_COURSE)}
"""Load and request options that a sweep can set, and how it asks."""
OVERRIDES = tuple((key, override) for key in KEYS for override in key.overrides)
"""The options of the command line that give a key, in the order of the help."""
