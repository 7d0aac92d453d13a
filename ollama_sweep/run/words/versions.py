"""What is said of an engine that is another one than a sweep was measured with (`--same-version`)."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from ollama_sweep.store.lanes.versions import BETWEEN, VERSION

OPTION = "--same-version"
ENGINE, LIBRARY = "engine", "library_digest"


def other_engine(was: Mapping[str, object], now: Mapping[str, str]) -> str:
    """Which engine a sweep was measured with, which one there is now, and what to do; "" where they are the same, as
    far as both are known. Both are fingerprints of surroundings.
    """
    parts = [name for name in (ENGINE, VERSION, LIBRARY) if was.get(name) and now.get(name)]
    unlike = [name for name in parts if str(was[name]) != now[name]]
    if not unlike:
        return ""
    words = f"the sweep was measured with {_words(was, unlike)}, and now it is {_words(now, unlike)}"
    todo = f"Go back to that one, or leave out {OPTION}: cells from then on belong to a new segment"
    return f"{words}. {todo}. What is measured is kept"


def _words(fingerprint: Mapping[str, object], unlike: Collection[str]) -> str:
    name, version = str(fingerprint.get(ENGINE) or "the engine"), str(fingerprint.get(VERSION) or "")
    library = f" (library {str(fingerprint[LIBRARY])[:12]})" if LIBRARY in unlike else ""
    return f"{name} {version.replace(BETWEEN, ' and ')}".rstrip() + library


def other_lane(engine: str, now: str, wanted: Collection[str], *, is_own: bool) -> str:
    """Why a lane is left out whose engine is of another version; `is_own`: it has measured with the wanted one."""
    known = " or ".join(sorted(wanted))
    who = "it has measured" if is_own else "the sweep was measured"
    return f"has {engine} {now}, and {who} with {known}; bring it to {known}, or leave out {OPTION}"
