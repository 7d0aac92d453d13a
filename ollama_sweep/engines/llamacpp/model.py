"""What stands behind a model's name for the engine `llamacpp`: a GGUF file, or a model that Ollama has installed.

Of an installed model its manifest is read: the weights, and the SYSTEM, TEMPLATE, MESSAGE and PARAMETER layers.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ollama_sweep.core.cell import content_hash
from ollama_sweep.core.errors import ConfigError, EngineMissing
from ollama_sweep.engines.base import ModelInfo
from ollama_sweep.engines.shared.gguf import Header, read_header
from ollama_sweep.machine.files import file_digest

DEFAULT_HOST, DEFAULT_NAMESPACE = "registry.ollama.ai", "library"
OWN_MODELS = "ollama-sweep-"
_TEXTS = ("system", "template", "messages", "params")
_LAYER = "application/vnd.ollama.image."
_NAME_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:-]*")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_SYSTEM_FOLDER = Path("/usr/share/ollama/.ollama/models")


@dataclass(frozen=True)
class Source:
    """A model's file, and what an installed model adds to it. `template` is a Go template; None where there is none."""

    path: Path
    digest: str
    header: Header
    system: str = ""
    template: str | None = None
    messages: tuple[Mapping[str, str], ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)

    def info(self, model: str) -> ModelInfo:
        """The model as the rest of the program knows it."""
        return ModelInfo(
            name=model,
            digest=self.digest,
            family=self.header.architecture,
            parameter_size=self.header.parameter_size,
            quantization=self.header.quantization,
            context_length=self.header.context_length,
            size_bytes=self.path.stat().st_size,
            kv_bytes_per_token=self.header.kv_bytes_per_token,
            capabilities=("embedding",) if self.header.is_embedding_model else ("completion",),
        )


def locate(model: str) -> Source:
    """The file behind a name. Raises ConfigError for a bad GGUF file, EngineMissing where nothing is installed."""
    if model.endswith(".gguf"):
        path = Path(model).expanduser()
        return Source(path, header=read_header(path), digest=file_digest(path))
    for folder in _model_folders():
        manifest = _manifest(folder, model)
        if manifest is not None:
            return _installed(folder, model, manifest)
    raise EngineMissing(f"{model} is not installed here. Run: ollama pull {model}")


def installed() -> tuple[str, ...]:
    """The names of Ollama's models on this machine that this engine can read, sorted, without a sweep's own ones."""
    found = {
        _name(path.relative_to(manifests).parts): None for manifests in _manifests() for path in _four_deep(manifests)
    }
    return tuple(sorted(name for name in found if not name.startswith(OWN_MODELS) and _is_readable(name)))


def _manifests() -> list[Path]:
    return [folder / "manifests" for folder in _model_folders()]


def _four_deep(manifests: Path) -> list[Path]:
    """HOST/NAMESPACE/MODEL/TAG; nothing where the folder is not there or may not be read."""
    try:
        return [path for path in manifests.glob("*/*/*/*") if path.is_file()]
    except OSError:
        return []


def _name(parts: tuple[str, ...]) -> str:
    """The name as a person writes it: without what Ollama takes where it is left out."""
    host, namespace, model, tag = parts
    if host != DEFAULT_HOST:
        return f"{host}/{namespace}/{model}:{tag}"
    return f"{model}:{tag}" if namespace == DEFAULT_NAMESPACE else f"{namespace}/{model}:{tag}"


def _is_readable(name: str) -> bool:
    try:
        locate(name)
    except (EngineMissing, ConfigError):
        return False
    return True


def _model_folders() -> list[Path]:
    """Where Ollama keeps models: the person's own folder, the service's on Linux."""
    named = os.environ.get("OLLAMA_MODELS")
    return [Path(named).expanduser() if named else Path.home() / ".ollama" / "models", _SYSTEM_FOLDER]


def _manifest(folder: Path, model: str) -> dict[str, Any] | None:
    """The manifest of HOST/NAMESPACE/MODEL:TAG, Ollama's defaults for what is left out; None where there is none."""
    name, colon, tag = model.rpartition(":")
    if not colon or "/" in tag:
        name, tag = model, "latest"
    parts = [*name.split("/"), tag]
    if len(parts) > 4 or not all(_NAME_PART.fullmatch(part) for part in parts):
        return None
    parts = [*(DEFAULT_HOST, DEFAULT_NAMESPACE)[: 4 - len(parts)], *parts]
    try:
        found = json.loads(folder.joinpath("manifests", *parts).read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _installed(folder: Path, model: str, manifest: Mapping[str, Any]) -> Source:
    layers = {
        str(layer["mediaType"]).removeprefix(_LAYER): str(layer["digest"])
        for layer in manifest.get("layers") or ()
        if _DIGEST.fullmatch(str(layer.get("digest")))
    }
    if "model" not in layers:
        raise EngineMissing(f"{model} has no weights on this machine; use --engine ollama")
    if "adapter" in layers:
        raise EngineMissing(f"{model} has an adapter, which the embedded engine does not load; use --engine ollama")
    used = [layers[kind] for kind in ("model", *_TEXTS) if kind in layers]
    path = _blob(folder, layers["model"])
    try:
        texts = {kind: _blob(folder, digest).read_text("utf-8") for kind, digest in layers.items() if kind in _TEXTS}
        messages, options = json.loads(texts.get("messages", "[]")), json.loads(texts.get("params", "{}"))
    except (OSError, ValueError) as error:
        raise EngineMissing(f"{model} is not whole on this machine ({error}). Run: ollama pull {model}") from error
    return Source(
        path=path,
        digest=used[0] if len(used) == 1 else content_hash("\n".join(used)),
        header=read_header(path),
        system=texts.get("system", ""),
        template=texts.get("template"),
        messages=tuple(messages),
        options=options,
    )


def _blob(folder: Path, digest: str) -> Path:
    return folder / "blobs" / digest.replace(":", "-")
