"""Points at which the fault suite has a process killed, as by SIGKILL: `AGENT_RUNTIME__FAILPOINTS=name,other:3`.

`other:3` is the third time that the process gets there. `before TaskPaused` and `after TaskPaused` are the two sides of
the commit whose last event that is. Without the variable a point costs one empty call.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable

from sessions_app.conf import settings

KILLED = 137


def _nothing(name: str) -> None:
    """No point is armed."""


def _armed(points: Iterable[str]) -> Callable[[str], None]:
    left = {name: int(times or 1) for name, _, times in (point.partition(":") for point in points)}
    counting = threading.Lock()

    def hit(name: str) -> None:
        if name in left:
            with counting:
                left[name] -= 1
                if left[name] == 0:
                    os._exit(KILLED)

    return hit


ARMED = bool(settings.FAILPOINTS)
hit: Callable[[str], None] = _armed(settings.FAILPOINTS) if ARMED else _nothing
