"""A sweep in the SQL of llama.cpp's `llama-bench -o sql`, which its `scripts/compare-llama-bench.py` reads. Pure.

A row is a load, as one of llama-bench is: `pp` for the prompt, `tg` for what was generated where more than two tokens
were asked for. The schema (llama.cpp b10760, tools/llama-bench/llama-bench.cpp) has no context, so each num_ctx is a
file of its own, and so is each value of another dimension without a column there. Unknown is '' in a column by which
the script joins, because NULL is equal to nothing, and NULL in the others.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC
from statistics import mean, median, stdev
from typing import TYPE_CHECKING

from ollama_sweep.core.cell import MAIN_TASK, PROMPT_TOKENS, model_label
from ollama_sweep.core.errors import ConfigError
from ollama_sweep.core.options import Scalar
from ollama_sweep.core.text import harmless
from ollama_sweep.results.find import replayed_words
from ollama_sweep.results.formats import surroundings
from ollama_sweep.results.grids import X, Y, in_word, in_words

if TYPE_CHECKING:
    from ollama_sweep.results.find import Part
    from ollama_sweep.store.loads.measured import MeasuredLoad, MeasuredRun
    from ollama_sweep.store.reader import Reader
    from ollama_sweep.store.rows import SweepRow

OPTION = "--build-commit"
_BUILD = re.compile(r"[A-Za-z0-9._+-]{1,40}")
_HAVE_A_COLUMN = frozenset({Y, "model", "task", PROMPT_TOKENS, "num_predict", "num_gpu", "main_gpu", "num_thread",
                            "use_mmap", "kv_cache_type", "flash_attention"})  # fmt: skip
_TEXT, _WHOLE, _NUMBER = "TEXT", "INTEGER", "REAL"
FIELDS: Mapping[str, str] = {
    "build_commit": _TEXT, "build_number": _WHOLE, "cpu_info": _TEXT, "gpu_info": _TEXT, "backends": _TEXT,
    "model_filename": _TEXT, "model_type": _TEXT, "model_size": _WHOLE, "model_n_params": _WHOLE, "n_batch": _WHOLE,
    "n_ubatch": _WHOLE, "n_threads": _WHOLE, "cpu_mask": _TEXT, "cpu_strict": _WHOLE, "poll": _WHOLE, "type_k": _TEXT,
    "type_v": _TEXT, "n_gpu_layers": _WHOLE, "n_cpu_moe": _WHOLE, "split_mode": _TEXT, "main_gpu": _WHOLE,
    "no_kv_offload": _WHOLE, "flash_attn": _WHOLE, "devices": _TEXT, "tensor_split": _TEXT,
    "tensor_buft_overrides": _TEXT, "load_mode": _TEXT, "lazy_mode": _TEXT, "embeddings": _WHOLE,
    "no_op_offload": _WHOLE, "no_host": _WHOLE, "fit_target": _WHOLE, "fit_min_ctx": _WHOLE, "n_prompt": _WHOLE,
    "n_gen": _WHOLE, "n_depth": _WHOLE, "test_time": _TEXT, "avg_ns": _WHOLE, "stddev_ns": _WHOLE, "avg_ts": _NUMBER,
    "stddev_ts": _NUMBER,
}  # fmt: skip
"""llama-bench's columns in its own order, with their types."""
_NO_KEY = frozenset({"build_number", "model_size", "model_n_params", "avg_ns", "stddev_ns", "avg_ts", "stddev_ts"})


@dataclass(frozen=True)
class SqlFile:
    """What belongs into one file; `stem` tells it from the others and is not yet safe as a name."""

    stem: str
    text: str


def check_build(build: str | None) -> None:
    """Raises ConfigError for what cannot stand for a commit."""
    if build is not None and not _BUILD.fullmatch(build):
        raise ConfigError(f"{build[:60]!r} is no name of a build; letters, digits and . _ + - (max 40)", OPTION)


def files(reader: Reader, part: Part, build: str | None = None) -> list[SqlFile]:
    """One for each num_ctx, and for each value of a dimension that llama-bench does not have, in the sweep's order.

    `build` is written as build_commit in place of the engine's version. Raises ConfigError where nothing was measured.
    """
    found: dict[tuple[tuple[str, Scalar], ...], list[str]] = {}
    row = part.row
    for load in reader.measured_loads(row.sweep_id, part.segment_id):
        apart = {X: load.options.get(X), **load.coordinates}
        key = tuple((name, value) for name, value in apart.items() if name not in _HAVE_A_COLUMN)
        found.setdefault(key, []).extend(map(_insert, rows_of(load, row, build)))
    if not any(found.values()):
        what = f"the sweep {row.name} has no load of the task {MAIN_TASK} with runs"
        raise ConfigError(f"{what}, and llama-bench knows nothing else; csv has all that there is", "--format")
    return [SqlFile(_stem(part, key), _file(row, key, lines)) for key, lines in found.items() if lines]


def _stem(part: Part, key: Iterable[tuple[str, Scalar]]) -> str:
    pairs = [("segment", part.number), *key] if part.number is not None else key
    return "_".join([part.row.name, *(f"{name}-{model_label(in_word(value))}" for name, value in pairs)])


def _file(row: SweepRow, key: Iterable[tuple[str, Scalar]], lines: Sequence[str]) -> str:
    columns = ",\n".join(f"  {name} {kind}" for name, kind in FIELDS.items())
    head = [f"sweep {row.name} on {row.engine}: {in_words(key)}", replayed_words(row)]
    said = "".join(f"-- {harmless(line)}\n" for line in head if line)
    return f"{said}CREATE TABLE IF NOT EXISTS llama_bench (\n{columns}\n);\n\n{''.join(lines)}"


def _insert(values: Mapping[str, Scalar]) -> str:
    written = ", ".join(_literal(values.get(name, None if name in _NO_KEY else "")) for name in FIELDS)
    return f"INSERT INTO llama_bench ({', '.join(FIELDS)}) VALUES ({written});\n"  # noqa: S608 - text for another program


def _literal(value: Scalar) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, bool):
        return str(int(value))
    return repr(value) if isinstance(value, int | float) else "'" + harmless(value).replace("'", "''") + "'"


def rows_of(load: MeasuredLoad, row: SweepRow, build: str | None = None) -> Iterator[dict[str, Scalar]]:
    """The rows of a load: its prompt, and what it generated, as far as they are known."""
    told = _told(load, row, build)
    lengths = [run.prompt_eval_count for run in load.runs if run.prompt_eval_count]
    n_prompt = round(median(lengths)) if lengths else 0
    read = [run for run in load.runs if run.prompt_eval_rate is not None and run.prompt_eval_duration_s]
    if read and n_prompt:
        times = [_ns(run.prompt_eval_duration_s) for run in read]
        yield {
            **told,
            "n_prompt": n_prompt,
            "n_gen": 0,
            "n_depth": 0,
            **_numbers(times, _rates(read, "prompt_eval_rate")),
        }
    wrote = [run for run in load.runs if run.eval_rate is not None and run.eval_duration_s and run.eval_count]
    if wrote and _wanted(load) > surroundings.ONLY_READING:
        n_gen = round(median([run.eval_count or 0 for run in wrote]))
        times = [_ns(run.eval_duration_s) for run in wrote]
        yield {
            **told,
            "n_prompt": 0,
            "n_gen": n_gen,
            "n_depth": n_prompt,
            **_numbers(times, _rates(wrote, "eval_rate")),
        }


def _rates(runs: Iterable[MeasuredRun], name: str) -> list[float]:
    return [getattr(run, name) for run in runs]


def _ns(seconds: float | None) -> float:
    return (seconds or math.nan) * 1e9


def _wanted(load: MeasuredLoad) -> int:
    wanted = load.options.get("num_predict")
    return wanted if isinstance(wanted, int) else 0


def _numbers(times: Sequence[float], rates: Sequence[float]) -> dict[str, Scalar]:
    """Means, and the spread of the runs where there are several."""
    several = len(times) > 1
    return {
        "avg_ns": round(mean(times)),
        "stddev_ns": round(stdev(times)) if several else None,
        "avg_ts": mean(rates),
        "stddev_ts": stdev(rates) if several else None,
    }


def _told(load: MeasuredLoad, row: SweepRow, build: str | None) -> dict[str, Scalar]:
    """What decides a load. -1 and `auto` are llama-bench's own words for what was left to the program."""
    here, server = load.surroundings, load.server
    kv_type = server.get("kv_cache_type", str(here.get("OLLAMA_KV_CACHE_TYPE") or ""))
    return {
        "build_commit": build or _commit(load, row),
        "cpu_info": surroundings.processor(here),
        "gpu_info": surroundings.gpus(here),
        "backends": "CPU" if surroundings.has_no_gpu(here) else "",
        "model_filename": load.model,
        "model_type": " ".join(filter(None, (load.model, load.parameter_size, load.quantization))),
        "model_size": _weights(row, load),
        "n_batch": _or_unknown(load.options.get(Y)),
        "n_ubatch": _or_unknown(load.effective_num_batch),
        "n_threads": _or_unknown(load.options.get("num_thread")),
        "type_k": kv_type,
        "type_v": kv_type,
        "n_gpu_layers": load.options.get("num_gpu", -1),
        "main_gpu": _or_unknown(load.options.get("main_gpu")),
        "flash_attn": _flash(server.get("flash_attention", here.get("OLLAMA_FLASH_ATTENTION"))),
        "load_mode": {True: "mmap", False: "none"}.get(load.options.get("use_mmap"), "auto"),  # type: ignore[call-overload]
        "embeddings": 0,
        "test_time": f"{load.started_at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}",
    }


def _or_unknown(value: Scalar) -> Scalar:
    return "" if value is None else value


def _flash(value: object) -> int:
    """1, 0, or -1 for auto; a server's variable is a text."""
    return {"true": 1, "1": 1, "false": 0, "0": 0}.get(str(value).lower(), -1)


def _commit(load: MeasuredLoad, row: SweepRow) -> str:
    """The engine's version in the signs of a commit's name, for the script puts it into its own SQL as it is."""
    version = surroundings.version(load.surroundings) or row.engine
    return re.sub(r"[^A-Za-z0-9._+-]", "_", version)[:40]


def _weights(row: SweepRow, load: MeasuredLoad) -> int | None:
    """Bytes of the model's file, where the engine said so when the sweep began."""
    facts = row.spec.get("models")
    told = {model_label(name): one for name, one in facts.items()} if isinstance(facts, dict) else {}
    mine = told.get(load.model)
    size = mine.get("size_bytes") if isinstance(mine, dict) else None
    return size if isinstance(size, int) else None
