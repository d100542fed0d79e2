"""Waits for a condition instead of sleeping; a deadline that a busy machine keeps."""

from __future__ import annotations

import time
from collections.abc import Callable

SECONDS = 30.0
BETWEEN_SECONDS = 0.05


def until(holds: Callable[[], object], seconds: float = SECONDS) -> None:
    """Returns once it holds; fails when it never does."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(BETWEEN_SECONDS)
