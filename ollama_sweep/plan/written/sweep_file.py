"""A sweep file with ranges that suit a model, as text: the short one of `params` and the commented one of `init`.

No I/O: what is known of the model and the memory comes in, the file's text goes out. It loads, and `plan` takes it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from ollama_sweep.core.text import as_json, whole_line
from ollama_sweep.core.units import format_bytes
from ollama_sweep.engines.base import ModelInfo
from ollama_sweep.plan.keys import BY_NAME, Part
from ollama_sweep.plan.ranges import Range, Room, Suggestion
from ollama_sweep.plan.schema import COMMENT
from ollama_sweep.plan.written import comments

_PLAIN = re.compile(r"(?:[A-Za-z]|~?/|\.{1,2}/)[\w~./:-]*\w")
_NOT_PLAIN = frozenset({"true", "false", "null", "yes", "no", "on", "off"})
_OWN_TASK = "embeddings"
"""What a model is asked that cannot write."""
OFTEN_WANTED: Mapping[str, str] = {
    "num_predict": "32",
    "task": "[prompt_eval, chat]",
    "flash_attention": "true",
    "kv_cache_type": "[f16, q8_0]",
    "exclude": "num_batch > num_ctx",
    "prune": "true",
    "goal": "best",
    "repeats": "{min: 3, max: 10, until: 2%}",
    "passes": "2",
    "order": "shuffled",
    "timeout": "5m",
    "quiet_hours": '["mon-fri 09:00-18:00"]',
}
"""Keys that stand behind a `#` in the file of `init`, each with a value to begin with."""


def brief(info: ModelInfo, memory: Room, found: Suggestion, further: Sequence[str]) -> str:
    """The sweep file of `params`. The first comment is for editors, where a schema lies beside the file."""
    keys = _keys(info, found)
    width = max(len(f"{name}: {value}") for name, value in keys.items())
    lines = [COMMENT, *head(info, memory, found), *_comments(further), f"model: {_quoted(info.name)}"]
    for name, value in keys.items():
        reason = found.reasons.get(name)
        lines.append(f"{f'{name}: {value}':<{width}}  # {reason}" if reason else f"{name}: {value}")
    return "".join(f"{line}\n" for line in lines)


def commented(
    info: ModelInfo, memory: Room, found: Suggestion, further: Sequence[str], where: Mapping[str, str]
) -> str:
    """The sweep file of `init`: the same values, each with what its key is for, and what is often wanted besides.

    `further` are lines for its head. `where` has the keys that say who answers (`engine`, `host`, `ollama`), where
    the person has named them.
    """
    lines = [COMMENT, *head(info, memory, found), *_comments(further), "", comments.heading(Part.WHAT)]
    values = {"model": _quoted(info.name), **_keys(info, found)}
    last = ""
    for name, value in values.items():
        about = comments.explained(BY_NAME[name])
        reason = found.reasons.get(name, "")
        if about != last:
            lines += ["", *comments.comment(about)]
        last = about
        lines += comments.comment(f"Here: {comments.on_one_line(reason)}.") if reason else []
        lines.append(f"{name}: {value}")
    lines += _where(where)
    return "".join(f"{line}\n" for line in [*lines, *_switched_off(values)])


def head(info: ModelInfo, memory: Room, found: Suggestion) -> list[str]:
    """What the numbers come from, as comments."""
    facts = [info.parameter_size and f"{info.parameter_size} parameters", info.quantization]
    facts += [f"{format_bytes(info.size_bytes)} of weights"] if info.size_bytes else []
    facts += [f"trained for {info.context_length} tokens"] if info.context_length else []
    known = ", ".join(fact for fact in facts if fact) or "nothing known of it"
    cache = "KV cache: unknown"
    if info.kv_bytes_per_token is not None:
        largest = found.num_ctx.end
        total = format_bytes(info.kv_bytes_per_token * largest)
        cache = f"KV cache (f16): {format_bytes(info.kv_bytes_per_token)} a token, {total} for num_ctx {largest}"
    lines = [f"{info.name}: {known}", f"{cache}. {_free(memory)}"]
    lines += [f"Note: {note}" for note in found.notes]
    lines.append(f"{size(found)}; out of memory is a result, too")
    return [f"# {comments.on_one_line(line)}" for line in lines]


def _comments(lines: Sequence[str]) -> list[str]:
    """Names of files and sweeps may hold anything; a line of it stays one."""
    return [f"# {whole_line(line)}".rstrip() for line in lines]


def size(found: Suggestion) -> str:
    """`6 num_ctx x 7 num_batch = 42 cells`."""
    contexts, batches = len(found.num_ctx.values()), len(found.num_batch.values())
    return f"{contexts} num_ctx x {batches} num_batch = {found.cells} cells"


def _free(memory: Room) -> str:
    if memory.free_bytes is None:
        return f"How much of {memory.where} is free is not known"
    return f"Free now: {format_bytes(memory.free_bytes)} of {memory.where}"


def _keys(info: ModelInfo, found: Suggestion) -> dict[str, str]:
    """Keys and values behind the model's name. A model that cannot write has no prompt to read."""
    ranges = {"num_ctx": _written(found.num_ctx), "num_batch": _written(found.num_batch)}
    if info.capabilities and "completion" not in info.capabilities:
        return {**ranges, "task": _OWN_TASK}
    return {**ranges, "prompt": f"{{tokens: {found.prompt_tokens}}}"}


def _written(some: Range) -> str:
    if some.start == some.end:
        return str(some.start)
    return "{" + ", ".join(f"{name}: {value}" for name, value in some.picture().items()) + "}"


def _quoted(text: str) -> str:
    """Text as YAML reads it back, whatever it is made of."""
    is_plain = _PLAIN.fullmatch(text) and text.lower() not in _NOT_PLAIN
    return text if is_plain else as_json(text)


def _where(given: Mapping[str, str]) -> list[str]:
    lines = []
    for name, value in given.items():
        lines += ["", *comments.comment(comments.explained(BY_NAME[name])), f"{name}: {_quoted(value)}"]
    return ["", comments.heading(Part.WHERE), *lines] if lines else []


def _switched_off(values: Mapping[str, str]) -> list[str]:
    """Further keys as comments, by the part of the documentation that they stand in."""
    about = "The keys below are switched off: take the `# ` away in front of one. docs/configuration.md has all keys."
    lines: list[str] = ["", "", *comments.comment(about)]
    part = None
    for name, value in OFTEN_WANTED.items():
        key = BY_NAME[name]
        if name in values:
            continue
        if key.part is not part:
            lines += ["", comments.heading(key.part)]
            part = key.part
            if part is Part.SERVER:
                lines += ["", *comments.comment(comments.explained(BY_NAME["server"])), "# server: managed"]
        lines += ["", *comments.comment(comments.explained(key)), f"# {name}: {value}"]
    return lines
