"""What `doctor` sees of a server with an OpenAI-compatible API: whether it is on this computer."""

from __future__ import annotations

import contextlib

from ollama_sweep.core.errors import SweepError
from ollama_sweep.engines.base import EngineSettings
from ollama_sweep.engines.shared.look import Asked, Look
from ollama_sweep.machine import env, ports
from ollama_sweep.machine.address import Address, api_address

URL_VARIABLE = "LLM_BASE_URL"
DEFAULT_URL = "http://127.0.0.1:1234/v1"
DEFAULT_PORT = 1234


def server_address(settings: EngineSettings) -> Address:
    """The server that the sweep names, or LLM_BASE_URL, or the usual one. Raises ConfigError for a bad address."""
    named = None if settings.host else env.setting(URL_VARIABLE)
    return api_address(
        settings.host or named or DEFAULT_URL,
        allow_remote=settings.allow_remote,
        port=DEFAULT_PORT,
        where=URL_VARIABLE if named else "host",
    )


class OpenAILook(Look):
    """See `Look`. An address that cannot be used is told when the engine is made."""

    def __init__(self, settings: EngineSettings, asked: Asked) -> None:
        super().__init__(settings, asked)
        with contextlib.suppress(SweepError):
            self.is_elsewhere = ports.is_elsewhere(server_address(settings).root)
