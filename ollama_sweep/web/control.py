"""`pause`, `continue` and `stop` as buttons: the same requests as those commands make, from a page with a token."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

from ollama_sweep.core.errors import ConfigError, DatabaseInUse, SweepError

if TYPE_CHECKING:
    from starlette.requests import Request

BUTTONS = (("pause", "Pause before the next cell"), ("continue", "Go on"), ("stop", "Stop after this cell"))
"""What there is, and the words on it."""


class Controls:
    """What may be asked of the sweep that runs on a database."""

    def __init__(self, db: Path) -> None:
        self._db = db

    def routes(self) -> list[Route]:
        """Their addresses."""
        return [Route("/control/{what}", self._asked, methods=["POST"])]

    async def _asked(self, request: Request) -> Response:
        """A form is led back to its page, a program is told what was done."""
        does: dict[str, Callable[[], str]] = {"pause": self._pause, "continue": self._go_on, "stop": self._stop}
        work = does.get(request.path_params["what"])
        if work is None:
            return PlainTextResponse(f"There are {', '.join(does)}.\n", 404)
        wants_page = "text/html" in request.headers.get("accept", "")
        try:
            said = await anyio.to_thread.run_sync(work)
        except SweepError as error:
            code = 409 if isinstance(error, ConfigError | DatabaseInUse) else 503
            return JSONResponse({"error": str(error)}, code)
        return RedirectResponse("../", 303) if wants_page else JSONResponse({"said": said})

    def _pause(self) -> str:
        from ollama_sweep.run import control

        control.require_running(self._db)
        control.ask_to_pause(self._db)
        return "the sweep waits before its next cell"

    def _go_on(self) -> str:
        from ollama_sweep.run import control

        return "the sweep goes on" if control.ask_to_continue(self._db) else "no pause was asked for"

    def _stop(self) -> str:
        from ollama_sweep.run import control

        control.ask_to_stop(self._db, control.require_running(self._db), now=False)
        return "the sweep stops after its cell"
