"""Any server with an OpenAI-compatible API: llama-server, LM Studio, vLLM, Ollama's own /v1, a service in the cloud.

The server has its own num_ctx and num_batch; a cell sets only what a request can say. Counts come from the server's
`usage` and, where it is a llama-server, from its `timings`; the time to the first piece and the whole time are measured
here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ollama_sweep.core.cell import Cell
from ollama_sweep.core.generation import EMBED, GENERATE, Generation
from ollama_sweep.core.outcome import Effective
from ollama_sweep.engines.base import Engine as Base
from ollama_sweep.engines.base import EngineInfo, EngineSettings, Kept, ModelInfo
from ollama_sweep.engines.openai.client import REQUEST_OPTIONS, Client, request_of
from ollama_sweep.engines.openai.look import OpenAILook, server_address
from ollama_sweep.engines.openai.server import Server
from ollama_sweep.engines.openai.stream import read_again
from ollama_sweep.machine import env
from ollama_sweep.machine.ports import listening_on


class Engine(Base):
    """See `base.Engine`. Nothing is loaded or made on the server."""

    settable = REQUEST_OPTIONS
    kinds = frozenset({GENERATE, EMBED})
    asks_at_once = True
    default_model = "gpt-oss-20b"
    takes_files = False
    look = OpenAILook

    @classmethod
    def read_again(cls, kept: Kept) -> Mapping[str, float | None]:
        return read_again(kept)

    def __init__(self, settings: EngineSettings) -> None:
        """Raises ConfigError for a bad address or key."""
        super().__init__(settings)
        self._address = server_address(settings)
        self._client = Client(settings, self._address, env.api_key(settings.api_key_env))
        self._server = Server(self._client)

    def describe(self) -> EngineInfo:
        found = self._server.identity()
        return EngineInfo("openai", found.version, self._address.url, {"server": found.kind})

    def models(self) -> tuple[str, ...]:
        return self._server.names()

    def model_info(self, model: str) -> ModelInfo:
        return self._server.model_info(model)

    def count_tokens(self, model: str, prompt: str, *, system: str = "") -> int | None:
        return self._server.count_tokens(prompt, system)

    def prepare(self, cell: Cell) -> Effective:
        """Nothing is loaded here; num_ctx and slots are those of a llama-server, which says them."""
        request_of(cell, "openai")
        return Effective(num_ctx=self._server.context(), num_parallel=self._server.slots())

    def generate(self, cell: Cell, prompt: str, timeout_s: float, *, fresh: bool = True) -> Generation:
        return self._client.chat(cell.model, cell.system, prompt, request_of(cell, "openai"), timeout_s)

    def embed(self, cell: Cell, texts: Sequence[str], batch_size: int, timeout_s: float) -> Generation:
        return self._client.embed(cell.model, texts, batch_size, timeout_s)

    def cut_short(self) -> None:
        self._client.cut_short()

    def processes(self) -> tuple[int, ...]:
        return listening_on(self._address)

    def release(self, *, failed: bool) -> None:
        if failed:
            self._server.rest()

    def close(self) -> None:
        self._client.close()
