"""The contract of a task: what is asked of the model and how the answer is judged. One task is one file in `tasks/`.

A task is configured once (`setup`), asked question by question, and judged answer by answer (`score`); the answers of
a cell together give its numbers (`summarize`). A task without Python is `prompts/<name>.yaml`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Protocol, runtime_checkable

from ollama_sweep.core.generation import Generation
from ollama_sweep.core.options import Options, Scalar
from ollama_sweep.core.outcome import Run

if TYPE_CHECKING:
    from ollama_sweep.core.strict_yaml import Node


@dataclass(frozen=True)
class Question:
    """One thing that is asked. `expected` is what the judge needs: references, keys, the right letter, limits.

    `texts` are the rows of an embedding request, asked in batches of `batch_size`; `text` is empty then.
    """

    id: str
    text: str
    category: str = ""
    expected: Mapping[str, object] = field(default_factory=dict)
    texts: tuple[str, ...] = ()
    batch_size: int = 16


@dataclass(frozen=True)
class Setup:
    """A task as a sweep asks it.

    No `questions`: the sweep's own prompt is asked. `hash` is the identity of the questions with all that is expected
    of them (`cells.content_hash` of canonical JSON), `options` that of everything else that changes what is asked or
    how it is judged. `request` are options of the request (num_predict, temperature) that the person gave for this
    task, `defaults` the same where neither the person nor the sweep gave any. `model` is asked in place of the sweep's.
    `repeats` None: those of the sweep, else how often every question is asked. A question without an answer is asked
    up to `max_retries` times more. `is_fresh`: a number stands in front of every question, so that no cache answers;
    without it the text is sent as it is and its prompt rate may not count.
    """

    questions: tuple[Question, ...] = ()
    hash: str = ""
    options: Options = ()
    request: Mapping[str, Scalar] = field(default_factory=dict)
    defaults: Mapping[str, Scalar] = field(default_factory=dict)
    model: str = ""
    system: str = ""
    warmup: Question | None = None
    repeats: int | None = None
    max_retries: int = 2
    is_fresh: bool = False


class Task(Protocol):
    """What is asked and how the answers are judged. `version` is part of a cell's identity.

    `metrics: ClassVar[tuple[Metric, ...]]` declares the numbers that `score` and `summarize` give, where the core does
    not: of one that is not declared, neither unit nor direction is known.
    """

    version: ClassVar[int]
    kind: ClassVar[str]

    def setup(self, given: Mapping[str, Node]) -> Setup:
        """The task with the options under `tasks: NAME:` in the sweep file; every value with its line.

        Reads data files. Raises ConfigError for an unknown option and for whatever is wrong with a file.
        """

    def score(self, question: Question, generation: Generation) -> dict[str, float]:
        """Named scores of one answer; an empty dict where speed is all that counts. `score` is the one of pictures."""

    def summarize(self, runs: Sequence[Run]) -> dict[str, float]:
        """Numbers of a whole cell beside the medians, of its measured runs, failed ones among them."""


@runtime_checkable
class SpeaksAgain(Protocol):
    """A task of which `verify` makes scores again: those for which nothing must be known of the question."""

    def unjudged(self, generation: Generation) -> dict[str, float]:
        """Those of the scores of an answer that need no judge, such as its speeds."""
