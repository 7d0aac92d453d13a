"""A Modelfile template: its text into commands, and commands with a cell's parameters into text again. No I/O.

The grammar is that of Ollama's parser: a command at the start of a line, one blank, a value up to the end of the line;
a value that begins with a quote reaches to the quote at the end of a line, also several lines further down.
`#` begins a comment only where a command could begin.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from ollama_sweep.core.errors import ConfigError, nearest
from ollama_sweep.core.options import PARAMETERS, Scalar
from ollama_sweep.core.text import one_line

COMMANDS = ("from", "license", "template", "system", "adapter", "draft", "renderer", "parser", "parameter", "message",
            "requires")  # fmt: skip
ROLES = ("system", "user", "assistant")

_DEPRECATED = frozenset({"penalize_newline", "low_vram", "f16_kv", "logits_all", "vocab_only", "use_mlock",
                         "mirostat", "mirostat_tau", "mirostat_eta"})  # fmt: skip
"""Names that Ollama still takes and ignores."""

_NOT_IN_MODEL = re.compile(r"[^A-Za-z0-9._:/-]")
_MODEL_NAME = re.compile(r"(?:(?:\w[\w.:-]*/)?\w[\w-]*/)?\w[\w.-]*(?::\w[\w.-]*)?", re.ASCII)
_PART_LENGTH = 80

_CONTROL = re.compile("[\x00-\x08\x0b-\x0c\x0e-\x1f\x7f-\x9f]")
_GAP = re.compile(r"(?:[ \t\r\n]+|#[^\r\n]*)+")
_WORD = re.compile(r"[^ \t\r\n]*")
_LINE = re.compile(r"[^\r\n]*")
_LINE_BREAK = re.compile(r"\r\n|\r|\n|\Z")
_OPENING = re.compile(r'[ \t]*("""|")')
_CLOSINGS = {'"': re.compile(r'"[ \t]*(?=[\r\n]|\Z)'), '"""': re.compile(r'"""[ \t]*(?=[\r\n]|\Z)')}
_GO_BOOLEANS = {**dict.fromkeys(("1", "t", "T", "true", "TRUE", "True"), True),
                **dict.fromkeys(("0", "f", "F", "false", "FALSE", "False"), False)}  # fmt: skip
_WHOLE = re.compile(r"[-+]?[0-9]{1,18}")
_NUMBER = re.compile(r"[-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?")
_VERSION = re.compile(r"v?[0-9]+(?:\.[0-9]+){0,2}(?:[-+][0-9A-Za-z.+-]+)?")
_LOCAL_FILE = re.compile(r"[./~\\]|[A-Za-z]:[\\/]|.*\.(?:gguf|safetensors|bin|pth)\Z", re.IGNORECASE | re.DOTALL)

_BLOB = re.compile(r"(?:\A|[/\\])sha256[-:][0-9a-f]{64}\s*\Z")
"""A file of Ollama's own, as `ollama show --modelfile` names it."""


@dataclass(frozen=True)
class Command:
    """One command, or the blanks and comments between two commands (`name` is "" then).

    `name` is in small letters; `key` is the parameter of PARAMETER or the role of MESSAGE; `value` is without its
    quotes; `source` is the text as written, its line break included.
    """

    name: str
    key: str
    value: str
    line: int
    source: str


@dataclass(frozen=True)
class Template:
    """A parsed Modelfile. The sources of all pieces, one after the other, are its text."""

    pieces: tuple[Command, ...]

    @property
    def commands(self) -> tuple[Command, ...]:
        """The pieces that are commands."""
        return tuple(piece for piece in self.pieces if piece.name)


def parse(text: str, where: str, allow_local: bool = False) -> Template:
    """The commands of a Modelfile. Raises ConfigError with `where` and the line.

    Commands that make Ollama read a local file (`FROM ./x.gguf`, ADAPTER, DRAFT) are refused unless `allow_local`;
    the FROM that `ollama show --modelfile` writes names what the model was made of, and is replaced.
    """
    if not text.strip():
        raise ConfigError("the Modelfile is empty; it has no FROM line", where)
    control = _CONTROL.search(text)
    if control:
        line = text.count("\n", 0, control.start()) + 1
        raise ConfigError(f"contains a control character (U+{ord(control.group()):04X})", f"{where}:{line}")
    template = Template(tuple(_pieces(text, where)))
    for command in template.commands:
        _check(command, f"{where}:{command.line}", allow_local)
    if not any(command.name == "from" for command in template.commands):
        raise ConfigError("has no FROM line", where)
    return template


def check_from(template: Template, where: str) -> None:
    """Refuse a second FROM: a cell's Modelfile has one, and only one can be its model. Raises ConfigError."""
    first, *further = [command for command in template.commands if command.name == "from"]
    if further:
        message = f"a second FROM (the first is on line {first.line}); keep one, the sweep puts its model there"
        raise ConfigError(message, f"{where}:{further[0].line}")


def _pieces(text: str, where: str) -> list[Command]:
    pieces = []
    position, line = 0, 1
    while position < len(text):
        gap = _GAP.match(text, position)
        piece = Command("", "", "", line, gap.group()) if gap else _command(text, position, line, f"{where}:{line}")
        pieces.append(piece)
        position += len(piece.source)
        line += piece.source.count("\n")
    return pieces


def _command(text: str, start: int, line: int, where: str) -> Command:
    word, position = _word(text, start)
    name = word.lower()
    if name not in COMMANDS:
        hint = nearest(word.upper(), [known.upper() for known in COMMANDS])
        raise ConfigError(f"unknown command {one_line(word)}.{hint}", where)
    key = ""
    if name in ("parameter", "message"):
        key, position = _word(text, position + 1)
        if not key:
            raise ConfigError(f"{word} needs one blank and then a name", where)
    what = f"{word} {key}".rstrip()
    if position == len(text) or text[position] in "\r\n":
        raise ConfigError(f"{one_line(what)} has no value", where)
    value, end = _value(text, position + 1, what, where)
    return Command(name, key, value, line, text[start:end])


def _word(text: str, position: int) -> tuple[str, int]:
    match = _WORD.match(text, position)
    return (match.group(), match.end()) if match else ("", position)


def _value(text: str, start: int, what: str, where: str) -> tuple[str, int]:
    """A value without its quotes, and the position behind its line break."""
    opening = _OPENING.match(text, start)
    if opening:
        quote = opening.group(1)
        closing = _CLOSINGS[quote].search(text, opening.end())
        if not closing:
            raise ConfigError(f"the quote after {one_line(what)} is not closed at the end of a line", where)
        value, end = text[opening.end() : closing.start()], closing.end()
    else:
        line = _LINE.match(text, start)
        assert line
        value, end = line.group().strip(), line.end()
    line_break = _LINE_BREAK.match(text, end)
    assert line_break
    return value, line_break.end()


def _check(command: Command, where: str, allow_local: bool) -> None:
    if command.name == "parameter":
        _check_parameter(command, where)
    elif command.name == "message" and command.key not in ROLES:
        raise ConfigError(f"unknown role {one_line(command.key)}; known are {', '.join(ROLES)}", where)
    elif command.name == "requires" and not _VERSION.fullmatch(command.value):
        raise ConfigError(f'REQUIRES: "{one_line(command.value)}" is not a version like 0.14.0', where)
    elif command.name == "from" and not command.value.strip():
        raise ConfigError("FROM has no value", where)
    if not allow_local and _reads_local_file(command):
        raise ConfigError("reads a local file; use --allow-local-gguf", where)


def _reads_local_file(command: Command) -> bool:
    if command.name in ("adapter", "draft"):
        return True
    return command.name == "from" and bool(_LOCAL_FILE.match(command.value)) and not _BLOB.search(command.value)


def _check_parameter(command: Command, where: str) -> None:
    name = command.key
    if name in _DEPRECATED:
        return
    if name not in PARAMETERS:
        raise ConfigError(f"unknown parameter {one_line(name)}.{nearest(name.lower(), PARAMETERS)}", where)
    if _typed(name, command.value) is None:
        wanted = {int: "a whole number", float: "a number", bool: "true or false"}[PARAMETERS[name]]
        raise ConfigError(f'{name}: "{one_line(command.value)}" is not {wanted}', where)


def _typed(name: str, value: str) -> Scalar:
    """A parameter's value with its type; None where it cannot be read."""
    kind = PARAMETERS.get(name, str)
    if kind is bool:
        return _GO_BOOLEANS.get(value)
    if kind is int:
        return int(value) if _WHOLE.fullmatch(value) else None
    if kind is float:
        number = float(value) if _NUMBER.fullmatch(value) else math.nan
        return number if math.isfinite(number) else None
    return value


def is_base(base: str) -> bool:
    """Whether a model's name or path can stand behind FROM; one of a database may be anything."""
    return base.isprintable() and base == base.strip() and base[:1] not in ("", '"')


def render(template: Template | None, base: str, parameters: Mapping[str, Scalar]) -> str:
    """The Modelfile of a cell: FROM is `base`, `parameters` replace those of the template; all else is verbatim.

    A parameter that is None is taken out of the template and not set.
    """
    if not is_base(base):
        raise ValueError(f"not a model: {base!r}")
    text = f"FROM {base}\n"
    if template:
        first = next(command for command in template.commands if command.name == "from")
        kept = [text if piece is first else piece.source for piece in template.pieces
                if piece is first or not _is_replaced(piece, parameters)]  # fmt: skip
        text = "".join(kept)
    if not text.endswith("\n"):
        text += "\n"
    lines = [f"PARAMETER {name} {_written(value)}\n" for name, value in parameters.items() if value is not None]
    return text + "".join(lines)


def _is_replaced(piece: Command, names: Collection[str]) -> bool:
    return piece.name == "from" or (piece.name == "parameter" and piece.key in names)


def _written(value: Scalar) -> str:
    """A value as Ollama's parser reads it back; quotes have no escapes there."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if not isinstance(value, str):
        return str(value)
    if '"' not in value:
        return f'"{value}"'
    if '"""' in value:
        raise ValueError(f"cannot be written into a Modelfile: {value!r}")
    return f'"""{value}"""'


def canonical(template: Template | None, without: Collection[str]) -> str:
    """What of a template belongs to a cell's identity: the same for another layout, other comments, another order.

    FROM and the parameters in `without` are left out: the sweep sets them.
    """
    kept = [command for command in template.commands if not _is_replaced(command, without)] if template else []
    # The sort is stable: the order of messages and of stop words has a meaning and stays.
    kept.sort(key=lambda command: (command.name, command.key if command.name == "parameter" else ""))
    return "".join(json.dumps([command.name, command.key, _meaning(command)]) + "\n" for command in kept)


def _meaning(command: Command) -> Scalar:
    return _typed(command.key, command.value) if command.name == "parameter" else command.value


def parameters_set(template: Template | None) -> tuple[str, ...]:
    """The parameters a template sets, each once, in its order."""
    commands = template.commands if template else ()
    return tuple(dict.fromkeys(command.key for command in commands if command.name == "parameter"))


def is_file(model: str) -> bool:
    """Whether a model is meant as the path of a GGUF file and not as an installed name."""
    return model.lower().endswith(".gguf")


def name_fault(model: str) -> str | None:
    """What is wrong with the name of a model, [host/][namespace/]model[:tag]; None where nothing is."""
    bad = _NOT_IN_MODEL.search(model)
    if bad:
        is_blank = bad.group().isspace() or not bad.group().isprintable()
        what = "a space or control character" if is_blank else bad.group()
        return f"contains {what} (position {bad.start() + 1})"
    *parents, last = model.split("/")
    name, colon, tag = last.partition(":")
    if colon and not tag:
        return "tag is empty"
    for what, part in (("model", name), ("tag", tag), *(("namespace", parent) for parent in parents)):
        if len(part) > _PART_LENGTH:
            return f"the {what} part has {len(part)} characters (max {_PART_LENGTH})"
    return None if _MODEL_NAME.fullmatch(model) else "is neither a name like llama3:8b nor the path of a .gguf file"


def parameters(template: Template | None) -> dict[str, Any]:
    """Every PARAMETER with its type, the last of each; `stop` is a list of all. Deprecated ones are left out."""
    found: dict[str, Any] = {}
    stops: list[str] = []
    for command in template.commands if template else ():
        if command.name != "parameter" or command.key not in PARAMETERS:
            continue
        if command.key == "stop":
            stops.append(command.value)
        else:
            found[command.key] = _typed(command.key, command.value)
    return {**found, "stop": stops} if stops else found


def last_value(template: Template | None, name: str) -> str | None:
    """The value of the last SYSTEM, TEMPLATE or the like; None where there is none."""
    commands = template.commands if template else ()
    return next((command.value for command in reversed(commands) if command.name == name), None)


def messages(template: Template | None) -> list[dict[str, str]]:
    """Every MESSAGE as `role` and `content`, in order."""
    commands = template.commands if template else ()
    return [{"role": command.key, "content": command.value} for command in commands if command.name == "message"]
