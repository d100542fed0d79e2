"""The thin ends of a stream: they read a message, have it taken, and pass on what the log says.

They never run a turn. An SSE answer is sent by a task of its own, because a consumer that waits hears no disconnect.
"""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, TypeVar
from urllib.parse import parse_qs

from channels.generic.http import AsyncHttpConsumer

from agents_app import actions, connections, frames, messages, ratelimits, reader, tracing
from agents_app.actions import Caller, Told
from agents_app.bodies import Body
from agents_app.messages import HitlDecision, Refused, ToolResult, UserMessage
from agents_app.outlets import Outlet
from agents_app.ratelimits import Standing
from agents_app.reader import Reader
from sessions_app import answers, database, strict_json
from sessions_app.conf import settings
from sessions_app.errors import RuntimeFault, TooManySockets
from sessions_app.session_ids import MAX_CHARACTERS, from_path

logger = logging.getLogger(__name__)
Choice = TypeVar("Choice")
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
SSE_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
]


class Stream(AsyncHttpConsumer, ABC):
    """One HTTP request that is answered with SSE, or with JSON when it is refused."""

    channel_layer_alias = None  # it listens to the log, not to the layer
    method = "POST"

    def __init__(self) -> None:
        super().__init__()
        self.answering: asyncio.Task[None] | None = None
        self.started = False

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        """As any consumer, without a task for each message: nobody but the client speaks to a stream."""
        self.scope, self.base_send = scope, send
        while (message := await receive())["type"] == "http.request":
            await self.http_request(message)
        await self.http_disconnect(message)

    async def http_request(self, message: dict[str, Any]) -> None:
        self.body.append(message.get("body", b""))
        if not message.get("more_body"):
            self.answering = asyncio.get_running_loop().create_task(self._answer(b"".join(self.body)))

    async def http_disconnect(self, message: dict[str, Any]) -> None:
        if self.answering is not None and not self.answering.done():
            self.answering.cancel()
            with suppress(asyncio.CancelledError):
                await self.answering

    async def _answer(self, body: bytes) -> None:
        try:
            if self.scope["method"] != self.method:
                detail = {"detail": f'Method "{self.scope["method"]}" not allowed.'}
                await self.send_json(405, detail, [(b"allow", self.method.encode())])
                return
            await self.respond(body)
        except Refused as refused:
            await self.send_json(refused.status, {"detail": refused.detail})
        except RuntimeFault as fault:
            await self._refuse(fault)
        except Exception:
            logger.exception("a stream failed")
            await self._refuse(RuntimeFault())

    async def _refuse(self, fault: RuntimeFault) -> None:
        if self.started:
            await self.send_body(frames.error(fault, fault.text()).sse())
            return
        again = [(b"retry-after", b"2")] if fault.retryable else []
        await self.send_json(fault.status, fault.body(), again)

    @abstractmethod
    async def respond(self, body: bytes) -> None:
        """Answers, or raises Refused or a RuntimeFault."""

    async def send_json(self, status: int, value: Any, headers: Sequence[tuple[bytes, bytes]] = ()) -> None:
        await self.send_headers(status=status, headers=[(b"content-type", b"application/json"), *headers])
        await self.send_body(strict_json.dumps_bytes(value))

    async def tell(self, asked: Callable[[], Awaitable[Told]]) -> None:
        """Tells what is asked for, unless the address has too much open."""
        with connections.counted(self.address) as has_room:
            if not has_room:
                raise TooManySockets()
            await self.send_told(await asked())

    async def send_told(self, told: Told) -> None:
        """The frames that are there, then those that come, until the turn has no more."""
        await self.send_headers(headers=SSE_HEADERS)
        self.started = True
        if told.reader is None:
            await self.send_body(frames.sse(told.frames))
            return
        more = True
        with told.reader as source:
            outlet = self._outlet()
            async for batch in source.frames(settings.KEEPALIVE_SECONDS, outlet):
                body, more = frames.sse(batch) or frames.KEEPALIVE, not source.finished
                await self.base_send({"type": "http.response.body", "body": body, "more_body": more})
        if more:  # else the end of the body went out with its last frames
            await self.send_body(b"")

    def _outlet(self) -> Outlet[bytes]:
        send_on: Send = self.scope.get("send_on", self.base_send)

        def send(piece: bytes) -> Awaitable[None]:
            return send_on({"type": "http.response.body", "body": piece, "more_body": True})

        begun: Callable[[], Body | None] = self.scope.get("begun_body", lambda: None)
        return Outlet(send, frames.delta_sse, begun())

    @property
    def address(self) -> str:
        return str(self.scope.get("address", ""))

    @property
    def session_id(self) -> str:
        return from_path(self.scope["url_route"]["kwargs"]["session_id"])

    def header(self, name: bytes) -> str | None:
        for key, value in self.scope["headers"]:
            if key == name:
                return str(value.decode("latin-1"))
        return None


class MessageStream(Stream):
    """POST /agent/message/stream: a client's message, answered with the turn it makes."""

    async def respond(self, body: bytes) -> None:
        over: Standing | None = self.scope.get("over_limit")
        try:
            session_id, raw, message = _read(body)
            _with_key(message, self.header(b"idempotency-key"))
        except Refused:
            if over is None:
                raise
            await self._too_many(over)
            return
        if refused := await over_limit(session_id, message, over):
            await self._too_many(refused)
            return
        # What a call waits for is let in whatever is open: its sender would lose it.
        with connections.counted(self.address, always=not isinstance(message, UserMessage)) as has_room:
            if has_room:
                told = await actions.take(session_id, message, raw, caller_of(self.scope))
            else:
                told = actions.refused(TooManySockets(), message)
            if told.fault is not None and self.scope["path"].startswith("/api/v1/"):
                raise told.fault  # programs read the status; people behind the Gateway read the chunk
            await self.send_told(told)

    async def _too_many(self, standing: Standing) -> None:
        await self.send_json(429, standing.refusal(), [(b"retry-after", str(standing.retry_after).encode())])


def _read(body: bytes) -> tuple[str, dict[str, Any], messages.Message]:
    """The request's session id, its message as sent, and as checked. Raises Refused."""
    try:
        value = strict_json.loads(body)
    except ValueError as error:
        raise Refused(422, f"The body is {error}.") from None
    if not isinstance(value, dict):
        raise Refused(422, [{"loc": ["body"], "msg": "must be an object", "type": "dict_type"}])
    session_id = messages.session_id_of(value.get("session_id"))
    return session_id, value.get("message") or {}, messages.parse(value.get("message"))


def _with_key(message: messages.Message, key: str | None) -> None:
    """The header names the message as `message_id` does."""
    if key is not None:
        if not 0 < len(key) <= MAX_CHARACTERS:
            raise Refused(422, f"Idempotency-Key must have 1 to {MAX_CHARACTERS} characters.")
        message.message_id = key


async def over_limit(session_id: str, message: messages.Message | None, over: Standing | None) -> Standing | None:
    """The account that refuses this message; none does for an answer that an open call waits for."""
    standing = over or await ratelimits.hit_session(session_id)
    if standing is None or (standing.allowed and over is None):
        return None
    if isinstance(message, ToolResult | HitlDecision) and await database.read(
        answers.is_open, session_id, message.call_id
    ):
        return None
    return standing


def caller_of(scope: Mapping[str, Any]) -> Caller:
    return Caller(scope["principal"].name, scope.get("correlation_id", ""), tracing.parent_of(scope))


class SessionStream(Stream):
    """GET /sessions/{id}/stream: the log from a cursor, across turns."""

    method = "GET"

    async def respond(self, body: bytes) -> None:
        query = parse_qs(self.scope["query_string"].decode("latin-1"), keep_blank_values=True)
        after = self.header(b"last-event-id")
        if after is None and "after" in query:
            after = query["after"][0]
        follow = _chosen(query, "follow", {"true": True, "1": True, "false": False, "0": False}, "true")
        everything = _chosen(query, "events", {"chunks": False, "all": True}, "chunks")
        mode = _chosen(query, "stream_mode", {"auto": None, "tokens": False, "messages": True}, "auto")

        async def located() -> Told:
            source = await locate(self.session_id, after)
            source.follow, source.everything = follow, everything
            source.whole_messages = source.whole_messages if mode is None else mode
            return Told(source.session, reader=source)

        await self.tell(located)


def _chosen(query: dict[str, list[str]], name: str, choices: Mapping[str, Choice], default: str) -> Choice:
    given = query.get(name, [default])[0]
    if given not in choices:
        raise Refused(400, f"{name} must be one of {', '.join(choices)}, not {given[:32]!r}.")
    return choices[given]


async def locate(session_id: str, after: object) -> Reader:
    """A reader of the session from this cursor on, or from now on. Raises SessionNotFound, CursorInvalid."""
    session, where, open_id, open_run = await database.read(reader.locate, session_id, after)
    return Reader(session, where.seq, None, actions.whole(session), None, where.offset, open_id, open_run, open_id or 0)


class RetryStream(Stream):
    """POST /sessions/{id}/retry: the last turn again."""

    async def respond(self, body: bytes) -> None:
        await self.tell(lambda: actions.retry(self.session_id, caller_of(self.scope)))


class RunRetryStream(Stream):
    """POST /api/v1/runs/{id}/retry: the same, named by its run."""

    async def respond(self, body: bytes) -> None:
        run_id = int(self.scope["url_route"]["kwargs"]["run_id"])
        await self.tell(lambda: actions.retry_run(run_id, caller_of(self.scope)))


__all__ = ["MessageStream", "RetryStream", "RunRetryStream", "SessionStream", "UserMessage"]
