"""Rows of a dataset that the package `datasets` downloads; only where it is installed and the person allowed it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from ollama_sweep.core.errors import ConfigError, EngineMissing
from ollama_sweep.core.strict_yaml import Node
from ollama_sweep.core.text import one_line
from ollama_sweep.machine import env
from ollama_sweep.tasks.shared import task_options
from ollama_sweep.tasks.shared.data import Record, identified

OPTIONS = ("datasets", "download")
FAST_DOWNLOAD = "HF_HUB_ENABLE_HF_TRANSFER"


def asked(task: str, given: Mapping[str, Node]) -> Node | None:
    """The option `datasets` of a task, checked; None where it is not given. Raises ConfigError."""
    node = given.get("datasets")
    allowed = task_options.truth(task, given, "download")
    if node is None:
        if "download" in given:
            raise given["download"].error(f"tasks.{task}.download: is for datasets: NAME, which is not given")
        return None
    if "data" in given:
        raise node.error(f"tasks.{task}: give data: PATH or datasets: NAME, not both")
    if not allowed:
        name = node.line_of_text(f"tasks.{task}.datasets")
        message = f"{one_line(name)} may have to be downloaded; allow it with download: true, or give data: PATH"
        raise node.error(f"tasks.{task}.datasets: {message}")
    return node


def configurations(node: Node, name: str) -> list[str]:
    """The names of a dataset's parts (of cais/mmlu: its subjects and `all`). Raises ConfigError."""
    datasets = _package(node, name)
    try:
        return [str(one) for one in datasets.get_dataset_config_names(node.line_of_text(name))]
    except Exception as error:
        raise _refused(node, name, error) from error


def rows(node: Node, name: str, configuration: str | None, split: str) -> list[Record]:
    """The rows of a split (`test`, `train[:100]`) as items. Raises ConfigError for whatever keeps it from loading."""
    datasets = _package(node, name)
    dataset = node.line_of_text(name)
    try:
        datasets.disable_progress_bars()
        found = list(datasets.load_dataset(dataset, configuration, split=split))
    except Exception as error:
        raise _refused(node, name, error) from error
    where = " ".join(part for part in (dataset, configuration, split) if part)
    return identified(Record(row, f"{where}: row {number}") for number, row in enumerate(found, 1))


def first_rows(task: str, given: Mapping[str, Node], most: int) -> list[Record] | None:
    """The first so many rows of the dataset that `datasets` names, of the split `split` (train).

    None where `datasets` is not given. Raises ConfigError, also where there are none.
    """
    dataset, name = asked(task, given), f"tasks.{task}.datasets"
    if dataset is None:
        if "split" in given:
            raise given["split"].error(f"tasks.{task}.split: is for datasets: NAME, which is not given")
        return None
    split = given["split"].line_of_text(f"tasks.{task}.split") if "split" in given else "train"
    found = rows(dataset, name, None, f"{split}[:{most}]")
    if not found:
        raise dataset.error(f"{name}: {dataset.shown} has no rows in {split}")
    return found


def _package(node: Node, name: str) -> Any:
    with suppress(EngineMissing):  # without python-dotenv there is no `.env`: only the download is slower
        if fast := env.setting(FAST_DOWNLOAD):
            os.environ[FAST_DOWNLOAD] = fast  # read once, when the package is imported
    try:
        import datasets
    except ImportError:
        message = "needs the package datasets: pip install 'ollama-sweep[data]'; or give data: PATH"
        raise node.error(f"{name}: {message}") from None
    return datasets


def _refused(node: Node, name: str, error: Exception) -> ConfigError:
    text = next(iter(str(error).splitlines()), "") or type(error).__name__
    return node.error(f"{name}: {node.shown} cannot be loaded ({text[:200]})")
