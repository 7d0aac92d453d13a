"""What an OpenAI-compatible server says of itself and its models, beyond the API where it is one that is known.

llama-server has /props, /tokenize and /slots; Ollama has /api/version and /api/tags. Of any other server only its list
of models is known.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ollama_sweep.core.cell import content_hash
from ollama_sweep.core.errors import EngineMissing, EngineUnavailable, nearest
from ollama_sweep.engines.base import ModelInfo
from ollama_sweep.engines.openai.client import Client
from ollama_sweep.engines.shared import gate

LLAMA_SERVER, OLLAMA, OTHER = "llama-server", "Ollama", "unknown"
REST_S = 30.0
SHOWN_MODELS = 5
OWN_MODELS = "ollama-sweep-"
_VOLATILE = frozenset({"created", "tags", "status", "loaded", "state"})
"""Fields of a listed model that change though the model is the same; llama-server's `created` is the time of asking."""


@dataclass(frozen=True)
class Identity:
    """`kind` is one of the names above; `version` is "unknown" where the server says none."""

    kind: str
    version: str


class Server:
    """One server, asked through its client. Every method raises EngineUnavailable."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._kind = ""

    def identity(self) -> Identity:
        """Who answers, asked anew each time, so that a new version and a dead server are noticed."""
        if self._kind in ("", LLAMA_SERVER) and (props := self._props()):
            self._kind = LLAMA_SERVER
            return Identity(LLAMA_SERVER, f"{LLAMA_SERVER} {props.get('build_info') or 'unknown'}")
        if self._kind in ("", OLLAMA) and (
            version := _text(self._client.get(f"{self._client.root}/api/version"), "version")
        ):
            self._kind = OLLAMA
            return Identity(OLLAMA, f"{OLLAMA} {version}")
        self.models()
        self._kind = self._kind or OTHER
        return Identity(OTHER, "unknown")

    @property
    def is_llama_server(self) -> bool:
        """It has llama-server's own addresses, too."""
        return (self._kind or self.identity().kind) == LLAMA_SERVER

    def _props(self) -> Mapping[str, Any]:
        found = _mapping(self._client.get(f"{self._client.root}/props"))
        return found if "default_generation_settings" in found else {}

    # -- models --------------------------------------------------------------------------------------------------

    def model_info(self, model: str) -> ModelInfo:
        """A model of the list. Raises EngineMissing where it is not in it.

        Ollama gives a real digest. Other servers have none: theirs is a hash of the address, the model's name and what
        the list says of it, so another file under the same name goes unnoticed.
        """
        kind = self.identity().kind
        entries = self.models()
        entry = self._entry(entries, model) if entries is not None else {}
        if kind == OLLAMA and (tag := self._ollama_tag(str(entry.get("id") or model))):
            return _from_ollama(model, tag)
        meta = _mapping(entry.get("meta"))
        kept = {name: value for name, value in entry.items() if name not in _VOLATILE}
        said = json.dumps(kept, sort_keys=True, default=str)
        return ModelInfo(
            name=model,
            digest=content_hash(f"{self._client.address.url}\n{model}\n{said}"),
            parameter_size=_size_label(meta.get("n_params")),
            quantization=_text(meta, "ftype") or _text(entry, "quantization") or None,
            context_length=_whole(meta.get("n_ctx_train")) or _whole(entry.get("max_context_length")),
            size_bytes=_whole(meta.get("size")),
        )

    def models(self) -> list[Mapping[str, Any]] | None:
        """/v1/models; None for a server without such a list."""
        found = self._client.get("/models")
        if found is None:
            return None
        data = found.get("data") if isinstance(found, Mapping) else found
        if not isinstance(data, list) or not all(isinstance(entry, Mapping) for entry in data):
            place = self._client.place
            raise EngineMissing(
                place.line(f"{place.url}/models answered {place.shown(found)!r}; a list of models was expected")
            )
        return data

    def names(self) -> tuple[str, ...]:
        """The ids in that list, sorted, without an Ollama's scratch models."""
        listed = [str(entry.get("id") or "") for entry in self.models() or ()]
        return tuple(sorted(name for name in listed if name and not name.startswith(OWN_MODELS)))

    def _entry(self, entries: list[Mapping[str, Any]], model: str) -> Mapping[str, Any]:
        names: dict[str, Mapping[str, Any]] = {name: entry for entry in reversed(entries) for name in _names(entry)}
        for wanted in (model, f"{model}:latest"):
            if wanted in names:
                return names[wanted]
        shown = [str(entry.get("id")) for entry in entries]
        more = f" and {len(shown) - SHOWN_MODELS} more" if len(shown) > SHOWN_MODELS else ""
        known = ", ".join(shown[:SHOWN_MODELS]) + more
        text = (
            f"{model} is not served at {self._client.place.url}. There is {known or 'no model'}.{nearest(model, names)}"
        )
        raise EngineMissing(text)

    def _ollama_tag(self, name: str) -> Mapping[str, Any] | None:
        tags = _mapping(self._client.get(f"{self._client.root}/api/tags")).get("models")
        found = [
            tag for tag in tags or () if isinstance(tag, Mapping) and tag.get("name") == name and tag.get("digest")
        ]
        return found[0] if found else None

    def context(self) -> int | None:
        """The num_ctx with which a llama-server was started; None for any other server."""
        if not self.is_llama_server:
            return None
        return _whole(_mapping(self._props().get("default_generation_settings")).get("n_ctx"))

    def slots(self) -> int | None:
        """How many requests a llama-server runs at once; None for any other server."""
        return _whole(self._props().get("total_slots")) if self.is_llama_server else None

    # -- counting, resting ---------------------------------------------------------------------------------------

    def count_tokens(self, prompt: str, system: str) -> int | None:
        """The prompt's length in the model's chat template, as llama-server counts; None for any other server."""
        if not self.is_llama_server:
            return None
        messages = [{"role": "system", "content": system}] if system else []
        messages.append({"role": "user", "content": prompt})
        text = _text(self._client.post(f"{self._client.root}/apply-template", {"messages": messages}), "prompt")
        body = {"content": text, "add_special": True, "parse_special": True}
        tokens = _mapping(self._client.post(f"{self._client.root}/tokenize", body)).get("tokens") if text else None
        return len(tokens) if isinstance(tokens, list) else None

    def rest(self) -> None:
        """After a request that was given up: wait until a llama-server has dropped it."""
        until = time.monotonic() + REST_S
        while self.is_llama_server and self._is_busy():
            if time.monotonic() > until:
                raise EngineUnavailable(f"{self._client.place.url} is still busy with a request that was given up")
            time.sleep(0.1)

    def _is_busy(self) -> bool:
        slots = self._client.get(f"{self._client.root}/slots")
        return isinstance(slots, list) and any(_mapping(slot).get("is_processing") for slot in slots)


def _names(entry: Mapping[str, Any]) -> list[str]:
    """What a listed model may be called: its id, its aliases, and of a file its name."""
    names = [str(entry.get("id") or "")]
    aliases = entry.get("aliases")
    names += [str(alias) for alias in aliases] if isinstance(aliases, list) else []
    files = [name.replace("\\", "/").rpartition("/")[2] for name in names if name.endswith(".gguf")]
    return [name for name in (*names, *files, *(file.removesuffix(".gguf") for file in files)) if name]


def _from_ollama(model: str, tag: Mapping[str, Any]) -> ModelInfo:
    details = _mapping(tag.get("details"))
    capabilities = tag.get("capabilities")
    return ModelInfo(
        name=model,
        digest=f"sha256:{str(tag['digest']).removeprefix('sha256:')}",
        family=_text(details, "family") or None,
        parameter_size=_text(details, "parameter_size") or None,
        quantization=_text(details, "quantization_level") or None,
        context_length=_whole(details.get("context_length")),
        size_bytes=_whole(tag.get("size")),
        capabilities=tuple(str(name) for name in capabilities) if isinstance(capabilities, list) else (),
    )


def _size_label(parameters: object) -> str | None:
    count = _whole(parameters)
    if not count:
        return None
    return f"{count / 1e9:.1f}B" if count >= 1e9 else f"{count / 1e6:.2f}M"


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _text(value: object, name: str) -> str:
    found = _mapping(value).get(name)
    return found if isinstance(found, str) else ""


def _whole(value: object) -> int | None:
    """A number of what a server says of itself; what cannot be is as if it said nothing."""
    try:
        return gate.size_bytes("", value) or None
    except gate.Nonsense:
        return None
