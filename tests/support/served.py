"""The live page for tests: asked inside the test's own process, or as the process that a person starts."""

from __future__ import annotations

import asyncio
import contextlib
import re
import signal
import socket
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
from ollama_fixture import until
from sweep_runner import Started, Sweep

from ollama_sweep.cli.commands.serve import library_of
from ollama_sweep.web import app
from ollama_sweep.web.guard import Access

PORT = 8437
HERE = f"http://127.0.0.1:{PORT}"
VOID = {"meta", "rect", "path", "img", "br", "circle", "input", "link"}


class Page(HTMLParser):
    """What a browser would make of a page; every element is closed where it was opened."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    @property
    def said(self) -> str:
        """All its words."""
        return " ".join(" ".join(self.texts).split())

    def all(self, tag: str, name: str) -> list[str]:
        """This attribute of every such element that has it."""
        return [str(attributes[name]) for found, attributes in self.elements if found == tag and name in attributes]


class Asking:
    """Asks the page of a database, without a server between."""

    def __init__(self, db: Path, access: Access, *, raises: bool) -> None:
        self.cookies = httpx.Cookies()
        made = app.make(library_of(db), access).app
        self._transport = httpx.ASGITransport(made, raise_app_exceptions=raises)

    def get(self, path: str, **given: Any) -> httpx.Response:
        """Its answer; redirects are not followed."""
        return self.request("GET", path, **given)

    def post(self, path: str, **given: Any) -> httpx.Response:
        """The same."""
        return self.request("POST", path, **given)

    def request(self, method: str, path: str, **given: Any) -> httpx.Response:
        """The same. Cookies are kept."""

        async def ask() -> httpx.Response:
            async with httpx.AsyncClient(transport=self._transport, base_url=HERE, cookies=self.cookies) as client:
                answer = await client.request(method, path, **given)
                self.cookies = client.cookies
                return answer

        return asyncio.run(ask())


def asked(db: Path, access: Access | None = None, *, raises: bool = True) -> Asking:
    """Asks the page of a database. A mistake of the program is raised here, or answered as a server does."""
    return Asking(db, access or Access(port=PORT), raises=raises)


class Served:
    """`serve` as a process; `url` is what it printed."""

    def __init__(self, started: Started, url: str) -> None:
        self.process, self.url = started, url

    def get(self, path: str = "") -> httpx.Response:
        """Ask it."""
        return httpx.get(self.url + path, timeout=60)


def never_reads(served: Served, path: str = "") -> socket.socket:
    """A client that asks for a page and never takes a byte of the answer."""
    found = urlsplit(served.url)
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
    client.connect((str(found.hostname), found.port or 0))
    client.sendall(f"GET /{path} HTTP/1.1\r\nhost: {found.netloc}\r\n\r\n".encode())
    return client


@contextlib.contextmanager
def serving(sweep: Sweep, *words: str) -> Iterator[Served]:
    """The process from its address on; it is ended as a person does it, and must end well."""
    started = sweep.start("serve", *words)
    yield Served(started, until("the address", lambda: _printed(started)))
    if started.is_running():
        started.kill(signal.SIGTERM)
    started.wait(60).must(0)


def _printed(started: Started) -> str | None:
    assert started.is_running(), started.wait(1)
    found = re.search(r"http://\S+", started.said)
    return found[0] if found else None
