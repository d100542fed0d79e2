"""How long this process waited for the database, until it is added to the running totals. Imports nothing of ours."""

from __future__ import annotations

import threading
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping
from types import TracebackType

READ, WRITE = "read", "write"
BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)  # seconds
BEYOND = "+Inf"
SPENT = "db"  # the histogram's totals, labelled "write 0.005"
SPENT_US = "db_us"

_counts: Counter[tuple[str, str]] = Counter()
_counting = threading.Lock()


def bucket(seconds: float, bounds: tuple[float, ...] = BOUNDS) -> str:
    """The label of the histogram's bucket that this falls into: of its upper bound."""
    place = bisect_left(bounds, seconds)
    return f"{bounds[place]:g}" if place < len(bounds) else BEYOND


def note(kind: str, seconds: float) -> None:
    """One hop into the database: all statements of a transaction with its commit, or of a read."""
    with _counting:
        _counts[SPENT, f"{kind} {bucket(seconds)}"] += 1
        _counts[SPENT_US, kind] += round(seconds * 1_000_000)


class Timed:
    """Notes how long a block took."""

    __slots__ = ("_began", "_kind")

    def __init__(self, kind: str) -> None:
        self._kind = kind

    def __enter__(self) -> None:
        self._began = time.perf_counter()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        note(self._kind, time.perf_counter() - self._began)


def take() -> Counter[tuple[str, str]]:
    """What was noted since it was last taken."""
    global _counts
    with _counting:
        taken, _counts = _counts, Counter()
    return taken


def give_back(counts: Mapping[tuple[str, str], int]) -> None:
    """What was taken could not be stored."""
    with _counting:
        _counts.update(counts)
