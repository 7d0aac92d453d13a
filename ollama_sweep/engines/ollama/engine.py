"""Ollama by its command line: `ollama create` makes one scratch model, `ollama run --verbose` measures it.

The scratch model is written down before it exists and removed at the end, also by the next start after a crash. The
base model is never changed and never pulled.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, ClassVar

from ollama_sweep.core.cell import Cell
from ollama_sweep.core.errors import CellFailed, keeping
from ollama_sweep.core.generation import Generation
from ollama_sweep.core.options import Scalar
from ollama_sweep.core.outcome import Status
from ollama_sweep.core.thoughts import part
from ollama_sweep.engines.base import EngineSettings, Kept
from ollama_sweep.engines.ollama.base import OWN_MODELS, OllamaEngine, Target, hides_cached, without_think
from ollama_sweep.engines.ollama.output import RATE, Statistics, error_text, statistics
from ollama_sweep.engines.shared import gate, modelfile
from ollama_sweep.engines.shared.failures import classify, server_is_gone
from ollama_sweep.machine import process

STDOUT = "\n--- stdout ---\n"
"""Between what the client says of itself and the answer, in what is kept of a run."""
_ENDS_A_QUOTE = re.compile(r'"""[ \t]*$', re.MULTILINE)


class Engine(OllamaEngine):
    """See `base.Engine`. One scratch model and at most one imported base per GGUF file.

    The time to the first token contains the start of the `ollama` program. `ollama run` does not show its pieces, so
    there is no `chunk_count`.
    """

    name: ClassVar[str] = "ollama"

    def __init__(self, settings: EngineSettings) -> None:
        super().__init__(settings)
        self._scratch = f"{OWN_MODELS}scratch-{self._token}"
        self._created = ""

    @classmethod
    def by_hand(cls, cell: Cell, template: str) -> tuple[str, ...]:
        """A model of the cell's options is made, run once with statistics, and removed.

        Ollama takes `--think=false` for a model that cannot think, too.
        """
        made = modelfile.parse(template, "modelfile", allow_local=True) if template else None
        think = str(cell.think).lower()
        text = modelfile.render(made, cell.model, without_think(cell.options)) + _system_line(cell.system)
        return (
            "cat > Modelfile.by_hand <<'END_OF_MODELFILE'", *text.splitlines(), "END_OF_MODELFILE",
            "ollama create by_hand -f Modelfile.by_hand",
            f"ollama run by_hand --verbose --nowordwrap --think={think} < prompt.txt",
            "ollama rm by_hand",
        )  # fmt: skip

    def _target(self, model: str, options: Mapping[str, Scalar], system: str, think: bool | str = False) -> Target:
        """The scratch model, made again where it is another one. The same weights and load options keep their load."""
        text = modelfile.render(self._template, self._base(model), options) + _system_line(system)
        if text != self._created:
            self._created = ""
            self._create(self._scratch, text)
            self._created = text
        return Target(self._scratch, self._thinking(model, self._scratch, think))

    def generate(self, cell: Cell, prompt: str, timeout_s: float, *, fresh: bool = True) -> Generation:
        self._refuse_to_generate(cell.model)
        target = self._fresh_target(cell, prompt) if fresh else self._target_of(cell)
        words = ["run", target.name, "--verbose", "--nowordwrap", "--keepalive", self._keep_alive()]
        if "think" in target.fields:
            words.append(f"--think={str(target.fields['think']).lower()}")
        with self._alone():
            done = self._server.command(*words, timeout_s=timeout_s, stdin=prompt.encode())
        raw = f"{done.stderr}{STDOUT}{done.stdout}"
        if done.timed_out:
            raise CellFailed(Status.TIMEOUT, "run", f"no answer within {timeout_s:g} s", raw)
        if done.returncode != 0:
            self._raise_failure(done, raw)
        with keeping(raw), gate.of_cell(raw):
            found = statistics(done.stderr)
            if found is None:
                raise CellFailed(Status.ERROR, "no_statistics", error_text(done.stderr) or "no statistics printed", raw)
            return self._generation(_numbers(found, fresh=fresh, hides_cached=self._hides_cached), done, raw)

    def _raise_failure(self, done: process.Completed, raw: str) -> None:
        text = error_text(done.stderr)
        if server_is_gone(text):
            raise CellFailed(Status.ERROR, "engine_died", text, raw)
        code = done.returncode
        status, reason = classify(text, exit_code=max(code, 0), signal=-code if code < 0 else None)
        raise CellFailed(status, reason, text, raw)

    @staticmethod
    def _generation(numbers: Mapping[str, Any], done: process.Completed, raw: str) -> Generation:
        said = part(done.stdout.removesuffix("\n\n"), of_client=True)
        return Generation(
            **numbers,
            text=said.answer,
            thoughts=said.thoughts,
            client_duration_s=done.duration_s,
            ttft_s=done.first_output_s,
            raw=raw,
        )

    @classmethod
    def read_again(cls, kept: Kept) -> Mapping[str, float | None]:
        if kept.embeds:
            return super().read_again(kept)
        stderr, separator, _ = kept.raw.partition(STDOUT)
        if not separator:
            raise gate.Nonsense("no output of `ollama run` was kept")
        found = statistics(stderr)
        if found is None:
            raise gate.Nonsense("no statistics are in what `ollama run` printed")
        numbers = _numbers(found, fresh=kept.fresh, hides_cached=hides_cached(kept.version))
        if not kept.version and found.cached_count is None:
            del numbers["cached_count"]
        return {**numbers, "thinking_count": None}


def _numbers(found: Statistics, *, fresh: bool, hides_cached: bool) -> dict[str, Any]:
    """By the names of a generation. A missing line for cached tokens means none, on versions that print one.

    Raises Nonsense for a printed rate that cannot be, where it counts.
    """
    rate_counts = fresh or not hides_cached
    return {
        "prompt_eval_count": found.prompt_eval_count,
        "prompt_eval_duration_s": found.prompt_eval_duration_s,
        "eval_count": found.eval_count,
        "eval_duration_s": found.eval_duration_s,
        "cached_count": 0 if found.cached_count is None and not hides_cached else found.cached_count,
        "total_duration_s": found.total_duration_s,
        "load_duration_s": found.load_duration_s,
        "printed_rate": gate.rate(RATE, found.prompt_eval_rate) if rate_counts else None,
    }


def _system_line(system: str) -> str:
    """SYSTEM as Ollama's parser reads it back; the last SYSTEM of a Modelfile counts. Raises CellFailed."""
    if not system:
        return ""
    if _ENDS_A_QUOTE.search(system):
        text = 'a system prompt with a line that ends with """ cannot be written into a Modelfile; use ollama_http'
        raise CellFailed(Status.ERROR, "config", text)
    return f'SYSTEM """{system}"""\n'
