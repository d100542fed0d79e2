"""Owns the turns of this process: starts them, keeps their leases and texts, stops them, and starts who waited.

Its state is a copy: what counts is in the database, and what a process leaves behind another one finds there.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import socket
import time
from collections.abc import Collection, Coroutine, Sequence
from contextlib import suppress
from contextvars import copy_context
from typing import Any, NamedTuple, TypeVar

from agents_app import agents, breaker, definitions, jobs, live, llm, observing, sharing, tracing, vitals
from agents_app.batching import batcher
from agents_app.cleaning import cleaner
from agents_app.delivering import courier
from agents_app.runner import Turn
from sessions_app import (
    answers,
    clock,
    correlation,
    database,
    doctor,
    events,
    failpoints,
    gauges,
    handover,
    leases,
    owners,
    places,
    runs,
)
from sessions_app.conf import settings
from sessions_app.errors import RunCancelled, RunInterrupted, RuntimeFault
from sessions_app.models import HANDED_OVER, Event, Run, RunState, Session
from sessions_app.steps import Work

T = TypeVar("T")
logger = logging.getLogger(__name__)
TICK_SECONDS = 1.0
LISTEN_SECONDS = 0.4  # between two looks for who wants a run stopped: a cancel is promised within a second
STORING_SECONDS = 5.0
LEAVING_SECONDS = 0.5
WATCH_TICKS = 30
SETTLING_SECONDS = 10.0


class Supervisor:
    """One per process, bound to the event loop that serves."""

    def __init__(self) -> None:
        self.owner = ""
        self.draining = False
        self._ticks = 0
        self._settling_until = 0.0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._turns: dict[int, Turn] = {}
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._others: set[asyncio.Task[Any]] = set()
        self._timers: set[asyncio.Task[None]] = set()
        self._ticking: asyncio.Task[None] | None = None
        self._asked = asyncio.Event()

    def ensure_started(self) -> bool:
        """Binds to the running loop; called by whatever comes first, the server's start or its first request. True
        when it was not bound before."""
        loop = asyncio.get_running_loop()
        if self._loop is loop or self.draining:
            return False
        self._loop = loop
        self.owner = f"{socket.gethostname()[:32]}:{os.getpid()}:{secrets.token_hex(4)}"
        self.draining = False
        self._turns, self._tasks, self._others = {}, {}, set()
        self._asked = asyncio.Event()
        live.bind(sharing.start(self.owner, self._told_to_stop))
        courier.start(self.owner)
        cleaner.start(self.owner)
        batcher.start(self.owner)
        tracing.start(self.owner)
        self._ticking = loop.create_task(self._tick_for_ever())
        return True

    # --- turns ---

    @property
    def starter(self) -> str:
        """Whose a run is that this process starts: its own; nobody's yet where workers execute, or where it goes."""
        return HANDED_OVER if jobs.by_workers() or self.draining else self.owner

    def start(self, work: Work) -> None:
        """Runs the work in a task of its own, unless it was handed over."""
        if work.run.lease_owner == HANDED_OVER:
            return
        turn, context = Turn(work), copy_context()
        context.run(_by_the_server)
        afterwards = context.copy()  # without what the turn says of itself in its own
        loop, name = asyncio.get_running_loop(), f"run {work.run.id}"
        task = loop.create_task(observing.go(turn), name=name, context=context)
        task.add_done_callback(lambda _: self._over(turn), context=afterwards)
        self._turns[work.run.id], self._tasks[work.run.id] = turn, task

    def _over(self, turn: Turn) -> None:
        if self._turns.get(turn.run.id) is turn:  # else the run has gone on in another turn already
            del self._turns[turn.run.id], self._tasks[turn.run.id]
        if self.draining:
            return
        if places.are_limited():  # who has waited longest, in whatever session
            self._detached(self._start_waiting())
        elif turn.queue_behind:
            self._detached(self.start_next(turn.session.id))

    async def start_next(self, session_pk: int) -> None:
        """Starts the session's oldest waiting message, past those that waited too long."""
        args = (session_pk, self.starter, agents.types())
        while outcome := await jobs.write(str(session_pk), runs.start_next, *args):
            if outcome.work is not None:
                failpoints.hit("dequeued")
                self.start(outcome.work)
                return

    async def _start_waiting(self) -> None:
        for session_pk in await database.read(places.startable, self.starter):
            await self.start_next(session_pk)

    async def take_up(self, session_pk: int, run_id: int, attempt: int) -> asyncio.Task[None] | None:
        """Claims a run that was handed over and runs it; None when it is claimed already, over or gone."""
        work = await database.write(str(session_pk), handover.claim, session_pk, run_id, attempt, self.owner)
        if work is None:
            return None
        failpoints.hit("claimed")
        self.start(work)
        return self._tasks[run_id]

    def drop_later(self, run: Run) -> None:
        """Ends a waiting message that has not started in time."""
        if run.state == RunState.QUEUED:
            self._timers.add(timer := asyncio.get_running_loop().create_task(self._drop(run)))
            timer.add_done_callback(self._timers.discard)

    async def _drop(self, run: Run) -> None:
        await asyncio.sleep(settings.QUEUE_WAIT_SECONDS)
        with suppress(RuntimeFault):  # the session is gone, or the next look finds it
            await database.write(str(run.session_id), runs.drop_queued, run)

    async def finish(self, action: Coroutine[Any, Any, T]) -> T:
        """Awaits an action that goes on when its caller is gone: what it stores, it must also start."""
        return await asyncio.shield(self._detached(action))

    def _detached(self, action: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = asyncio.get_running_loop().create_task(action)
        self._others.add(task)
        task.add_done_callback(self._forget)
        return task

    def _forget(self, task: asyncio.Task[Any]) -> None:
        self._others.discard(task)
        if not task.cancelled() and (error := task.exception()) and not isinstance(error, RuntimeFault):
            logger.error("an action failed", exc_info=error)

    def stop(self, run_id: int, fault: RuntimeFault | None) -> None:
        """Stops a turn of this process; without a fault it is somebody else's already, and nothing is written."""
        if turn := self._turns.get(run_id):
            turn.stop(fault)

    # --- what others ask ---

    def committed(self, session: Session, published: Sequence[Event]) -> None:
        """Hears of cancels as soon as they are committed in this process; one with a reason is written already."""
        if self._loop is None or self._loop.is_closed():
            return
        for event in published:
            if event.type == events.CANCEL_REQUESTED and event.run_id:
                self._loop.call_soon_threadsafe(self._stop_anywhere, event.run_id, RunCancelled())
            elif event.type == events.TASK_CANCELLED and event.run_id and "reason" in event.data:
                self._loop.call_soon_threadsafe(self._stop_anywhere, event.run_id, None)

    def _stop_anywhere(self, run_id: int, fault: RuntimeFault | None) -> None:
        self.stop(run_id, fault)
        if run_id not in self._turns:
            sharing.stopped(run_id)

    def _told_to_stop(self, run_ids: Collection[int]) -> None:
        """Another process says so; the database is asked whether it is true."""
        if any(run_id in self._turns for run_id in run_ids):
            self._asked.set()

    async def _tick_for_ever(self) -> None:
        await self._survived(definitions.tick())
        if settings.ON_SQLITE:  # the file is this host's alone
            await self._survived(self._end_leases_of_the_dead())
        await self._survived(database.read(clock.compare))
        ticked_at = time.monotonic()
        while True:
            due = ticked_at + TICK_SECONDS - time.monotonic()
            with suppress(TimeoutError):
                async with asyncio.timeout(min(LISTEN_SECONDS, max(due, 0))):
                    await self._asked.wait()
            if self._asked.is_set() or time.monotonic() - ticked_at >= TICK_SECONDS:
                self._asked.clear()
                ticked_at = time.monotonic()
                await self._survived(self._tick())
            elif self._turns:
                await self._survived(self._stop_those_asked())

    async def _survived(self, work: Coroutine[Any, Any, None]) -> None:
        """Whatever happens in one tick, there is a next one."""
        try:
            await work
        except RuntimeFault as fault:
            logger.warning("tick: %s", fault.code)
            self._settling_until = time.monotonic() + SETTLING_SECONDS
        except Exception:
            logger.exception("tick failed")

    async def _stop_those_asked(self) -> None:
        for run_id in await database.read(leases.asked_to_stop):
            self.stop(run_id, RunCancelled())

    async def _end_leases_of_the_dead(self) -> None:
        dead = [owner for owner in await database.read(leases.owners) if owner != self.owner and not _lives(owner)]
        if dead:
            await database.write("", leases.end_leases, dead)

    async def _tick(self) -> None:
        began = time.monotonic()
        if self._turns:
            known = dict(self._turns)
            texts, leased_until = self._texts(), time.monotonic() + settings.LEASE_SECONDS
            mine, asked = await database.write("", leases.tick, self.owner, known.keys(), texts)
            for run_id in mine:
                known[run_id].renewed(leased_until)
                if run_id in texts:
                    known[run_id].saved(*texts[run_id])
            for run_id in known.keys() - mine:
                if self._turns.get(run_id) is known[run_id]:
                    self.stop(run_id, None)
            for run_id in asked:
                self.stop(run_id, RunCancelled())
        await breaker.tick()
        if not settings.ON_SQLITE:  # the file's clock is this host's
            await database.read(clock.compare)
        await definitions.tick()
        if self.draining:
            return
        found = await database.read(_found, self.starter)
        if time.monotonic() - began > settings.LEASE_SECONDS / 2:  # storage was away for a part of it
            self._settling_until = time.monotonic() + SETTLING_SECONDS
        settled = began > self._settling_until  # else others had no storage either to renew their leases in
        if settled:
            await self._look_after(found.without_owner)
        for session_pk in found.unanswered:
            await database.write(str(session_pk), answers.expire, session_pk)
        if (settled and found.without_owner) or found.unanswered:  # whoever waited behind those may be started now
            found = await database.read(_found, self.starter)
        for session_pk in found.startable:
            await self.start_next(session_pk)
        for session_pk, run_id, attempt in found.unclaimed:
            if jobs.by_workers():
                await database.write(str(session_pk), jobs.offer_again, session_pk)
            else:  # the installation had workers until now
                await self.take_up(session_pk, run_id, attempt)

    async def _look_after(self, without_owner: Sequence[int]) -> None:
        """Ends the runs that nobody owns, and does what is due once in many ticks."""
        self._ticks += 1
        if self._ticks % WATCH_TICKS == 0:
            await self._watch()
        if self._ticks % gauges.BEAT_SECONDS == 0:
            await vitals.report(self.owner)
        for session_pk in without_owner:
            await database.write(str(session_pk), leases.interrupt_expired, session_pk)

    async def _watch(self) -> None:
        """Puts right what nobody owns any more."""
        left = 0
        for finding in await database.read(doctor.examine, doctor.WATCHED):
            if await database.write(finding.session_id, doctor.repair, finding):
                logger.warning("the watchdog repaired %s in %r", finding.broken.name, finding.session_id)
            else:
                left += 1
        await database.write("", gauges.note_broken, gauges.WATCHDOG, left)

    def _texts(self) -> dict[int, tuple[int, str]]:
        """The open messages whose text has grown, for the checkpoint."""
        texts = {}
        for run_id, turn in self._turns.items():
            message = turn.work.message if turn.work else None
            if message is not None and (text := turn.unsaved_text()):
                texts[run_id] = (message.id, text)
        return texts

    # --- the end ---

    async def drain(self, seconds: float) -> None:
        """Takes no new turns, gives the running ones some time, and stores the rest as interrupted."""
        self.draining = True
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.idle()
        await self._wait(self._others)  # what they have stored, they start
        for turn in list(self._turns.values()):
            turn.stop(RunInterrupted(kept=len(turn.text)))
        await self._wait({*self._tasks.values(), *self._others})
        await cleaner.stop()
        await batcher.stop()
        await courier.stop()
        for task in (*self._timers, self._ticking):
            if task is not None:
                task.cancel()
        live.close_all()
        if self._loop is not None:
            with suppress(RuntimeFault, TimeoutError):
                async with asyncio.timeout(LEAVING_SECONDS):
                    await vitals.leave(self.owner)
        await sharing.stop()
        await llm.close()
        await tracing.stop()
        self._loop = None

    async def _wait(self, tasks: set[asyncio.Task[Any]]) -> None:
        if tasks:
            await asyncio.wait(tasks, timeout=STORING_SECONDS)

    async def idle(self) -> None:
        """Returns when nothing runs here."""
        while tasks := set(self._tasks.values()) | self._others:
            await asyncio.wait(tasks)


def _by_the_server() -> None:
    """What is done in this context from here on is the server's work, and so is what comes after it."""
    owners.act_for(owners.SERVICE)
    correlation.follow_as(correlation.NONE)


class _Found(NamedTuple):
    """What a tick has to do: sessions by their keys, and runs handed over as (session, run, attempt)."""

    without_owner: list[int]
    unanswered: list[int]
    startable: list[int]
    unclaimed: list[tuple[int, int, int]]


def _found(starter: str) -> _Found:
    return _Found(leases.expired(), answers.due(), places.startable(starter), handover.unclaimed())


def _lives(owner: str) -> bool:
    """Whether the process that an owner names is there. Another one with our own number is gone: that is us now."""
    host, pid, _ = owner.rsplit(":", 2)
    if host != socket.gethostname()[:32]:
        return True
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return int(pid) != os.getpid()


supervisor = Supervisor()
events.listen(supervisor.committed)
