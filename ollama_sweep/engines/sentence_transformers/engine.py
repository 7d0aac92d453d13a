"""Embeddings in this machine's own Python, by the package sentence-transformers, in a child process for each model.

A model that is not on this machine is not downloaded unless the person has said yes to it (`setup`). `extra` may name
`device` (cuda, mps, cpu; else the best one there is), `max_seq_length` (512) and `trust_remote_code` (yes).
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import sys
import time
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from ollama_sweep.core.cell import Cell, content_hash
from ollama_sweep.core.errors import CellFailed, ConfigError, EngineMissing, EngineUnavailable, nearest
from ollama_sweep.core.generation import EMBED, Generation, Vectors
from ollama_sweep.core.outcome import Effective, Status
from ollama_sweep.engines.base import READ_AGAIN, EngineInfo, EngineSettings, Kept, ModelInfo, RowsDone
from ollama_sweep.engines.base import Engine as Base
from ollama_sweep.engines.shared import gate
from ollama_sweep.engines.shared.failures import classify
from ollama_sweep.machine import env, process
from ollama_sweep.machine.files import file_digest

WORKER = "ollama_sweep.engines.sentence_transformers.worker"
EXTRA = "pip install 'ollama-sweep[embeddings]'"
DEVICES = ("cuda", "mps", "cpu")
MAX_SEQ_LENGTH = 512
LOCATE_S = 120.0
DOWNLOAD_S = 86400.0
ENDING_S = 10.0
UNLOAD_S = 10.0
NEWS = '{"done": '
FAST_DOWNLOAD = "HF_HUB_ENABLE_HF_TRANSFER"


class Engine(Base):
    """See `base.Engine`. At most one child process at a time. Its models are folders or names of the hub; none lists
    them. Rows are embedded, so no prompt is counted."""

    kinds = frozenset({EMBED})

    @classmethod
    def read_again(cls, kept: Kept) -> Mapping[str, float | None]:
        """Of what the child process told; the time of the rows is its own."""
        answer = gate.mapping("answer", gate.loads(kept.raw))
        if not {"rows", "duration_s"} <= set(answer):
            raise gate.Nonsense("no answer of sentence-transformers was kept")
        found = _generation(answer, kept.raw)
        return {name: getattr(found, name) for name in READ_AGAIN}

    def __init__(self, settings: EngineSettings) -> None:
        """Raises ConfigError for an unknown device or length."""
        super().__init__(settings)
        self._device = _device(settings.extra.get("device", ""))
        self._max_seq_length = _length(settings.extra.get("max_seq_length", str(MAX_SEQ_LENGTH)))
        self._may_download = settings.extra.get("setup") == "yes"
        self._worker: process.Worker | None = None
        self._number = 0
        self._loaded = ""
        self._paths: dict[str, Path] = {}
        self._effective = Effective()
        self._say_done = RowsDone(settings.say, 0)

    def describe(self) -> EngineInfo:
        if importlib.util.find_spec("sentence_transformers") is None:
            raise EngineMissing(f"sentence-transformers is not installed. Run: {EXTRA}")
        details = {
            "device": self._device or "auto",
            "torch": _version("torch"),
            "max_seq_length": str(self._max_seq_length),
        }
        return EngineInfo("sentence_transformers", _version("sentence-transformers"), "embedded", details)

    # -- models --------------------------------------------------------------------------------------------------

    def model_info(self, model: str) -> ModelInfo:
        """The digest is that of all the model's files."""
        folder = self._folder(model)
        files = [path for path in sorted(folder.rglob("*")) if path.is_file() and not path.name.startswith(".")]
        digests = [f"{path.relative_to(folder)} {file_digest(path)}" for path in files]
        config = _config(folder)
        longest = config.get("max_position_embeddings")
        return ModelInfo(
            name=model,
            digest=content_hash("\n".join([*digests, f"max_seq_length {self._max_seq_length}"])),
            family=str(config["model_type"]) if "model_type" in config else None,
            context_length=longest if isinstance(longest, int) else None,
            size_bytes=sum(path.stat().st_size for path in files),
            capabilities=("embedding",),
        )

    def _folder(self, model: str) -> Path:
        """Where the model's files are. Raises EngineMissing where they are not on this machine."""
        if model not in self._paths:
            self.describe()
            answer = self._ask(
                "locate", {"model": os.path.expanduser(model)}, DOWNLOAD_S if self._may_download else LOCATE_S
            )
            if "error" in answer:
                remedy = f"Run: hf download {model} (or use --setup)"
                raise EngineMissing(f"{model} is not on this machine ({_first_line(answer['error'])}). {remedy}")
            self._paths[model] = Path(str(answer["path"]))
        return self._paths[model]

    # -- one cell ------------------------------------------------------------------------------------------------

    def prepare(self, cell: Cell) -> Effective:
        if self._loaded == cell.model and self._worker is not None:
            return self._effective
        folder = self._folder(cell.model)
        if self._loaded:
            self._end()
        started = time.monotonic()
        asked = {"path": str(folder), "device": self._device, "max_seq_length": self._max_seq_length,
                 "trust_remote_code": self._settings.extra.get("trust_remote_code") == "yes"}  # fmt: skip
        self._checked("load", asked, self._settings.load_timeout_s)
        self._loaded = cell.model
        self._effective = Effective(load_duration_s=time.monotonic() - started)
        return self._effective

    def embed(self, cell: Cell, texts: Sequence[str], batch_size: int, timeout_s: float) -> Generation:
        if self._loaded != cell.model:
            raise RuntimeError("embed before prepare")
        self._say_done = RowsDone(self._settings.say, len(texts))
        answer = self._checked("embed", {"texts": list(texts), "batch_size": batch_size}, timeout_s)
        raw = json.dumps(answer)
        with gate.of_cell(raw):
            found = _generation(answer, raw)
        rows = found.vectors.rows if found.vectors else 0
        if rows != len(texts):
            raise CellFailed(Status.ERROR, "bad_answer", f"{rows} vectors for {len(texts)} texts", raw)
        return found

    def generate(self, cell: Cell, prompt: str, timeout_s: float, *, fresh: bool = True) -> Generation:
        raise CellFailed(Status.ERROR, "capability", "sentence-transformers only embeds; it writes no text")

    def processes(self) -> tuple[int, ...]:
        return () if self._worker is None else (self._worker.pid,)

    # -- the child -----------------------------------------------------------------------------------------------

    def _start(self) -> process.Worker:
        token = f"sentence-transformers-{uuid.uuid4().hex}"
        details = {"engine": "sentence_transformers"}
        self._number = self._settings.ledger.record("process", token, details)
        argv = [sys.executable, "-P", "-m", WORKER]
        self._settings.trace(" ".join(argv))
        try:
            return process.spawn_worker(argv, env=self._environment(), token=token, needs=self._needs)
        except OSError as error:
            raise EngineUnavailable(f"sentence-transformers cannot be started: {error}") from error

    def _needs(self, name: str) -> bool:
        """A download may want a key of the hub's, and a proxy its password."""
        return self._may_download and (name.startswith(("HF_", "HUGGING")) or name.lower().endswith("_proxy"))

    def _environment(self) -> dict[str, str]:
        """The child finds this package also where it is not installed, and downloads only what it may."""
        package = importlib.import_module("ollama_sweep")
        root = str(Path(str(package.__file__)).parent.parent)
        paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "TOKENIZERS_PARALLELISM": "false"}
        if not self._may_download:
            environment |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
        if fast := env.setting(FAST_DOWNLOAD):
            environment[FAST_DOWNLOAD] = fast
        return environment

    def _checked(self, what: str, asked: Mapping[str, Any], timeout_s: float) -> Mapping[str, Any]:
        """An answer that is no error. Raises CellFailed."""
        answer = self._ask(what, asked, timeout_s)
        if "error" in answer:
            text = f"{answer.get('type')}: {answer['error']}"
            status, reason = classify(text)
            raise CellFailed(status, what if reason == "unknown" else reason, _first_line(text), text)
        return answer

    def _ask(self, what: str, asked: Mapping[str, Any], timeout_s: float) -> Mapping[str, Any]:
        if self._worker is None:
            self._worker = self._start()
        worker = self._worker
        try:
            worker.send(json.dumps({what: asked}))
            line = self._answer(worker, timeout_s)
        except process.DeadlineExceeded:
            self._forget(ended=False)
            text = f"the {what} did not end within {timeout_s:g} s"
            raise CellFailed(Status.TIMEOUT, "run" if what == "embed" else what, text, worker.stderr_text()) from None
        except BaseException:
            # Stopped in the middle: the answer under way would be taken for that of the next request.
            self._forget(ended=False)
            raise
        if line is None:
            code = worker.wait(ENDING_S)
            self._forget(ended=code is not None)
            raise _death(what, code, worker.stderr_text())
        try:
            return gate.mapping("answer", gate.loads(line))
        except gate.Nonsense as error:
            self._forget(ended=False)
            text = f"the process of sentence-transformers answered nonsense: {error}"
            raise CellFailed(Status.PARSE_ERROR, error.reason, text, f"{line}\n{worker.stderr_text()}") from None

    def _answer(self, worker: process.Worker, timeout_s: float) -> str | None:
        """The next line that is an answer and no news of how far it is. Raises process.DeadlineExceeded."""
        deadline = time.monotonic() + timeout_s
        while (line := worker.receive(deadline - time.monotonic())) is not None and line.startswith(NEWS):
            self._say_done(_rows_in(line))
        return line

    def _forget(self, *, ended: bool) -> None:
        """The child is no more, or is ended now, whatever state it is in."""
        if self._worker is not None and not ended:
            self._worker.end(grace_s=0)
        self._worker, self._loaded = None, ""
        self._settings.ledger.settle(self._number)

    def _end(self) -> None:
        """Give the memory back, then end the child."""
        if self._worker is not None:
            with suppress(CellFailed):
                self._ask("unload", {}, UNLOAD_S)
        if self._worker is not None:
            self._forget(ended=False)

    def release(self, *, failed: bool) -> None:
        if failed and self._worker is not None:
            self._forget(ended=False)
        self._end()

    def close(self) -> None:
        with suppress(Exception):
            self._end()


def _generation(answer: Mapping[str, Any], raw: str) -> Generation:
    """Raises Nonsense."""
    rows, dimension = (gate.whole(name, answer.get(name)) or 0 for name in ("rows", "dimension"))
    dtype, device = (gate.text(name, answer.get(name)) for name in ("dtype", "device"))
    return Generation(
        text="",
        prompt_eval_count=None,
        prompt_eval_duration_s=None,
        client_duration_s=gate.duration_s("duration_s", answer.get("duration_s")) or 0.0,
        raw=raw,
        vectors=Vectors(rows, dimension, dtype, device),
    )


def _death(what: str, code: int | None, log: str) -> CellFailed:
    signal = -code if code is not None and code < 0 else None
    status, reason = classify(log, exit_code=code, signal=signal)
    if (status, reason) == (Status.ERROR, "unknown"):
        status, reason = Status.CRASHED, "runner_died"
    ended = f"signal {signal}" if signal else f"exit code {code}"
    return CellFailed(status, reason, f"the process of sentence-transformers ended in the {what} ({ended})", log)


def _rows_in(news: str) -> int:
    """The rows that are done by now, by the child's own words; 0 where they cannot be read."""
    try:
        return gate.whole("done", gate.mapping("news", gate.loads(news)).get("done")) or 0
    except gate.Nonsense:
        return 0


def _device(name: str) -> str:
    if name and name not in DEVICES:
        raise ConfigError(f"{name} is unknown; write cuda, mps or cpu.{nearest(name, DEVICES)}", "device")
    return name


def _length(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 1_000_000:
        raise ConfigError(f"{text} is no length; write 1 to 1000000", "max_seq_length")
    return int(text)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"


def _config(folder: Path) -> Mapping[str, Any]:
    try:
        found = json.loads((folder / "config.json").read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _first_line(text: object) -> str:
    lines = [line.strip() for line in str(text).splitlines() if line.strip()]
    return lines[0][:300] if lines else "it said nothing"
