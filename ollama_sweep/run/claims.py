"""A sweep needs its server and its hardware for itself: what it needs, and that no other sweep has it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ollama_sweep.core.errors import DatabaseInUse, StorageError
from ollama_sweep.plan.opening import is_elsewhere as is_elsewhere
from ollama_sweep.store import lock
from ollama_sweep.store.rows import Holder

if TYPE_CHECKING:
    from ollama_sweep.engines.base import EngineInfo
    from ollama_sweep.machine.computer import Gpu
    from ollama_sweep.plan.spec import SweepSpec


def needs(spec: SweepSpec, info: EngineInfo, gpus: Callable[[], tuple[Gpu, ...]]) -> dict[str, str]:
    """What a sweep needs for itself, as key -> words: its server, and this computer's GPUs or else its processor."""
    import platform
    from urllib.parse import urlsplit

    from ollama_sweep import engines
    from ollama_sweep.machine import computer, ports
    from ollama_sweep.machine.address import is_loopback

    if info.replays:
        return {}
    is_scripted = engines.facts(info.name).is_scripted
    address = info.where if "://" in info.where else spec.host if is_scripted and spec.host else ""
    is_found = address and info.details.get("server") != "own"
    claims = {f"server {address}": f"The server at {address}"} if is_found else {}
    url = urlsplit(address)
    if is_scripted or (address and not is_loopback(url.hostname or "")):
        return claims
    settings = {**os.environ, **(ports.server_settings(url.port) or {} if url.port else {})}
    all_gpus = gpus()
    for gpu in computer.visible(all_gpus, settings):
        number = next(index for index, other in enumerate(all_gpus) if other is gpu)
        claims[f"{platform.node()} gpu {number}"] = f"GPU {number} ({gpu.name})"
    if len(claims) == bool(is_found):
        claims[f"{platform.node()} processor"] = "This computer's processor"
    return claims


def other_host(spec: SweepSpec, info: EngineInfo) -> Iterator[str]:
    """A note where the server is asked at another address than the one that is written."""
    from ollama_sweep import engines
    from ollama_sweep.machine.address import means_everywhere

    variable = engines.facts(info.name).host_variable
    what, given = ("host", spec.host) if spec.host or not variable else (variable, os.environ.get(variable))
    if given and "://" in info.where and info.details.get("server") != "own" and means_everywhere(given):
        yield (
            f"Note: {what} ({given}) is where a server listens, not where one is asked; "
            f"this computer's own at {info.where} is used"
        )


@contextlib.contextmanager
def claimed(things: Mapping[str, str], db: Path, say: Callable[[str], None], *, share: bool = False) -> Iterator[None]:
    """Hold these things (key -> words, `Ollama at http://…`) against other sweeps of this user while the block runs.

    Raises DatabaseInUse, which names the other sweep; with `share` what is taken is left to the other.
    """
    with contextlib.ExitStack() as held:
        for key, words in things.items():
            claim = _claim(key, words, db, say, share=share)
            if claim is not None:
                held.callback(claim.release, remove=True)
        yield


def _claim(key: str, words: str, db: Path, say: Callable[[str], None], *, share: bool) -> lock.WriterLock | None:
    from ollama_sweep.machine.files import cache_folder, safe_name

    file = cache_folder() / "in-use" / safe_name(key)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        claim = lock.WriterLock(file)
    except (OSError, StorageError) as error:
        say(f"Warning: nothing keeps a second sweep away from {words}: {error}")
        return None
    except DatabaseInUse:
        if share:
            return None
        raise DatabaseInUse(_taken(words, lock.holder(file) or Holder())) from None
    claim.note(str(db.resolve()))
    return claim


def _taken(words: str, other: Holder) -> str:
    by = f"pid {other.pid} since {lock.local_time(other.since)}, database {other.note}" if other.pid else "another run"
    return (
        f"{words} is in use by another sweep ({by}). Two at once spoil each other's numbers: "
        "wait for it or stop it, or run both with --share-server"
    )
