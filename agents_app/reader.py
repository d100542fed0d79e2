"""Reads a session's log from a cursor: first what is stored, then what happens, without a gap and without a repeat.

The live path may drop: a number that does not follow, or text that does not continue, sends the reader to the
database, and so do a second or two of silence, since another process may be the one at work.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from agents_app import frames, live
from agents_app.frames import Cursor, Frame
from agents_app.outlets import Outlet
from sessions_app import database, events, queries, speech
from sessions_app.errors import AnsweredLater, CursorExpired, CursorInvalid, StorageUnavailable
from sessions_app.models import Event, Message, MessageState, Session

BATCH_EVENTS = 500
POLL_SECONDS = 1.0
HEAL_SECONDS = 0.25
MAX_AHEAD = 500


@dataclass(slots=True)
class Reader:
    """One reader of one session, from after `seq` on; with `run_id` it hears that run alone, and ends with it.

    `told` are the next events where the caller has them already: they need not be looked up. `marks` adds the frame
    that tells a WebSocket that a turn has ended; without `follow` the reader ends with what is stored; `everything`
    adds the events that have no chunk.
    """

    session: Session
    seq: int
    run_id: int | None = None
    whole_messages: bool = False
    told: Sequence[Event] | None = None
    offset: int = 0
    open_id: int | None = None
    open_run: int | None = None
    newest_id: int = 0
    follow: bool = True
    everything: bool = False
    marks: bool = False
    ended: bool = False
    _paused: bool = False
    _inbox: live.Inbox = field(default_factory=live.Inbox)
    _out: list[Frame] = field(default_factory=list)
    _ahead: list[live.Delta] = field(default_factory=list)
    _healed_at: float = 0.0
    _behind: bool = False
    _tag: str = ""
    _outlet: Outlet[Any] | None = None
    _spoke_at: float = 0.0

    def __post_init__(self) -> None:
        self._tag = self.session.cursor_tag

    def __enter__(self) -> Reader:
        live.subscribe(self.session.id, self._inbox)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        live.unsubscribe(self.session.id, self._inbox)
        if self._outlet is not None:
            self._outlet.close()

    @property
    def cursor(self) -> str:
        return frames.cursor_text(self.seq, self.offset, self._tag)

    @property
    def finished(self) -> bool:
        """Nothing more is to come of what was asked for."""
        return self.ended or self._paused or not self.follow

    async def frames(self, keepalive_seconds: float, outlet: Outlet[Any] | None = None) -> AsyncIterator[list[Frame]]:
        """Yields what comes, as it comes; an empty list whenever so many seconds passed in silence. Text that follows
        on what was yielded, while this waits, goes straight to the `outlet`."""
        self._outlet = outlet
        if self.told is None:
            await self._catch_up()
        else:
            self._take(self.told)
        self._spoke_at = time.monotonic()
        while True:
            if self._out or time.monotonic() - self._spoke_at >= keepalive_seconds:
                batch, self._out = self._out, []
                yield batch
                self._spoke_at = time.monotonic()
            if self.finished:
                return
            if self._inbox.closed:
                yield await self._left_off()
                return
            # What comes need not be for this reader: silence is counted by the clock.
            due = self._spoke_at + keepalive_seconds
            came = await self._wait(min(POLL_SECONDS, max(due - time.monotonic(), 0.0)), due)
            items, lost = self._inbox.take()
            whole = self._take(items)
            if lost or not came or self._behind or not (whole or self._healed_just_now()):
                await self._catch_up()
                self._take_ahead()

    async def _left_off(self) -> list[Frame]:
        """The last words to a reader that the process leaves: a request whose answer is still to come hears that it is;
        who follows the session, or holds a socket, sees the connection end and reads on elsewhere."""
        if self.run_id is not None and not self.marks:
            await self._catch_up()
            if not (self.ended or self._paused):
                moved = AnsweredLater()
                self._out.append(frames.error(moved, speech.say(moved, self.session.title)))
        return self._out

    # --- live ---

    async def _wait(self, seconds: float, due: float) -> bool:
        """True when something came, False after so long a silence. The outlet takes the text that comes meanwhile."""
        outlet = self._outlet
        if outlet is None:
            return await self._inbox.wait(seconds)
        if self._behind:
            came = await self._inbox.wait(seconds)
        else:
            around, silent_until = (f"{self.seq}.", f"-{self._tag}"), None if self._tells_text() else due
            outlet.expect(self.open_id, self.offset, around, self._inbox.wake, silent_until)
            came = await self._inbox.wait(seconds, outlet)
            self.offset = outlet.offset
            self._spoke_at = max(self._spoke_at, outlet.spoke_at)
        await outlet.settled()
        return came

    def _tells_text(self) -> bool:
        return not self.whole_messages and self.run_id in (None, self.open_run)

    def _take(self, items: Sequence[live.Item]) -> bool:
        """Turns what came into frames; False where something is missing before it."""
        whole = True
        for item in items:
            if self.ended:
                break
            if isinstance(item, live.Delta):
                whole = self._continue(item) and whole
            elif isinstance(item, live.Hint):
                self._behind = self._behind or item.seq > self.seq
            elif item.seq == self.seq + 1:
                self._hear(item)
            elif item.seq > self.seq:
                return False
        return whole

    def _continue(self, delta: live.Delta) -> bool:
        if delta.message_id != self.open_id:
            if delta.message_id <= self.newest_id:
                return True  # one that is over
            self._ahead.append(delta)  # one that was opened unheard
            return False
        known = self.offset - delta.start
        if known < 0:
            self._ahead.append(delta)  # what lies between is in the database within a second
            return False
        self._say(delta.text[known:])
        return True

    def _take_ahead(self) -> None:
        """The text that came before its beginning did."""
        ahead, self._ahead = self._ahead, []
        self._take(ahead[-MAX_AHEAD:])

    def _healed_just_now(self) -> bool:
        """Text that another process writes is stored once a second: looking more often finds nothing new."""
        now = time.monotonic()
        if now - self._healed_at < HEAL_SECONDS:
            return True
        self._healed_at = now
        return False

    # --- stored ---

    async def _catch_up(self) -> None:
        """Reads the log from where we are up to now, and the text that is being written."""
        self._behind = False
        while not self.ended:
            try:
                found, text = await database.read(stored, self.session.id, self.seq, self.open_id)
            except StorageUnavailable:
                if not self.follow:
                    raise
                self._behind = True  # the database is away: the log is read on when it is back
                return
            if found is None:
                self.ended = True
                return
            if found and found[0].seq != self.seq + 1:
                raise CursorExpired(cursor=self.cursor)
            for event in found:
                self._hear(event)
            if len(found) < BATCH_EVENTS:
                break
        if self.open_id is not None and not self.ended:
            known = live.text_of(self.session.id, self.open_id)
            self._say((text if known is None else known)[self.offset :])

    # --- both ---

    def _say(self, text: str) -> None:
        """More of the open message."""
        if not text:
            return
        self.offset += len(text)
        if self._tells_text():
            self._out.append(frames.delta(text, self.cursor))

    def _hear(self, event: Event) -> None:
        if self.ended:
            return
        if event.type == events.MESSAGE_COMPLETED and event.message is not None:
            self._close(event)
            return
        self.seq, run_id = event.seq, event.run_id
        if event.type == events.MESSAGE_OPENED:
            self.open_id, self.open_run, self.offset = event.message_id, run_id, 0
            self.newest_id = max(self.newest_id, self.open_id or 0)
        if self.run_id in (None, run_id):
            heard = self.everything or event.type in frames.WITH_CHUNK
            if heard and (frame := frames.event_frame(event, self.cursor, everything=self.everything)):
                self._out.append(frame)
            if event.type in events.ENDINGS:
                self._end(event)
            elif event.type == events.TASK_RESUMED:
                self._paused = False

    def _end(self, event: Event) -> None:
        """A run that waits may go on further down the log; any other has nothing more to say."""
        if self.marks:
            self._out.append(frames.end(event.run_id, self.cursor))
        if self.run_id is not None:
            self._paused = event.type == events.TASK_PAUSED
            self.ended = not self._paused

    def _close(self, event: Event) -> None:
        text = event.message.content if event.message else ""
        if event.message_id == self.open_id:
            self._say(text[self.offset :])
        self.seq, self.offset, self.open_id = event.seq, 0, None
        if event.data["shown"] and self.run_id in (None, event.run_id):
            whole, is_final = self.whole_messages, event.data["is_final"]
            self._out.append(frames.closing(text, is_final=is_final, whole=whole, cursor=self.cursor))


def stored(session_pk: int, seq: int, open_id: int | None) -> tuple[list[Event] | None, str]:
    """The next events with the texts of the messages they close, and the text of the message open after them.
    None for a session that is gone. Raises CursorExpired when what came next is not kept any more."""
    found = list(Event.objects.filter(session=session_pk, seq__gt=seq).order_by("seq")[:BATCH_EVENTS])
    if not found:
        first = Session.objects.filter(pk=session_pk).values_list("first_seq", flat=True).first()
        if first is None:
            return None, ""
        if first > seq + 1:
            raise CursorExpired(cursor=str(seq))
    told = (events.MESSAGE_COMPLETED, events.MESSAGE_RECEIVED)
    closed = [event.message_id for event in found if event.type in told]
    texts = Message.objects.in_bulk([pk for pk in closed if pk is not None]) if closed else {}
    for event in found:
        if event.type == events.MESSAGE_OPENED:
            open_id = event.message_id
        elif event.type == events.MESSAGE_COMPLETED:
            event.message, open_id = texts.get(event.message_id or 0), None
        elif event.type == events.MESSAGE_RECEIVED:
            event.message = texts.get(event.message_id or 0)
    text = Message.objects.filter(pk=open_id).values_list("content", flat=True).first() if open_id else ""
    return found, text or ""


def locate(session_id: str, cursor: object) -> tuple[Session, Cursor, int | None, int | None]:
    """The session, the position that a cursor names (None: now), and the message open there with its run.

    Raises SessionNotFound, CursorInvalid and CursorExpired.
    """
    session = queries.session(session_id)
    where = Cursor(session.last_seq) if cursor is None else Cursor.parse(cursor, session)
    if where.seq + 1 < session.first_seq:
        raise CursorExpired(cursor=str(cursor)[:64])
    spoken = Event.objects.filter(session=session, seq__lte=where.seq).select_related("message").order_by("-seq")
    last = spoken.filter(type__in=[events.MESSAGE_OPENED, events.MESSAGE_COMPLETED]).first()
    if last is None or last.type == events.MESSAGE_COMPLETED:
        if where.offset:
            raise CursorInvalid(cursor=str(cursor)[:64])
        return session, where, None, None
    message = last.message
    written = live.text_of(session.id, message.id) if message is not None else None
    known = len(message.content if written is None else written) if message is not None else 0
    # Of a message that another process writes there may be more, and of an interrupted one more may have been seen.
    exact = written is not None or (message is not None and message.state == MessageState.COMPLETE)
    if exact and where.offset > known:
        raise CursorInvalid(cursor=str(cursor)[:64])
    if cursor is None:
        where = Cursor(where.seq, known)
    return session, where, last.message_id, last.run_id
