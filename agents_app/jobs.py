"""Runs and deliveries as jobs for workers, where AGENT_RUNTIME__EXECUTOR is `worker`.

A job is added in the transaction that starts its run, or that owes a handler something. It is no more than a hint that
there is something to claim: whose a run or a delivery is, its lease says.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from django.db import OperationalError

from sessions_app import database, events, handover
from sessions_app.conf import settings
from sessions_app.models import HANDED_OVER
from sessions_app.steps import Outcome

if TYPE_CHECKING:
    from procrastinate.types import JSONDict

P = ParamSpec("P")
O = TypeVar("O", bound=Outcome | None)  # noqa: E741  an outcome
TASK = QUEUE = "run"
DELIVER = "deliver"
AFTER_TURNS = -1


def by_workers() -> bool:
    return bool(settings.EXECUTOR == "worker")


async def write(key: str, call: Callable[P, O], *args: P.args, **kwargs: P.kwargs) -> O:
    """`database.write` for what may start a run: the job of one that is handed over is committed with it."""
    return await database.write(key, _with_job, partial(call, *args, **kwargs))


def _with_job(call: Callable[[], O]) -> O:
    outcome = call()
    work = outcome.work if outcome is not None else None
    if work is not None and by_workers() and work.run.lease_owner == HANDED_OVER:
        defer(work.session.pk, work.run.pk, work.run.attempt)
    return outcome


def defer(session_pk: int, run_id: int, attempt: int) -> None:
    """Adds a job for a handed-over run, over Django's own connection; none while another waits to be fetched."""
    from procrastinate.contrib.django import app  # where nothing is handed over it is not even loaded

    lock = f"run {run_id} attempt {attempt}"
    if not app.job_manager.list_jobs(queue=QUEUE, status="todo", queueing_lock=lock):
        job = app.configure_task(TASK, queue=QUEUE, queueing_lock=lock)
        job.defer(session_pk=session_pk, run_id=run_id, attempt=attempt)


def offer_again(session_pk: int) -> None:
    """Replaces the job of a run that nobody has claimed in time, should it be lost."""
    run = handover.offer_again(session_pk)
    if run is not None:
        defer(session_pk, run.pk, run.attempt)


def call_for(handlers: Sequence[str]) -> None:
    """Adds a job for each handler, in the transaction that owes it something; one job too many does nothing."""
    if not by_workers() or not handlers:
        return
    from procrastinate.contrib.django import app
    from procrastinate.exceptions import ConnectorException

    called: list[JSONDict] = [{"handler": handler} for handler in handlers]
    try:
        app.configure_task(DELIVER, queue=DELIVER, priority=AFTER_TURNS).batch_defer(*called)
    except ConnectorException as error:  # the database's own, which its writer may try again
        raise OperationalError from error


events.when_owed(call_for)
