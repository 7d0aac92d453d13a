"""What the engines `ollama` and `ollama_http` have in common: models, loads, what is really used, counting, the end.

They differ in how a cell's options reach the server (`_target`) and in how a generation is asked for (`generate`).
What is made on the server is written down before it exists; the person's models are never changed and never pulled.
"""

from __future__ import annotations

import contextlib
import time
import uuid
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from ollama_sweep.core.cell import Cell
from ollama_sweep.core.errors import CellFailed, EngineMissing, EngineUnavailable
from ollama_sweep.core.generation import EMBED, GENERATE, Generation
from ollama_sweep.core.ledger import Leftover
from ollama_sweep.core.options import Options, Scalar
from ollama_sweep.core.outcome import Effective, Status
from ollama_sweep.engines.base import Engine, EngineInfo, EngineSettings, Kept, ModelInfo
from ollama_sweep.engines.ollama.listed import Loaded
from ollama_sweep.engines.ollama.look import OllamaLook
from ollama_sweep.engines.ollama.output import clean, error_text
from ollama_sweep.engines.ollama.processes import batch_of, family, parallel_of, port_of
from ollama_sweep.engines.ollama.programs import any_binary
from ollama_sweep.engines.ollama.requests import Requests, read_again, refusal
from ollama_sweep.engines.ollama.server import OllamaServer, is_named, tagged, version_tuple
from ollama_sweep.engines.ollama.slots import Slots
from ollama_sweep.engines.shared import modelfile
from ollama_sweep.engines.shared.gguf import gguf_info, header_of
from ollama_sweep.engines.shared.leftovers import end_process
from ollama_sweep.machine.ports import serving_pid

REPORTS_CACHED_SINCE = (0, 33, 3)
"""Before this version nothing says how much of a prompt came from a cache (PR #17943)."""
ENOUGH_CACHED_SHARE = 0.02
"""Where cached tokens are not reported, a fixed prompt beginning above this share gets a fresh runner for each run."""
BYTES_PER_TOKEN = 4
COUNTING: Mapping[str, Scalar] = {"num_ctx": 256, "num_batch": 64, "num_predict": 1}
CREATE_S = 60.0
IMPORT_S = 3600.0
OWN_MODELS = "ollama-sweep-"
SCRATCH, LOADED = "scratch_model", "loaded_model"
"""Kinds in the ledger: a model that we made, and a model of the person's that we have loaded."""
REQUESTS_OF_OTHERS = "requests of others to this model"
LEFT_TO_THE_ENGINE = ("num_ctx", "num_batch")
"""Options for which a cell may say 0: what the engine itself takes."""


@dataclass(frozen=True)
class Target:
    """What a cell's requests name: a model of the server, and the fields beside it."""

    name: str
    fields: Mapping[str, Any] = field(default_factory=dict)

    def body(self, **more: Any) -> dict[str, Any]:
        """A request for it."""
        return {"model": self.name, **self.fields, **more}

    def embedding_body(self, **more: Any) -> dict[str, Any]:
        """The same for /api/embed, which knows options only."""
        options = self.fields.get("options")
        return {"model": self.name, **({"options": options} if options else {}), **more}


class OllamaEngine(Engine):
    """See `base.Engine`. At most one model is loaded by us at a time."""

    settable = None
    kinds = frozenset({GENERATE, EMBED})
    needs_own_server = True
    has_lanes = True
    loads_without_a_prompt = True
    scout = "libllama"
    host_variable = "OLLAMA_HOST"
    how_to_get_a_model = "ollama pull llama3.2:1b"
    look = OllamaLook
    name: ClassVar[str]
    needs_program: ClassVar[bool] = True
    """It can do nothing without an `ollama` to run on this computer."""

    @classmethod
    def read_again(cls, kept: Kept) -> Mapping[str, float | None]:
        """Of an answer of the API. Whether its cached tokens were believed hangs on the version."""
        found = read_again(kept)
        if kept.version and hides_cached(kept.version):
            found["cached_count"] = None
        elif not kept.version:
            del found["cached_count"]
        return found

    def __init__(self, settings: EngineSettings) -> None:
        super().__init__(settings)
        text = settings.template
        self._template = modelfile.parse(text, "modelfile", allow_local=True) if text else None
        self._server = OllamaServer(settings, needs_program=self.needs_program)
        self._requests = Requests(self._server, settings)
        self._token = uuid.uuid4().hex[:8]
        self._bases: dict[str, str] = {}
        self._records: dict[str, int] = {}
        self._held: dict[str, int | None] = {}
        self._held_model = ""
        self._loaded: tuple[object, ...] | None = None
        self._load_duration_s: float | None = None
        self._current: tuple[Cell, Target] | None = None
        self._uses_vram = False
        self._thinks: dict[str, bool] = {}
        self._only_embeds: set[str] = set()
        self._fixed_tokens: dict[str, int] = {}
        self._found_pid: tuple[str, int | None] = ("", None)
        self._slots: Slots | None = None

    @abstractmethod
    def _target(self, model: str, options: Mapping[str, Scalar], system: str, think: bool | str = False) -> Target:
        """How these options and this system prompt are asked for; None among the options takes one away."""

    @classmethod
    def is_usable(cls, settings: EngineSettings) -> bool:
        """There is an `ollama` to run: named, in PATH, or built by `make ollama`."""
        return any_binary(settings.ollama) is not None

    def describe(self) -> EngineInfo:
        self._server.connect()
        program = {} if self._server.binary is None else {"binary": str(self._server.binary)}
        details = {**program, "server": "own" if self._server.is_own else "found"}
        return EngineInfo(self.name, self._server.version, self._server.where, details)

    # -- models --------------------------------------------------------------------------------------------------

    def models(self) -> tuple[str, ...]:
        return tuple(sorted(name for name in self._server.installed() if not name.startswith(OWN_MODELS)))

    def model_info(self, model: str) -> ModelInfo:
        if model.endswith(".gguf"):
            return gguf_info(model)
        digest = self._installed_digest(model)
        shown = self._server.show(model)
        header = header_of(shown.metadata)
        return ModelInfo(
            name=model,
            digest=digest,
            family=shown.family or None,
            parameter_size=shown.parameter_size or None,
            quantization=shown.quantization or None,
            context_length=header.context_length,
            size_bytes=self._server.installed()[tagged(model)].size,
            kv_bytes_per_token=header.kv_bytes_per_token,
            capabilities=shown.capabilities,
            is_loaded=any(is_named(entry, model) for entry in self._server.loaded()),
        )

    def _installed_digest(self, model: str) -> str:
        self._server.connect()
        entry = self._server.installed().get(tagged(model))
        if entry is None:
            raise EngineMissing(f"{model} is not installed here. Run: ollama pull {model}")
        if not entry.digest:
            raise EngineUnavailable(f"the Ollama server at {self._server.where} gives no digest of {model}")
        return f"sha256:{entry.digest.removeprefix('sha256:')}"

    def _base(self, model: str) -> str:
        """The installed name to use or derive from; a GGUF file is imported once, as a recorded scratch base."""
        if not model.endswith(".gguf"):
            self._installed_digest(model)
            return model
        if model not in self._bases:
            name = f"{OWN_MODELS}base-{self._token}-{len(self._bases)}"
            self._settings.say(f"Importing {model} into Ollama (removed again at the end)")
            self._import(name, Path(model).expanduser().absolute())
            self._bases[model] = name
        return self._bases[model]

    def _import(self, name: str, file: Path) -> None:
        """A model of this file, recorded before it exists; without a program here the file is sent to the server."""
        self._server.connect()
        if self._server.binary is not None:
            self._create(name, f"FROM {file}\n", IMPORT_S)
            return
        self._record(name)
        self._server.import_file(name, file, IMPORT_S)

    def _record(self, name: str) -> None:
        if name not in self._records:
            self._records[name] = self._settings.ledger.record(SCRATCH, name, {"host": self._server.where})

    def _create(self, name: str, text: str, timeout_s: float = CREATE_S) -> None:
        """`ollama create`, recorded before it exists. Raises CellFailed (reason `create`), EngineUnavailable."""
        self._server.record_commands()
        self._record(name)
        folder = self._server.folder / "create"
        folder.mkdir(exist_ok=True)
        file = folder / "Modelfile"
        file.write_text(text, "utf-8")
        done = self._server.command("create", name, "-f", str(file), timeout_s=timeout_s, stdin=b"")
        if done.timed_out:
            raise CellFailed(Status.TIMEOUT, "create", f"`ollama create` did not end in {timeout_s:.0f} s", done.stderr)
        if done.returncode != 0 or "success" not in clean(done.stderr):
            raise CellFailed(Status.ERROR, "create", error_text(done.stderr), done.stderr)

    def _thinking(self, model: str, name: str, think: bool | str) -> dict[str, Any]:
        """The field that tells a model that can think to do so, or not to; `name` is what the server calls it."""
        if model not in self._thinks:
            self._thinks[model] = "thinking" in self._server.show(name).capabilities
        if not self._thinks[model] and think:
            raise CellFailed(
                Status.ERROR, "cannot_think", f"{model} does not support thinking, and `think` asks for it"
            )
        return {"think": think} if self._thinks[model] else {}

    # -- one cell ------------------------------------------------------------------------------------------------

    def prepare(self, cell: Cell) -> Effective:
        self._server.connect()
        if self._server.apply(cell.server):
            self._forget_loads()
        self._make_room_for(cell.model)
        self._current = None
        target = self._target_of(cell)
        if self._loaded != cell.load_key:
            self._loaded = None
            self._load_duration_s = self._load(cell.model, target)
            self._loaded = cell.load_key
        return self._read_back(cell, target)

    def _target_of(self, cell: Cell) -> Target:
        """Worked out once for a cell, so that no run waits for it."""
        if self._current is None or self._current[0] != cell:
            self._current = cell, self._target(cell.model, _asked(cell.options), cell.system, cell.think)
        return self._current[1]

    def _make_room_for(self, model: str) -> None:
        """Another model than the one that is loaded: that one is unloaded first."""
        if self._held_model not in ("", model):
            self._unload(failed=False)

    def _hold(self, model: str, name: str) -> None:
        """From now on this may be loaded; a model of the person's is written down, as nothing else would be left."""
        self._held_model = model
        if name in self._held:
            return
        is_recorded = name in self._records
        where = {"host": self._server.where}
        self._held[name] = None if is_recorded else self._settings.ledger.record(LOADED, name, where)

    def _load(self, model: str, target: Target) -> float:
        """Load without a prompt; how many seconds that took. An embedding model loads only by /api/embed."""
        self._hold(model, target.name)
        keep = {"keep_alive": self._keep_alive()}
        started, limit_s = time.monotonic(), self._settings.load_timeout_s
        if model not in self._only_embeds:
            answer = self._requests.post("/api/generate", target.body(stream=False, **keep), limit_s, "load")
            if not answer.is_error:
                return time.monotonic() - started
            failure = refusal(answer)
            if not _cannot_generate(failure):
                raise failure
            self._only_embeds.add(model)
        answer = self._requests.post("/api/embed", target.embedding_body(input=[], **keep), limit_s, "load")
        if answer.is_error:
            raise refusal(answer)
        return time.monotonic() - started

    def _keep_alive(self) -> str:
        return f"{int(self._settings.timeout_s) + 600}s"

    def _read_back(self, cell: Cell, target: Target) -> Effective:
        """What /api/ps says of our model; num_batch, which it leaves out, by llama.cpp's rule or the runner's words."""
        ours, others = self._whose(target)
        self._slots = None
        if not ours:
            return Effective(load_duration_s=self._load_duration_s, others_loaded=tuple(others))
        num_ctx = ours[0].context_length
        size_vram = ours[0].size_vram or 0
        self._uses_vram = size_vram > 0
        given = cell.num_batch
        num_parallel = parallel_of(self._serving())
        if num_parallel is not None and num_parallel > 1:
            self._slots = Slots(lambda: port_of(self._serving()))
        return Effective(
            num_ctx=num_ctx,
            num_batch=min(given, num_ctx or given) if given else batch_of(self._serving()),
            size_bytes=ours[0].size or None,
            size_vram_bytes=size_vram,
            load_duration_s=self._load_duration_s,
            others_loaded=tuple(others),
            num_parallel=num_parallel,
        )

    def _whose(self, target: Target) -> tuple[list[Loaded], list[str]]:
        """What is loaded for this target, and the names of what is loaded for others. Raises EngineUnavailable."""
        entries = self._server.loaded()
        ours = [entry for entry in entries if is_named(entry, target.name)]
        own_names = {target.name, *self._held, *self._bases.values()}
        others = [entry.name for entry in entries if not any(is_named(entry, name) for name in own_names)]
        if not ours and len(others) == 1:
            return [entry for entry in entries if entry.name in others], []
        return ours, others

    def others_loaded(self) -> tuple[str, ...]:
        if self._current is None:
            return ()
        asked = (REQUESTS_OF_OTHERS,) if self._slots is not None and self._slots.saw_others else ()
        return (*self._whose(self._current[1])[1], *asked)

    def _alone(self) -> contextlib.AbstractContextManager[None]:
        """Around a request: whether the runner answers others meanwhile is seen where it can."""
        return self._slots.during() if self._slots is not None else contextlib.nullcontext()

    @property
    def _hides_cached(self) -> bool:
        return hides_cached(self._server.version)

    def _fresh_target(self, cell: Cell, prompt: str) -> Target:
        """Old versions keep a prompt's fixed beginning cached and do not say how much; a fresh runner has none."""
        if not self._hides_cached:
            return self._target_of(cell)
        was_counted = cell.model in self._fixed_tokens
        if not was_counted:
            self.count_tokens(cell.model, "x")
        target = self._target_of(cell)
        fixed = self._fixed_tokens.get(cell.model, 0) + len(cell.system.encode()) / BYTES_PER_TOKEN
        share = fixed / max(1, len(prompt.encode()) / BYTES_PER_TOKEN)
        if share > ENOUGH_CACHED_SHARE or not was_counted:
            self._loaded = None
            self._server.rest(set(self._held), settle_vram=False)
            self._load(cell.model, target)
            self._loaded = cell.load_key
        return target

    def _refuse_to_generate(self, model: str) -> None:
        if model in self._only_embeds:
            raise CellFailed(Status.ERROR, "capability", f"{model} is an embedding model and does not generate")

    def embed(self, cell: Cell, texts: Sequence[str], batch_size: int, timeout_s: float) -> Generation:
        body = self._target_of(cell).embedding_body(keep_alive=self._keep_alive())
        return self._requests.embed(body, texts, batch_size, timeout_s)

    # -- processes -----------------------------------------------------------------------------------------------

    def processes(self) -> tuple[int, ...]:
        return family(self._serving())

    def _serving(self) -> int | None:
        """The server's process; one that we found is looked for once, and again where it has ended."""
        if self._server.own_pid is not None:
            return self._server.own_pid
        where, pid = self._found_pid
        if where != self._server.where or not family(pid):
            self._found_pid = (self._server.where, serving_pid(self._server.where))
        return self._found_pid[1]

    # -- the prompt's true length --------------------------------------------------------------------------------

    def count_tokens(self, model: str, prompt: str, *, system: str = "") -> int | None:
        """Asked of a very small context that may not cut: the refusal names the count, and nothing is evaluated."""
        self._server.connect()
        self._make_room_for(model)
        self._loaded = None
        try:
            if model not in self._fixed_tokens:
                self._fixed_tokens[model] = max(0, (self._count(model, "x", "", COUNTING) or 1) - 1)
            if model in self._only_embeds:
                return None
            count = self._count(model, prompt, system, COUNTING)
        except CellFailed as failure:
            if not _cannot_generate(failure):
                raise
            self._only_embeds.add(model)
            self._fixed_tokens[model] = 0
            return None
        return count if count is not None else self._count_by_reading(model, prompt, system)

    def _count(self, model: str, prompt: str, system: str, options: Mapping[str, Scalar]) -> int | None:
        self._current = None
        target = self._target(model, COUNTING, system)
        self._hold(model, target.name)
        body = target.body(prompt=prompt)
        body["options"] = {**body.get("options", {}), **options}
        return self._requests.count(body, self._settings.load_timeout_s + self._settings.timeout_s)

    def _count_by_reading(self, model: str, prompt: str, system: str) -> int | None:
        """For versions whose refusal names no count: read the prompt once in a context that is large enough."""
        length = len(prompt.encode()) + len(system.encode())
        longest = self.model_info(model).context_length or length + 512
        num_ctx = min(longest, length // 2 + 512)
        while True:
            count = self._count(model, prompt, system, {**COUNTING, "num_ctx": num_ctx})
            if count is not None or num_ctx >= longest:
                return count
            num_ctx = min(longest, num_ctx * 2)

    # -- the end -------------------------------------------------------------------------------------------------

    def release(self, *, failed: bool) -> None:
        self._loaded = None
        self._server.connect()
        if failed:
            self._server.name_orphans()
        self._unload(failed=failed)

    def _unload(self, *, failed: bool) -> None:
        self._loaded = None
        self._server.rest(set(self._held), settle_vram=self._uses_vram and failed)
        self._forget_loads()

    def _forget_loads(self) -> None:
        for number in self._held.values():
            if number is not None:
                self._settings.ledger.settle(number)
        self._held.clear()
        self._held_model, self._loaded = "", None

    def clear(self, leftover: Leftover) -> str | None:
        if leftover.kind == "process":
            return end_process(leftover)
        name = leftover.name
        if leftover.kind != LOADED and not name.startswith(OWN_MODELS):
            return None  # nothing that is not ours is ever removed
        self._server.connect()
        was_loaded = any(is_named(entry, name) for entry in self._server.loaded())
        self._server.rest({name}, settle_vram=False)  # once it is removed nothing can unload it any more
        if leftover.kind == LOADED:
            return f"Unloaded {name}, which the previous session had loaded" if was_loaded else None
        return f"Removed {name}, left by the previous session" if self._server.delete(name) else None

    def close(self) -> None:
        started = time.monotonic()
        with contextlib.suppress(EngineUnavailable):
            if not self._server.is_stuck:
                self._unload(failed=False)
        if self._server.is_stuck:
            self._leave_to_the_next_run()
        for name, number in list(self._records.items()):
            try:
                self._server.delete(name)
                self._settings.ledger.settle(number)
            except EngineUnavailable as error:
                self._settings.say(f"{name} could not be removed now ({error}); the next run removes it")
        self._records.clear()
        self._server.close()
        self._settings.trace(f"closed in {time.monotonic() - started:.1f} s")

    def _leave_to_the_next_run(self) -> None:
        """What the server does not let go of stays written down, so that the next run does not start beside it."""
        for name, number in self._held.items():
            if number is None:
                self._settings.ledger.record(LOADED, name, {"host": self._server.where})


def hides_cached(version: str) -> bool:
    """A server of this version counts tokens from a cache as work, and does not say how many they are."""
    return version_tuple(version) < REPORTS_CACHED_SINCE


def _asked(options: Options) -> dict[str, Scalar]:
    """A cell's options; what is left to the engine is None."""
    given = without_think(options)
    return {name: None if name in LEFT_TO_THE_ENGINE and not value else value for name, value in given.items()}


def without_think(options: Options) -> dict[str, Scalar]:
    """A cell's options, without the one that is a field of its own."""
    return {name: value for name, value in options if name != "think"}


def _cannot_generate(failure: CellFailed) -> bool:
    return failure.reason == "capability" and "generate" in failure.error
