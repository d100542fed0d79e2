"""The outermost layer: who is calling, how often, how much. The same for REST, SSE and WebSocket.

It sets `scope["principal"]`, `scope["correlation_id"]` and `scope["address"]` for what lies behind it, and
`scope["status"]` for the log.
"""

from __future__ import annotations

import asyncio
import gc
import re
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from functools import partial
from typing import Any

from agents_app import bodies, ratelimits
from agents_app.ratelimits import Standing
from agents_app.supervisor import supervisor
from runtime_project import access, operators, sentinel, shutdown
from runtime_project.callers import NOBODY, principal_of
from runtime_project.origin import Scope, address_of, correlation_id, headers_of
from runtime_project.sentinel import NOT_AUTHENTICATED, Message, Receive, Send
from sessions_app import correlation, owners, strict_json
from sessions_app.conf import settings
from sessions_app.errors import RuntimeFault

App = Callable[[Scope, Receive, Send], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

PUBLIC = re.compile(r"/((api/v1/)?health(/.*)?|docs(/.*)?|openapi\.json|asyncapi\.json|static/.*|favicon\.ico)")
ADMIN = re.compile(r"/admin(/.*)?")
HEALTH = re.compile(r"/(api/v1/)?health(/.*)?")
STREAM_PATHS = frozenset({"/agent/message/stream", "/api/v1/agent/message/stream"})
HOST = re.compile(rb"(?i)([a-z0-9.-]+|\[[a-f0-9]*:[a-f0-9.:]+\])(:[0-9]+)?")
UNAUTHORIZED = {"detail": "unauthorized"}
TRY_LATER = 1013
RETRY_SOON = (b"retry-after", b"2")
LINGER_SECONDS = 5.0
GARBAGE_AT_ONCE = 10_000  # new objects before the collector looks among them


class Gate:
    """Wraps the whole application."""

    def __init__(self, app: App) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await lifespan(receive, send)
            return
        start()
        scope["correlation_id"] = correlation_id(scope)
        scope["address"] = address_of(scope)
        with access.Told(scope), correlation.followed_as(scope["correlation_id"]):
            await (self._websocket if scope["type"] == "websocket" else self._http)(scope, receive, send)

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"]
        standing = None if _uncounted(path) else await ratelimits.hit_address(scope["address"])
        answer = _Answer(send, scope, standing)
        if standing is not None and not standing.allowed:
            if not await _may_answer_a_call(scope):
                await answer.too_many(standing)
                return
            scope["over_limit"] = standing  # a result that a call waits for is let through, once it is read
        if path == operators.LOGIN and scope["method"] == "POST":
            scope["login_over_limit"] = await _too_many_logins(scope["address"])
        try:
            refusal = await self._refusal(scope)
        except RuntimeFault as fault:
            await answer.json(fault.status, {"detail": str(fault), "code": fault.code}, [RETRY_SOON])
            return
        if refusal:
            await answer.json(*refusal)
            return
        # What an answer goes on with, once it has begun.
        scope["send_on"], scope["begun_body"] = send, partial(bodies.begun_by, send)
        try:
            await self._capped(scope, receive, answer)
        finally:
            del scope["send_on"], scope["begun_body"]  # they hold the scope: only the collector would free them

    async def _refusal(self, scope: Scope) -> tuple[int, Any] | None:
        path = scope["path"]
        if ADMIN.fullmatch(path):
            return None if _admin_host(scope) else (404, {"detail": "Not found."})
        # The Gateway calls by container names, and Django refuses those with an underscore.
        odd = [(key, value) for key, value in scope["headers"] if key == b"host" and not HOST.fullmatch(value)]
        if odd:
            scope["headers"] = [(b"host", b"localhost") if pair in odd else pair for pair in scope["headers"]]
        if PUBLIC.fullmatch(path) or _is_open_metrics(path):
            return None
        scope["principal"] = principal = await principal_of(scope)
        if principal and principal.owner and path == "/metrics":
            return 403, {"detail": "These are the metrics of all owners together."}
        return None if principal else (401, UNAUTHORIZED)

    async def _capped(self, scope: Scope, receive: Receive, answer: _Answer) -> None:
        """Hands the request on with a bounded body, whatever its length says."""
        cap = settings.MAX_BODY_BYTES
        if _declared_length(scope) > cap:
            await answer.too_large(cap, receive)
            return
        read = 0

        async def bounded() -> Message:
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            # As if the client had gone: who reads the body then leaves off, and cleans up after itself.
            return {"type": "http.disconnect"} if read > cap else message

        if await self._let_in(scope, bounded, answer.send):
            await answer.json(401, UNAUTHORIZED)
        if read > cap:
            await answer.too_large(cap, receive)

    async def _let_in(self, scope: Scope, receive: Receive, send: Send) -> bool:
        """Hands on to the application; true when the caller's right ended before it had done."""
        principal = scope.get("principal") or NOBODY
        with owners.acting_for(principal.owner):
            if not principal.may_end:
                await self.app(scope, receive, send)
                return False
            is_socket = scope["type"] == "websocket"
            async with sentinel.watched(principal, is_socket=is_socket, receive=receive, send=send) as connection:
                if not is_socket:
                    begun = partial(scope["begun_body"], connection)
                    scope["send_on"], scope["begun_body"] = connection.send, begun
                await self.app(scope, connection.receive, connection.send)
                return connection.ended

    async def _websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            scope["principal"] = await principal_of(scope)
        except RuntimeFault:
            await receive()
            await send({"type": "websocket.close", "code": TRY_LATER})
            return
        if scope["principal"]:
            await self._let_in(scope, receive, send)
            return
        standing = await ratelimits.hit_address(scope["address"])
        await receive()
        if "websocket.http.response" in scope.get("extensions", {}):
            over = standing if standing is not None and not standing.allowed else None
            status, body = (429, over.refusal()) if over else (401, UNAUTHORIZED)
            headers = [(b"content-type", b"application/json"), *(standing.headers() if standing else [])]
            if over:
                headers.append((b"retry-after", str(over.retry_after).encode()))
            head = {"status": status, "headers": headers}
            await send({"type": "websocket.http.response.start", **head})
            await send({"type": "websocket.http.response.body", "body": strict_json.dumps_bytes(body)})
        else:
            await send({"type": "websocket.close", "code": NOT_AUTHENTICATED})


class _Answer:
    """Sends the answer with the headers that every answer carries."""

    __slots__ = ("_extra", "_scope", "_send", "_started")

    def __init__(self, send: Send, scope: Scope, standing: Standing | None) -> None:
        self._send, self._scope = send, scope
        self._extra: Headers = [(b"x-request-id", scope["correlation_id"].encode())]
        self._extra += standing.headers() if standing else []
        self._extra += operators.PAGE_HEADERS if ADMIN.fullmatch(scope["path"]) else []
        self._started = False

    def send(self, message: Message) -> Awaitable[None]:
        send = self._send
        if not self._started and message["type"] == "http.response.start":
            self._started = True
            self._scope["status"] = message["status"]
            message["headers"] = [*message.get("headers", ()), *self._extra]
        return send(message)

    async def json(
        self, status: int, value: Any, headers: Iterable[tuple[bytes, bytes]] = (), *, more: bool = False
    ) -> None:
        if self._started:
            return
        body = strict_json.dumps_bytes(value)
        head = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode()), *headers]
        await self.send({"type": "http.response.start", "status": status, "headers": head})
        await self.send({"type": "http.response.body", "body": body, "more_body": more})

    async def too_many(self, standing: Standing) -> None:
        self._extra = self._extra[:1]
        await self.json(429, standing.refusal(), [(b"retry-after", str(standing.retry_after).encode())])

    async def too_large(self, cap: int, receive: Receive) -> None:
        """The whole answer is out at once, and the connection ends when the client is done writing, or soon: closed
        with bytes of its unread it would be reset, and a client still writing would lose the answer."""
        if self._started:
            return
        detail = {"detail": f"The body is larger than {cap} bytes."}
        await self.json(413, detail, [(b"connection", b"close")], more=True)
        with suppress(TimeoutError):
            async with asyncio.timeout(LINGER_SECONDS):
                while (await receive()).get("more_body", False):
                    pass
        await self.send({"type": "http.response.body", "body": b""})


def start() -> None:
    """Whatever comes first, the server's start or a request, finds the supervisor at work and SIGTERM caught."""
    if supervisor.ensure_started():
        shutdown.chain()


async def lifespan(receive: Receive, send: Send) -> None:
    """Starts and drains the supervisor with the server."""
    while True:
        message = await receive()
        if message["type"] == "lifespan.startup":
            start()
            gc.collect()
            gc.freeze()  # what is loaded by now stays: the collector need not go through it again and again
            gc.set_threshold(GARBAGE_AT_ONCE, 20, 20)  # a turn leaves few cycles; Python would look in each
            await send({"type": "lifespan.startup.complete"})
        else:
            await supervisor.drain(settings.SHUTDOWN_GRACE_SECONDS)
            await send({"type": "lifespan.shutdown.complete"})
            return


async def _may_answer_a_call(scope: Scope) -> bool:
    """Whether, over the limit, a message of somebody who may be here is read all the same."""
    if scope["path"] not in STREAM_PATHS or scope["method"] != "POST":
        return False
    with suppress(RuntimeFault):
        return await principal_of(scope) is not None
    return False


async def _too_many_logins(address: str) -> Standing | None:
    standing = await ratelimits.hit_login(address)
    return standing if standing is not None and not standing.allowed else None


def _uncounted(path: str) -> bool:
    return bool(HEALTH.fullmatch(path) or ADMIN.fullmatch(path) or path.startswith("/static/")) or _is_open_metrics(
        path
    )


def _is_open_metrics(path: str) -> bool:
    """Behind the key it counts as any request: whoever guesses keys is stopped there too."""
    return bool(path == "/metrics" and settings.METRICS_PUBLIC)


def _admin_host(scope: Scope) -> bool:
    if not settings.ADMIN_HOSTS:
        return True
    host = b"".join(headers_of(scope, b"host")).decode("latin-1").rsplit(":", 1)[0].lower()
    return host in settings.ADMIN_HOSTS


def _declared_length(scope: Scope) -> int:
    lengths = headers_of(scope, b"content-length")
    return int(lengths[0]) if lengths and lengths[0].isdigit() else 0
