"""How many sockets and streams an address holds open in this process: they live in one, and so does their count."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from sessions_app.conf import settings

_open: Counter[str] = Counter()


@contextmanager
def counted(address: str, *, always: bool = False) -> Iterator[bool]:
    """Counts one for as long as it lasts, where there is room for it, or `always`; says whether there was."""
    if not always and 0 < settings.MAX_SOCKETS_PER_ADDRESS <= _open[address]:
        yield False
        return
    _open[address] += 1
    try:
        yield True
    finally:
        _open[address] -= 1
        if not _open[address]:
            del _open[address]
