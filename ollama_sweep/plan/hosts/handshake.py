"""Whether two sides fit together, in words: what differs, and what to do. Pure.

A side is what one end says of itself: the coordinator, a worker on a host, a server that is asked by HTTP. What
neither says is not compared; a server by HTTP has no Python, and nobody asks it for one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from ollama_sweep.core.errors import EngineMissing
from ollama_sweep.core.text import one_line

SHORT_DIGEST, LONGEST = 12, 200
PACKAGE = "ollama-sweep[cluster]"


@dataclass(frozen=True)
class Side:
    """What one end says of itself; "" where it does not.

    `name` is how a person calls it. `program` is the version of ollama-sweep, `python` its minor version (`3.11`),
    `distributed` that of the package, `server` that of Ollama; `models` are digests by the name of a model.
    """

    name: str
    program: str = ""
    python: str = ""
    distributed: str = ""
    server: str = ""
    models: Mapping[str, str] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """For the way to the other side."""
        return asdict(self)

    @classmethod
    def read(cls, said: object, name: str) -> Side:
        """What the other end has sent, typed; what is no text is not said. `name` is how it is called here."""
        given = said if isinstance(said, Mapping) else {}
        models = given.get("models")
        found = models.items() if isinstance(models, Mapping) else ()
        return cls(
            name,
            **{part: _text(given.get(part)) for part in ("program", "python", "distributed", "server")},
            models={_text(model): _text(digest) for model, digest in found if _text(model)},
        )


@dataclass(frozen=True)
class Difference:
    """One thing in which two sides differ. `kind` is `program`, `python`, `distributed`, `server` or `model`.

    `divides`: both can measure, but their numbers are of two classes; any other one is in the way of measuring.
    """

    kind: str
    text: str
    hint: str
    divides: bool = False

    @property
    def words(self) -> str:
        return f"{self.text}. {self.hint}"


def differences(ours: Side, theirs: Side) -> tuple[Difference, ...]:
    """In what `theirs` differs from `ours`, the first to be mended first."""
    return (*_of_software(ours, theirs), *_of_server(ours, theirs), *_of_models(ours, theirs))


def require(ours: Side, theirs: Side, *, mixed: bool = False) -> None:
    """Raises EngineMissing, one line with all that differs; with `mixed` another Ollama is let pass."""
    found = [one.words for one in differences(ours, theirs) if not (mixed and one.divides)]
    if found:
        raise EngineMissing("; ".join(found))


def _of_software(ours: Side, theirs: Side) -> Iterator[Difference]:
    if ours.program != theirs.program:
        hint = f"Run on {theirs.name}: pip install '{PACKAGE}=={ours.program}'"
        yield Difference("program", _versions("ollama-sweep", theirs, theirs.program, ours, ours.program), hint)
    if ours.python != theirs.python:
        hint = f"Make its environment with Python {ours.python}: the same minor version on all sides"
        yield Difference("python", _versions("Python", theirs, theirs.python, ours, ours.python), hint)
    if ours.distributed != theirs.distributed:
        text = _versions("distributed", theirs, theirs.distributed, ours, ours.distributed)
        yield Difference("distributed", text, f"Run on {theirs.name}: pip install 'distributed=={ours.distributed}'")


def _versions(what: str, theirs: Side, their: str, ours: Side, our: str) -> str:
    if not their:
        return f"{theirs.name} does not say which {what} it has, {ours.name} has {our}"
    return f"{theirs.name} has {what} {their}, {ours.name} has {our or 'none'}"


def _of_server(ours: Side, theirs: Side) -> Iterator[Difference]:
    """A side that serves no models of its own, such as a coordinator, has no Ollama to compare."""
    if ours.server and theirs.server and ours.server != theirs.server:
        text = f"{theirs.name} has Ollama {theirs.server}, {ours.name} has {ours.server}"
        hint = "Bring both to one version, or their numbers are two experiments"
        yield Difference("server", text, hint, divides=True)


def _of_models(ours: Side, theirs: Side) -> Iterator[Difference]:
    for model, digest in ours.models.items():
        their = theirs.models.get(model, "")
        if model not in theirs.models:
            text = f"{model} is not installed on {theirs.name}"
            yield Difference("model", text, f"Run there: ollama pull {model}")
        elif short(their) != short(digest):
            what = f"is {_digest(their)} on {theirs.name} and {_digest(digest)} on {ours.name}"
            yield Difference("model", f"{model} {what}: another model", f"Run on both: ollama pull {model}")


def short(digest: str) -> str:
    """A digest as people see it: twelve letters, which Ollama shows as well."""
    return digest.removeprefix("sha256:")[:SHORT_DIGEST]


def _digest(digest: str) -> str:
    return short(digest) or "no digest"


def _text(value: object) -> str:
    return one_line(value, LONGEST) if isinstance(value, str) else ""
