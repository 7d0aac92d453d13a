"""What a scan found, as a table for each combination."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from ollama_sweep.cli.tables import table

if TYPE_CHECKING:
    from ollama_sweep.run.memory.scan import Reach, Scanned


def lines_of(scanned: Sequence[Scanned]) -> Iterator[str]:
    """What a person reads."""
    for one in scanned:
        yield f"{one.label()}: {_loads(one)}"
        has_gpu = any(column.on_gpu for column in one.columns)
        rows = [["num_ctx", "num_batch that fits", *(["on the GPU"] if has_gpu else [])]]
        for column in one.columns:
            reached = [column.fits, *([column.on_gpu] if column.on_gpu else [])]
            rows.append([str(column.num_ctx or "default"), *(_reach(reach) for reach in reached)])
        yield from table(rows, left=1, indent="  ")
        for load in one.failed:
            first = next(iter(load.error.strip().splitlines()), "")
            yield f"  num_ctx {load.num_ctx}, num_batch {load.num_batch} says nothing: {load.result}: {first[:140]}"
        if one.is_contradicted:
            yield "  Warning: memory sufficed where less had not been enough, so something else used it meanwhile"
        if one.is_open:
            yield "  `at most`: the loads did not decide it; a further scan goes on there"


def _loads(one: Scanned) -> str:
    known = f", {one.known} known before" if one.known else ""
    return f"{one.loads} load{'' if one.loads == 1 else 's'}{known}"


def _reach(reach: Reach) -> str:
    if reach.open:
        return f"{'?' if reach.num_batch is None else reach.num_batch} (at most {reach.open[-1]})"
    return "none" if reach.num_batch is None else str(reach.num_batch or "default")
