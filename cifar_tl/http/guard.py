"""Who gets no further. Streamlit checks neither host nor origin of custom routes, so a web page that somebody here has open could call them.

In this order: the host name must be allowed (against DNS rebinding: a foreign name that leads to this machine); a browser must call from
the dashboard's own pages; the settings must be safe; the token must be right. A refusal is one line of JSON: {"error": "..."}.
"""

import asyncio
import secrets
from contextlib import suppress
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cifar_tl.http.settings import TOKEN, HttpSettings, is_loopback

# A refusal that comes while the caller still sends is lost with the connection, so this much is read and thrown away first.
MOST_DISCARDED_BYTES, MOST_DISCARDING_SECONDS = 128 * 2**20, 5.0

_OWN = ("same-origin", "none")  # Sec-Fetch-Site of own pages, and of an address that a person typed
_FORWARDED = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip")


class Guard:
    """An ASGI application in front of another."""

    def __init__(self, app: ASGIApp, settings: HttpSettings) -> None:
        self._app = app
        self._settings = settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":  # there are no web sockets here
            await send({"type": "websocket.close", "code": 1008})
            return
        exchange = _Exchange(receive, send, Headers(scope=scope))
        refusal = self._refusal(scope, Headers(scope=scope))
        await (refusal or self._app)(scope, exchange.receive, exchange.send)

    def _refusal(self, scope: Scope, headers: Headers) -> JSONResponse | None:
        if not self._is_host_allowed(headers.get("host", "")):
            return refused(
                403, "This server does not go by that name. Names it may have are in server.allowedHosts of .streamlit/config.toml."
            )
        if not _is_own_page_or_program(headers):
            return refused(403, "Web pages of other sites may not call this.")
        if self._settings.problem:
            return refused(503, self._settings.problem)
        if not self._settings.token:
            is_local = is_loopback((scope.get("server") or ("",))[0] or "") and not any(name in headers for name in _FORWARDED)
            # The server may listen elsewhere than Streamlit's settings say, or stand behind a proxy.
            return None if is_local else refused(503, f"Calls from other machines need a token: set {TOKEN}.")
        if not secrets.compare_digest(_bearer(headers), self._settings.token.encode()):
            return refused(401, "The token is missing or wrong. Send it as: Authorization: Bearer TOKEN", {"WWW-Authenticate": "Bearer"})
        return None

    def _is_host_allowed(self, host: str) -> bool:
        name, allowed = _name_of(host), self._settings.hosts
        if is_loopback(name) or (not allowed and self._settings.token):
            return True
        return bool(name) and any(
            pattern == "*" or name == pattern.strip("[]") or (pattern.startswith("*.") and name.endswith(pattern[1:]))
            for pattern in allowed
        )


def refused(status: int, why: str, headers: dict[str, str] | None = None) -> JSONResponse:
    """The only form in which errors are told."""
    return JSONResponse({"error": why}, status, headers)


def _name_of(host: str) -> str:
    """A Host header without its port; "" for what is none."""
    try:
        parts = urlsplit(f"//{host}")
        is_plain = parts.netloc == host and parts.username is None and (parts.port is None or parts.port >= 0)
        return (parts.hostname or "").lower().rstrip(".") if is_plain else ""
    except ValueError:
        return ""


def _is_own_page_or_program(headers: Headers) -> bool:
    """Browsers send these headers and let no page forge them; other programs send neither."""
    origin = headers.get("origin")
    if origin is not None and origin.partition("://")[2] != headers.get("host"):
        return False
    return headers.get("sec-fetch-site", "none") in _OWN


def _bearer(headers: Headers) -> bytes:
    scheme, _, token = headers.get("authorization", "").partition(" ")
    return token.strip().encode("latin-1", "replace") if scheme.lower() == "bearer" else b""


class _Exchange:
    """Receive and send of one request: answers carry headers of their own, and refusals wait until the caller has spoken."""

    def __init__(self, receive: Receive, send: Send, headers: Headers) -> None:
        self._receive = receive
        self._send = send
        # A caller who waits for "100 Continue" sends nothing until it is asked for.
        self._is_heard = "expect" in headers

    async def receive(self) -> Message:
        message = await self._receive()
        self._is_heard = not message.get("more_body", False)
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            if message["status"] >= 400:
                await self._hear_out()
            headers = MutableHeaders(raw=message.setdefault("headers", []))
            headers["Cache-Control"], headers["X-Content-Type-Options"] = "no-store", "nosniff"
        await self._send(message)

    async def _hear_out(self) -> None:
        discarded = 0
        with suppress(TimeoutError):
            async with asyncio.timeout(MOST_DISCARDING_SECONDS):
                while not self._is_heard and discarded < MOST_DISCARDED_BYTES:
                    discarded += len((await self.receive()).get("body", b""))
