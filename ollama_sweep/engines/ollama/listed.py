"""What an Ollama server says of its models, as typed entries of /api/tags, /api/ps and /api/show.

What cannot be is no cell's fault: a server that says it cannot be used now.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from ollama_sweep.core.errors import EngineUnavailable
from ollama_sweep.engines.shared import gate

if TYPE_CHECKING:
    import httpx

T = TypeVar("T")
LONGEST_SAID = 400


@dataclass(frozen=True)
class Installed:
    """An entry of /api/tags; its size on the disk in bytes."""

    name: str
    digest: str
    size: int | None


@dataclass(frozen=True)
class Loaded:
    """An entry of /api/ps. Sizes in bytes; None where this version does not say."""

    name: str
    size: int | None
    size_vram: int | None
    context_length: int | None


@dataclass(frozen=True)
class Shown:
    """/api/show of a model: texts are "" and the metadata empty where nothing is said."""

    family: str
    parameter_size: str
    quantization: str
    metadata: Mapping[str, Any]
    capabilities: tuple[str, ...]
    modelfile: str = ""
    parameters: str = ""


def asked_of(
    http: httpx.Client,
    path: str,
    read: Callable[[Mapping[str, Any]], T],
    timeout_s: float,
    body: Mapping[str, str] | None = None,
) -> T:
    """What a server answers to a question of how it stands, read by one of the readers here.

    Raises EngineUnavailable where it does not answer, refuses, or answers what cannot be.
    """
    import httpx

    url = str(http.base_url).rstrip("/")
    try:
        answer = http.request("GET" if body is None else "POST", path, json=body, timeout=timeout_s)
    except httpx.HTTPError as error:
        raise EngineUnavailable(f"the Ollama server at {url} does not answer: {error}") from error
    if answer.is_error:
        said = answer.text[:LONGEST_SAID].strip()
        raise EngineUnavailable(f"the Ollama server at {url} answers {path} with HTTP {answer.status_code}: {said}")
    with gate.of_server(f"{path} of the Ollama server at {url}"):
        found = gate.loads(answer.content)
        if not isinstance(found, Mapping):
            raise gate.BadValue("the answer", found, "an object")
        return read(found)


def installed_in(answer: Mapping[str, Any]) -> dict[str, Installed]:
    """The entries of /api/tags by their names. Raises Nonsense."""
    entries = [_installed(entry) for entry in _models(answer)]
    return {entry.name: entry for entry in entries}


def _installed(entry: Mapping[str, Any]) -> Installed:
    return Installed(_name(entry), gate.text("digest", entry.get("digest")), gate.size_bytes("size", entry.get("size")))


def loaded_in(answer: Mapping[str, Any]) -> list[Loaded]:
    """The entries of /api/ps. Raises Nonsense."""
    return [
        Loaded(
            name=_name(entry),
            size=gate.size_bytes("size", entry.get("size")),
            size_vram=gate.size_bytes("size_vram", entry.get("size_vram")),
            context_length=gate.length("context_length", entry.get("context_length")),
        )
        for entry in _models(answer)
    ]


def shown_in(answer: Mapping[str, Any]) -> Shown:
    """/api/show. Raises Nonsense."""
    details = gate.mapping("details", answer.get("details"))
    capabilities = gate.listed("capabilities", answer.get("capabilities"))
    return Shown(
        family=gate.text("family", details.get("family")),
        parameter_size=gate.text("parameter_size", details.get("parameter_size")),
        quantization=gate.text("quantization_level", details.get("quantization_level")),
        metadata=gate.mapping("model_info", answer.get("model_info")),
        capabilities=tuple(gate.text("capabilities", one) for one in capabilities),
        modelfile=gate.text("modelfile", answer.get("modelfile")),
        parameters=gate.text("parameters", answer.get("parameters")),
    )


def _models(answer: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    if "models" not in answer:
        raise gate.BadValue("the answer", answer, "a list of models")
    return [gate.mapping("models", entry) for entry in gate.listed("models", answer["models"])]


def _name(entry: Mapping[str, Any]) -> str:
    """Some versions have the one field, some the other."""
    name = gate.text("name", entry.get("name")) or gate.text("model", entry.get("model"))
    if not name:
        raise gate.BadValue("name", entry.get("name"), "the name of a model")
    return name
