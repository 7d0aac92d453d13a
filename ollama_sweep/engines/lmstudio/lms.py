"""LM Studio's own program `lms`: found, run, and its JSON read. Syntax of github.com/lmstudio-ai/lms."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ollama_sweep.core.cell import content_hash
from ollama_sweep.core.errors import CellFailed, EngineMissing, EngineUnavailable, nearest
from ollama_sweep.core.outcome import Status
from ollama_sweep.core.text import without_escapes
from ollama_sweep.engines.base import EngineSettings, ModelInfo
from ollama_sweep.engines.shared import gate
from ollama_sweep.engines.shared.failures import classify
from ollama_sweep.machine import process

HOW_TO_GET = "Install LM Studio from lmstudio.ai and start it once, then run: ~/.lmstudio/bin/lms bootstrap"
FOLDERS = ("~/.lmstudio/bin", "~/.cache/lm-studio/bin")
COMMAND_S = 60.0
PORT_MOST = 65535
DOWNLOAD_S = 7 * 86400.0
_VERSION = re.compile(r"\bv?(\d+\.\d+[\w.+-]*)|commit:?\s*([0-9a-f]{6,40})", re.IGNORECASE)
_QUANTIZED_FILE = re.compile(r"([^/]+)/([^/]+)/[^/]*?[-.](I?Q\d\w*|BF16|F16|F32)\.gguf", re.IGNORECASE)
_NO_ROOM = re.compile(r"insufficient system resources|resource guardrails", re.IGNORECASE)


class Lms:
    """The program. Every method raises EngineMissing where it is not there, EngineUnavailable where it fails."""

    def __init__(self, settings: EngineSettings) -> None:
        self._settings = settings
        self._program = ""

    @property
    def program(self) -> str:
        """Its path."""
        if not self._program:
            places = os.pathsep.join([os.environ.get("PATH", ""), *(os.path.expanduser(place) for place in FOLDERS)])
            found = shutil.which("lms", path=places)
            if found is None:
                raise EngineMissing(f"lms was not found. {HOW_TO_GET}")
            self._program = found
        return self._program

    def run(self, *words: str, timeout_s: float = COMMAND_S) -> process.Completed:
        """One command to its end or its deadline."""
        argv = [self.program, *words]
        self._settings.trace(" ".join(argv))
        try:
            return process.run(argv, timeout_s=timeout_s)
        except OSError as error:
            raise EngineMissing(f"{self.program} cannot be run: {error.strerror}. {HOW_TO_GET}") from None

    def checked(self, *words: str, timeout_s: float = COMMAND_S) -> process.Completed:
        """A command that must succeed."""
        done = self.run(*words, timeout_s=timeout_s)
        if done.timed_out:
            raise EngineUnavailable(f"`lms {' '.join(words)}` did not end within {timeout_s:g} s")
        if done.returncode != 0:
            raise EngineUnavailable(f"`lms {' '.join(words)}` ended with {done.returncode}: {error_text(done)}")
        return done

    def _listed(self, *words: str) -> list[Mapping[str, Any]]:
        done = self.checked(*words)
        found = _json(done.stdout)
        if not isinstance(found, list):
            raise EngineUnavailable(f"`lms {' '.join(words)}` printed {done.stdout[:80]!r}; a JSON list was expected")
        return [entry for entry in found if isinstance(entry, Mapping)]

    # -- what is there -------------------------------------------------------------------------------------------

    def version(self) -> str:
        """The version, or the commit, of the program; `unknown` where it says neither."""
        found = _VERSION.search(without_escapes(self.run("version").stdout))
        return (found[1] or found[2]) if found else "unknown"

    def is_running(self) -> bool | None:
        """Whether LM Studio, or its daemon, runs; None for versions that cannot say. It starts nothing."""
        done = self.run("daemon", "status", "--json")
        found = _json(done.stdout)
        status = found.get("status") if isinstance(found, Mapping) and done.returncode == 0 else None
        return {"running": True, "not-running": False}.get(str(status))

    def server_port(self) -> int | None:
        """The port on which the server listens; None where it does not run."""
        found = _json(self.run("server", "status", "--json", "--quiet").stdout)
        if not isinstance(found, Mapping) or found.get("running") is not True:
            return None
        with gate.of_server("`lms server status --json`"):
            return gate.whole("port", found.get("port"), PORT_MOST) or 1234

    def loaded(self) -> dict[str, Mapping[str, Any]]:
        """What is loaded now, by identifier."""
        return {str(entry.get("identifier")): entry for entry in self._listed("ps", "--json")}

    def names(self) -> tuple[str, ...]:
        """The keys of the downloaded models, sorted."""
        return tuple(sorted(_key(entry) for entry in self._listed("ls", "--json")))

    def model(self, name: str) -> Mapping[str, Any]:
        """A downloaded model as `lms ls` has it. A download only where the person has said yes to it (`setup`)."""
        entries = self._listed("ls", "--json")
        found = _find(entries, name)
        if found is None and self._settings.extra.get("setup") == "yes":
            self._settings.say(f"Downloading {name} with lms get")
            self.checked("get", download_name(name), "--yes", timeout_s=DOWNLOAD_S)
            found = _find(self._listed("ls", "--json"), name)
        if found is None:
            near = nearest(name, [known for entry in entries for known in _names(entry)])
            raise EngineMissing(f"{name} is not downloaded. Run: lms get {download_name(name)} (or use --setup).{near}")
        return found

    # -- loading -------------------------------------------------------------------------------------------------

    def load(self, entry: Mapping[str, Any], identifier: str, num_ctx: int) -> Mapping[str, Any]:
        """Load a model under a name of our own; what `lms ps` then says of it. Raises CellFailed."""
        words = ["load", _key(entry), "--identifier", identifier, "--yes"]
        words += ["--context-length", str(num_ctx)] if num_ctx else []
        limit_s = self._settings.load_timeout_s
        done = self.run(*words, timeout_s=limit_s)
        raw = f"{done.stderr}\n--- stdout ---\n{done.stdout}"
        if done.timed_out:
            raise CellFailed(Status.TIMEOUT, "load", f"`lms load` did not end within {limit_s:g} s", raw)
        if done.returncode != 0:
            raise _load_failure(done, raw)
        found = self.loaded().get(identifier)
        if found is None:
            text = f"`lms load` ended, but lms ps shows no {identifier}: {error_text(done)}"
            raise CellFailed(Status.ERROR, "load", text, raw)
        if not set(_names(found)) & set(_names(entry)):
            text = f"LM Studio loaded {_key(found)} instead of {_key(entry)}"
            raise CellFailed(Status.ERROR, "load", text, raw)
        return found

    def unload(self, identifier: str) -> bool:
        """Unload what has this identifier; False where nothing had it."""
        if identifier not in self.loaded():
            return False
        self.checked("unload", identifier)
        if identifier in self.loaded():
            raise EngineUnavailable(f"`lms unload {identifier}` ended, but lms ps still shows it")
        return True


def info_of(name: str, entry: Mapping[str, Any]) -> ModelInfo:
    """A model of `lms ls`. LM Studio gives no digest: it is a hash of the model's path, size and quantization."""
    quantization = entry.get("quantization")
    label = quantization.get("name") if isinstance(quantization, Mapping) else quantization
    size, trained = entry.get("sizeBytes"), entry.get("maxContextLength")
    with gate.of_server("`lms ls --json`"):
        size_bytes, context_length = gate.size_bytes("sizeBytes", size), gate.length("maxContextLength", trained)
    said = {"path": entry.get("path"), "key": entry.get("modelKey"), "size": size, "quantization": label}
    return ModelInfo(
        name=name,
        digest=content_hash(json.dumps(said, sort_keys=True, default=str)),
        family=str(entry["architecture"]) if entry.get("architecture") else None,
        parameter_size=str(entry["paramsString"]) if entry.get("paramsString") else None,
        quantization=str(label) if label else None,
        context_length=context_length,
        size_bytes=size_bytes,
        capabilities=("embedding",) if entry.get("type") == "embedding" else ("completion",),
    )


def download_name(name: str) -> str:
    """What `lms get` takes: of OWNER/REPOSITORY/FILE-QUANTIZATION.gguf the repository's address and quantization."""
    found = _QUANTIZED_FILE.fullmatch(name)
    return f"https://huggingface.co/{found[1]}/{found[2]}@{found[3]}" if found else name


def error_text(done: process.Completed) -> str:
    """The last words of a command, on one line."""
    lines = [line.strip() for line in without_escapes(f"{done.stdout}\n{done.stderr}").splitlines() if line.strip()]
    return " ".join(lines)[-400:] or "it said nothing"


def _load_failure(done: process.Completed, raw: str) -> CellFailed:
    text = error_text(done)
    if _NO_ROOM.search(text):
        return CellFailed(Status.OOM, "does_not_fit", text, raw)
    status, reason = classify(text, exit_code=max(done.returncode, 0))
    return CellFailed(status, {"unknown": "load", "runner_died": "load_crash"}.get(reason, reason), text, raw)


def _json(text: str) -> Any:
    """The JSON in an output, also where other lines stand before it; None where there is none."""
    for part in (text, *reversed(text.splitlines())):
        try:
            return gate.loads(part)
        except gate.Nonsense:
            continue
    return None


def _key(entry: Mapping[str, Any]) -> str:
    return str(entry.get("modelKey") or entry.get("path"))


def _names(entry: Mapping[str, Any]) -> list[str]:
    found = (entry.get(name) for name in ("modelKey", "path", "indexedModelIdentifier"))
    return [str(name) for name in found if name]


def _find(entries: list[Mapping[str, Any]], name: str) -> Mapping[str, Any] | None:
    return next((entry for entry in entries if name in _names(entry) or name in map(_file_name, _names(entry))), None)


def _file_name(name: str) -> str:
    return Path(name.replace("\\", "/")).name
