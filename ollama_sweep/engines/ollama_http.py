"""Ollama by its HTTP interface: options, system prompt and template go with every request, so nothing is created.

Only a GGUF file is imported, as a recorded scratch base. The server is found or started as for the engine `ollama`; one
that answers is measured without an `ollama` program here.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar
from urllib.parse import urlsplit

from ollama_sweep.core.cell import Cell
from ollama_sweep.core.errors import ConfigError
from ollama_sweep.core.generation import Generation
from ollama_sweep.core.options import Scalar
from ollama_sweep.engines.base import EngineSettings
from ollama_sweep.engines.ollama.base import OllamaEngine, Target, without_think
from ollama_sweep.engines.ollama.server import answering_version, names_a_server
from ollama_sweep.engines.shared import modelfile
from ollama_sweep.engines.shared.modelfile import last_value, parameters
from ollama_sweep.machine.address import base_url, is_loopback

NOT_IN_A_REQUEST = ("message", "adapter", "draft", "renderer", "parser")


class Engine(OllamaEngine):
    """See `base.Engine`. Raises ConfigError for a Modelfile with a command that no request can carry."""

    name: ClassVar[str] = "ollama_http"
    needs_program: ClassVar[bool] = False
    asks_at_once: ClassVar[bool] = True

    def __init__(self, settings: EngineSettings) -> None:
        super().__init__(settings)
        _refuse_what_no_request_carries(self._template)
        self._parameters = parameters(self._template)
        self._texts = {name: last_value(self._template, name) for name in ("system", "template")}

    @classmethod
    def is_usable(cls, settings: EngineSettings) -> bool:
        """There is a server to ask: one that the sweep names, or that OLLAMA_HOST does. Raises ConfigError.

        OLLAMA_HOST on this computer may be there for a server only that is to be started, so it must answer.
        """
        if settings.managed or not names_a_server(settings):
            return False
        url = base_url(settings.host, allow_remote=settings.allow_remote)
        is_here = is_loopback(urlsplit(url).hostname or "")
        return bool(settings.host) or not is_here or answering_version(url) is not None

    @classmethod
    def by_hand(cls, cell: Cell, template: str) -> tuple[str, ...]:
        """The request of a run, sent by curl; python3 puts the prompt in."""
        made = modelfile.parse(template, "modelfile", allow_local=True) if template else None
        texts = {name: last_value(made, name) for name in ("system", "template")}
        body = {
            "model": cell.model,
            "options": {**parameters(made), **without_think(cell.options)},
            "stream": False,
            "think": cell.think,
            **{name: text for name, text in texts.items() if text is not None},
            **({"system": cell.system} if cell.system else {}),
        }
        put_in = "import json, sys; print(json.dumps({**json.loads(sys.argv[1]), 'prompt': open('prompt.txt').read()}))"
        return (
            f"python3 -c {shlex.quote(put_in)} {shlex.quote(json.dumps(body, ensure_ascii=False))} > request.json",
            'curl "http://${OLLAMA_HOST:-127.0.0.1:11434}/api/generate" --data @request.json',
        )

    def _target(self, model: str, options: Mapping[str, Scalar], system: str, think: bool | str = False) -> Target:
        base = self._base(model)
        given: dict[str, Any] = {**self._parameters, **options}
        if isinstance(given.get("stop"), str):
            given["stop"] = [given["stop"]]
        fields: dict[str, Any] = {"options": {name: value for name, value in given.items() if value is not None}}
        texts = {**self._texts, **({"system": system} if system else {})}
        fields.update({name: text for name, text in texts.items() if text is not None})
        return Target(base, {**fields, **self._thinking(model, base, think)})

    def generate(self, cell: Cell, prompt: str, timeout_s: float, *, fresh: bool = True) -> Generation:
        self._refuse_to_generate(cell.model)
        target = self._fresh_target(cell, prompt) if fresh else self._target_of(cell)
        body = target.body(prompt=prompt, keep_alive=self._keep_alive())
        with self._alone():
            found = self._requests.generate(body, timeout_s).generation()
        return replace(found, cached_count=None) if self._hides_cached else found

    def cut_short(self) -> None:
        self._server.connections.cut()


def _refuse_what_no_request_carries(template: modelfile.Template | None) -> None:
    for command in template.commands if template else ():
        if command.name in NOT_IN_A_REQUEST:
            raise ConfigError(
                f"{command.name.upper()} cannot go with a request; ollama_http takes SYSTEM, TEMPLATE and PARAMETER. "
                "Use --engine ollama",
                f"modelfile:{command.line}",
            )
