"""Names of what happens here: random, so that no two are alike, and no secrets: none opens anything. Imports nothing
of ours.

The system's own random numbers cost a call each, at which other threads take over; here it is asked once a process.
"""

from __future__ import annotations

import os
import random
from uuid import UUID

_numbers = random.Random()  # noqa: S311
os.register_at_fork(after_in_child=_numbers.seed)


def new() -> UUID:
    return UUID(int=_numbers.getrandbits(128), version=4)
