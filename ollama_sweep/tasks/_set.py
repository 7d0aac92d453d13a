"""A task that asks the items of a prompt set: what `chat`, `items`, `json_quality` and tasks without Python share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from ollama_sweep import scorers
from ollama_sweep.cells import Run, Scalar
from ollama_sweep.data_files import PromptSet, located, read_set, shipped
from ollama_sweep.engine import Generation
from ollama_sweep.errors import ConfigError, nearest
from ollama_sweep.task import Question, Setup
from ollama_sweep.tasks import _answers, _options
from ollama_sweep.tasks._questions import WARMUP, first_of, identity, questions
from ollama_sweep.yaml_strict import Node

_SPEEDS = frozenset({"output_words", "generation_time_s", "chars_per_s", "tokens_per_s", "score"})
"""Numbers of an answer whose value for a cell is a median, or the core's own mean (`score`)."""


def set_up(
    task: str,
    given: Mapping[str, Node],
    *,
    path: Path | None = None,
    found: PromptSet | None = None,
    own: Iterable[str] = (),
    system: str = "",
    defaults: Mapping[str, Scalar] | None = None,
    repeats: int | None = 1,
    is_fresh: bool = False,
    needs_category: bool = False,
    change: Callable[[Question], Question] = lambda question: question,
) -> Setup:
    """The setup of a task whose questions lie in a file: the one of `data`, else `path`, else what is shipped.

    `found` are questions that were read already, `own` the options that said where. `system` is the system prompt of
    data that is no prompt set. `change` completes each question. Raises ConfigError.
    """
    asked = _options.read(task, given, own, without=("data",) if path else ())
    found = found or read_set(path or data_path(task, asked.data), asked.data)
    all_questions = tuple(change(one) for one in questions(found.records, needs_category=needs_category))
    chosen = first_of(all_questions, asked.limit)
    system = asked.system or found.system or (system if found.version is None else "")
    options: dict[str, Scalar] = {}
    if system:
        options["system"] = system
    if found.version is not None:
        options["prompts_version"] = found.version
    if asked.limit is not None:
        options["limit"] = asked.limit
    return Setup(
        questions=chosen,
        hash=identity(chosen),
        options=tuple(sorted(options.items())),
        request=asked.request,
        defaults={**(defaults or {}), **_set_defaults(found)},
        model=asked.model,
        system=system,
        warmup=WARMUP,
        repeats=repeats if asked.repeats is None else asked.repeats,
        max_retries=asked.max_retries,
        is_fresh=is_fresh,
    )


def data_path(task: str, asked: Node | None) -> Path:
    """The file a task reads: that of `data`, else the shipped prompt set of its name. Raises ConfigError."""
    if asked is not None:
        return located(asked, f"tasks.{task}.data")
    path = shipped(f"{task}.yaml")
    if path is None:
        raise ConfigError(f"prompts/{task}.yaml was not found; give `data: FILE`", f"tasks.{task}")
    return path


def _set_defaults(found: PromptSet) -> dict[str, Scalar]:
    known = [*_options.REQUEST, "max_tokens"]
    for name, node in found.options.items():
        if name not in known:
            raise node.error(f"options: unknown option {name}; known are {', '.join(known)}.{nearest(name, known)}")
    return _options.request("options", found.options)


def score(question: Question, generation: Generation) -> dict[str, float]:
    """The speeds of an answer, and what is found of what its item expects."""
    return _answers.speed(generation) | scorers.judge(generation.text, question.text, question.expected)


def summarize(runs: Sequence[Run]) -> dict[str, float]:
    """Latencies, the mean of every check, mean speeds, and the categories."""
    checks = sorted({name for run in _answers.answered(runs) for name in run.scores} - _SPEEDS)
    return (
        _answers.latencies(runs)
        | _answers.means(runs, checks)
        | _answers.average(runs, "tokens_per_s", lambda run: run.scores.get("tokens_per_s"))
        | _answers.average(runs, "ttft_s", lambda run: run.ttft_s)
        | _answers.by_category(runs)
    )
