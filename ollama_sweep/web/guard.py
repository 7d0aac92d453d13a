"""Who may ask, and what every answer says: this computer's own names only, a token where there is one, no framing.

A page elsewhere that points a name of its own here (DNS rebinding) is refused by its Host header, a form of one by its
Origin.
"""

from __future__ import annotations

import hmac
import ipaddress
import platform
from dataclasses import dataclass
from email.utils import formatdate
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, urlencode, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import cookie_parser
from starlette.responses import PlainTextResponse, RedirectResponse, Response

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

HEADERS = {
    "content-security-policy": "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'self'; "
    "frame-ancestors 'none'",
    "x-frame-options": "DENY",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}
LOOPBACK = ("127.0.0.1", "localhost", "::1")
OPEN = ("/static/",)
"""Paths that hold nothing of a sweep."""
TOKEN = "token"  # noqa: S105 - the name of it in an address


@dataclass(frozen=True)
class Access:
    """Who may ask: `token` "" is everybody on this computer; `is_far` is a server that other computers reach."""

    token: str = ""
    is_far: bool = False
    port: int = 0
    has_control: bool = False
    """There are buttons; only with a token."""

    @property
    def cookie(self) -> str:
        """The cookie's name: browsers do not tell ports apart, so the port is in it."""
        return f"ollama_sweep_{self.port}"

    def knows(self, host: str) -> bool:
        """The Host header names this server: loopback by any port (`ssh -L`), and where others reach it an address."""
        name = urlsplit(f"//{host}").hostname or ""
        if name in LOOPBACK:
            return True
        return self.is_far and (
            _is_address(name) or name in (platform.node().lower(), platform.node().lower() + ".local")
        )

    def allows(self, given: str) -> bool:
        """The token is the right one, or there is none."""
        return not self.token or hmac.compare_digest(given.encode(), self.token.encode())


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


class Guard:
    """Stands in front of the pages."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app, self._access = app, access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse, redirect, or let it pass; whatever is answered has the headers."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                now = formatdate(usegmt=True)
                for name, value in {**HEADERS, "cache-control": "no-store", "date": now}.items():
                    headers.setdefault(name, value)
            await send(message)

        refused = self._refused(scope)
        await (refused or self._app)(scope, receive, send_guarded)

    def _refused(self, scope: Scope) -> Response | None:
        headers, access = Headers(scope=scope), self._access
        try:
            is_known = access.knows(headers.get("host", ""))
        except ValueError:
            is_known = False
        if not is_known:
            return PlainTextResponse("This server answers under its own name only: open the address it printed.\n", 421)
        if scope["method"] not in ("GET", "HEAD", "POST"):
            return PlainTextResponse("GET and POST only.\n", 405, {"allow": "GET, HEAD, POST"})
        query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        asked = dict(query).get(TOKEN)
        if asked is not None and scope["method"] == "GET":
            return self._let_in(scope, asked, [pair for pair in query if pair[0] != TOKEN])
        has_bearer = access.token and access.allows(_bearer(headers))
        cookie = cookie_parser(headers.get("cookie", "")).get(access.cookie, "")
        if not has_bearer and not access.allows(cookie) and not scope["path"].startswith(OPEN):
            return _no_token()
        if scope["method"] == "POST" and not has_bearer and not _is_own(headers):
            return PlainTextResponse("A button of this page only: the request comes from elsewhere.\n", 403)
        return None

    def _let_in(self, scope: Scope, token: str, rest: list[tuple[str, str]]) -> Response:
        """The token becomes a cookie and leaves the address, so it stands in no history and goes nowhere."""
        if not self._access.token or not self._access.allows(token):
            return _no_token()
        answer = RedirectResponse(f"/{scope['path'].lstrip('/')}{'?' if rest else ''}{urlencode(rest)}", 303)
        answer.set_cookie(self._access.cookie, self._access.token, httponly=True, samesite="strict", path="/")
        return answer


def _bearer(headers: Headers) -> str:
    kind, _, token = headers.get("authorization", "").partition(" ")
    return token.strip() if kind.lower() == "bearer" else ""


def _is_own(headers: Headers) -> bool:
    """The Origin is this very server."""
    found = urlsplit(headers.get("origin", ""))
    return bool(found.netloc) and found.scheme in ("http", "https") and found.netloc == headers.get("host", "")


def _no_token() -> Response:
    text = "This page needs its token: open the address that was printed when it started, with all of its end.\n"
    return PlainTextResponse(text, 401, {"www-authenticate": "Bearer"})
