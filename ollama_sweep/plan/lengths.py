"""What a task asks one model, and how long that really is: counted on the engine once, remembered in the database."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from ollama_sweep.core.cell import content_hash, model_label
from ollama_sweep.core.errors import CellFailed, ConfigError, EngineMissing
from ollama_sweep.core.options import Scalar
from ollama_sweep.engines.base import Engine, ModelInfo
from ollama_sweep.engines.shared import gate
from ollama_sweep.plan import prompts
from ollama_sweep.plan.spec import PromptSpec, SweepSpec
from ollama_sweep.tasks.base import Question, Setup


class PromptMemory(Protocol):
    """What earlier sweeps have learned of prompts; a Reader or a Store has these."""

    def prompt_tokens(self, engine: str, model_digest: str, modelfile: str, prompt_hash: str) -> int | None: ...

    def made_prompt(self, engine: str, model_digest: str, modelfile: str, spec_text: str) -> str | None: ...


class NoMemory:
    """For the first sweep of a database."""

    def prompt_tokens(self, engine: str, model_digest: str, modelfile: str, prompt_hash: str) -> int | None:
        return None

    def made_prompt(self, engine: str, model_digest: str, modelfile: str, spec_text: str) -> str | None:
        return None


@dataclass(frozen=True)
class SentPrompt:
    """What a task asks one model.

    The sweep's own prompt is one question; `tokens` is its true length with nonce, template and system prompt. Of a
    task with questions `tokens` is that of the shortest question, and `lengths` holds the true length, by question, of
    those that may be too long for a context; None is unknown. `hash` is the identity of what is asked.
    """

    questions: tuple[Question, ...]
    hash: str
    tokens: int | None
    lengths: Mapping[str, int | None] = field(default_factory=dict)
    is_made: bool = False
    is_new: bool = False
    is_own_prompt: bool = True

    @property
    def text(self) -> str:
        """The first question, which is all of the sweep's own prompt."""
        return self.questions[0].text


TEMPLATE_BYTES = 64
"""More tokens than a chat template adds to a question; a token has at least one byte."""


@dataclass(frozen=True)
class Counting:
    """Finds the true lengths of what is asked: counted on the engine once, and remembered in the database."""

    spec: SweepSpec
    engine_name: str
    engine: Engine
    canonical: str
    memory: PromptMemory
    say: Callable[[str], None]

    def sent(self, task: str, model: ModelInfo, length: int | None = None) -> SentPrompt:
        """What a task asks a model; `length` of the prompt where that is a dimension. Raises ConfigError,
        EngineUnavailable."""
        if self.spec.has_own_prompt(task):
            return self._own_prompt(model, self.spec.prompt_of(length))
        return self._questions(self.spec.setups[task], model)

    def _known(self, model: ModelInfo, identity: str) -> int | None:
        return self.memory.prompt_tokens(self.engine_name, model.digest, self.canonical, identity)

    def _count(self, model: ModelInfo, text: str, system: str = "") -> int | None:
        return self._tokens(model, prompts.with_nonce(prompts.new_nonce(), text), system)

    def _tokens(self, model: ModelInfo, text: str, system: str) -> int | None:
        """Without it nothing can start, so a failure here is no cell's. Raises EngineMissing."""
        try:
            with gate.of_cell():
                return gate.whole("tokens", self.engine.count_tokens(model.name, text, system=system))
        except CellFailed as failure:
            said = next(iter(failure.error.splitlines()), failure.reason)
            raise EngineMissing(f"the prompt's tokens cannot be counted on {model.name}: {said}") from failure

    def _questions(self, setup: Setup, model: ModelInfo) -> SentPrompt:
        """Only those are counted that could be longer than the smallest context."""
        smallest = min((size for size in map(_size, self.spec.dimensions.get("num_ctx", ())) if size), default=0)
        fixed = len(setup.system.encode()) + TEMPLATE_BYTES
        asked = [question for question in setup.questions if not question.texts]
        long = [question for question in asked if smallest and len(question.text.encode()) + fixed > smallest]
        lengths = {question.id: self._length(model, setup, question) for question in long}
        shortest = None if len(long) < len(asked) else min((n for n in lengths.values() if n is not None), default=None)
        return SentPrompt(setup.questions, setup.hash, shortest, lengths, is_new=True, is_own_prompt=False)

    def _length(self, model: ModelInfo, setup: Setup, question: Question) -> int | None:
        known = self._known(model, question_hash(setup, question))
        if known is not None:
            return known
        count = self._count if setup.is_fresh else self._tokens
        return count(model, question.text, setup.system)

    def _own_prompt(self, model: ModelInfo, prompt: PromptSpec) -> SentPrompt:
        if prompt.text is None and prompt.tokens is None:
            raise ConfigError("prompt is missing; add it or use --prompt FILE", "prompt")
        identity = prompts.prompt_hash(prompt)
        tokens = self._known(model, identity)
        if prompt.tokens is not None:
            return self._made_prompt(model, identity, prompt.tokens, tokens)
        text = prompt.text or ""
        if tokens is not None:
            return SentPrompt(_one(text), identity, tokens)
        self.say(f"Counting the prompt's tokens on {model_label(model.name)}")
        return SentPrompt(_one(text), identity, self._count(model, text), is_new=True)

    def _made_prompt(self, model: ModelInfo, identity: str, wanted: int, tokens: int | None) -> SentPrompt:
        made = self.memory.made_prompt(self.engine_name, model.digest, self.canonical, identity)
        if made is not None and tokens is not None:
            return SentPrompt(_one(made), identity, tokens, is_made=True)
        self.say(f"Making a prompt of {wanted} tokens on {model_label(model.name)}")
        found = prompts.make_text(wanted, lambda text: self._count(model, text))
        if found is None:
            raise ConfigError(f"no text of {wanted} tokens can be made with {model.name}", "prompt.tokens")
        made, tokens = found  # to count it once more would be to read it once more on some engines
        return SentPrompt(_one(made), identity, tokens, is_made=True, is_new=True)


def question_hash(setup: Setup, question: Question) -> str:
    """The identity under which a question's length is remembered."""
    return content_hash(json.dumps([setup.system, setup.is_fresh, question.text]))


def _one(text: str) -> tuple[Question, ...]:
    return (Question("prompt", text),)


def _size(value: Scalar) -> int:
    return value if isinstance(value, int) else 0
