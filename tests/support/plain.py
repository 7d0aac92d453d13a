"""What the strict loader read as plain data, for a validator."""

from __future__ import annotations

from ollama_sweep.core.strict_yaml import Node


def plain(node: Node) -> object:
    """The value with all it holds."""
    if isinstance(node.value, dict):
        return {name: plain(inner) for name, inner in node.value.items()}
    if isinstance(node.value, list):
        return [plain(item) for item in node.value]
    return node.value
