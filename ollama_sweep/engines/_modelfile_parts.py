"""What a Modelfile template says, piece by piece, for engines that send it with every request instead."""

from __future__ import annotations

from typing import Any

from ollama_sweep import modelfile


def parameters(template: modelfile.Template | None) -> dict[str, Any]:
    """Every PARAMETER with its type, the last of each; `stop` is a list of all. Deprecated ones are left out."""
    found: dict[str, Any] = {}
    stops: list[str] = []
    for command in template.commands if template else ():
        if command.name != "parameter" or command.key not in modelfile.PARAMETERS:
            continue
        if command.key == "stop":
            stops.append(command.value)
        else:
            found[command.key] = _typed(command.key, command.value)
    return {**found, "stop": stops} if stops else found


def last_value(template: modelfile.Template | None, name: str) -> str | None:
    """The value of the last SYSTEM, TEMPLATE or the like; None where there is none."""
    commands = template.commands if template else ()
    return next((command.value for command in reversed(commands) if command.name == name), None)


def messages(template: modelfile.Template | None) -> list[dict[str, str]]:
    """Every MESSAGE as `role` and `content`, in order."""
    commands = template.commands if template else ()
    return [{"role": command.key, "content": command.value} for command in commands if command.name == "message"]


def _typed(name: str, value: str) -> Any:
    """A value as its type; the Modelfile is checked by then."""
    kind = modelfile.PARAMETERS[name]
    return value.lower() in ("1", "t", "true") if kind is bool else kind(value)
