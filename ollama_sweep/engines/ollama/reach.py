"""One Ollama server, asked from outside whether it could be measured: nothing is started, loaded or changed there."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, TypeVar

from ollama_sweep.core.text import one_line
from ollama_sweep.core.units import format_duration
from ollama_sweep.engines.ollama.listed import installed_in
from ollama_sweep.engines.ollama.look import models_folder
from ollama_sweep.engines.ollama.server import MINIMUM_VERSION, version_tuple
from ollama_sweep.engines.shared import gate
from ollama_sweep.engines.shared.reached import Told, Unreached
from ollama_sweep.machine import ports
from ollama_sweep.machine.address import Address, is_encrypted
from ollama_sweep.machine.hosts import refusals

if TYPE_CHECKING:
    import httpx

T = TypeVar("T")
MOST_BYTES = 16 << 20
"""A list of models is a few kilobytes."""
HOW_TO_START = "Start it there so that others reach it: OLLAMA_HOST=0.0.0.0 ollama serve"
_OK = 200
_PASSWORD = (401, 403, 407)


@dataclass(frozen=True)
class _Answer:
    headers: Mapping[str, str]
    content: bytes
    peer: str


def reach(address: Address, timeout_s: float) -> Told:
    """Ask the server at an address; each of two answers may take `timeout_s`. Raises Unreached."""
    import httpx

    try:
        with httpx.Client(base_url=address.root, verify=is_encrypted(address.root), timeout=timeout_s) as client:
            began_at = time.time()
            answer = _get(client, "/api/version", timeout_s)
            clock_off_s = clock_off(answer.headers.get("date", ""), began_at, time.time())
            version = _read(answer, _version_in)
            installed = _read(_get(client, "/api/tags", timeout_s), installed_in)
    except (httpx.HTTPError, httpx.InvalidURL, OSError, UnicodeError) as error:
        raise _unreached(error, address, timeout_s) from error
    number = version_tuple(version)
    if (0, 0, 0) != number < MINIMUM_VERSION:
        need = ".".join(map(str, MINIMUM_VERSION))
        raise Unreached(f"has Ollama {one_line(version)}, which is too old (need {need} or newer)", "Update it there")
    models = {name: entry.digest for name, entry in installed.items()}
    return Told("Ollama", version, models, clock_off_s, _free_bytes(address), answer.peer)


def _get(client: httpx.Client, path: str, timeout_s: float) -> _Answer:
    """The whole answer, of at most so many bytes and seconds. Raises Unreached, httpx's errors."""
    until = time.monotonic() + timeout_s
    with client.stream("GET", path) as answer:
        if answer.status_code != _OK:
            raise _refused(answer, path)
        peer, content = _peer(answer), bytearray()
        for piece in answer.iter_bytes():
            content += piece
            if len(content) > MOST_BYTES or time.monotonic() > until:
                raise Unreached(f"does not come to an end with {path}", "Is that an Ollama? Its log may say more")
    return _Answer(answer.headers, bytes(content), peer)


def _peer(answer: httpx.Response) -> str:
    """The address that answered; "" where it cannot be told."""
    stream = answer.extensions.get("network_stream")
    with contextlib.suppress(OSError):
        found = stream.get_extra_info("server_addr") if stream is not None else None
        return f"{found[0]}:{found[1]}" if found else ""
    return ""


def _refused(answer: httpx.Response, path: str) -> Unreached:
    code = answer.status_code
    if code in _PASSWORD:
        hint = "Ollama asks for none: name its own address, behind what does, or a tunnel to it"
        return Unreached(f"is behind a password (HTTP {code})", hint)
    if answer.is_redirect:
        where = one_line(answer.headers.get("location", ""))
        return Unreached(f"sends elsewhere ({where})", "Name the address of Ollama itself")
    if answer.is_server_error:
        hint = "Its log says why; a proxy says so where the Ollama behind it is down"
        return Unreached(f"answers {path} with HTTP {code}", hint)
    return _another(answer.headers)


def _another(headers: Mapping[str, str]) -> Unreached:
    program = one_line(headers.get("server", ""))
    named = f" ({program})" if program else ""
    hint = "Name the port of Ollama, which is 11434 where nobody set another"
    return Unreached(f"answers as another program{named}, not as Ollama", hint)


def _read(answer: _Answer, reader: Callable[[Mapping[str, Any]], T]) -> T:
    try:
        found = gate.loads(answer.content)
        if not isinstance(found, Mapping):
            raise gate.BadValue("the answer", found, "an object")
        return reader(found)
    except gate.Nonsense:
        raise _another(answer.headers) from None


def _version_in(answer: Mapping[str, Any]) -> str:
    version = gate.text("version", answer.get("version"))
    if not version:
        raise gate.BadValue("version", answer.get("version"), "a version")
    return version


def _unreached(error: Exception, address: Address, timeout_s: float) -> Unreached:
    import httpx

    limit = format_duration(timeout_s)
    if isinstance(error, httpx.ConnectTimeout):
        hint = f"Is it on, and does its firewall let port {address.port} through?"
        return Unreached(f"is not reached within {limit}", hint)
    if isinstance(error, httpx.TimeoutException):
        return Unreached(f"takes the connection and does not answer within {limit}", "It hangs: restart its server")
    known = refusals.why(error)
    if known is None:
        return Unreached(f"cannot be asked ({one_line(str(error))})", "Is that the address of an Ollama?")
    if known.is_silent_port:
        return Unreached(known.text, "Start it with: ollama serve" if address.is_local else HOW_TO_START)
    return Unreached(known.text, known.hint)


def clock_off(date: str, began_at: float, ended_at: float) -> float | None:
    """By how many seconds a server's clock is ahead of ours at least, by the date of an answer that was asked for and
    came between these two of our times; behind is negative. A date has whole seconds, so that less than one is 0.
    """
    try:
        said = parsedate_to_datetime(date).timestamp()
    except (ValueError, TypeError, OverflowError):
        return None
    least, most = said - ended_at, said + 1 - began_at
    if least <= 0 <= most:
        return 0.0
    return least if least > 0 else most


def _free_bytes(address: Address) -> int | None:
    """Only of a server whose environment can be seen here: the API says nothing of disks."""
    settings = None if ports.is_elsewhere(address.root) else ports.server_settings(address.port)
    if settings is None:
        return None
    folder = models_folder(settings)
    with contextlib.suppress(OSError):
        return shutil.disk_usage(next(place for place in (folder, *folder.parents) if place.exists())).free
    return None
