"""The pages by their addresses: each reads the database in one short transaction and is then sent."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from ollama_sweep import __version__
from ollama_sweep.core.errors import ConfigError, StorageError, SweepError, nearest
from ollama_sweep.core.text import harmless, harmless_lines
from ollama_sweep.store.beside import log_path
from ollama_sweep.web import asked as asking
from ollama_sweep.web.ahead import Ahead
from ollama_sweep.web.control import BUTTONS, Controls
from ollama_sweep.web.guard import Access, Guard
from ollama_sweep.web.machines import Machines
from ollama_sweep.web.pulses import Pulses, Shape
from ollama_sweep.web.streams import Streams

if TYPE_CHECKING:
    from starlette.requests import Request

    from ollama_sweep.store.reader import Reader
    from ollama_sweep.web.library import Library

T = TypeVar("T")
LOG_BYTES = 64 * 1024
DEAR_S = 0.5
"""A page that took longer, or is of very many cells, is kept as long as nothing is written, for those who come again: a
few of them."""
FIRST = asking.Asked()
"""What is asked where the address says nothing more."""
MACHINES = ("/api", "/control", "/metrics")
"""What programs ask."""
WHOLE = "events?part=page"
"""What a page listens to that has no parts of its own which change."""
_STATIC = {"page.css": "text/css", "live.css": "text/css", "page.js": "text/javascript", "live.js": "text/javascript",
           "icon.svg": "image/svg+xml"}  # fmt: skip


class Pages:
    """The answers."""

    def __init__(self, library: Library, access: Access) -> None:
        self._library, self._access = library, access
        self._pulses = Pulses(library)
        self._made: dict[asking.Asked, tuple[tuple[object, ...], bytes]] = {}
        self.streams = Streams(library, self._pulses)
        self.ahead = Ahead(library, lambda: self._read_sweep(FIRST))

    def routes(self) -> list[Route]:
        """Every address."""
        pages: dict[str, Callable[[Request], Awaitable[Response]]] = {
            "/": self.sweep, "/sweeps": self.sweeps, "/cell": self.cell, "/log": self.log, "/events": self.events,
            "/static/{name}": static,
        }  # fmt: skip
        return [
            *(Route(path, self._shown(answer), methods=["GET"]) for path, answer in pages.items()),
            *Machines(self._library, self.streams).routes(),
            *(Controls(self._library.db).routes() if self._access.has_control else []),
        ]

    def _shown(self, answer: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
        """What cannot be answered is said on a page: whose fault it is decides how."""

        async def shown(request: Request) -> Response:
            try:
                return await answer(request)
            except SweepError as error:
                return self._notice(error)

        return shown

    def _notice(self, error: SweepError) -> Response:
        db = self._library.db
        if not db.exists():
            title, text, code = "No database", f"There is no database at {db} yet, or no longer.", 503
        elif isinstance(error, ConfigError) and error.where is None and "no sweep was begun" in str(error):
            title, text, code = "No sweep yet", "No sweep was begun in this database yet.", 200
        elif isinstance(error, ConfigError):
            title, text, code = "Not found", str(error), 404
        else:
            title, text, code = "The database cannot be read now", str(error), 503
        return self._page("notice.jinja", title, code, text=text, events=WHOLE)

    def _page(self, template: str, title: str, code: int = 200, **given: Any) -> Response:
        from ollama_sweep.web import pages

        text = pages.page(template, title=title, version=__version__, db=str(self._library.db), **given)
        return HTMLResponse(text, code)

    async def sweep(self, request: Request) -> Response:
        """A sweep, by default the one that ran last."""
        asked = asking.read(request.query_params.multi_items())

        if asked == FIRST and self.ahead.is_making:
            await self._library.aside(self.ahead.wait)
        if (made := self._made.get(asked)) and made[0] == self._library.state():
            return HTMLResponse(made[1])
        return await self._library.aside(lambda: self._read_sweep(asked))

    def _read_sweep(self, asked: asking.Asked) -> Response:
        state = self._library.state()

        def read(reader: Reader) -> Response:
            from ollama_sweep.web import pages

            begun = time.thread_time()
            found = pages.sweep_parts(reader, asked, self._library.told, self._library.sheets)
            control = BUTTONS if self._access.has_control and found["status"]["is_running"] else ()
            made = self._page("sweep.jinja", found["row"].name, **found, control=control, events=asked.link("events"))
            mark = reader.mark()
            shape = Shape(found["drawn"], mark[0], mark, found["status"]["state"], tiled=found["tiled"])
            cost_s = time.thread_time() - begun
            self._pulses.remember(asked, shape, cost_s)
            if cost_s > DEAR_S or found["gathered"].is_large:
                self._made = {**dict(list(self._made.items())[-3:]), asked: (state, bytes(made.body))}
            return made

        return self._library.read_now(read)

    async def events(self, request: Request) -> Response:
        """What a page hears as long as it is seen."""
        asked = asking.read(request.query_params.multi_items())
        has_parts = request.query_params.get("part") != "page"
        client = f"{request.client.host if request.client else ''} {request.headers.get('user-agent', '')}"
        sent = self.streams.listen(client, asked if has_parts else None)
        return StreamingResponse(sent, media_type="text/event-stream")

    async def sweeps(self, request: Request) -> Response:
        """All sweeps of the database."""

        def read(reader: Reader) -> Response:
            from ollama_sweep.web import pages

            return self._page("sweeps.jinja", "All sweeps", rows=pages.all_sweeps(reader), events=WHOLE)

        return await self._library.read(read)

    async def cell(self, request: Request) -> Response:
        """All that is known of one cell."""
        asked = asking.read(request.query_params.multi_items())
        position = asking.number(request.query_params.get("at", ""), "at", 0)

        def read(reader: Reader) -> Response:
            from ollama_sweep.web import pages

            found = pages.cell_parts(reader, asked, position, self._library.told)
            if request.query_params.get("part") == "brief":
                link = f"{asking.Asked(sweep=found['row'].name).link('cell')}&at={position}"
                return HTMLResponse(pages.page("brief.jinja", link=link, commands=found["commands"]))
            return self._page("cell.jinja", f"{found['row'].name}, cell {position}", **found,
                              events=WHOLE)  # fmt: skip

        return await self._library.read(read)

    async def log(self, request: Request) -> Response:
        """The end of what a run in the background has said."""
        found = end_of(log_path(self._library.db))
        note = f"The end of {log_path(self._library.db).name}, which a run in the background writes."
        if found is None:
            found, note = "", "There is no log: no run on this database was started with --detach."
        return self._page("log.jinja", "Log", note=note, text=harmless_lines(found), events=WHOLE)


def end_of(log: Path) -> str | None:
    """The last lines of a log; None where there is none. Raises StorageError."""
    try:
        with log.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - LOG_BYTES))
            text = file.read(LOG_BYTES).decode("utf-8", "replace")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StorageError(f"{log}: cannot be read ({error.strerror or error})") from error
    return text if size <= LOG_BYTES else text.partition("\n")[2]


async def static(request: Request) -> Response:
    """Style, script and icon, which are the same for everybody."""
    name = request.path_params["name"]
    if name not in _STATIC:
        return PlainTextResponse("not found\n", 404)
    return Response(_file(name), media_type=_STATIC[name], headers={"cache-control": "max-age=300"})


async def nowhere(request: Request, error: Exception) -> Response:
    """An address that there is not, or a way to ask that it does not take."""
    code = error.status_code if isinstance(error, HTTPException) else 500
    path, known = request.url.path, [str(getattr(route, "path", "")) for route in request.app.routes]
    text = f"{path} is not asked with {request.method}."
    if code != 405:
        text = f"There is nothing at {harmless(path)}.{nearest(path, known) or ' The page is at /'}"
    if path.startswith(MACHINES):
        return JSONResponse({"error": text}, code)
    return PlainTextResponse(f"{text}\n", code)


async def mistaken(request: Request, error: Exception) -> Response:
    """A mistake of this program; uvicorn prints the rest."""
    where = "what serve has printed, or its log, says where. Please report it"
    text = f"A mistake of this program ({type(error).__name__}): {where}."
    if request.url.path.startswith(MACHINES):
        return JSONResponse({"error": text}, 500)
    return PlainTextResponse(f"{text}\n", 500)


@cache
def _file(name: str) -> bytes:
    from ollama_sweep.results.page.rendering import TEMPLATES

    for folder in (Path(__file__).parent / "templates", TEMPLATES):
        with contextlib.suppress(FileNotFoundError):
            return (folder / name).read_bytes()
    raise FileNotFoundError(name)


@dataclass(frozen=True)
class Made:
    """The program behind the page: `end` ends what is under way, `begin_ahead` makes the first page before it is asked
    for, `wait` returns when that has ended.
    """

    app: Starlette
    begin_ahead: Callable[[], None]
    end: Callable[[], None]
    wait: Callable[[], None]


def make(library: Library, access: Access) -> Made:
    """All of it."""
    pages = Pages(library, access)
    guard, told = [Middleware(Guard, access=access)], {HTTPException: nowhere, Exception: mistaken}
    app = Starlette(routes=pages.routes(), middleware=guard, exception_handlers=told)

    def end() -> None:
        pages.streams.close()
        library.sheets.end()

    return Made(app, pages.ahead.begin, end, pages.ahead.wait)
