"""Names of what happens here: random, so that no two are alike, and no secrets: none opens anything. Imports nothing
of ours.

The system's own random numbers cost a call each, at which other threads take over; here it is asked once a process.
"""

from __future__ import annotations

import os
import random
from uuid import UUID, SafeUUID

_numbers = random.Random()  # noqa: S311
_UNKNOWN = SafeUUID.unknown  # asked for by name, it is looked up by two calls
_VERSION = 4 << 76 | 2 << 62
_FREE = (1 << 128) - 1 & ~(0xF << 76 | 3 << 62)
os.register_at_fork(after_in_child=_numbers.seed)


def new() -> UUID:
    """A UUID of version 4, without all that its constructor asks of what it is given."""
    bits = _numbers.getrandbits(128) & _FREE | _VERSION
    made = object.__new__(UUID)
    object.__setattr__(made, "int", bits)
    object.__setattr__(made, "is_safe", _UNKNOWN)
    return made
