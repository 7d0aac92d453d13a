"""Tasks as a sweep sets them up, and answers to judge."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import replace

from ollama_sweep import tasks
from ollama_sweep.core import strict_yaml
from ollama_sweep.core.generation import Generation, Vectors
from ollama_sweep.core.outcome import Answer, Run
from ollama_sweep.core.strict_yaml import Node
from ollama_sweep.tasks.base import Question, Setup, Task

SAMPLE = "data: prompts/mmlu_sample\nsubjects: all\n"
GIVEN = {"mmlu": SAMPLE}
"""Options without which a task has nothing to ask."""
ALL = sorted(tasks.known())
WITH_QUESTIONS = [name for name in ALL if name != "prompt_eval"]
IN_WORDS = [name for name in WITH_QUESTIONS if name != "embeddings"]


def options(text: str) -> Mapping[str, Node]:
    """Options as a sweep file gives them."""
    root = strict_yaml.parse(text, "grid.yaml")
    assert root is None or isinstance(root.value, dict)
    return root.value if root and isinstance(root.value, dict) else {}


def set_up(name: str, text: str = "") -> Setup:
    return tasks.load(name).setup(options(GIVEN.get(name, "") + text))


@functools.cache
def shipped(name: str) -> Setup:
    """The setup without options of the person's, read once."""
    return set_up(name)


def only(name: str, text: str) -> Setup:
    """The setup with these options alone."""
    return tasks.load(name).setup(options(text))


def answer_of(text: str, duration_s: float = 2.0, tokens: int | None = 10) -> Generation:
    return Generation(text, 20, 0.1, eval_count=tokens, client_duration_s=duration_s, ttft_s=duration_s / 4)


def run_of(task: Task, question: Question, generation: Generation | None, number: int = 1) -> Run:
    """A measured run as the core keeps it; without a generation the question was not answered."""
    answer = Answer(question.id, question.category, question.text, generation.text if generation else "")
    if generation is None:
        answer = replace(answer, failure="the engine ended", tries=3)
    return Run(
        number=number,
        warmup=False,
        nonce="",
        prompt_eval_count=None,
        cached_count=None,
        prompt_eval_duration_s=None,
        prompt_eval_rate=None,
        eval_count=generation.eval_count if generation else None,
        eval_duration_s=None,
        eval_rate=None,
        total_duration_s=None,
        load_duration_s=None,
        printed_rate=None,
        client_duration_s=generation.client_duration_s if generation else 99.0,
        believed=generation is not None,
        scores=task.score(question, generation) if generation else {},
        ttft_s=generation.ttft_s if generation else None,
        answer=answer,
    )


def runs_of(name: str, setup: Setup, answers: Sequence[Generation | None]) -> list[Run]:
    task = tasks.load(name)
    pairs = zip(setup.questions, answers, strict=False)
    return [run_of(task, question, answer, number) for number, (question, answer) in enumerate(pairs, 1)]


def vectors(rows: int, duration_s: float) -> Generation:
    return Generation("", None, None, client_duration_s=duration_s, vectors=Vectors(rows, 384))
