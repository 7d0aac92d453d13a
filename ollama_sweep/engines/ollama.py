"""Ollama by its command line: `ollama create` makes one scratch model, `ollama run --verbose` measures it.

The scratch model is written down before it exists and removed at the end, also by the next start after a crash. The
base model is never changed and never pulled.
"""

from __future__ import annotations

import re
import shutil
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ollama_sweep import modelfile, process
from ollama_sweep.cells import Cell, Effective, Status
from ollama_sweep.engine import EngineInfo, EngineSettings, Generation, Leftover, ModelInfo
from ollama_sweep.engines._ollama_output import Statistics, clean, error_text, statistics
from ollama_sweep.engines._ollama_server import OllamaServer, any_binary, is_named, version_tuple
from ollama_sweep.errors import CellFailed, EngineMissing, EngineUnavailable
from ollama_sweep.failure_texts import classify, server_is_gone
from ollama_sweep.model_files import gguf_info, header_of

if TYPE_CHECKING:
    import httpx

REPORTS_CACHED_SINCE = (0, 33, 3)
"""From this version on a missing `prompt eval cached` line means none; before, it is unknown (PR #17943)."""
COUNTING_CTX = 256
COUNTING_BATCH = 64
CREATE_S = 60.0
IMPORT_S = 3600.0
ENOUGH_CACHED_SHARE = 0.02
"""Where cached tokens are not reported, a fixed prompt beginning above this share gets a fresh runner for each run."""


def is_usable(settings: EngineSettings) -> bool:
    """There is an `ollama` to run: named, in PATH, or built by `make ollama`. Raises EngineUnavailable."""
    return any_binary(settings.ollama) is not None


class Engine:
    """See `engine.Engine`. One scratch model and at most one imported base per GGUF file."""

    def __init__(self, settings: EngineSettings) -> None:
        self._settings = settings
        self._server = OllamaServer(settings)
        text = settings.template
        self._template = modelfile.parse(text, "modelfile", allow_local=True) if text else None
        self._token = uuid.uuid4().hex[:8]
        self._scratch = f"ollama-sweep-scratch-{self._token}"
        self._bases: dict[str, str] = {}
        self._records: dict[str, int] = {}
        self._created = ""
        self._loaded: tuple[object, ...] | None = None
        self._uses_vram = False
        self._thinks: dict[str, bool] = {}
        self._fixed_tokens: dict[str, int] = {}

    def describe(self) -> EngineInfo:
        self._server.connect()
        details = {"binary": str(self._server.binary), "server": "own" if self._server.is_own else "found"}
        return EngineInfo("ollama", self._server.version, self._server.where, details)

    # -- models --------------------------------------------------------------------------------------------------

    def model_info(self, model: str) -> ModelInfo:
        if model.endswith(".gguf"):
            return gguf_info(model)
        digest = self._installed_digest(model)
        shown = self._server.show(model)
        details, header = shown.details, header_of(dict(shown.modelinfo or {}))
        return ModelInfo(
            name=model,
            digest=digest,
            family=details.family if details else None,
            parameter_size=details.parameter_size if details else None,
            quantization=details.quantization_level if details else None,
            context_length=header.context_length,
            size_bytes=self._server.installed()[_tagged(model)].size,
            kv_bytes_per_token=header.kv_bytes_per_token,
            capabilities=tuple(str(capability) for capability in shown.capabilities or ()),
        )

    def _installed_digest(self, model: str) -> str:
        self._server.connect()
        entry = self._server.installed().get(_tagged(model))
        if entry is None:
            raise EngineMissing(f"{model} is not installed here. Run: ollama pull {model}")
        return f"sha256:{str(entry.digest).removeprefix('sha256:')}"

    def _base(self, model: str) -> str:
        """The installed name to derive from; a GGUF file is imported once, as a recorded scratch base."""
        if not model.endswith(".gguf"):
            self._installed_digest(model)
            return model
        if model not in self._bases:
            name = f"ollama-sweep-base-{self._token}-{len(self._bases)}"
            self._settings.say(f"Importing {model} into Ollama (removed again at the end)")
            self._create(name, f"FROM {Path(model).expanduser().absolute()}\n", IMPORT_S)
            self._bases[model] = name
        return self._bases[model]

    def _create(self, name: str, text: str, timeout_s: float = CREATE_S) -> None:
        """`ollama create`, recorded before it exists. Raises CellFailed (reason `create`), EngineUnavailable."""
        if name not in self._records:
            self._records[name] = self._settings.ledger.record("scratch_model", name, {"host": self._server.where})
        folder = self._server.folder / "create"
        folder.mkdir(exist_ok=True)
        file = folder / "Modelfile"
        file.write_text(text, "utf-8")
        done = self._command("create", name, "-f", str(file), timeout_s=timeout_s)
        if done.timed_out:
            raise CellFailed(Status.TIMEOUT, "create", f"`ollama create` did not end in {timeout_s:.0f} s", done.stderr)
        if done.returncode != 0 or "success" not in clean(done.stderr):
            self._raise_if_gone(done)
            raise CellFailed(Status.ERROR, "create", error_text(done.stderr), done.stderr)

    def _command(self, *words: str, timeout_s: float, stdin: bytes = b"") -> process.Completed:
        argv = self._server.command(*words)
        return process.run(argv, stdin=stdin, timeout_s=timeout_s, env=self._server.command_environment())

    def _raise_if_gone(self, done: process.Completed) -> None:
        """A command that never reached the server says nothing about the cell. Raises EngineUnavailable."""
        text = error_text(done.stderr)
        if "could not connect" in text:
            raise EngineUnavailable(text)

    # -- one cell ------------------------------------------------------------------------------------------------

    def prepare(self, cell: Cell) -> Effective:
        self._server.connect()
        if self._server.apply(cell.server):
            self._loaded = None
        if self._loaded is not None and self._loaded[1] != cell.model:
            self.release(failed=False)
        if self._hides_cached and cell.model not in self._fixed_tokens:
            self.count_tokens(cell.model, "x")
        text = modelfile.render(self._template, self._base(cell.model), dict(cell.options))
        if text != self._created:
            self._created = ""
            self._create(self._scratch, text)
            self._created = text
        load_duration_s = self._load() if self._loaded != cell.load_key else None
        self._loaded = cell.load_key
        return self._read_back(cell, load_duration_s)

    def _load(self) -> float:
        """Load the scratch model without a prompt; how many seconds that took."""
        self._loaded = None
        started = time.monotonic()
        body = {"model": self._scratch, "stream": False, "keep_alive": self._keep_alive()}
        answer = self._ask(body, self._settings.load_timeout_s, "load")
        if answer.is_error:
            text = _answer_error(answer)
            status, reason = classify(text, exit_code=None, signal=None)
            raise CellFailed(status, reason, text, answer.text)
        return time.monotonic() - started

    def _ask(self, body: dict[str, Any], timeout_s: float, what: str) -> httpx.Response:
        import httpx

        self._settings.trace(f"POST {self._server.where}/api/generate {body if len(str(body)) < 400 else what}")
        try:
            return self._server.post("/api/generate", body, timeout_s)
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise EngineUnavailable(f"the Ollama server at {self._server.where} does not answer: {error}") from error
        except httpx.TimeoutException:
            text = f"the {what} did not end in {timeout_s:.0f} s"
            raise CellFailed(Status.TIMEOUT, what, text) from None
        except httpx.HTTPError as error:
            raise CellFailed(Status.ERROR, "engine_died", f"the server ended the connection: {error}") from error

    def _keep_alive(self) -> str:
        return f"{int(self._settings.timeout_s) + 600}s"

    def _read_back(self, cell: Cell, load_duration_s: float | None) -> Effective:
        """What /api/ps says of our model; num_batch is nowhere to be read and follows llama.cpp's own rule."""
        entries = self._server.loaded()
        ours = [entry for entry in entries if is_named(entry, self._scratch)]
        own_names = {self._scratch, *self._bases.values()}
        others = [str(entry.name) for entry in entries if not any(is_named(entry, name) for name in own_names)]
        if not ours and len(others) == 1:
            ours, others = [entry for entry in entries if str(entry.name) in others], []
        if not ours:
            return Effective(load_duration_s=load_duration_s, others_loaded=tuple(others))
        num_ctx = ours[0].context_length
        size_vram = int(ours[0].size_vram or 0)
        self._uses_vram = size_vram > 0
        return Effective(
            num_ctx=num_ctx,
            num_batch=min(cell.num_batch, num_ctx or cell.num_batch),
            size_bytes=int(ours[0].size) if ours[0].size else None,
            size_vram_bytes=size_vram,
            load_duration_s=load_duration_s,
            others_loaded=tuple(others),
        )

    def generate(self, cell: Cell, prompt: str, timeout_s: float) -> Generation:
        if self._needs_fresh_runner(cell.model, prompt):
            self._server.rest({self._scratch}, settle_vram=False)
            self._load()
            self._loaded = cell.load_key
        words = ["run", self._scratch, "--verbose", "--nowordwrap", "--keepalive", self._keep_alive()]
        if self._is_thinking(cell.model):
            words.append("--think=false")
        done = self._command(*words, timeout_s=timeout_s, stdin=prompt.encode())
        raw = f"{done.stderr}\n--- stdout ---\n{done.stdout}"
        if done.timed_out:
            raise CellFailed(Status.TIMEOUT, "run", f"no answer within {timeout_s:g} s", raw)
        if done.returncode != 0:
            self._raise_failure(done, raw)
        found = statistics(done.stderr)
        if found is None:
            raise CellFailed(Status.ERROR, "no_statistics", error_text(done.stderr) or "no statistics printed", raw)
        return self._generation(found, done, raw)

    def _raise_failure(self, done: process.Completed, raw: str) -> None:
        self._raise_if_gone(done)
        text = error_text(done.stderr)
        if server_is_gone(text):
            raise CellFailed(Status.ERROR, "engine_died", text, raw)
        code = done.returncode
        status, reason = classify(text, exit_code=max(code, 0), signal=-code if code < 0 else None)
        raise CellFailed(status, reason, text, raw)

    def _generation(self, found: Statistics, done: process.Completed, raw: str) -> Generation:
        cached = found.cached_count
        if cached is None and version_tuple(self._server.version) >= REPORTS_CACHED_SINCE:
            cached = 0
        return Generation(
            text=done.stdout.removesuffix("\n\n"),
            prompt_eval_count=found.prompt_eval_count,
            prompt_eval_duration_s=found.prompt_eval_duration_s,
            eval_count=found.eval_count,
            eval_duration_s=found.eval_duration_s,
            cached_count=cached,
            total_duration_s=found.total_duration_s,
            load_duration_s=found.load_duration_s,
            printed_rate=found.prompt_eval_rate,
            client_duration_s=done.duration_s,
            raw=raw,
        )

    def _is_thinking(self, model: str) -> bool:
        if model not in self._thinks:
            capabilities = self._server.show(self._bases.get(model, model)).capabilities or ()
            self._thinks[model] = "thinking" in capabilities
        return self._thinks[model]

    @property
    def _hides_cached(self) -> bool:
        return version_tuple(self._server.version) < REPORTS_CACHED_SINCE

    def _needs_fresh_runner(self, model: str, prompt: str) -> bool:
        """Old versions keep the template's beginning cached and do not say how much of the prompt that was."""
        if not self._hides_cached:
            return False
        share = self._fixed_tokens.get(model, 0) / max(1, len(prompt.encode()) / 4)
        return share > ENOUGH_CACHED_SHARE

    # -- the prompt's true length --------------------------------------------------------------------------------

    def count_tokens(self, model: str, prompt: str) -> int | None:
        """Asked of a very small context that may not cut: the refusal names the count, and nothing is evaluated."""
        self._server.connect()
        text = modelfile.render(self._template, self._base(model), {"num_ctx": COUNTING_CTX, "num_predict": 1})
        if text != self._created:
            self._create(self._scratch, text)
            self._created = text
        self._loaded = None
        if model not in self._fixed_tokens:
            self._fixed_tokens[model] = max(0, (self._count("x", COUNTING_CTX) or 1) - 1)
        count = self._count(prompt, COUNTING_CTX)
        return count if count is not None else self._count_by_reading(model, prompt)

    def _count(self, prompt: str, num_ctx: int) -> int | None:
        options = {"num_ctx": num_ctx, "num_batch": COUNTING_BATCH, "num_predict": 1}
        body = {"model": self._scratch, "prompt": prompt, "stream": False, "truncate": False, "options": options}
        answer = self._ask(body, self._settings.load_timeout_s + self._settings.timeout_s, "count")
        if not answer.is_error:
            count = answer.json().get("prompt_eval_count")
            return int(count) if count else None
        text = _answer_error(answer)
        named = re.search(r'n_prompt_tokens\\*"\s*:\s*(\d+)', text) or re.search(r"request \((\d+) tokens\)", text)
        if named:
            return int(named[1])
        status, reason = classify(text, exit_code=None, signal=None)
        if status is Status.TRUNCATED:
            return None
        raise CellFailed(status, reason, text, answer.text)

    def _count_by_reading(self, model: str, prompt: str) -> int | None:
        """For versions whose refusal names no count: read the prompt once in a context that is large enough."""
        longest = self.model_info(model).context_length or len(prompt.encode()) + 512
        num_ctx = min(longest, len(prompt.encode()) // 2 + 512)
        while (count := self._count(prompt, num_ctx)) is None and num_ctx < longest:
            num_ctx = min(longest, num_ctx * 2)
        return count

    # -- the end -------------------------------------------------------------------------------------------------

    def release(self, *, failed: bool) -> None:
        names = {self._scratch, *self._bases.values()}
        self._loaded = None
        self._server.connect()
        self._server.rest(names, settle_vram=self._uses_vram and failed)

    def clear(self, leftover: Leftover) -> str | None:
        if leftover.kind == "process":
            return self._clear_process(leftover)
        self._server.connect()
        self._server.rest({leftover.name}, settle_vram=False)  # once it is removed nothing can unload it any more
        return f"Removed {leftover.name}, left by the previous session" if self._server.delete(leftover.name) else None

    def _clear_process(self, leftover: Leftover) -> str | None:
        ended = process.end_by_token(leftover.name)
        folder = Path(leftover.details.get("folder", ""))
        if folder.name.startswith("ollama-sweep-"):
            shutil.rmtree(folder, ignore_errors=True)
        pids = ", ".join(f"pid {pid}" for pid in ended)
        return f"Ended a left-over ollama ({pids}) of the previous session" if ended else None

    def close(self) -> None:
        started = time.monotonic()
        for name, number in list(self._records.items()):
            try:
                self._server.rest({name}, settle_vram=False)
                self._server.delete(name)
                self._settings.ledger.settle(number)
            except EngineUnavailable as error:
                self._settings.say(f"{name} could not be removed now ({error}); the next run removes it")
        self._records.clear()
        self._server.close()
        self._settings.trace(f"closed in {time.monotonic() - started:.1f} s")


def _tagged(model: str) -> str:
    return model if ":" in model.rpartition("/")[2] else f"{model}:latest"


def _answer_error(answer: httpx.Response) -> str:
    try:
        return str(answer.json()["error"])
    except (ValueError, KeyError, TypeError):
        return answer.text or f"HTTP {answer.status_code}"
