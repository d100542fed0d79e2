"""The WebSocket of a session: many turns on one connection, each told by a task of its own."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from contextlib import suppress
from functools import partial
from typing import Any

from channels.consumer import get_handler_name
from channels.exceptions import StopConsumer
from channels.generic.websocket import AsyncWebsocketConsumer

from agents_app import actions, connections, consumers, frames, messages, ratelimits
from agents_app.actions import Told
from agents_app.frames import Frame
from agents_app.messages import HitlDecision, Refused, ToolResult
from agents_app.outlets import Outlet
from agents_app.reader import Reader
from agents_app.supervisor import supervisor
from sessions_app import database, runs, speech, strict_json
from sessions_app.conf import settings
from sessions_app.errors import MessageInvalid, NotPermitted, RateLimited, RuntimeFault, SessionNotFound
from sessions_app.session_ids import is_session_id

logger = logging.getLogger(__name__)
NO_SUCH_SESSION, TRY_LATER = 4404, 1013
MAX_TASKS = 64


class SessionSocket(AsyncWebsocketConsumer):
    """WebSocket /ws/{session_id}: messages in; chunks, acks and ends out."""

    channel_layer_alias = None

    def __init__(self) -> None:
        super().__init__()
        self.tasks: set[asyncio.Task[None]] = set()
        self.has_room = True
        self.follower: asyncio.Task[None] | None = None
        self.following: Reader | None = None
        self._resumed = asyncio.Event()  # not set while a cursor is looked up: whose turn it is to tell is open
        self._resumed.set()
        self._in_order = asyncio.Lock()  # what came first is stored first: a cancel must not overtake its message

    async def dispatch(self, message: dict[str, Any]) -> None:
        await getattr(self, get_handler_name(message))(message)

    @property
    def session_id(self) -> str:
        return str(self.scope["url_route"]["kwargs"]["session_id"])

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        with connections.counted(str(scope.get("address", ""))) as self.has_room:
            await super().__call__(scope, receive, send)

    async def connect(self) -> None:
        await self.accept()  # the code of a close before it would reach nobody
        if supervisor.draining or not self.has_room:
            await self.close(TRY_LATER)
        elif not is_session_id(self.session_id):
            await self.close(NO_SUCH_SESSION)

    async def websocket_disconnect(self, message: dict[str, Any]) -> None:
        for task in self.tasks:
            task.cancel()
        with suppress(asyncio.CancelledError):
            await asyncio.gather(*self.tasks, return_exceptions=True)
        raise StopConsumer

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        """Starts what the message asks for, and is ready for the next one at once."""
        if len(self.tasks) >= MAX_TASKS:
            await self._tell([frames.error(fault := RateLimited(retry_after=1), str(fault))])
            return
        data = text_data if text_data is not None else bytes_data or b""
        self._spawn(self._guarded(self._take(data)))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return task

    async def _guarded(self, work: Coroutine[Any, Any, None]) -> None:
        """Every refusal is an error chunk; the socket lives on."""
        try:
            await work
        except Refused as refused:
            await self._refuse(MessageInvalid(why=messages.in_one_line(refused.detail)))
        except RuntimeFault as fault:
            await self._refuse(fault)
        except Exception:
            logger.exception("a WebSocket message failed")
            await self._refuse(RuntimeFault())

    async def _refuse(self, fault: RuntimeFault) -> None:
        await self._tell([frames.error(fault, speech.say(fault, ""))])

    async def _take(self, data: str | bytes) -> None:
        try:
            value = strict_json.loads(data)
        except ValueError as error:
            raise Refused(422, f"The message is {error}.") from None
        type_ = value.get("type") if isinstance(value, dict) else None
        if type_ == "cancel":
            await self._cancel(value)
        elif type_ == "resume":
            await self._resume(value.get("after"))
        else:
            await self._message(value)

    # --- what it can be asked ---

    async def _message(self, value: Any) -> None:
        message = messages.parse(value)
        self._require(
            act=not isinstance(message, HitlDecision), decide=isinstance(message, HitlDecision | ToolResult)
        )  # a result approves its call
        async with self._in_order:
            told = await self._taken(message, value)
        if told.session is None:  # refused
            await self._tell(told.frames)
            return
        cursor = told.reader.cursor if told.reader else frames.cursor_at(told.session, told.after_seq)
        await self._tell([frames.ack(told.run_id, message.message_id, cursor)])
        await self._pass_on(told)

    def _require(self, *, act: bool = False, decide: bool = False) -> None:
        """Raises NotPermitted for an operator whose account has no such right."""
        principal = self.scope["principal"]
        if (act and not principal.may_act) or (decide and not principal.may_decide):
            raise NotPermitted()

    async def _taken(self, message: messages.Message, value: dict[str, Any]) -> Told:
        over = await ratelimits.hit_address(str(self.scope.get("address", "")))
        over = over if over is not None and not over.allowed else None
        if refused := await consumers.over_limit(self.session_id, message, over):
            raise RateLimited(retry_after=refused.retry_after)
        return await actions.take(self.session_id, message, value, consumers.caller_of(self.scope))

    async def _pass_on(self, told: Told) -> None:
        """What follows, unless a follower tells all of the session anyway."""
        if told.reader is None:
            followed = told.logged and self.follower is not None and not self.follower.done()
            await self._tell([*([] if followed else told.frames), frames.end(told.run_id)])
        elif self.follower is None or self.follower.done():
            await self._read(told.reader)

    async def _read(self, reader: Reader) -> None:
        reader.marks = True
        with reader as source:
            outlet = Outlet(partial(self._tell_text, reader), frames.delta)
            async for batch in source.frames(settings.KEEPALIVE_SECONDS, outlet):
                await self._resumed.wait()
                if self.following not in (None, reader):
                    return  # the client has resumed: the follower tells this too
                await self._tell(batch)

    async def _tell_text(self, reader: Reader, frame: Frame) -> None:
        await self._resumed.wait()
        if self.following in (None, reader):  # else the reader leaves off with what comes next
            await self.send(text_data=frame.websocket())

    async def _cancel(self, value: dict[str, Any]) -> None:
        self._require(act=True)
        async with self._in_order:
            who = consumers.caller_of(self.scope).name
            run = await database.write(self.session_id, runs.request_cancel, self.session_id, who=who)
        message_id = value.get("message_id")
        known = message_id if isinstance(message_id, str) else None
        await self._tell([frames.ack(run.pk if run else None, known, "")])

    async def _resume(self, after: Any) -> None:
        """Tells the session from a cursor on, for as long as the socket lives."""
        self._resumed.clear()
        try:
            self.following = reader = await consumers.locate(self.session_id, "" if after is None else after)
        except SessionNotFound as fault:
            await self._refuse(fault)
            await self.close(NO_SUCH_SESSION)
            return
        finally:
            self._resumed.set()
        if self.follower is not None:
            self.follower.cancel()
        self.follower = self._spawn(self._guarded(self._read(reader)))

    async def _tell(self, batch: list[Frame] | Any) -> None:
        for frame in batch:
            await self.send(text_data=frame.websocket())


class NoSuchPath(AsyncWebsocketConsumer):
    """A WebSocket anywhere else."""

    channel_layer_alias = None

    async def connect(self) -> None:
        await self.accept()
        await self.close(NO_SUCH_SESSION)
