"""What a person wrote, read strictly: text files, and YAML with the line of every value.

No other file imports yaml. Only `true` and `false` are booleans and only plain decimal digits are numbers: `yes`,
`7:30`, `010`, `0x10`, `4_096` and `1e3` stay text. Anchors, aliases, merge keys, tags, duplicate keys and further
documents are refused.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import yaml
from yaml.reader import Reader, ReaderError

from ollama_sweep.core.errors import ConfigError
from ollama_sweep.core.options import Scalar
from ollama_sweep.core.text import HALF, joined, one_line, surrogate_in
from ollama_sweep.core.units import parse_duration_s

_WEEK_S = 7 * 86400
_MAX_DEPTH = 12
_ANCHORS = "anchors (&name), aliases (*name) and << are not allowed"
_TABS = "tabs cannot be used for indentation; use spaces"
_NULL = frozenset({"", "~", "null", "Null", "NULL"})
_INT = re.compile(r"-?(?:0|[1-9][0-9]*)")
_FLOAT = re.compile(r"-?(?:0|[1-9][0-9]*)\.[0-9]+(?:[eE][-+]?[0-9]+)?")
_BACKSLASHES = r"In double quotes \ begins an escape; write a path in single quotes, or with /"
_DRIVE = re.compile(r"[A-Za-z]:")
_LINE_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")


@dataclass(frozen=True)
class Node:
    """A value and where it stands: `where` is a file or an option, `line` 0 for an option."""

    value: Scalar | list[Node] | dict[str, Node]
    where: str
    line: int = 0
    source: str = ""

    @property
    def place(self) -> str:
        """`FILE:LINE` or the option."""
        return f"{self.where}:{self.line}" if self.line else self.where

    @property
    def shown(self) -> str:
        """The value as the person wrote it, on one line; a text in quotes."""
        text = one_line(self.source)
        return f'"{text}"' if isinstance(self.value, str) else text

    @property
    def items(self) -> list[Node]:
        """The elements of a list; anything else is a list of one."""
        return self.value if isinstance(self.value, list) else [self]

    def error(self, message: str) -> ConfigError:
        """The error that names this place, once: a key that Python or a command gave is its own place."""
        return ConfigError(message.removeprefix(f"{self.place}: "), self.place)

    def mismatch(self, name: str, wanted: str) -> ConfigError:
        """The error for a value of another type."""
        if isinstance(self.value, list | dict):
            what = "a list is not allowed here" if isinstance(self.value, list) else "a mapping is not allowed here"
        elif isinstance(self.value, bool):
            what = f"{self.shown} is not allowed here"
        elif self.value is None:
            what = "has no value"
        else:
            what = f"{self.shown} is {'text' if isinstance(self.value, str) else 'a number'}"
        return self.error(f"{name}: {what}; {wanted}")

    def text(self, name: str) -> str:
        """The value of a key that takes text."""
        if not isinstance(self.value, str):
            raise self.error(f"{name} must be text; put it in quotes")
        if not self.value.strip():
            raise self.error(f"{name}: is empty")
        return self.value

    def line_of_text(self, name: str) -> str:
        """The value of a key that takes text without line breaks, tabs and the like."""
        text = self.text(name)
        if _LINE_CONTROL.search(text):
            hint = f". {_BACKSLASHES}" if _DRIVE.match(text) else ""
            raise self.error(f"{name}: contains a control character{hint}")
        return text

    def truth(self, name: str) -> bool:
        """The value of a key that takes true or false."""
        if not isinstance(self.value, bool):
            raise self.mismatch(name, "write true or false")
        return self.value

    def whole(self, name: str, example: int = 4096) -> int:
        """The value of a key that takes a whole number."""
        if isinstance(self.value, float):
            raise self.error(f"{name}: {self.shown} is not a whole number; write whole numbers like {example}")
        if isinstance(self.value, bool) or not isinstance(self.value, int):
            raise self.mismatch(name, f"write whole numbers like {example}")
        return self.value

    def number(self, name: str) -> float:
        """The value of a key that takes any number."""
        if isinstance(self.value, bool) or not isinstance(self.value, int | float):
            raise self.mismatch(name, "write numbers like 0.8")
        return self.value

    def within(self, name: str, kind: type, low: float, high: float) -> float:
        """The value of a key that takes an int or a float between two limits."""
        value = self.whole(name) if kind is int else self.number(name)
        if not low <= value <= high:
            raise self.error(f"{name}: {self.shown} is outside {low} to {high}")
        return value

    def seconds(self, name: str) -> float:
        """The value of a key that takes a length of time, at most a week."""
        try:
            seconds = parse_duration_s(self.value) if isinstance(self.value, str) else self.number(name)
        except (ValueError, ConfigError):
            seconds = 0.0
        if not 0 < seconds <= _WEEK_S:
            raise self.error(f"{name}: write seconds (600) or a time like 10m, more than 0 and at most 168h")
        return float(seconds)

    def address(self, name: str) -> str:
        """The value of a key that takes the address of a server, without credentials."""
        text = self.line_of_text(name)
        if "@" in text or "?" in text:
            raise self.error("put credentials into api_key_env, not into the URL")
        try:
            url = urlsplit(text if "//" in text else f"//{text}")
            is_address = url.scheme in ("", "http", "https") and url.port != 0 and " " not in text
        except ValueError:
            is_address = False
        if not is_address:
            raise self.error(f"{name}: {self.shown} is not an address like 127.0.0.1:11434 or http://gpu-box:11434")
        return text


def scalar(text: str) -> Scalar:
    """What a plain text means: null, a boolean, a number or the text itself."""
    if text in _NULL:
        return None
    if text in ("true", "false"):
        return text == "true"
    if _INT.fullmatch(text):
        # No setting allows more than 18 digits, and int() refuses more than 4,300 of them.
        return int(text) if len(text) <= 18 else 10**18 * (-1 if text[0] == "-" else 1)
    return float(text) if _FLOAT.fullmatch(text) else text


def parse(text: str, where: str, *, numbered: bool = True) -> Node | None:
    """The one document of a YAML text; None where it is empty. Raises ConfigError with `where` and the line.

    Without `numbered` lines are left out of messages: `where` is an option then.
    """
    start = Node(None, where, 1 if numbered else 0)
    text = joined(text)
    if half := surrogate_in(text):
        raise start.error(f"{HALF} ({half})")
    try:
        return _Loader(text, start).document()
    except ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise _at(start, line).error(f"contains a control character (U+{ord(text[error.position]):04X})") from None
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise _at(start, line).error(_problem(error, text)) from None


def _at(start: Node, line: int, value: Any = None, source: str = "") -> Node:
    return Node(value, start.where, line if start.line else 0, source)


def _problem(error: yaml.MarkedYAMLError, text: str) -> str:
    problem, mark = str(error.problem), error.problem_mark
    if r"'\t'" in problem and mark:
        before = text.splitlines()[mark.line][: mark.column] if mark.column else ""
        return "a tab cannot be used here; use spaces" if before.strip() else _TABS
    hint = f". {_BACKSLASHES}" if "escape" in problem else ""
    return f"is not valid YAML: {' '.join(problem.split())}{hint}"


class _Loader(yaml.SafeLoader):
    """Composes the nodes of one document and refuses what makes a YAML file mean something unexpected."""

    def __init__(self, text: str, start: Node) -> None:
        super().__init__(text)
        self._start = start
        self._depth = 0

    def _next(self) -> Any:
        return self.get_event()  # type: ignore[no-untyped-call]

    def _error(self, message: str, mark: Any) -> ConfigError:
        return _at(self._start, mark.line + 1).error(message)

    def document(self) -> Node | None:
        self._next()
        if self.check_event(yaml.StreamEndEvent):
            return None
        begin = self._next()
        if begin.version or begin.tags:
            raise self._error("directives (%YAML, %TAG) are not allowed", begin.start_mark)
        composed = self.compose_node(None, None)
        self._refuse_more_documents()
        node = self._converted(composed)
        return None if node.value is None else node

    def _refuse_more_documents(self) -> None:
        starts = []
        while not self.check_event(yaml.StreamEndEvent):
            event = self._next()
            if isinstance(event, yaml.DocumentStartEvent):
                starts.append(event.start_mark)
        if starts:
            raise self._error(f"contains {len(starts) + 1} documents; only one is allowed", starts[0])

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent) or event.anchor is not None:
            raise self._error(_ANCHORS, event.start_mark)
        if event.tag is not None:
            raise self._error("tags (!!...) are not allowed", event.start_mark)
        if self._depth == _MAX_DEPTH:
            raise self._error(f"is nested deeper than {_MAX_DEPTH} levels", event.start_mark)
        self._depth += 1
        try:
            return super().compose_node(parent, index)
        finally:
            self._depth -= 1

    def scan_flow_scalar_non_spaces(self, double: bool, start_mark: yaml.Mark) -> Any:
        try:
            return super().scan_flow_scalar_non_spaces(double, start_mark)
        except (ValueError, OverflowError):  # PyYAML calls chr() with whatever number an escape gives
            raise self._error("an escape in the quotes is not a character", start_mark) from None

    def _converted(self, node: Any, line: int | None = None, key: str = "") -> Node:
        line = node.start_mark.line + 1 if line is None else line
        if isinstance(node, yaml.MappingNode):
            return _at(self._start, line, self._mapping(node))
        if isinstance(node, yaml.SequenceNode):
            return _at(self._start, line, [self._converted(item, None, key) for item in node.value])
        text, named = joined(str(node.value)), f"{key}: " if key else ""
        if half := surrogate_in(text):
            raise self._error(f"{named}{HALF} ({half})", node.start_mark)
        control = Reader.NON_PRINTABLE.search(text)
        if control:
            hint = f". {_BACKSLASHES}" if _DRIVE.match(text) else ""
            raise self._error(f"contains a control character (U+{ord(control.group()):04X}){hint}", node.start_mark)
        return _at(self._start, line, text if node.style else scalar(text), text)

    def _mapping(self, node: Any) -> dict[str, Node]:
        """The entries by their keys; an entry stands on the line of its key."""
        entries: dict[str, Node] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode):
                raise self._error("a key must be a name", key_node.start_mark)
            key = joined(str(key_node.value))
            if half := surrogate_in(key):
                raise self._error(f"a key {HALF} ({half})", key_node.start_mark)
            if key == "<<":
                raise self._error(_ANCHORS, key_node.start_mark)
            if key in entries:
                first = f" (first on line {entries[key].line})" if entries[key].line else ""
                raise self._error(f"{one_line(key)} is given twice{first}", key_node.start_mark)
            entries[key] = self._converted(value_node, line, one_line(key))
        return entries
