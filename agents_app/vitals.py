"""What this process tells of itself, for whichever process is asked: every few seconds, and whenever it is scraped."""

from __future__ import annotations

from agents_app import live
from sessions_app import database, gauges, tallies, timings


async def report(process: str) -> None:
    """Tells it in the writer thread, until every finished row is counted."""
    counts = timings.take()
    try:
        counted = await database.write("", gauges.report, process, live.readers(), counts)
    except BaseException:
        timings.give_back(counts)
        raise
    while counted >= tallies.BATCH_ROWS:
        counted = await database.write("", tallies.fold_batch)


def report_now(process: str) -> None:
    """The same in this thread, as far as one transaction goes."""
    counts = timings.take()
    try:
        gauges.report(process, live.readers(), counts)
    except BaseException:
        timings.give_back(counts)
        raise


async def leave(process: str) -> None:
    """The last report: the process has nothing open any more."""
    await database.write("", gauges.leave, process, timings.take())
