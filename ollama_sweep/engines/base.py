"""The contract of an engine: what generates. One engine is one file in `engines/`; the file name is its name.

`describe` and `generate` must be given. All else has an answer here, which fits an engine without a server, without
embeddings, and without anything to load or to leave behind.

A cell's life on an engine: `prepare` (create, load, read back what is really used), `generate` once per run,
`release`. A failure that belongs to the cell is `CellFailed`; one of the surroundings is `EngineUnavailable`.
"""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from ollama_sweep.core.cell import Cell, content_hash
from ollama_sweep.core.errors import CellFailed, EngineMissing, nearest
from ollama_sweep.core.generation import GENERATE, Generation
from ollama_sweep.core.ledger import Ledger, Leftover, NoLedger
from ollama_sweep.core.outcome import Effective, Status
from ollama_sweep.core.text import one_line
from ollama_sweep.engines.shared.leftovers import end_process
from ollama_sweep.engines.shared.look import Look
from ollama_sweep.machine.clocks import REAL, Clock
from ollama_sweep.machine.secrets import masked

CONTEXT_PADDING = 256
SIZES = frozenset({"num_ctx", "num_batch"})


def padded(num_ctx: int) -> int:
    """As llama.cpp rounds num_ctx up (src/llama-context.cpp)."""
    return math.ceil(num_ctx / CONTEXT_PADDING) * CONTEXT_PADDING


@dataclass(frozen=True)
class EngineInfo:
    """What an engine is: part of the surroundings' fingerprint."""

    name: str
    version: str
    where: str = ""
    details: Mapping[str, str] = field(default_factory=dict)

    @property
    def replays(self) -> str:
        """What a replayed engine answers from, in words; "" for one that measures."""
        return self.details.get("replays", "")

    @property
    def shown_version(self) -> str:
        """The version as a person reads it: a server may say anything."""
        return one_line(masked(self.version))

    @property
    def in_words(self) -> str:
        """`ollama 0.34.0 at http://127.0.0.1:11434`."""
        return f"{self.name} {self.shown_version} at {self.where}"


@dataclass(frozen=True)
class ModelInfo:
    """A model as the engine knows it. Sizes in bytes, lengths in tokens; None where the engine does not say.

    `kv_bytes_per_token` is that of an f16 cache: 2 · block_count · head_count_kv · (key_length + value_length).
    `capabilities` are Ollama's words (`completion`, `embedding`, …), empty where nobody says; `is_loaded` is for now.
    """

    name: str
    digest: str
    family: str | None = None
    parameter_size: str | None = None
    quantization: str | None = None
    context_length: int | None = None
    size_bytes: int | None = None
    kv_bytes_per_token: int | None = None
    capabilities: tuple[str, ...] = ()
    is_loaded: bool | None = None

    def kv_cache_bytes(self, num_ctx: int) -> int | None:
        """Bytes of an f16 KV cache for so many tokens of context; None where the metadata do not say."""
        if self.kv_bytes_per_token is None:
            return None
        capped = min(num_ctx, self.context_length or num_ctx)
        return padded(capped) * self.kv_bytes_per_token


@dataclass(frozen=True)
class EngineSettings:
    """All an engine is told when it is made.

    `template` is the text of the Modelfile template ("" for none); `say` takes one line for the person;
    `trace` takes one line per started command (shown with --verbose). `managed` asks for a server of our own;
    `restart_command` brings a server that is down or stuck back. `api_key_env` names the variable with the key.
    `libllama` is the library that the person named on the command line: it is code, so no file may name one.
    `clock` is that of the run; `recording` the file that is answered from, `recording_seed` what draws its loads.
    """

    host: str | None = None
    ollama: str | None = None
    template: str = ""
    timeout_s: float = 600.0
    load_timeout_s: float = 600.0
    allow_remote: bool = False
    managed: bool = False
    restart_command: tuple[str, ...] = ()
    ledger: Ledger = field(default_factory=NoLedger)
    say: Callable[[str], None] = lambda line: None
    trace: Callable[[str], None] = lambda line: None
    extra: Mapping[str, str] = field(default_factory=dict)
    folder: Path | None = None
    api_key_env: str | None = None
    libllama: str | None = None
    clock: Clock = REAL
    recording: str | None = None
    recording_seed: int | None = None


READ_AGAIN = (
    "prompt_eval_count", "cached_count", "prompt_eval_duration_s", "eval_count", "eval_duration_s", "total_duration_s",
    "load_duration_s", "printed_rate", "client_duration_s", "ttft_s", "thinking_count", "thinking_duration_s",
)  # fmt: skip
"""What `Engine.read_again` may know of a generation. Times that were taken here are rarely in what an engine said."""


@dataclass(frozen=True)
class Kept:
    """What is kept of a run: the `raw` of its generation, as it was stored, and what that alone does not say.

    `version` is that of the engine that answered, "" where it is not known; `fresh` as `generate` was told; `embeds`:
    it is the answer to an embedding request.
    """

    raw: str
    version: str = ""
    fresh: bool = True
    embeds: bool = False


class Engine(ABC):
    """Every engine file has a class `Engine` of this shape, made with `EngineSettings`.

    The facts of the class are known before one is made. `settable` names the options and dimensions it can set; None:
    every one. `kinds` are the kinds of tasks it can measure (GENERATE, EMBED of `core.generation`). What a sweep asks
    beyond that is refused before its first cell.
    """

    settable: ClassVar[frozenset[str] | None] = frozenset()
    kinds: ClassVar[frozenset[str]] = frozenset({GENERATE})
    asks_at_once: ClassVar[bool] = False
    """`generate` may be called from several threads at once, and `cut_short` ends what they wait for."""
    default_model: ClassVar[str | None] = None
    """The model where neither the sweep nor LLM_MODEL_NAME says one; None: it must be said."""
    takes_files: ClassVar[bool] = True
    """A model may be the path of a .gguf file; else a name that looks like one is a name all the same."""
    needs_own_server: ClassVar[bool] = False
    """It sets what belongs to a whole server only on one that the sweep has started."""
    host_variable: ClassVar[str] = ""
    """The variable of the environment that names its server where the sweep does not."""
    is_scripted: ClassVar[bool] = False
    """It uses no hardware and no server, and stands for the server that the sweep names."""
    is_replayed: ClassVar[bool] = False
    """It answers from a recording: nothing of this computer is measured, and its clock runs as fast as it can."""
    has_lanes: ClassVar[bool] = False
    """Several of it can measure one sweep: on a GPU each, or at a server each."""
    loads_without_a_prompt: ClassVar[bool] = False
    """`prepare` loads a cell's num_ctx and num_batch by itself, so memory can be looked for by loads alone."""
    swaps_contexts: ClassVar[bool] = False
    """What else is a load is a context of a model that stays loaded, and settings of a server are the context's."""
    scout: ClassVar[str] = ""
    """The engine that measures its cells by context swap, for `run --scout`; "" where there is none."""
    how_to_get_a_model: ClassVar[str] = ""
    """A command that installs one, as an example."""
    look: ClassVar[type[Look]] = Look
    """What `doctor` sees of it before it is made."""

    def __init__(self, settings: EngineSettings | None = None) -> None:
        self._settings = settings or EngineSettings()

    @classmethod
    def has_own_sizes(cls) -> bool:
        """num_ctx or num_batch is not the sweep's to set, so a sweep need not name both."""
        return cls.settable is not None and not cls.settable >= SIZES

    @classmethod
    def is_usable(cls, settings: EngineSettings) -> bool:  # noqa: ARG003 - for those that look
        """`auto` may take it on this machine. Raises EngineUnavailable."""
        return True

    @classmethod
    def by_hand(cls, cell: Cell, template: str) -> tuple[str, ...]:  # noqa: ARG003 - for those that can
        """Lines for a shell that measure this cell without the tool; `prompt.txt` holds the prompt. None by default.

        `template` is the text of the Modelfile template.
        """
        return ()

    @classmethod
    def read_again(cls, kept: Kept) -> Mapping[str, float | None]:  # noqa: ARG003 - for those that can
        """The numbers of a generation once more, of what is kept of it, by the names of `Generation`'s fields.

        None: the engine did not give it. What is kept does not say every number; one that is left out, such as all of
        them here, cannot be made again. Raises Nonsense for what this engine has not said.
        """
        return {}

    @abstractmethod
    def describe(self) -> EngineInfo:
        """Name, version, address; called before every cell. Raises EngineUnavailable."""

    def models(self) -> tuple[str, ...]:
        """The names of the installed models, sorted, without scratch models of a sweep. Raises EngineUnavailable."""
        return ()

    def model_info(self, model: str) -> ModelInfo:
        """The model's digest and metadata. Raises EngineUnavailable where it is not installed.

        This digest is that of the two names: another model under the same name goes unnoticed.
        """
        known = self.models()
        if known and model not in known:
            raise EngineMissing(f"{model} is not installed here. There is {', '.join(known)}.{nearest(model, known)}")
        return ModelInfo(model, content_hash(f"{self.describe().name}\n{model}"))

    def count_tokens(self, model: str, prompt: str, *, system: str = "") -> int | None:
        """The prompt's true number of tokens as the model sees it (template and `system` included); None if unknown.

        May load the model with a very small context. Raises EngineUnavailable or CellFailed.
        """
        return None

    def refuse(self, cells: Iterable[Cell], lengths: Mapping[int | None, int | None]) -> None:
        """Raise ConfigError for a cell that it can say nothing of; asked before anything is made.

        `lengths` are the wanted lengths of the prompt by the cells' `prompt_tokens`; None where it is another text.
        """
        return

    def go_on(self, loads_of: Callable[[Cell], int]) -> None:
        """Told before the first cell: how many loads of a cell have come to an end, also in earlier sessions."""
        return

    def prepare(self, cell: Cell) -> Effective:
        """Load the cell's configuration, or keep it where it is loaded already. Raises CellFailed."""
        return Effective()

    @abstractmethod
    def generate(self, cell: Cell, prompt: str, timeout_s: float, *, fresh: bool = True) -> Generation:
        """One generation with the prepared configuration and the cell's system prompt, streamed where that is possible.

        `fresh`: the prompt's rate counts, so nothing of it may come from a cache that does not show.
        Raises CellFailed, EngineUnavailable.
        """

    def embed(self, cell: Cell, texts: Sequence[str], batch_size: int, timeout_s: float) -> Generation:
        """The vectors of these texts, asked for in batches; `client_duration_s` is the time of all of them.

        Raises CellFailed (reason `cannot_embed` where the model has no embeddings), EngineUnavailable.
        """
        raise CellFailed(Status.ERROR, "cannot_embed", f"the engine {self.describe().name} does not embed")

    def cut_short(self) -> None:
        """End every request in flight, which fails for whoever waits for it; for any thread. Never raises."""
        return

    def processes(self) -> tuple[int, ...]:
        """The ids of the processes that hold the model; their children count as well. Empty where that is not known."""
        return ()

    def others_loaded(self) -> tuple[str, ...]:
        """Models of others that are loaded beside ours now. Empty where that is not known. Raises EngineUnavailable."""
        return ()

    def release(self, *, failed: bool) -> None:
        """End the load at hand; after a failure bring the engine to rest first. Raises EngineUnavailable."""
        return

    def clear(self, leftover: Leftover) -> str | None:
        """Remove what a dead session left; a line that says so, or None where nothing was there.

        Raises EngineUnavailable for what this engine cannot remove, so that it stays written down.
        """
        return end_process(leftover)

    def close(self) -> None:
        """Remove everything this object made. Never raises, and may be called twice."""
        return


EVERY_S = 10.0


class RowsDone:
    """One request. A line at most every `EVERY_S` seconds, so none for a quick one, and none at its end."""

    def __init__(self, say: Callable[[str], None], rows: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._say, self._rows, self._clock = say, rows, clock
        self._last = clock()

    def __call__(self, done: int) -> None:
        """So many rows are embedded by now."""
        now = self._clock()
        if done < self._rows and now - self._last >= EVERY_S:
            self._last = now
            self._say(f"Embedding: {done} of {self._rows} rows")
