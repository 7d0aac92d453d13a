"""Addresses of servers: as a person writes them, checked; another machine only where that was allowed."""

from __future__ import annotations

import ipaddress
import os
from dataclasses import dataclass
from urllib.parse import urlsplit

from ollama_sweep.core.errors import ConfigError

OLLAMA_HOST = "127.0.0.1:11434"
OLLAMA_PORT = 11434
_EVERYWHERE = ("0.0.0.0", "::")  # noqa: S104 - what a server listens on is not where a client connects to


@dataclass(frozen=True)
class Address:
    """Where a server listens; `path` is what stands behind the port, without a `/` at its end."""

    scheme: str
    name: str
    port: int
    path: str = ""

    @property
    def root(self) -> str:
        """`http://127.0.0.1:11434`."""
        return f"{self.scheme}://{f'[{self.name}]' if ':' in self.name else self.name}:{self.port}"

    @property
    def url(self) -> str:
        """The root with the path."""
        return self.root + self.path

    @property
    def is_local(self) -> bool:
        """It is this machine by its name, so that no name server is asked."""
        return is_loopback(self.name)


def base_url(host: str | None, *, allow_remote: bool) -> str:
    """`http://127.0.0.1:11434` from a host as OLLAMA_HOST writes it. Raises ConfigError."""
    named = "" if host else os.environ.get("OLLAMA_HOST", "")
    where = "OLLAMA_HOST" if named else "host"
    return server(host or named or OLLAMA_HOST, allow_remote=allow_remote, port=OLLAMA_PORT, where=where).root


def api_address(text: str, *, allow_remote: bool, port: int, where: str = "host") -> Address:
    """The address of an OpenAI-compatible API: `/v1` where the text gives no path. Raises ConfigError."""
    found = address(text, allow_remote=allow_remote, port=port, where=where)
    return found if found.path else Address(found.scheme, found.name, found.port, "/v1")


def address(text: str, *, allow_remote: bool, port: int, where: str = "host") -> Address:
    """A host as people write it, `port` where neither a port nor a scheme is given. Raises ConfigError."""
    scheme, _, rest = text.strip().rpartition("://")
    if "@" in rest or "?" in rest or "#" in rest:
        raise ConfigError("put credentials into api_key_env, not into the URL", where)
    try:
        parts = urlsplit(f"{scheme or 'http'}://{rest}")
        name, given = parts.hostname or "127.0.0.1", parts.port
    except ValueError:
        raise ConfigError(f"{text} is not a host. Write it like 127.0.0.1:{port}", where) from None
    if scheme not in ("", "http", "https"):
        raise ConfigError(f"{scheme}:// is not spoken here; write http:// or https://", where)
    if name in _EVERYWHERE:
        name = "127.0.0.1"
    if not allow_remote and not is_loopback(name):
        raise ConfigError(f"{name} is another machine; numbers would be its, not this one's. Use --remote", where)
    standard = {"http": 80, "https": 443}.get(scheme, port)
    return Address(scheme or "http", name, given or standard, parts.path.rstrip("/"))


def server(text: str, *, allow_remote: bool, port: int, where: str = "host") -> Address:
    """The same of a server that has nothing behind its port. Raises ConfigError."""
    found = address(text, allow_remote=allow_remote, port=port, where=where)
    if found.path:
        raise ConfigError(f"{text} has a path ({found.path}), which this server has not; write {found.root}", where)
    return found


def means_everywhere(text: str) -> bool:
    """A host as people write it that stands for every address of a computer; `address` takes it for this one's."""
    try:
        return urlsplit(f"http://{text.strip().rpartition('://')[2]}").hostname in _EVERYWHERE
    except ValueError:
        return False


def is_loopback(name: str) -> bool:
    """An address of this machine's own, or `localhost`."""
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name == "localhost"


def is_encrypted(url: str) -> bool:
    """Whether certificates matter. To read them is most of what a new client costs."""
    return url.startswith("https:")
