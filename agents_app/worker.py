"""A worker: fetches jobs, claims their runs and runs them as the server would, with a supervisor of its own.

procrastinate brings the jobs and nothing else: a turn goes on when its job, or the whole queue, fails.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from contextlib import suppress

from procrastinate import App, PsycopgConnector
from procrastinate.contrib.django import connector_params
from procrastinate.exceptions import ConnectorException
from procrastinate.jobs import DeleteJobCondition, Status
from psycopg import AsyncConnection

from agents_app import jobs
from agents_app.delivering import courier
from agents_app.supervisor import supervisor
from sessions_app import database
from sessions_app.conf import settings
from sessions_app.errors import RuntimeFault

logger = logging.getLogger(__name__)
FETCH_SECONDS = 1.0  # a notification comes at once; this is for one that is lost
AGAIN_SECONDS = 1.0
TIDY_SECONDS = 60.0
LEAVING_SECONDS = 1.5
PATIENCE_SECONDS = 5
CONNECTIONS = 4


async def work(concurrency: int) -> None:
    """Runs turns until SIGTERM or SIGINT; then it takes no new ones, gives those at work their grace, and stores the
    rest as interrupted. A second signal ends it at once."""
    courier.works = True
    supervisor.ensure_started()
    fetching = asyncio.create_task(_fetch_for_ever(concurrency), name="jobs")
    await _signalled()
    logger.info("draining: up to %s s for the turns that run", settings.SHUTDOWN_GRACE_SECONDS)
    supervisor.draining = True
    fetching.cancel()
    await supervisor.drain(settings.SHUTDOWN_GRACE_SECONDS)
    await asyncio.wait({fetching}, timeout=LEAVING_SECONDS)


async def _signalled() -> None:
    loop, asked = asyncio.get_running_loop(), asyncio.Event()
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, asked.set)
    await asked.wait()
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.remove_signal_handler(signum)


async def execute(session_pk: int, run_id: int, attempt: int) -> None:
    """The job: returns when the run's turn is over, or at once when the run is not to be had. The turn is not the
    job's: it goes on when the job is cancelled."""
    try:
        if supervisor.draining:
            await database.write(str(session_pk), jobs.defer, session_pk, run_id, attempt)
            return
        turn = await supervisor.finish(supervisor.take_up(session_pk, run_id, attempt))
    except RuntimeFault as fault:  # the run is offered again
        logger.warning("run %s was not claimed: %s", run_id, fault.code)
        return
    except Exception:
        logger.exception("run %s was not claimed", run_id)
        return
    if turn is not None:
        await asyncio.wait({turn})


async def deliver(handler: str) -> None:
    """The job: has the handler's due deliveries taken, and does not wait for them: a slow one keeps no job's place."""
    courier.call(handler)


async def _fetch_for_ever(concurrency: int) -> None:
    """A queue that fails, or a database that is gone, is asked again a second later."""
    while True:
        try:
            await _fetch(concurrency)
            logger.warning("the job queue has ended, and is started again")
        except Exception as error:
            logger.warning("the job queue fails: %s", type(error).__name__)
        await asyncio.sleep(AGAIN_SECONDS)


async def _fetch(concurrency: int) -> None:
    # The Django app of procrastinate adds jobs inside our transactions; fetching has connections of its own.
    where = connector_params() | {"connect_timeout": PATIENCE_SECONDS}
    await (await AsyncConnection.connect(**where)).close()  # a pool would wait longer and longer for the database
    connector = PsycopgConnector(kwargs=where, min_size=1, max_size=CONNECTIONS, timeout=PATIENCE_SECONDS)
    queue = App(connector=connector)
    queue.task(name=jobs.TASK, queue=jobs.QUEUE)(execute)
    queue.task(name=jobs.DELIVER, queue=jobs.DELIVER)(deliver)
    async with queue.open_async():
        tidying = asyncio.create_task(_tidy_for_ever(queue), name="tidying jobs")
        try:
            await queue.run_worker_async(
                queues=[jobs.QUEUE, jobs.DELIVER],
                concurrency=concurrency,
                fetch_job_polling_interval=FETCH_SECONDS,
                shutdown_graceful_timeout=0,  # the supervisor gives the turns their grace
                delete_jobs=DeleteJobCondition.ALWAYS,
                install_signal_handlers=False,
            )
        finally:
            tidying.cancel()


async def _tidy_for_ever(queue: App) -> None:
    """Removes the jobs of killed workers: what they had claimed has ended with its lease, or is offered again."""
    while True:
        with suppress(ConnectorException):
            for name in (jobs.QUEUE, jobs.DELIVER):
                for job in await queue.job_manager.get_stalled_jobs(queue=name):
                    await queue.job_manager.finish_job(job, status=Status.FAILED, delete_job=True)
        await asyncio.sleep(TIDY_SECONDS)
