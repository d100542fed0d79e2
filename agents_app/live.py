"""The fast, lossy path from a turn to its readers in this process: what is missed here is healed from the database.

A session somebody reads or runs has a Topic. It carries committed events and the growing text of the open message.
Everything runs in the process's one serving event loop; other threads reach it through `events.listen`.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from sessions_app import events
from sessions_app.models import Event, Session

MAX_WAITING_ITEMS = 1000
MAX_WAITING_CHARACTERS = 128 * 1024
BETWEEN_LOOKS_SECONDS = 0.02  # so much later, at most, a wait ends with others whose time is over about then
CLOCK_SECONDS = 0.001  # uvloop's timers know no smaller part


@dataclass(slots=True)  # not frozen: one is made for each token
class Delta:
    """Text of an open message from `start` on, in characters."""

    message_id: int
    start: int
    text: str


@dataclass(frozen=True, slots=True)
class Hint:
    """Another process has committed events up to `seq`."""

    seq: int


Item = Delta | Event | Hint


class Taker(Protocol):
    """Takes text for a reader while that waits, so that nobody need be woken."""

    def take(self, message_id: int, start: int, end: int, text: str) -> bool:
        """More of a message, between these characters, as a Delta would bring it; False where it cannot."""


class Sharing(Protocol):
    """Who carries what is published here to other processes, and theirs to us."""

    def told(self, session_pk: int, seq: int) -> None: ...

    def grew(self, session_pk: int, delta: Delta) -> None: ...

    def wanted(self, session_pk: int, *, here: bool) -> None: ...


class Inbox:
    """What one reader has not taken yet. Bounded: a reader too slow for it loses all of it, and looks it up."""

    __slots__ = (
        "_characters", "_items", "_seconds", "_waiter", "_woken", "closed", "heard", "lost", "taker", "until",
    )  # fmt: skip

    def __init__(self) -> None:
        self._items: list[Item] = []
        self._characters = 0
        self._woken = False
        self._waiter: asyncio.Future[None] | None = None
        self._seconds = 0.0
        self.until = 0.0  # when the reader has waited long enough
        self.taker: Taker | None = None  # while the reader waits
        self.heard = False  # by the taker: the next look finds no silence, and the wait begins anew
        self.lost = False
        self.closed = False

    def close(self) -> None:
        """Nothing more will come: the process stops."""
        self.closed = True
        self.wake()

    def push(self, item: Item) -> None:
        self._characters += len(item.text) if type(item) is Delta else 100
        if self.lost or len(self._items) >= MAX_WAITING_ITEMS or self._characters > MAX_WAITING_CHARACTERS:
            self._items.clear()
            self.lost = True
        else:
            self._items.append(item)
        self._woken, self.taker = True, None  # as `wake`, without its calls
        if (waiter := self._waiter) is not None and not waiter.done():
            waiter.set_result(None)

    def take(self) -> tuple[list[Item], bool]:
        """All that waits, and whether something before it was lost."""
        (items, self._items), lost = (self._items, []), self.lost
        self._characters, self.lost = 0, False
        self._woken = False
        return items, lost

    async def wait(self, seconds: float, taker: Taker | None = None) -> bool:
        """True when something came, False after so long a silence, or up to twice as long where the taker had text in
        between. It may be called once a token: so a bare future, and one timer for the time of all readers."""
        if not self._woken:
            loop = asyncio.get_running_loop()
            self.until, self._seconds, self.heard = loop.time() + seconds, seconds, False
            self._waiter, self.taker = loop.create_future(), taker
            patience = _patience_of(loop)
            try:
                patience.begin(self)
                await self._waiter
            finally:
                patience.end(self)
                self._waiter = self.taker = None
        return self._woken

    def look(self, now: float) -> None:
        """Ends the wait that has been silent for so long."""
        if self.heard:
            self.until, self.heard = now + self._seconds, False
        elif now >= self.until - CLOCK_SECONDS:
            self._let_go()

    def wake(self) -> None:
        """Lets the reader go on, as if something had come."""
        self._woken, self.taker = True, None
        self._let_go()

    def _let_go(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class Patience:
    """Ends the waits of an event loop's readers when their time is over: one timer for all of them, at the earliest of
    these times. Text moves a reader's time on, and that is only found at a look. One for each reader, set anew every
    second while text came, was a part of what a token costs."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._waiting: set[Inbox] = set()
        self._timer: asyncio.Handle | None = None
        self._next_look = math.inf  # not asked of the timer: uvloop's may be one that does not know

    def begin(self, inbox: Inbox) -> None:
        self._waiting.add(inbox)
        if inbox.until < self._next_look:
            self._look_at(inbox.until)

    def end(self, inbox: Inbox) -> None:
        self._waiting.discard(inbox)

    def _look_at(self, moment: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._next_look = self.loop.call_at(moment, self._look), moment

    def _look(self) -> None:
        self._timer, self._next_look, now = None, math.inf, self.loop.time()
        for inbox in self._waiting:
            inbox.look(now)
        if self._waiting:  # those let go too, until their tasks have run: one look more at most
            self._look_at(max(min(inbox.until for inbox in self._waiting), now + BETWEEN_LOOKS_SECONDS))


@dataclass(slots=True, eq=False)
class Topic:
    session_pk: int
    inboxes: tuple[Inbox, ...] = ()
    growing: Growing | None = None

    def told_to(self, inboxes: tuple[Inbox, ...]) -> None:
        self.inboxes = inboxes
        if self.growing is not None:
            self.growing.inboxes = inboxes

    def grows(self, growing: Growing | None) -> None:
        """From here on this text, and no other."""
        if self.growing is not None:
            self.growing.inboxes = None
        self.growing = growing


@dataclass(slots=True, eq=False)
class Growing:
    """The text of a message that a run of this process is writing.

    With a hundred streams nothing of a stream is in the processor's caches when its next token comes: each object on
    its way costs more than what is done with it. So it has its topic's inboxes itself, and passes its numbers on.
    """

    session_pk: int
    message_id: int
    inboxes: tuple[Inbox, ...] | None  # its topic's; none when the session is another turn's
    length: int = 0
    parts: list[str] = field(default_factory=list)

    def grow(self, text: str) -> None:
        """Tells the readers more of it, at once; a turn that lost the session to another says nothing."""
        inboxes = self.inboxes
        if inboxes is None:
            return
        self.parts.append(text)
        start, message_id = self.length, self.message_id
        self.length = end = start + len(text)
        for inbox in inboxes:
            taker = inbox.taker
            if taker is not None and taker.take(message_id, start, end, text):
                inbox.heard = True
            else:
                inbox.push(Delta(message_id, start, text))
        if _sharing is not None:
            _sharing.grew(self.session_pk, Delta(message_id, start, text))

    def text(self) -> str:
        """The whole; readers of other threads ask too, so nothing is changed here."""
        return "".join(self.parts)


_topics: dict[int, Topic] = {}
_patience: Patience | None = None
_inboxes = 0
_loop: asyncio.AbstractEventLoop | None = None
_sharing: Sharing | None = None
_closed = False


def bind(sharing: Sharing | None = None) -> None:
    """Names the running loop as the one that serves: committed events are handed to it."""
    global _loop, _sharing, _closed, _woken
    _loop, _sharing, _closed, _woken = asyncio.get_running_loop(), sharing, False, False
    _unpublished.clear()


def _patience_of(loop: asyncio.AbstractEventLoop) -> Patience:
    """Of the loop that serves; there is one at a time."""
    global _patience
    if _patience is None or _patience.loop is not loop:
        _patience = Patience(loop)
    return _patience


def _topic(session_pk: int) -> Topic:
    return _topics.setdefault(session_pk, Topic(session_pk))


def _forget_idle(session_pk: int) -> None:
    topic = _topics.get(session_pk)
    if topic is not None and not topic.inboxes and topic.growing is None:
        del _topics[session_pk]


def subscribe(session_pk: int, inbox: Inbox) -> None:
    """The inbox gets everything published in the session from now on."""
    global _inboxes
    topic = _topic(session_pk)
    if _sharing is not None and not topic.inboxes:
        _sharing.wanted(session_pk, here=True)
    topic.told_to((*topic.inboxes, inbox))
    if _closed:
        inbox.close()
    _inboxes += 1


def readers() -> int:
    """How many streams this process tells; any thread may ask."""
    return _inboxes


def unsubscribe(session_pk: int, inbox: Inbox) -> None:
    global _inboxes
    _inboxes -= 1
    if session_pk in _topics:
        topic = _topics[session_pk]
        topic.told_to(tuple(one for one in topic.inboxes if one is not inbox))
        if _sharing is not None and not topic.inboxes:
            _sharing.wanted(session_pk, here=False)
        _forget_idle(session_pk)


def open_text(session_pk: int, message_id: int) -> Growing:
    """A run of this process begins to write this message."""
    topic = _topic(session_pk)
    topic.grows(growing := Growing(session_pk, message_id, topic.inboxes))
    return growing


def hear(session_pk: int, item: Delta | Hint) -> None:
    """Something that another process has published."""
    topic = _topics.get(session_pk)
    for inbox in topic.inboxes if topic else ():
        inbox.push(item)


def close_text(session_pk: int, message_id: int) -> None:
    """The message is written; another one may be open already."""
    topic = _topics.get(session_pk)
    if topic is not None and topic.growing is not None and topic.growing.message_id == message_id:
        topic.grows(None)
    _forget_idle(session_pk)


def close_all() -> None:
    """Lets every reader of this process end, also those still to come; they find the rest elsewhere."""
    global _closed
    _closed = True
    for topic in _topics.values():
        for inbox in topic.inboxes:
            inbox.close()


def text_of(session_pk: int, message_id: int) -> str | None:
    """The text so far, when a run of this process is writing that message."""
    topic = _topics.get(session_pk)
    growing = topic.growing if topic else None
    return growing.text() if growing and growing.message_id == message_id else None


def _publish(session_pk: int, published: Sequence[Event]) -> None:
    topic = _topics.get(session_pk)
    for inbox in topic.inboxes if topic else ():
        for event in published:
            inbox.push(event)
    if _sharing is not None:
        _sharing.told(session_pk, published[-1].seq)


_unpublished: deque[tuple[int, Sequence[Event]]] = deque()
_woken = False


def _committed(session: Session, published: Sequence[Event]) -> None:
    """Hands them to the loop, which is woken once for all that comes meanwhile: waking it is a system call."""
    global _woken
    if _loop is None or _loop.is_closed():
        return
    _unpublished.append((session.id, published))
    if not _woken:
        _woken = True
        _loop.call_soon_threadsafe(_publish_all)


def _publish_all() -> None:
    global _woken
    _woken = False  # before anything is taken: what comes after that wakes the loop again
    while _unpublished:
        _publish(*_unpublished.popleft())


events.listen(_committed)
