"""The keys of a sweep as the text of a sweep file."""

from __future__ import annotations

import re
from collections.abc import Mapping

from ollama_sweep.core.strict_yaml import Node, scalar
from ollama_sweep.core.text import as_json

FIRST = ("name", "engine", "host", "model", "task", "tasks", "prompt", "num_ctx", "num_batch")
_PLAIN = re.compile(r"[A-Za-z~./][\w~./-]*(?::[\w.-]+)?")
_NOT_PLAIN = frozenset({"yes", "no", "on", "off", "true", "false", "null", "nan", "inf"})


def written(entries: Mapping[str, Node]) -> str:
    """A sweep file with these keys: one line for each, the options of each task on a line of their own."""
    lines = []
    for name in sorted(entries, key=lambda name: (FIRST.index(name) if name in FIRST else len(FIRST), name)):
        node = entries[name]
        if name == "tasks" and isinstance(node.value, dict):
            lines += ["tasks:", *(f"  {task}: {flow(inner)}" for task, inner in node.value.items())]
        else:
            lines.append(f"{name}: {flow(node)}")
    return "".join(f"{line}\n" for line in lines)


def flow(node: Node) -> str:
    """A value on one line."""
    value = node.value
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_quoted(name)}: {flow(inner)}" for name, inner in value.items()) + "}"
    if isinstance(value, list):
        return f"[{', '.join(flow(inner) for inner in value)}]"
    if isinstance(value, str):
        return _quoted(value)
    return as_json(value)


def listed(node: Node) -> str:
    """A value as a person answers it: a list without its brackets."""
    is_plain = isinstance(node.value, list) and not any(isinstance(item.value, dict | list) for item in node.value)
    return ", ".join(flow(item) for item in node.items) if is_plain else flow(node)


def _quoted(text: str) -> str:
    is_plain = _PLAIN.fullmatch(text) and text.lower() not in _NOT_PLAIN and scalar(text) == text
    return text if is_plain else as_json(text)
