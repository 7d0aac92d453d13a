"""`pair: {KEY: [x, y]}`: the keys of a sweep file become those of its two arms; two files become the arms of a pair."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, replace
from pathlib import Path

from ollama_sweep.core.errors import ConfigError, nearest
from ollama_sweep.core.options import is_server_setting
from ollama_sweep.core.strict_yaml import Node
from ollama_sweep.core.text import one_line
from ollama_sweep.plan.keys import ALIASES, BY_NAME, SECTIONS
from ollama_sweep.plan.pairs.common import refuse_strangers
from ollama_sweep.plan.spec import SweepSpec
from ollama_sweep.store.rows import InPair

PAIR = "pair"
LETTERS = ("a", "b")
HOW = "pair: write one key with two values, such as {flash_attention: [true, false]}"
_NOT_ITS_OWN: Mapping[str, str] = {
    PAIR: "a pair has no pair inside it",
    "name": "the arms of a pair are called NAME.a and NAME.b",
    "order": "both arms are measured in one order",
    "interim": "both arms are measured as one sweep, with the same pictures in between",
}
"""Keys of which the arms cannot have one each, and why."""
_PART = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
_Entries = Mapping[str, Node]
_Replace = Callable[[dict[str, Node], tuple[str, ...], Node], None]


def entries_of(entries: _Entries, set_part: _Replace) -> tuple[tuple[dict[str, Node], str], ...]:
    """The keys of each arm, and what it has of its own in words. `set_part` puts a value where a dotted name says.

    Raises ConfigError.
    """
    pair = entries[PAIR]
    if not isinstance(pair.value, dict) or not pair.value:
        raise pair.error(HOW)
    arms: list[tuple[dict[str, Node], list[str]]] = [({**entries}, []), ({**entries}, [])]
    seen: dict[tuple[str, ...], str] = {}
    for written, node in pair.value.items():
        keys = _keys(written, node)
        if (first := seen.setdefault(_meant(keys), written)) != written:
            raise node.error(f"pair.{one_line(written)} is the same key as {first}")
        _refuse_given(entries, written, keys, node)
        for (own, said), value in zip(arms, _two(written, node), strict=True):
            own.pop(PAIR, None)
            set_part(own, keys, value)
            said.append(f"{written} {_shown(value)}")
    return tuple((own, ", ".join(said)) for own, said in arms)


def _keys(written: str, node: Node) -> tuple[str, ...]:
    """The parts of a name such as `prompt.tokens`. Raises ConfigError for a key that nobody knows."""
    parts = tuple(written.split("."))
    meant = _meant(parts)
    if parts[0] in SECTIONS and len(parts) == 1:
        raise node.error(f"pair.{written}: name what differs, for example {written}.num_thread")
    if why := _NOT_ITS_OWN.get(meant[0]):
        raise node.error(f"pair.{one_line(written)}: {why}")
    if (meant[0] not in BY_NAME and not is_server_setting(meant[0])) or not all(map(_PART.fullmatch, parts)):
        known = [name for name in (*BY_NAME, *ALIASES) if name not in _NOT_ITS_OWN]
        raise node.error(f"unknown key pair.{one_line(written)}.{nearest(meant[0], known)}")
    return parts


def _meant(parts: tuple[str, ...]) -> tuple[str, ...]:
    """Without the section that a key may stand in, and by its first name."""
    inner = parts[1:] if parts[0] in SECTIONS and len(parts) > 1 else parts
    return (ALIASES.get(inner[0], inner[0]), *inner[1:])


def _refuse_given(entries: _Entries, written: str, parts: tuple[str, ...], node: Node) -> None:
    """A key of the pair has its values there and nowhere else."""
    meant = _meant(parts)
    there = entries.get(meant[0])
    for part in meant[1:]:
        there = there.value.get(part) if there is not None and isinstance(there.value, dict) else there
        if there is entries.get(meant[0]):
            break  # the whole key is given by one value, which the part would take away
    if there is not None:
        name = ".".join(meant)
        raise node.error(f"pair.{one_line(written)}: {name} is also given ({there.place}); leave one of them out")


def _two(written: str, node: Node) -> tuple[Node, Node]:
    """Both values. Raises ConfigError."""
    name = one_line(written)
    if not isinstance(node.value, list) or len(node.value) != 2:
        given = f"{len(node.value)} given" if isinstance(node.value, list) else "one value is given"
        raise node.error(f"pair.{name}: two values are wanted, such as [x, y]; {given}")
    first, second = node.value
    if _plain(first) == _plain(second):
        raise second.error(f"pair.{name}: both values are {_shown(second)}; the arms of a pair differ")
    return first, second


def _plain(node: Node) -> object:
    if isinstance(node.value, dict):
        return {name: _plain(inner) for name, inner in node.value.items()}
    return (
        [_plain(inner) for inner in node.value]
        if isinstance(node.value, list)
        else (isinstance(node.value, bool), node.value)
    )


def _shown(node: Node) -> str:
    """`0.33.0`, `true`, `[1, 2]`."""
    if isinstance(node.value, list):
        return f"[{', '.join(map(_shown, node.value))}]"
    if isinstance(node.value, dict):
        return f"{{{', '.join(f'{name}: {_shown(inner)}' for name, inner in node.value.items())}}}"
    return one_line(node.source or str(node.value))


# -- specs -----------------------------------------------------------------------------------------------------------


def spec_of(
    arms: tuple[tuple[SweepSpec, str], tuple[SweepSpec, str]], name: str, place: str, again: str = ""
) -> SweepSpec:
    """A pair of these sweeps with what each has of its own. Raises ConfigError where they cannot be compared."""
    named = tuple(
        replace(spec, name=f"{name}.{letter}", arm=InPair(letter, name, what, again))
        for letter, (spec, what) in zip(LETTERS, arms, strict=True)
    )
    refuse_strangers(named[0], named[1], place)
    return replace(named[0], name=name, arm=None, arms=named)


def of_entries(entries: _Entries, made: Callable[[_Entries], SweepSpec], set_part: _Replace) -> SweepSpec:
    """The pair that a sweep file describes; `made` reads the keys of one arm. Raises ConfigError."""
    node = entries[PAIR]
    (of_a, what_a), (of_b, what_b) = entries_of(entries, set_part)
    a, b = made(of_a), made(of_b)
    if are_same(a, b):
        raise node.error(f"pair: {what_a} and {what_b} are the same; the arms of a pair differ")
    return spec_of(((a, what_a), (b, what_b)), a.name, node.place)


def of_files(a: SweepSpec, b: SweepSpec) -> SweepSpec:
    """`run --pair A.yaml B.yaml`: equal ones as well, which tells how much the machine alone makes of it.

    Raises ConfigError.
    """
    for spec in (a, b):
        if spec.arms:
            raise ConfigError(f"{spec.config_path} has a pair itself; run it alone", "--pair")
    paths = [str(spec.config_path) for spec in (a, b)]
    if Path(paths[0]).resolve() == Path(paths[1]).resolve():
        raise ConfigError(f"{paths[0]} is given twice; a pair of equals needs two files", "--pair")
    name = a.name if a.name == b.name else f"{a.name}-{b.name}"
    return spec_of(((a, paths[0]), (b, paths[1])), name, "--pair", f"--pair {shlex.join(paths)}")


def are_same(a: SweepSpec, b: SweepSpec) -> bool:
    """Nothing differs once they are read."""
    return dict(_facts(a)) == dict(_facts(b))


def _facts(spec: SweepSpec) -> Iterator[tuple[str, object]]:
    for one in fields(spec):
        value = getattr(spec, one.name)
        if one.name == "exclude":
            value = [exclusion.text for exclusion in spec.exclude]
        elif one.name == "task_options":
            value = {task: {name: _plain(node) for name, node in given.items()} for task, given in value.items()}
        yield one.name, value


def in_words(spec: SweepSpec) -> str:
    """`a is num_thread 1, b is num_thread 2`."""
    return ", ".join(f"{arm.arm.letter} is {arm.arm.what}" for arm in spec.arms if arm.arm is not None)
