"""A recording read strictly: a field that is missing, unknown or impossible is one line that names it. Pure."""

from __future__ import annotations

import hashlib
import json
import math
import zlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, TypeVar

from ollama_sweep.core.errors import ConfigError, nearest
from ollama_sweep.core.options import Options, Scalar, asked_for, is_server_setting
from ollama_sweep.core.outcome import FAILURES, Effective, Flag, Purpose, Status
from ollama_sweep.core.rates import (
    BYTES_MOST,
    COUNT_MOST,
    DURATION_MOST_S,
    LENGTH_MOST,
    RATE_MOST,
    REQUEST_SHARE,
    REQUEST_SLACK_S,
)
from ollama_sweep.core.recording.model import (
    NOT_OPTIONS,
    VERSION,
    FailedIn,
    RecordedCell,
    RecordedLoad,
    RecordedModel,
    RecordedRun,
    Recording,
)
from ollama_sweep.core.recording.writing import EFFECTIVE_COLUMNS, RUN_COLUMNS
from ollama_sweep.core.text import half_in, one_line, strict_json

MOST_BYTES = 64 * 2**20
MOST_CELLS = 100_000
_HEAD = ("recording", "name", "engine", "engine_version", "machine", "has_gpu", "recorded_at", "remark", "models",
         "dimensions", "options", "server", "prompt_tokens", "timeout_s", "run_columns", "effective_columns",
         "cells")  # fmt: skip
_MODEL = ("name", "digest", "quantization", "parameter_size", "family", "context_length", "size_bytes",
          "kv_bytes_per_token")  # fmt: skip
_CELL = ("at", "tokens", "loads")
_CELL_MORE = ("model", "options", "server", "skipped")
_LOAD = ("status", "load_s")
_LOAD_MORE = ("reason", "purpose", "flags", "failed_in", "failure_s", "effective", "runs")
_GZIP = b"\x1f\x8b"
E = TypeVar("E", bound=StrEnum)


def read(data: bytes, where: str) -> Recording:
    """The recording in a file's content, as it is or packed by gzip. Raises ConfigError with the line and the field."""
    text = _text(data, where)
    lines = text.splitlines()
    if not lines:
        raise ConfigError("is empty; a recording is made by: export --format recording", where)
    head = _Part(_parsed(lines[0], f"{where}:1"), f"{where}:1", "the recording")
    _check_version(head)
    recording = _head(head)
    announced = head.whole("cells", MOST_CELLS)
    if len(lines) - 1 != announced:
        found = f"holds {len(lines) - 1} of {announced} cells"
        raise ConfigError(f"{found}: it is cut off or was changed; export it again", where)
    reader = _Reader(recording, head)
    places = [f"{where}:{number}" for number in range(2, len(lines) + 1)]
    cells = tuple(reader.cell(_parsed(line, place), place) for line, place in zip(lines[1:], places, strict=True))
    _check_cells(cells, where)
    digest = f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"
    return Recording(**{**recording, "cells": cells, "digest": digest})


def _text(data: bytes, where: str) -> str:
    try:
        if data.startswith(_GZIP):
            unpacked = zlib.decompressobj(zlib.MAX_WBITS | 16)
            data = unpacked.decompress(data, MOST_BYTES + 1)
            if not unpacked.eof and len(data) <= MOST_BYTES:
                raise ConfigError("is cut off: the packed data has no end; export it again", where)
        if len(data) > MOST_BYTES:
            raise ConfigError(f"is larger than {MOST_BYTES // 2**20} MiB, which no recording is", where)
        return data.decode()
    except zlib.error:
        raise ConfigError("is no sound gzip file; export the recording again", where) from None
    except UnicodeDecodeError:
        raise ConfigError("is no recording: it is not UTF-8; make one by: export --format recording", where) from None


def _parsed(line: str, where: str) -> Any:
    try:
        found = strict_json(line)
    except json.JSONDecodeError:
        raise ConfigError(
            "is no JSON; a recording is a line of JSON for the sweep and one for each cell", where
        ) from None
    except ValueError as error:
        raise ConfigError(str(error), where) from None
    if "\\u" in line and (half := half_in(found)):
        raise ConfigError(half, where)
    return found


def _check_version(head: _Part) -> None:
    if "recording" not in head.content:
        raise head.error("is no recording: the first line has no version; make one by: export --format recording")
    version = head.content["recording"]
    if isinstance(version, int) and not isinstance(version, bool) and version > VERSION:
        raise head.error(f"is a recording of version {version}, and this program reads {VERSION}: update it")
    if version != VERSION or isinstance(version, bool):
        raise head.error(f"recording: {_shown(version)} is no version; this program reads {VERSION}")


def _check_cells(cells: Sequence[RecordedCell], where: str) -> None:
    seen: dict[Options, int] = {}
    for number, cell in enumerate(cells, start=2):
        if (first := seen.setdefault(cell.coordinates, number)) != number:
            raise ConfigError(f"the cell is there twice (first on line {first})", f"{where}:{number}")
    if not any(run for cell in cells for load in cell.loads for run in load.runs):
        raise ConfigError("holds no raw runs, so there is nothing to answer from", where)


def _head(head: _Part) -> dict[str, Any]:
    head.only(_HEAD)
    for name, wanted in (("run_columns", RUN_COLUMNS), ("effective_columns", EFFECTIVE_COLUMNS)):
        if head.listed(name) != list(wanted):
            raise head.error(f"{name}: must be {', '.join(wanted)}")
    dimensions = {
        name: tuple(_scalar(value, head, f"dimensions.{name}") for value in head.sub("dimensions").listed(name))
        for name in head.mapping("dimensions")
    }
    if not dimensions or not all(dimensions.values()):
        raise head.error("dimensions: there is none, or one without values")
    models = tuple(_model(_Part(one, head.where, "models")) for one in head.listed("models"))
    if not models or len({model.name for model in models}) != len(models):
        raise head.error("models: must name at least one, and none twice")
    recorded_at = head.text("recorded_at")
    try:
        if datetime.fromisoformat(recorded_at).tzinfo is None:
            raise ValueError
    except ValueError:
        raise head.error(f"recorded_at: {_shown(recorded_at)} is no time such as 2026-11-02T10:00:00+00:00") from None
    return {
        **{name: head.text(name) for name in ("name", "engine", "engine_version", "machine", "remark")},
        "has_gpu": head.truth("has_gpu"),
        "recorded_at": recorded_at,
        "dimensions": dimensions,
        "prompt_tokens": head.optional("prompt_tokens", lambda part, name: part.whole(name, COUNT_MOST)),
        "timeout_s": head.optional("timeout_s", _Part.seconds),
        "models": models,
    }


def _model(part: _Part) -> RecordedModel:
    part.only(_MODEL)
    texts = {name: part.optional(name, _Part.text) for name in ("quantization", "parameter_size", "family")}
    sizes = {name: part.optional(name, lambda part, name: part.whole(name, BYTES_MOST))
             for name in ("context_length", "size_bytes", "kv_bytes_per_token")}  # fmt: skip
    return RecordedModel(part.text("name"), part.text("digest"), **texts, **sizes)


@dataclass(frozen=True)
class _Part:
    """An object of the file, whose fields are read one by one."""

    content: Any
    where: str
    what: str

    def __post_init__(self) -> None:
        if not isinstance(self.content, dict):
            raise ConfigError(f"{self.what}: {_shown(self.content)} instead of an object", self.where)

    def error(self, text: str) -> ConfigError:
        return ConfigError(text, self.where)

    def only(self, needed: Collection[str], more: Collection[str] = ()) -> None:
        """Every field is known and all that are needed are there."""
        for name in self.content:
            if name not in (*needed, *more):
                raise self.error(f"{self.what}: unknown field {one_line(name, 40)}.{nearest(name, [*needed, *more])}")
        for name in needed:
            if name not in self.content:
                raise self.error(f"{self.what}: {name} is missing")

    def bad(self, name: str, wanted: str) -> ConfigError:
        return self.error(f"{self.what}: {name}: {_shown(self.content.get(name))} instead of {wanted}")

    def text(self, name: str) -> str:
        value = self.content.get(name)
        if not isinstance(value, str):
            raise self.bad(name, "a text")
        return value

    def truth(self, name: str) -> bool:
        value = self.content.get(name)
        if not isinstance(value, bool):
            raise self.bad(name, "true or false")
        return value

    def whole(self, name: str, most: int) -> int:
        value = self.content.get(name)
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= most:
            raise self.bad(name, f"a whole number, 0 to {most}")
        return value

    def seconds(self, name: str) -> float:
        value = self.content.get(name)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= DURATION_MOST_S:
            raise self.bad(name, "seconds, 0 or more")
        return float(value)

    def number(self, name: str) -> float:
        value = self.content.get(name)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= RATE_MOST:
            raise self.bad(name, f"a number, 0 to {RATE_MOST:.0f}")
        return float(value)

    def word(self, name: str, kind: type[E], allowed: Collection[E]) -> E:
        value = self.text(name)
        if value not in allowed:
            raise self.bad(name, f"one of {', '.join(sorted(map(str, allowed)))}")
        return kind(value)

    def listed(self, name: str) -> list[Any]:
        value = self.content.get(name, [])
        if not isinstance(value, list):
            raise self.bad(name, "a list")
        return value

    def mapping(self, name: str) -> Mapping[str, Any]:
        value = self.content.get(name, {})
        if not isinstance(value, dict):
            raise self.bad(name, "an object")
        return value

    def sub(self, name: str) -> _Part:
        return _Part(self.mapping(name), self.where, name)

    def optional(self, name: str, read: Callable[[_Part, str], Any]) -> Any:
        return None if self.content.get(name) is None else read(self, name)

    def options(self, name: str) -> dict[str, Scalar]:
        return {key: _scalar(value, self, f"{name}.{key}") for key, value in self.mapping(name).items()}


class _Reader:
    """Reads the cells of a recording whose head is known."""

    def __init__(self, recording: Mapping[str, Any], head: _Part) -> None:
        self._dimensions: Mapping[str, tuple[Scalar, ...]] = recording["dimensions"]
        self._models = {model.name for model in recording["models"]}
        self._common = {field: head.options(field) for field in ("options", "server")}

    def cell(self, content: object, where: str) -> RecordedCell:
        part = _Part(content, where, "the cell")
        part.only(_CELL, _CELL_MORE)
        at = part.listed("at")
        if len(at) != len(self._dimensions):
            raise part.bad("at", f"a value for each of {', '.join(self._dimensions)}")
        for value, (name, values) in zip(at, self._dimensions.items(), strict=True):
            if not any(value == known and type(value) is type(known) for known in values):
                raise part.error(f"the cell: {name} {_shown(value)} is not in the grid")
        coordinates = tuple(zip(self._dimensions, at, strict=True))
        model = dict(coordinates).get("model") if "model" in self._dimensions else part.text("model")
        if model not in self._models:
            raise part.error(f"the cell: the model {_shown(model)} is not among the models")
        is_skipped = bool(part.optional("skipped", _Part.truth))
        loads = tuple(_load(_Part(one, where, "a load")) for one in part.listed("loads"))
        if is_skipped and loads:
            raise part.error("the cell: it was skipped, and has loads")
        own = {name: value for name, value in coordinates if name not in NOT_OPTIONS}
        server = {name: value for name, value in own.items() if is_server_setting(name)}
        options = {name: value for name, value in asked_for(own).items() if name not in server}
        return RecordedCell(
            coordinates=coordinates,
            model=str(model),
            options=self._all("options", options, part),
            server=self._all("server", server, part),
            tokens=part.optional("tokens", lambda part, name: part.whole(name, COUNT_MOST)),
            is_skipped=is_skipped,
            loads=loads,
        )

    def _all(self, field: str, own: Mapping[str, Scalar], part: _Part) -> Options:
        """What every cell has, what the place of this one says, and what it has alone."""
        return tuple(sorted({**self._common[field], **own, **part.options(field)}.items()))


def _load(part: _Part) -> RecordedLoad:
    part.only(_LOAD, _LOAD_MORE)
    status = part.word("status", Status, {Status.OK, *FAILURES})
    failed_in = part.word("failed_in", FailedIn, set(FailedIn)) if "failed_in" in part.content else None
    runs = tuple(_run(one, part) for one in part.listed("runs"))
    if (status is Status.OK) is not (failed_in is None):
        raise part.error("a load: one that failed says in what (failed_in), and one that is ok does not")
    if status is Status.OK and not any(not run.warmup for run in runs):
        raise part.error("a load: it is ok and has no raw runs")
    if failed_in is FailedIn.LOAD and runs:
        raise part.error("a load: it failed before its first request, and has runs")
    if failed_in is FailedIn.JUDGING and not runs:
        raise part.error("a load: what came of its runs was refused, and it has none")
    if sorted(runs, key=lambda run: not run.warmup) != list(runs):
        raise part.error("a load: a warm-up comes after a measured run")
    known = {str(flag): flag for flag in Flag}
    flags = part.listed("flags")
    if unknown := [flag for flag in flags if not isinstance(flag, str) or flag not in known]:
        raise part.error(f"a load: flags: {_shown(unknown[0])} is no flag")
    return RecordedLoad(
        status=status,
        reason=part.optional("reason", _Part.text) or "",
        purpose=part.optional("purpose", lambda part, name: part.word(name, Purpose, set(Purpose))),
        flags=frozenset(known[flag] for flag in flags),
        load_s=part.seconds("load_s"),
        failure_s=part.optional("failure_s", _Part.seconds) or 0.0,
        failed_in=failed_in,
        effective=_effective(part),
        runs=runs,
    )


def _effective(load: _Part) -> Effective:
    values = _columns(load.listed("effective"), EFFECTIVE_COLUMNS, load, "effective")
    part = _Part(values, load.where, "effective")
    sizes = {name: part.optional(name, lambda part, name: part.whole(name, BYTES_MOST))
             for name in ("size_bytes", "size_vram_bytes")}  # fmt: skip
    lengths = {name: part.optional(name, lambda part, name: part.whole(name, LENGTH_MOST))
               for name in ("num_ctx", "num_batch", "num_parallel")}  # fmt: skip
    return Effective(load_duration_s=part.optional("load_duration_s", _Part.seconds), **sizes, **lengths)


def _columns(values: object, columns: Sequence[str], part: _Part, what: str) -> dict[str, Any]:
    if not isinstance(values, list) or len(values) > len(columns):
        raise part.error(f"{what}: {_shown(values)} instead of up to {len(columns)} values")
    return dict(zip(columns, values, strict=False))


def _run(values: object, load: _Part) -> RecordedRun:
    part = _Part(_columns(values, RUN_COLUMNS, load, "a run"), load.where, "a run")
    counts = {name: part.optional(name, lambda part, name: part.whole(name, COUNT_MOST))
              for name in RUN_COLUMNS if name.endswith("_count")}  # fmt: skip
    durations = {name: part.optional(name, _Part.seconds) for name in RUN_COLUMNS if name.endswith("_s")}
    request_s = durations["client_duration_s"]
    if request_s is None:
        raise part.bad("client_duration_s", "seconds, 0 or more")
    for name, value in durations.items():
        if value is not None and value > request_s * REQUEST_SHARE + REQUEST_SLACK_S:
            raise part.bad(name, f"at most the time of the whole request ({request_s:.3g} s)")
    printed_rate = part.optional("printed_rate", _Part.number)
    run = RecordedRun(
        warmup=bool(part.whole("warmup", 1)), doubt=part.text("doubt"), printed_rate=printed_rate, **counts, **durations
    )
    _check_rate(run, part)
    return run


def _check_rate(run: RecordedRun, part: _Part) -> None:
    if run.believed and not (run.prompt_eval_count and run.prompt_eval_duration_s):
        raise part.error("a run: it is believed and has no prompt_eval_count or no prompt_eval_duration_s")
    if (run.cached_count or 0) > (run.prompt_eval_count or 0):
        raise part.bad("cached_count", f"at most the prompt's {run.prompt_eval_count} tokens")
    rate = run.prompt_eval_rate
    if rate is not None and not (math.isfinite(rate) and rate <= RATE_MOST):
        raise part.bad("prompt_eval_duration_s", f"a rate of at most {RATE_MOST:.0f} tokens/s")


def _scalar(value: object, part: _Part, name: str) -> Scalar:
    if isinstance(value, bool | int | str) or (isinstance(value, float) and math.isfinite(value)):
        return value
    raise part.error(f"{name}: {_shown(value)} instead of one value")


def _shown(value: object) -> str:
    return one_line(json.dumps(value, default=str), 60)
