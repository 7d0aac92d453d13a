"""The options that every task with questions takes under `tasks: NAME:`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from ollama_sweep.core import options
from ollama_sweep.core.errors import ConfigError, nearest
from ollama_sweep.core.options import LOAD_OPTIONS, Scalar
from ollama_sweep.core.strict_yaml import Node
from ollama_sweep.core.text import one_line

REQUEST = tuple(name for name in options.PARAMETERS if name not in LOAD_OPTIONS and name != "stop")
"""Options of a request that a task may set for itself."""
SETTINGS = ("system", "max_tokens", "repeats", "max_retries", "model", "data", "limit")
COUNTS = {"limit": (1, 1_000_000), "repeats": (1, 1000), "max_retries": (0, 100)}
"""The limits of those that are whole numbers."""
MAX_RETRIES = 2


@dataclass(frozen=True)
class Asked:
    """What the person asked of a task; what was not given is "" or None. `request` holds options of the request."""

    system: str = ""
    request: Mapping[str, Scalar] = field(default_factory=dict)
    model: str = ""
    data: Node | None = None
    limit: int | None = None
    repeats: int | None = None
    max_retries: int = MAX_RETRIES


def read(task: str, given: Mapping[str, Node], own: Iterable[str] = (), *, without: Iterable[str] = ()) -> Asked:
    """The common options of a task; `own` are names it reads itself, `without` common ones it does not know.

    Raises ConfigError for an unknown name, a wrong value, and num_predict beside max_tokens, which are the same.
    """
    known = sorted({*REQUEST, *SETTINGS, *own} - set(without))
    for name, node in given.items():
        if name not in known:
            raise unknown(task, name, node, known)
    return Asked(
        system=given["system"].text(f"tasks.{task}.system") if "system" in given else "",
        request=request(f"tasks.{task}", {name: node for name, node in given.items() if name not in own}),
        model=given["model"].line_of_text(f"tasks.{task}.model") if "model" in given else "",
        data=given.get("data"),
        limit=count(task, given, "limit", *COUNTS["limit"]),
        repeats=count(task, given, "repeats", *COUNTS["repeats"]),
        max_retries=_or(count(task, given, "max_retries", *COUNTS["max_retries"]), MAX_RETRIES),
    )


def unknown(task: str, name: str, node: Node, known: Iterable[str]) -> ConfigError:
    """The refusal of an option that a task does not have, with the nearest one it has."""
    names = list(known)
    of_the_load = " It belongs to the load: write it beside num_ctx." if name in LOAD_OPTIONS else ""
    hint = of_the_load or nearest(name, names)
    return node.error(f"tasks.{task}: unknown option {one_line(name)}; known are {', '.join(names)}.{hint}")


def request(where: str, given: Mapping[str, Node]) -> dict[str, Scalar]:
    """The options of a request among these, checked; `max_tokens` is num_predict. Raises ConfigError."""
    if "max_tokens" in given and "num_predict" in given:
        raise given["max_tokens"].error(f"{where}: max_tokens and num_predict are the same; give one of them")
    found: dict[str, Scalar] = {}
    for name, node in given.items():
        real = "num_predict" if name == "max_tokens" else name
        if real in REQUEST:
            low, high = options.LIMITS[real]
            found[real] = node.within(f"{where}.{name}", options.PARAMETERS[real], low, high)
    return found


def count(task: str, given: Mapping[str, Node], name: str, low: int, high: int) -> int | None:
    """A whole number between two limits; None where it is not given. Raises ConfigError."""
    if name not in given:
        return None
    return int(given[name].within(f"tasks.{task}.{name}", int, low, high))


def truth(task: str, given: Mapping[str, Node], name: str) -> bool:
    """true or false; false where it is not given. Raises ConfigError."""
    return name in given and given[name].truth(f"tasks.{task}.{name}")


def names(task: str, given: Mapping[str, Node], name: str) -> tuple[str, ...]:
    """A name or a list of names, none twice; empty where it is not given. Raises ConfigError."""
    if name not in given:
        return ()
    found: list[str] = []
    for node in given[name].items:
        word = node.line_of_text(f"tasks.{task}.{name}").strip()
        if word in found:
            raise node.error(f"tasks.{task}.{name}: {one_line(word)} is given twice")
        found.append(word)
    if not found:
        raise given[name].error(f"tasks.{task}.{name}: the list is empty")
    return tuple(found)


def _or(value: int | None, default: int) -> int:
    return default if value is None else value
