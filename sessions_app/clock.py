"""The database's time. Leases are measured by it, since the clocks of several hosts may differ by more than a lease."""

from __future__ import annotations

import logging
from datetime import datetime, timedelta

from django.db import connection
from django.utils import timezone

logger = logging.getLogger(__name__)
WORTH_SAYING, TOO_SLOW = timedelta(seconds=2), timedelta(seconds=1)
_ahead = timedelta()


def now() -> datetime:
    """The database's time, as far as it was compared with this host's."""
    return timezone.now() + _ahead


def compare() -> None:
    """Finds how far the database's clock is ahead of this host's. A SQLite file is this host's own."""
    global _ahead
    if connection.vendor == "sqlite":
        return
    asked = timezone.now()
    with connection.cursor() as cursor:
        cursor.execute("SELECT clock_timestamp()")
        [theirs] = cursor.fetchone()
    took = timezone.now() - asked
    if took > TOO_SLOW:  # nobody knows when in it the database looked
        return
    found = theirs - asked - took / 2
    if abs(found - _ahead) > WORTH_SAYING:
        logger.warning("the database's clock is %.1f s ahead of this host's", found.total_seconds())
    _ahead = found
