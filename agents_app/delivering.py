"""The loop that hands events to their handlers; what it does is stored, and another process may go on.

It runs in the server, and looks by itself. Where workers execute (`jobs`), it runs in them alone, and takes what a job
calls it for; and, a little later, what no job has come for: it is to be tried again, or the job is late or lost.

A handler that hangs, raises or is slow costs its own delivery an attempt, and its own deliveries their few places:
the turns, the other handlers and the loop go on.
"""

from __future__ import annotations

import asyncio
import logging
import random
import threading
import time
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from contextvars import copy_context
from functools import partial
from pathlib import Path

from django.db import connections

from agents_app import handlers, jobs, webhooks
from agents_app.handlers import Handler, NotDelivered, Undeliverable
from sessions_app import database, deliveries, events, lines
from sessions_app import webhooks as stored_webhooks
from sessions_app.conf import settings
from sessions_app.deliveries import RetryPolicy
from sessions_app.errors import RuntimeFault
from sessions_app.models import DeliveryState, Event, EventDelivery, Session

_chance = random.Random()  # noqa: S311  no secret; not everybody's, which tests hold still
logger = logging.getLogger(__name__)
LOOK_SECONDS = 1.0
UNCALLED_SECONDS = 1.0
AT_ONCE = 4  # attempts of one handler in this process
HANGING = 16  # calls of one handler that outlived their attempts: a thread cannot be ended
GRACE_SECONDS = 2.0
STORING_SECONDS = 5.0
GIVE_UP = RetryPolicy(max_attempts=0)
UNKNOWN_EVERY_SECONDS = 10.0
UNKNOWN_SECONDS = 3600  # while old and new processes run side by side, the other ones may know the handler
UNKNOWN = "No handler of this name is installed; give it its old name (name=...) and replay, or discard."
UNREPORTED = "Its outcome was never told: its process ended, or could not reach the database."

Result = asyncio.Future[BaseException | None]


class Courier:
    """One per process, bound to the event loop that serves. `works`: the process is a worker."""

    works = False

    def __init__(self) -> None:
        self._owner = ""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._woken = asyncio.Event()
        self._stopping = False
        self._looking: asyncio.Task[None] | None = None
        self._attempts: dict[str, set[asyncio.Task[None]]] = defaultdict(set)
        self._hanging: dict[str, dict[int, Result]] = defaultdict(dict)
        self._called: set[str] = set()
        self._unknown_at = float("-inf")

    def start(self, owner: str) -> None:
        """Begins to look for due deliveries, in the running loop."""
        self._owner, self._loop, self._stopping = owner, asyncio.get_running_loop(), False
        self._woken, self._attempts, self._hanging = asyncio.Event(), defaultdict(set), defaultdict(dict)
        self._called, self._unknown_at = set(), float("-inf")
        self._looking = self._loop.create_task(self._look_for_ever(), name="deliveries")

    async def stop(self, seconds: float = GRACE_SECONDS) -> None:
        """Takes nothing more, gives what runs some time, and leaves the rest to the next process."""
        self._stopping = True
        self._woken.set()
        if self._looking is not None:
            await asyncio.wait({self._looking}, timeout=STORING_SECONDS)  # what it claims meanwhile, it also starts
            self._looking.cancel()
        if running := self._running():
            await asyncio.wait(running, timeout=seconds)
        for task in (left := self._running()):
            task.cancel()
        if left:
            await asyncio.wait(left, timeout=STORING_SECONDS)
        self._loop = None

    def _running(self) -> set[asyncio.Task[None]]:
        return set().union(*self._attempts.values())

    # --- looking ---

    def call(self, handler: str) -> None:
        """Has what the handler is owed taken here."""
        self._called.add(handler)
        self._woken.set()

    def committed(self, session: Session, published: Sequence[Event]) -> None:
        """Looks at once when this process has committed an event with a handler."""
        loop, types = self._loop, [event.type for event in published]
        if loop is not None and not loop.is_closed() and any(map(events.subscribers, types)):
            loop.call_soon_threadsafe(self._woken.set)

    async def _look_for_ever(self) -> None:
        while not self._stopping:
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_SECONDS):
                    await self._woken.wait()
            self._woken.clear()
            try:
                await self._look()
            except RuntimeFault as fault:
                logger.warning("deliveries: %s", fault.code)
            except Exception:
                logger.exception("deliveries cannot be looked for")

    async def _look(self) -> None:
        await database.read(stored_webhooks.refresh)
        known = handlers.registered() | webhooks.handlers()
        if self._stopping or (jobs.by_workers() and not self.works):
            return
        await self._give_up_unknown(list(known))
        if not known:
            return
        free = [name for name in known if len(self._attempts[name]) < AT_ONCE]
        due, late = await self._due_and_late(free, list(known))
        for delivery in late:
            await self._fail(known[delivery.handler], delivery, NotDelivered(UNREPORTED))
        for name in due:
            await self._start_due(known[name])

    async def _give_up_unknown(self, known: list[str]) -> None:
        """Nobody will ever take what a renamed or removed handler is owed."""
        if time.monotonic() - self._unknown_at < UNKNOWN_EVERY_SECONDS:
            return
        self._unknown_at = time.monotonic()
        if not await database.read(deliveries.has_unknown, known, for_seconds=UNKNOWN_SECONDS):
            return
        given_up = partial(deliveries.give_up_unknown, known, for_seconds=UNKNOWN_SECONDS, error=UNKNOWN)
        for name, count in (await database.write("", given_up)).items():
            logger.error("%s deliveries to %r are dead letters: no handler of this name is installed", count, name)

    async def _due_and_late(self, free: list[str], known: list[str]) -> tuple[list[str], list[EventDelivery]]:
        """In a worker, a handler that was called is taken from until nothing of it is due."""
        called = self._called & set(free)
        self._called -= called  # before reading: who is called meanwhile stays called
        due, late, overdue = await database.read(_due_late_and_overdue, free, known)
        self._called |= called & set(due)
        if jobs.by_workers():
            due = [name for name in due if name in self._called or name in overdue]
        return due, late

    async def _start_due(self, handler: Handler) -> None:
        claimed = await database.write(
            "",
            deliveries.claim,
            handler.name,
            owner=self._owner,
            lease_seconds=handler.timeout_seconds + settings.LEASE_SECONDS,
            limit=AT_ONCE - len(self._attempts[handler.name]),
            in_order=handler.in_order,
        )
        for delivery in claimed:
            task = asyncio.create_task(self._attempt(handler, delivery), name=f"delivery {delivery.pk}")
            self._attempts[handler.name].add(task)
            task.add_done_callback(self._attempts[handler.name].discard)
            task.add_done_callback(lambda _: self._woken.set())

    # --- one attempt ---

    async def _attempt(self, handler: Handler, delivery: EventDelivery) -> None:
        event = delivery.event
        lines.are_about(correlation_id=event.correlation_id, session_id=event.session.session_id, handler=handler.name)
        try:
            error = await self._outcome(handler, delivery)
            if error is None:
                await database.write("", deliveries.succeed, delivery)
            else:
                await self._fail(handler, delivery, error)
        except asyncio.CancelledError:
            with suppress(RuntimeFault):
                await database.write("", deliveries.give_back, delivery)
        except Exception:  # its lease lapses, and it is run again
            logger.exception("%s: its outcome is not stored", _told(delivery))

    async def _outcome(self, handler: Handler, delivery: EventDelivery) -> BaseException | None:
        """What the handler raised; None when it returned. Raises CancelledError when the process ends."""
        hanging = self._hanging[handler.name]
        if delivery.pk in hanging or len(hanging) >= HANGING:
            return NotDelivered("Earlier calls of the handler still hang.")
        try:
            result = _called(handler, delivery.event)
        except RuntimeError as error:  # no more threads
            return error
        try:
            done, _ = await asyncio.wait({result}, timeout=handler.timeout_seconds)
        except asyncio.CancelledError:
            _abandon(result)
            raise
        if done:
            return result.result()
        hanging[delivery.pk] = result
        result.add_done_callback(lambda _: hanging.pop(delivery.pk))
        _abandon(result)
        return NotDelivered(f"Not done after {handler.timeout_seconds:g} s.")

    async def _fail(self, handler: Handler, delivery: EventDelivery, error: BaseException) -> None:
        chance = _chance.random()
        shown = _shown(error)
        policy = GIVE_UP if isinstance(error, Undeliverable) else handler.retries
        state = await database.write("", deliveries.fail, delivery, shown, policy=policy, chance=chance)
        level = logging.ERROR if state == DeliveryState.DEAD else logging.WARNING
        trace = error if error.__traceback__ else None
        logger.log(level, "%s: %s: %s", _told(delivery), state or "no longer ours", shown, exc_info=trace)


def _due_late_and_overdue(free: list[str], known: list[str]) -> tuple[list[str], list[EventDelivery], list[str]]:
    due = deliveries.with_due(free)
    overdue = deliveries.with_due(due, for_seconds=UNCALLED_SECONDS) if due and jobs.by_workers() else []
    return due, deliveries.lapsed(known), overdue


def _told(delivery: EventDelivery) -> str:
    return f"delivery {delivery.pk} to {delivery.handler}, event {delivery.event_id}, attempt {delivery.attempts}"


def _shown(error: BaseException) -> str:
    """What is kept of an error: its own words only when it says that they may be; else its type and place."""
    if isinstance(error, NotDelivered):
        return str(error)
    place = error.__traceback__ and error.__traceback__.tb_next  # the handler's own line, below our call
    where = f" at {Path(place.tb_frame.f_code.co_filename).name}:{place.tb_lineno}" if place else ""
    return type(error).__name__ + where


# --- calling -----------------------------------------------------------------------------------------------------


def _called(handler: Handler, event: Event) -> Result:
    """The call under way; its result is what it raised, whatever that is: nothing of it reaches the event loop."""
    if handler.is_async:
        return asyncio.create_task(_awaited(handler, event), name=f"handler {handler.name}")
    return _threaded(handler, event)


async def _awaited(handler: Handler, event: Event) -> BaseException | None:
    try:
        await handler.call(event)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        return error
    return None


def _threaded(handler: Handler, event: Event) -> Result:
    """In a thread of its own, which takes no other's place when it hangs and does not hold up the process's end."""
    loop = asyncio.get_running_loop()
    result: Result = loop.create_future()

    def run() -> None:
        error: BaseException | None = None
        try:
            _leave_the_pool()
            handler.call(event)
        except BaseException as raised:
            error = raised
        finally:
            with suppress(Exception):
                connections.close_all()
            with suppress(RuntimeError):  # the loop is gone
                loop.call_soon_threadsafe(_settle, result, error)

    threading.Thread(target=copy_context().run, args=(run,), name=f"handler {handler.name}", daemon=True).start()
    return result


def _abandon(result: Result) -> None:
    if isinstance(result, asyncio.Task):
        result.cancel()


def _leave_the_pool() -> None:
    """This thread connects by itself: a handler that hangs with a connection takes it from no turn."""
    for alias in connections:
        own = connections[alias].copy()
        own.settings_dict["OPTIONS"].pop("pool", None)
        connections[alias] = own


def _settle(result: Result, error: BaseException | None) -> None:
    if not result.done():
        result.set_result(error)


courier = Courier()
events.listen(courier.committed)
