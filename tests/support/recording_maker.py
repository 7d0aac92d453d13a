"""Recordings of maps that nobody measured: a smooth surface, with noise, memory that ends, and known seconds."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace

from ollama_sweep.core.outcome import Effective, Status
from ollama_sweep.core.recording.model import (
    FailedIn,
    RecordedCell,
    RecordedLoad,
    RecordedModel,
    RecordedRun,
    Recording,
)
from ollama_sweep.core.recording.writing import written

TOKENS = 1000
CONTEXTS = tuple(range(1024, 40 * 1024, 1024))
BATCHES = tuple(range(32, 544, 32))


def run(seconds: float, *, warmup: bool = False, tokens: int = TOKENS) -> RecordedRun:
    """A run that read its prompt in so many seconds."""
    return RecordedRun(warmup, "", tokens, 0, seconds, 2, 0.02, seconds + 0.05, 0.01, seconds + 0.1, seconds + 0.03)


def load(load_s: float, runs: Sequence[RecordedRun], effective: Effective) -> RecordedLoad:
    """A load that went well."""
    return RecordedLoad(Status.OK, "", None, frozenset(), load_s, 0.0, None, effective, tuple(runs))


def failed(seconds: float, status: Status = Status.OOM, reason: str = "host_oom") -> RecordedLoad:
    """A load that failed before its first request."""
    return RecordedLoad(status, reason, None, frozenset(), seconds, 0.0, FailedIn.LOAD, Effective(), ())


def recording(
    contexts: Sequence[int] = CONTEXTS,
    batches: Sequence[int] = BATCHES,
    *,
    load_s: float = 90.0,
    run_s: float = 30.0,
    runs: int = 3,
    loads: int = 1,
    noise: float = 0.02,
    oom_above: float = float("inf"),
    spill_above: float = float("inf"),
    seed: int = 0,
    more: Mapping[tuple[int, int], Sequence[RecordedLoad]] | None = None,
) -> Recording:
    """A map of so many loads a cell, a warm-up and `runs` runs each. A run with the largest num_batch takes `run_s`.

    `oom_above` and `spill_above` are of num_ctx × num_batch; `more` are loads by (num_ctx, num_batch), in front.
    """
    source = random.Random(seed)

    def made(num_ctx: int, num_batch: int) -> RecordedLoad:
        size = 1_000_000_000 + num_ctx * 23_040 + num_batch * 500_000
        spilled = num_ctx * num_batch > spill_above
        effective = Effective(num_ctx, num_batch, size, size // 2 if spilled else size, load_s * 0.9)
        if num_ctx * num_batch > oom_above:
            return failed(load_s / 3)
        slow = (1 + 32 / num_batch) * (1 + num_ctx / 400_000) * (4 if spilled else 1) / (1 + 32 / max(batches))
        each = [run_s * slow * (1 + source.uniform(-noise, noise)) for _ in range(runs + 1)]
        found = [run(seconds, warmup=number == 0) for number, seconds in enumerate(each)]
        return load(load_s * (1 + source.uniform(-noise, noise)), found, effective)

    cells = tuple(
        RecordedCell(
            coordinates=(("num_ctx", num_ctx), ("num_batch", num_batch)),
            model="m",
            options=(("num_batch", num_batch), ("num_ctx", num_ctx), ("num_predict", 2)),
            server=(),
            tokens=TOKENS,
            is_skipped=False,
            loads=(*(more or {}).get((num_ctx, num_batch), ()), *(made(num_ctx, num_batch) for _ in range(loads))),
        )
        for num_ctx in contexts
        for num_batch in batches
    )
    return Recording(
        name="made",
        engine="ollama",
        engine_version="0.34.0",
        machine="a machine",
        has_gpu=spill_above < float("inf"),
        recorded_at="2026-11-02T10:00:00.000+00:00",
        remark="",
        dimensions={"num_ctx": tuple(contexts), "num_batch": tuple(batches)},
        prompt_tokens=TOKENS,
        timeout_s=600.0,
        models=(RecordedModel("m", "sha256:m", "Q4_1", "135M"),),
        cells=cells,
    )


def of_cells(lengths: Mapping[tuple[int, int, int], int], crashed: tuple[int, int, int], **options: int) -> str:
    """The text of a recording of these (num_ctx, num_batch, num_predict), with the length of the prompt of each."""

    def cell(place: tuple[int, int, int], tokens: int) -> RecordedCell:
        num_ctx, num_batch, num_predict = place
        answered = replace(run(0.5, tokens=tokens), eval_count=num_predict)
        good = load(1.5, [answered, answered], Effective(num_ctx, num_batch, 98_000_000, 98_000_000, 1.0))
        bad = replace(failed(1.0, Status.CRASHED, "assert"), effective=good.effective)
        coordinates = (("num_ctx", num_ctx), ("num_batch", num_batch), ("num_predict", num_predict))
        given = tuple(sorted({**dict(coordinates), **options}.items()))
        return RecordedCell(coordinates, "m", given, (), tokens, False, (bad if place == crashed else good,))

    whole = {**lengths, crashed: 1}
    model = RecordedModel("m", "sha256:m", "Q4_1", "135M", "llama", 8192, 98_000_000, 23_040)
    names = ("num_ctx", "num_batch", "num_predict")
    values = {name: tuple(dict.fromkeys(place[at] for place in whole)) for at, name in enumerate(names)}
    cells = tuple(cell(place, tokens) for place, tokens in whole.items())
    found = replace(recording([1024], [32]), dimensions=values, prompt_tokens=None, models=(model,), cells=cells)
    return written(found)
