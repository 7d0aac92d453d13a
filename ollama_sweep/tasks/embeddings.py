"""How fast texts become vectors: rows per second, dimension, time of all rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from ollama_sweep.core import rates
from ollama_sweep.core.errors import ConfigError
from ollama_sweep.core.generation import EMBED, Generation
from ollama_sweep.core.metrics import Metric
from ollama_sweep.core.options import Scalar
from ollama_sweep.core.outcome import Run
from ollama_sweep.core.strict_yaml import Node
from ollama_sweep.tasks.base import Question, Setup
from ollama_sweep.tasks.shared import hub, task_options
from ollama_sweep.tasks.shared.data import Record, located, read_records, shipped
from ollama_sweep.tasks.shared.prompt_set import identity

OWN = ("rows", "warmup_rows", "batch_size", "column", "split", *hub.OPTIONS)
NOT_HERE = (*task_options.REQUEST, "system", "max_tokens", "limit")
ROWS, WARMUP_ROWS, BATCH_SIZE = 100, 50, 16
DEFAULT_DATA = "prompts/film_reviews.jsonl"


class Task:
    """Rows of text, asked for in batches; every repeat asks for all of them."""

    version: ClassVar[int] = 1
    kind: ClassVar[str] = EMBED
    metrics: ClassVar[tuple[Metric, ...]] = (
        Metric("rows_per_s", "embedding speed", "rows/s", 1, is_ranked=True),
        Metric("encoding_time_s", "time to embed all rows", "s", -1, is_ranked=True),
        Metric("embedding_dimension", "dimension of the vectors"),
    )

    def setup(self, given: Mapping[str, Node]) -> Setup:
        asked = task_options.read("embeddings", given, OWN, without=NOT_HERE)
        wanted = task_options.count("embeddings", given, "rows", 1, 1_000_000)
        warmup_rows = task_options.count("embeddings", given, "warmup_rows", 1, 1_000_000) or WARMUP_ROWS
        batch_size = task_options.count("embeddings", given, "batch_size", 1, 10_000) or BATCH_SIZE
        texts = _texts(given, max(wanted or ROWS, warmup_rows))
        if wanted is not None and len(texts) < wanted:
            raise given["rows"].error(f"tasks.embeddings.rows: {wanted} asked, but there are {len(texts)}")
        rows = tuple(texts[: wanted or ROWS])
        question = Question("rows", "", texts=rows, batch_size=batch_size)
        warmup = Question("warmup", "", texts=tuple(texts[:warmup_rows]), batch_size=batch_size)
        options: dict[str, Scalar] = {"batch_size": batch_size, "rows": len(rows)}
        return Setup(
            questions=(question,),
            hash=identity([question]),
            options=tuple(sorted(options.items())),
            model=asked.model,
            warmup=warmup,
            repeats=asked.repeats,
            max_retries=asked.max_retries,
        )

    def score(self, question: Question, generation: Generation) -> dict[str, float]:
        return self.unjudged(generation)

    def unjudged(self, generation: Generation) -> dict[str, float]:
        vectors, duration_s = generation.vectors, generation.client_duration_s
        if vectors is None:
            return {}
        rate = rates.per_second(vectors.rows, duration_s)
        scores = {"embedding_dimension": float(vectors.dimension), "encoding_time_s": duration_s}
        return scores if rate is None else scores | {"rows_per_s": rate}

    def summarize(self, runs: Sequence[Run]) -> dict[str, float]:
        return {}


def _texts(given: Mapping[str, Node], most: int) -> list[str]:
    column = given["column"].line_of_text("tasks.embeddings.column") if "column" in given else "text"
    return [record.text(column) for record in _records(given, column, most)[:most]]


def _records(given: Mapping[str, Node], column: str, most: int) -> list[Record]:
    downloaded = hub.first_rows("embeddings", given, most)
    return read_records(_path(given), given.get("data"), (column,)) if downloaded is None else downloaded


def _path(given: Mapping[str, Node]) -> Path:
    if "data" in given:
        return located(given["data"], "tasks.embeddings.data")
    path = shipped(DEFAULT_DATA)
    if path is None:
        raise ConfigError(f"{DEFAULT_DATA} was not found; give `data: FILE`", "tasks.embeddings")
    return path
