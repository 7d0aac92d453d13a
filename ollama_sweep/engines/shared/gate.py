"""The one gate for what comes from an engine: JSON, statistics, messages of children, generations of other packages.

Every field is checked once, where it enters: its type, that it is finite, whole where it counts, and possible (the
limits of docs/measurement.md). None is unknown and passes. What fails is `Nonsense`, which names the field and its
value; `of_cell` makes a failure of the cell of it, `of_server` an engine that is away. It is never a bug of ours.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import math
import numbers
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ollama_sweep.core import rates
from ollama_sweep.core.errors import CellFailed, EngineUnavailable
from ollama_sweep.core.generation import Generation, Vectors
from ollama_sweep.core.outcome import FAILURES, Effective, Status
from ollama_sweep.core.rates import (
    BYTES_MOST,
    COUNT_MOST,
    DURATION_MOST_S,
    LENGTH_MOST,
    RATE_MOST,
    REQUEST_SHARE,
    REQUEST_SLACK_S,
)

LONGEST_SHOWN = 80
LONGEST_ANSWER_SHOWN = 400
LONGEST_NUMBER = 40
NS_PER_S, MS_PER_S = 1e9, 1e3


class Nonsense(ValueError):
    """An engine said what cannot be. `reason` is that of a cell that fails of it."""

    reason = "protocol"


class BadValue(Nonsense):
    """A field is not what it must be: its name, its value, and what was expected, in one line."""

    reason = "bad_value"

    def __init__(self, name: str, value: object, expected: str) -> None:
        super().__init__(f"{name[:LONGEST_SHOWN]}: {shown(value)} instead of {expected}")


class _Written(str):
    """A number of JSON that is none for us (NaN, 1e400, hundreds of digits), as it was written."""

    __slots__ = ()


def shown(value: object) -> str:
    """The beginning of a value, fit for one line."""
    try:
        text = str(value) if isinstance(value, _Written) else json.dumps(value, default=repr)
    except Exception:  # a thing of another package may raise anything when it is shown
        text = f"a {type(value).__name__}"
    return text if len(text) <= LONGEST_SHOWN else f"{text[: LONGEST_SHOWN - 1]}…"


@contextlib.contextmanager
def of_cell(raw: str | Callable[[], str] = "") -> Iterator[None]:
    """Nonsense in this block is the cell's `parse_error`; `raw` is kept with it. Raises CellFailed."""
    try:
        yield
    except Nonsense as error:
        kept = raw if isinstance(raw, str) else raw()
        raise CellFailed(Status.PARSE_ERROR, error.reason, str(error), kept) from None


@contextlib.contextmanager
def of_server(where: str) -> Iterator[None]:
    """Nonsense in this block is a server that cannot be used now. Raises EngineUnavailable."""
    try:
        yield
    except Nonsense as error:
        raise EngineUnavailable(f"{where} answers nonsense: {error}") from None


# -- JSON and text -----------------------------------------------------------------------------------------------------


def loads(data: bytes | str, *, in_pieces: bool = False) -> Any:
    """JSON whose numbers are all finite; others come as text, which no number is ever taken from.

    `in_pieces`: a text may be half of one, so that halves of surrogate pairs stay as they are (`mended` joins them).
    Raises Nonsense.
    """
    try:
        text = data if isinstance(data, str) else data.decode(json.detect_encoding(data), "surrogatepass")
        found = json.loads(text, parse_int=_int, parse_float=_float, parse_constant=_Written)
        return found if in_pieces else _mended(found)
    except (ValueError, RecursionError):
        came = data if isinstance(data, str) else data.decode("utf-8", "replace")
        raise Nonsense(f"the answer is no JSON: {came[:LONGEST_ANSWER_SHOWN].strip()}") from None


def _int(digits: str) -> object:
    return int(digits) if len(digits) <= LONGEST_NUMBER else _Written(digits)


def _float(digits: str) -> object:
    number = float(digits)
    return number if math.isfinite(number) else _Written(digits)


def mended(text: str) -> str:
    """A text in which halves of surrogate pairs are joined and single ones replaced, so that it can be stored."""
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def _mended(value: Any) -> Any:
    if isinstance(value, _Written):
        return value
    if isinstance(value, str):
        return mended(value)
    if isinstance(value, list):
        return [_mended(one) for one in value] if not is_vector(value) else value
    if isinstance(value, dict):
        return {mended(name): _mended(one) for name, one in value.items()}
    return value


def mapping(name: str, value: object) -> Mapping[str, Any]:
    """An object; of none an empty one. Raises Nonsense."""
    if value is None or isinstance(value, Mapping):
        return value or {}
    raise BadValue(name, value, "an object")


def listed(name: str, value: object) -> list[Any]:
    """A list; of none an empty one. Raises Nonsense."""
    if value is None or isinstance(value, list):
        return value or []
    raise BadValue(name, value, "a list")


def text(name: str, value: object, *, in_pieces: bool = False) -> str:
    """A text; of none an empty one. Raises Nonsense."""
    if value is None:
        return ""
    if not isinstance(value, str) or isinstance(value, _Written):
        raise BadValue(name, value, "a text")
    return value if in_pieces else mended(value)


def flag(name: str, value: object) -> bool:
    """Yes or no; of none no. Raises Nonsense."""
    if value is None or isinstance(value, bool):
        return bool(value)
    raise BadValue(name, value, "true or false")


# -- numbers -----------------------------------------------------------------------------------------------------------


def whole(name: str, value: object, most: int = COUNT_MOST) -> int | None:
    """A whole number, 0 to `most`; 12.0 is one. Raises Nonsense."""
    number = _number(value)
    if value is None:
        return None
    if number is None or not 0 <= number <= most or number != int(number):
        raise BadValue(name, value, f"a whole number, 0 to {most}")
    return int(number)


def length(name: str, value: object) -> int | None:
    """The length of a context, or of a batch, in tokens. Raises Nonsense."""
    return whole(name, value, LENGTH_MOST)


def size_bytes(name: str, value: object) -> int | None:
    """A size in memory or on a disk. Raises Nonsense."""
    return whole(name, value, BYTES_MOST)


def duration_s(name: str, value: object, per_s: float = 1.0) -> float | None:
    """A duration, given in units of which a second has `per_s`. 0 was not measured: unknown. Raises Nonsense."""
    number = _number(value)
    if value is None:
        return None
    if number is None or not 0 <= number <= DURATION_MOST_S * per_s:
        raise BadValue(name, value, "a duration above 0")
    return float(number) / per_s or None


def rate(name: str, value: object, most: float = RATE_MOST) -> float | None:
    """Tokens per second. Raises Nonsense."""
    number = _number(value)
    if value is None:
        return None
    if number is None or not 0 <= number <= most:
        raise BadValue(name, value, f"a rate, 0 to {most:.0f} tokens/s")
    return float(number)


def finite(name: str, value: object) -> float:
    """Any number. Raises Nonsense."""
    number = _number(value)
    if number is None or not -1e300 <= number <= 1e300:
        raise BadValue(name, value, "a finite number")
    return float(number)


def vectors(name: str, value: object, rows: int) -> int:
    """The dimension of so many vectors of finite numbers. Raises Nonsense."""
    found = listed(name, value)
    if len(found) != rows or not all(found):
        full = sum(bool(one) for one in found)
        raise Nonsense(f"{rows} texts were sent and {full} vectors came back")
    bad = next((one for one in found if not is_vector(one) or len(one) != len(found[0])), None)
    if bad is not None:
        raise BadValue(name, bad, "vectors of one length, of finite numbers")
    return len(found[0]) if found else 0


def is_vector(value: object) -> bool:
    """A list of finite numbers."""
    return isinstance(value, list) and set(map(type, value)) <= {int, float} and all(map(math.isfinite, value))


def _number(value: object) -> int | float | None:
    """A real number, also one of numpy; None for all else, NaN among it."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        return None
    if isinstance(value, numbers.Integral):
        return int(value)
    try:
        number = float(value)
    except (ValueError, TypeError, OverflowError):
        return None
    return number if math.isfinite(number) else None


# -- the last look -----------------------------------------------------------------------------------------------------


def checked(found: object, *, fresh: bool) -> Generation:
    """What any engine gave for a request, each field typed and possible. Raises CellFailed (parse_error).

    `fresh`: its prompt rate counts. Where it does not, and cached tokens are not reported, they may make it any size.
    """
    raw = getattr(found, "raw", "")
    with of_cell(mended(raw) if isinstance(raw, str) else ""):
        if not isinstance(found, Generation):
            raise BadValue("generation", type(found).__name__, "a Generation")
        made = _checked_vectors("vectors", found.vectors)
        most = COUNT_MOST * max(1, made.rows if made else 0)  # the tokens of all rows together
        parts = dataclasses.fields(Generation)
        fields = {part.name: _checked_field(part, getattr(found, part.name), most) for part in parts}
        fields["client_duration_s"] = fields["client_duration_s"] or 0.0
        _check_durations(fields)
        generation = dataclasses.replace(found, **fields)
        _check_rates(generation, fresh=fresh)
    return generation


def _checked_field(field: dataclasses.Field[Any], value: object, most: int) -> Any:
    """By its annotation, and by the unit in its name."""
    readers: dict[str, Callable[[str, object], Any]] = {
        "str": text,
        "bool": flag,
        "int | None": functools.partial(whole, most=most),
        "float": duration_s,
        "float | None": rate if field.name.endswith("_rate") else duration_s,
        "Vectors | None": _checked_vectors,
        "Mapping[str, float]": _checked_numbers,
    }
    return readers[str(field.type)](field.name, value)


def _checked_vectors(name: str, value: object) -> Vectors | None:
    if value is None:
        return None
    if not isinstance(value, Vectors):
        raise BadValue(name, type(value).__name__, "Vectors")
    rows, dimension = whole(f"{name}.rows", value.rows), whole(f"{name}.dimension", value.dimension)
    if rows and not dimension:
        raise BadValue(f"{name}.dimension", value.dimension, "a whole number above 0")
    dtype, device = text(f"{name}.dtype", value.dtype), text(f"{name}.device", value.device)
    return Vectors(rows or 0, dimension or 0, dtype, device)


def _checked_numbers(name: str, value: object) -> dict[str, float]:
    return {text(name, key): finite(f"{name}.{key}", number) for key, number in mapping(name, value).items()}


def _check_durations(fields: Mapping[str, Any]) -> None:
    """A clock gives an upper bound: nothing inside a request takes longer than the request."""
    request_s = fields["client_duration_s"]
    for name, value in fields.items():
        if name.endswith("_s") and value and request_s and value > request_s * REQUEST_SHARE + REQUEST_SLACK_S:
            raise BadValue(name, value, f"at most the time of the whole request here ({request_s:.3g} s)")


def _check_rates(found: Generation, *, fresh: bool) -> None:
    """Counts that are possible, over durations that are possible, can be a rate that is not."""
    count, cached = found.prompt_eval_count, found.cached_count
    if count is not None and cached is not None and cached > count:
        raise BadValue("cached_count", cached, f"at most the prompt's {count} tokens")
    if count and found.prompt_eval_duration_s and (fresh or cached is not None):
        rate("prompt_eval_rate", rates.prompt_rate(count, cached, found.prompt_eval_duration_s))
    rate("eval_rate", rates.decode_rate(found.eval_count, found.eval_duration_s))


def storable(failure: CellFailed) -> CellFailed:
    """A failure as any engine raised it, with a status that is one, and texts that can be stored."""
    status = Status(failure.status) if failure.status in FAILURES else Status.ERROR
    reason, error, raw = (mended(str(part)) for part in (failure.reason, failure.error, failure.raw))
    return CellFailed(status, reason, error, raw)


def names(what: str, found: object) -> tuple[str, ...]:
    """Names as an engine gives them. Raises Nonsense."""
    if not isinstance(found, tuple):
        raise BadValue(what, type(found).__name__, "a tuple of names")
    return tuple(text(what, name) for name in found)


def effective(found: object) -> Effective:
    """What an engine says a load really uses, each field typed and possible. Raises CellFailed (parse_error)."""
    with of_cell():
        if not isinstance(found, Effective) or not isinstance(found.others_loaded, tuple):
            raise BadValue("prepare", type(getattr(found, "others_loaded", found)).__name__, "an Effective")
        return Effective(
            num_ctx=length("num_ctx", found.num_ctx),
            num_batch=length("num_batch", found.num_batch),
            size_bytes=size_bytes("size_bytes", found.size_bytes),
            size_vram_bytes=size_bytes("size_vram_bytes", found.size_vram_bytes),
            load_duration_s=duration_s("load_duration_s", found.load_duration_s),
            others_loaded=names("others_loaded", found.others_loaded),
            num_parallel=length("num_parallel", found.num_parallel),
        )
