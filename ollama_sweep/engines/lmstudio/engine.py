"""LM Studio: its program `lms` starts the server and loads the model, the OpenAI-compatible API is asked.

Whatever this engine starts (LM Studio's daemon, the server, a load) is written down before it exists and stopped again;
what was there before stays.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterable, Mapping, Sequence

from ollama_sweep.core.cell import Cell
from ollama_sweep.core.errors import CellFailed, ConfigError, EngineMissing, EngineUnavailable
from ollama_sweep.core.generation import EMBED, GENERATE, Generation
from ollama_sweep.core.ledger import Leftover
from ollama_sweep.core.outcome import Effective, Status
from ollama_sweep.engines.base import Engine as Base
from ollama_sweep.engines.base import EngineInfo, EngineSettings, Kept, ModelInfo
from ollama_sweep.engines.lmstudio.lms import Lms, info_of
from ollama_sweep.engines.openai.client import REQUEST_OPTIONS, Client, request_of
from ollama_sweep.engines.openai.server import Server
from ollama_sweep.engines.openai.stream import read_again
from ollama_sweep.engines.shared import gate
from ollama_sweep.machine import env
from ollama_sweep.machine.address import Address, api_address
from ollama_sweep.machine.ports import listening_on

URL_VARIABLE = "LLM_BASE_URL"
DEFAULT_PORT = 1234
SERVER, DAEMON = "lmstudio-server", "lmstudio-daemon"
LOADS = frozenset({"num_ctx"})
TEST_TEXT, TEST_TOKENS = "Hi", 8
"""What a model is asked after its load. The answer is thrown away."""


class Engine(Base):
    """See `base.Engine`. At most one load at a time, under an identifier of its own."""

    settable = REQUEST_OPTIONS | LOADS
    kinds = frozenset({GENERATE, EMBED})
    asks_at_once = True
    loads_without_a_prompt = True
    default_model = "bartowski/QwQ-32B-Preview-GGUF/QwQ-32B-Preview-Q4_K_M.gguf"
    takes_files = False

    @classmethod
    def read_again(cls, kept: Kept) -> Mapping[str, float | None]:
        return read_again(kept)

    def __init__(self, settings: EngineSettings) -> None:
        """Raises ConfigError for a bad address or key."""
        super().__init__(settings)
        named = settings.host or env.setting(URL_VARIABLE)
        self._is_named = named is not None
        self._address = api_address(named or "127.0.0.1", allow_remote=settings.allow_remote, port=DEFAULT_PORT)
        if not self._address.is_local:
            raise ConfigError("lms works on this machine only; for another one use engine: openai", "host")
        self._key = env.api_key(settings.api_key_env)
        self._lms = Lms(settings)
        self._client: Client | None = None
        self._version = ""
        self._identifier = f"ollama-sweep-{uuid.uuid4().hex[:8]}"
        self._started: dict[str, int] = {}
        self._loading: int | None = None
        self._loaded: tuple[str, int] | None = None

    # -- the server ----------------------------------------------------------------------------------------------

    def describe(self) -> EngineInfo:
        client = self._connected()
        try:
            Server(client).models()
        except EngineMissing:
            raise
        except EngineUnavailable:
            self._hang_up()
            Server(self._connected()).models()
        details = {"lms": self._lms.program, "server": "own" if SERVER in self._started else "found"}
        return EngineInfo("lmstudio", self._version, self._address.url, details)

    def _connected(self) -> Client:
        """The client, after the server was found or started. Raises EngineUnavailable."""
        if self._client is None:
            if self._lms.is_running() is False:
                self._note(DAEMON)
            port = self._lms.server_port()
            if port is None:
                self._start_server()
            elif port != self._address.port:
                self._address = self._at(port)
            self._version = self._version or self._lms.version()
            self._client = Client(self._settings, self._address, self._key)
        return self._client

    def _at(self, port: int) -> Address:
        if self._is_named:
            text = f"LM Studio's server runs on port {port}, not on {self._address.port}; give host: 127.0.0.1:{port}"
            raise EngineMissing(text)
        return Address("http", "127.0.0.1", port, "/v1")

    def _start_server(self) -> None:
        self._note(SERVER)
        self._settings.say("Starting LM Studio's server (stopped again at the end)")
        self._lms.checked("server", "start", "--port", str(self._address.port))
        if self._lms.server_port() is None:
            raise EngineUnavailable("`lms server start` ended, but the server does not run")

    def _note(self, what: str) -> None:
        """Write down what is about to be started."""
        if what not in self._started:
            name = f"{what}-{self._identifier}"
            self._started[what] = self._settings.ledger.record("process", name, {"engine": "lmstudio", "what": what})

    def _hang_up(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None

    # -- models and cells ----------------------------------------------------------------------------------------

    def models(self) -> tuple[str, ...]:
        self._connected()
        return self._lms.names()

    def model_info(self, model: str) -> ModelInfo:
        self._connected()
        return info_of(model, self._lms.model(model))

    def prepare(self, cell: Cell) -> Effective:
        request_of(cell, "lmstudio", LOADS)
        self._connected()
        wanted = (cell.model, cell.num_ctx)
        loaded = self._lms.loaded()
        duration_s = None
        if self._loaded != wanted or self._identifier not in loaded:
            duration_s = self._load(*wanted)
            loaded = self._lms.loaded()
        with gate.of_server("`lms ps --json`"):
            num_ctx = gate.length("contextLength", loaded.get(self._identifier, {}).get("contextLength"))
        return Effective(
            num_ctx=num_ctx,
            load_duration_s=duration_s,
            others_loaded=self._others(loaded),
        )

    def _others(self, loaded: Iterable[str]) -> tuple[str, ...]:
        return tuple(sorted(name for name in loaded if name != self._identifier))

    def others_loaded(self) -> tuple[str, ...]:
        return self._others(self._lms.loaded())

    def _load(self, model: str, num_ctx: int) -> float:
        """Load in place of what is loaded, and see that it answers; the load's seconds. Raises CellFailed."""
        self._unload()
        entry = self._lms.model(model)
        self._loading = self._settings.ledger.record("scratch_model", self._identifier, {"engine": "lmstudio"})
        started = time.monotonic()
        self._lms.load(entry, self._identifier, num_ctx)
        duration_s = time.monotonic() - started
        self._test(is_embedding=entry.get("type") == "embedding")
        self._loaded = (model, num_ctx)
        return duration_s

    def _test(self, *, is_embedding: bool) -> None:
        """One short request: `lms ps` also shows a model that cannot answer. Raises CellFailed."""
        client, limit_s = self._connected(), self._settings.load_timeout_s
        try:
            if is_embedding:
                client.embed(self._identifier, [TEST_TEXT], 1, limit_s)
                return
            found = client.chat(self._identifier, "", TEST_TEXT, {"max_tokens": TEST_TOKENS}, limit_s)
            if not (found.text.strip() or found.chunk_count or found.eval_count):
                raise CellFailed(Status.ERROR, "test_inference", "an empty answer", found.raw)
        except CellFailed as failure:
            text = f"the loaded model does not answer a test question: {failure.error}"
            raise CellFailed(failure.status, failure.reason, text, failure.raw) from None

    def _unload(self) -> None:
        """End the load, a half one, too. Raises EngineUnavailable."""
        self._loaded = None
        if self._loading is not None:
            self._lms.unload(self._identifier)
            self._settings.ledger.settle(self._loading)
            self._loading = None

    def generate(self, cell: Cell, prompt: str, timeout_s: float, *, fresh: bool = True) -> Generation:
        request = request_of(cell, "lmstudio", LOADS)
        return self._connected().chat(self._identifier, cell.system, prompt, request, timeout_s)

    def cut_short(self) -> None:
        if self._client is not None:
            self._client.cut_short()

    def embed(self, cell: Cell, texts: Sequence[str], batch_size: int, timeout_s: float) -> Generation:
        return self._connected().embed(self._identifier, texts, batch_size, timeout_s)

    def processes(self) -> tuple[int, ...]:
        return listening_on(self._address)

    # -- the end -------------------------------------------------------------------------------------------------

    def release(self, *, failed: bool) -> None:
        self._unload()

    def clear(self, leftover: Leftover) -> str | None:
        if leftover.details.get("engine") != "lmstudio":
            return super().clear(leftover)
        if self._lms.is_running() is False:
            return None
        if leftover.kind == "scratch_model":
            return f"Removed {leftover.name}, left by the previous session" if self._lms.unload(leftover.name) else None
        if leftover.details.get("what") == DAEMON:
            done = self._lms.run("daemon", "down")
            return "Ended LM Studio's daemon, started by the previous session" if done.returncode == 0 else None
        if self._lms.server_port() is None:
            return None
        self._lms.checked("server", "stop")
        return "Ended LM Studio's server, started by the previous session"

    def close(self) -> None:
        self._hang_up()
        try:
            self._unload()
            if SERVER in self._started and self._lms.server_port() is not None:
                self._lms.checked("server", "stop")
            self._settle(SERVER)
            if DAEMON in self._started and self._lms.run("daemon", "down").returncode != 0 and self._lms.is_running():
                self._settings.say("LM Studio was started and `lms daemon down` does not end it; exit it yourself")
            self._settle(DAEMON)
        except EngineUnavailable as error:
            self._settings.say(f"LM Studio could not be left as it was ({error}); the next run does the rest")

    def _settle(self, what: str) -> None:
        if what in self._started:
            self._settings.ledger.settle(self._started.pop(what))
