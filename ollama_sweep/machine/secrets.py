"""Which variables and texts carry a password or a key, and texts without them.

A secret stays in the environment of this program: no file, no database, no log, no command line and no child gets it,
except the one it is for.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from functools import lru_cache

from ollama_sweep.machine.env import HIDDEN, PLACEHOLDERS

NOTIFY = "OLLAMA_SWEEP_NOTIFY"
SHORTEST = 8
"""A shorter value is not looked for in texts: it may stand there by chance."""

_NAME = re.compile(r"(?:.*_)?(?:API_?KEY|KEY|TOKEN|SECRET|PASSWORD|PASSWD|PASSPHRASE|CREDENTIALS?)", re.IGNORECASE)
_NO_SECRETS = frozenset({"OLLAMA_SWEEP_TOKEN"})
"""By its name it looks like one; it marks the processes of a session."""
_LOGIN = re.compile(r"(://)[^\s/?#@\"']+(?:/[^\s/?#@\"']+)?@(?=[^\s@])")
_BARE_LOGIN = re.compile(r"[^\s/@]+:[^\s@]+@[^\s@]+")
_QUERY = re.compile(
    r"([?&;](?:[\w-]*[_-])?(?:api_?key|key|token|secret|password|passwd|pwd|signature|sig|auth)=)[^\s&#\"']+",
    re.IGNORECASE,
)
_HEADERS = ("authorization", "x-api-key")
_HEADER = re.compile(rf"(\b(?:{'|'.join(_HEADERS)})\b[\"']?\s*[:=]\s*[\"']?(?:(?:bearer|basic)\s+)?)[^\s\"',]+", re.I)


@lru_cache(maxsize=1024)
def is_secret(name: str, value: str = "") -> bool:
    """A variable that carries a secret: by its name, or by a login or a token in the address that it holds."""
    if name in _NO_SECRETS:
        return False
    return name == NOTIFY or _NAME.fullmatch(name) is not None or has_login(value)


def has_login(text: str) -> bool:
    """An address with a user's password or a token in it."""
    return bool(_LOGIN.search(text) or _QUERY.search(text) or _BARE_LOGIN.fullmatch(text.strip()))


def without(environment: Mapping[str, str], needs: Callable[[str], bool] | None = None) -> dict[str, str]:
    """The environment for a child: secrets are left out but for those that it `needs`, asked by name."""
    kept = needs or (lambda name: False)
    return {name: value for name, value in environment.items() if kept(name) or not is_secret(name, value)}


def masked(text: str) -> str:
    """The text without logins and tokens in addresses, and without the values of this program's secret variables."""
    return masker()(text) if text else ""


def masker() -> Callable[[str], str]:
    """`masked` for several texts: the variables are gone through once."""
    secret = [value for name, value in os.environ.items() if len(value) >= SHORTEST and is_secret(name, value)]
    parts = [part for value in secret for part in _parts(value)]

    def mask(text: str) -> str:
        text = _QUERY.sub(rf"\1{HIDDEN}", _LOGIN.sub(rf"\1{HIDDEN}@", text))
        if any(map(text.lower().__contains__, _HEADERS)):
            text = _HEADER.sub(rf"\1{HIDDEN}", text)
        for part in filter(text.__contains__, parts):
            text = text.replace(part, HIDDEN)
        return text

    return mask


def _parts(value: str) -> list[str]:
    """What of a secret must not be seen: of addresses what stands behind `://`, and the password in it."""
    words = [word.rpartition("://")[2] for word in (value.split() if "://" in value else [value])]
    passwords = [word.rpartition("@")[0].partition(":")[2] for word in words]
    return [part for part in (*words, *passwords) if len(part) >= SHORTEST and part.lower() not in PLACEHOLDERS]
