"""Ctrl-C where it would do harm: kept for later, so that no chunk is lost half way and no process half started."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def queued_interrupts(put: Callable[[], None]) -> Iterator[None]:
    """Ctrl-C calls `put` instead of raising KeyboardInterrupt."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, lambda *_: put())
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def deferred_interrupts() -> Iterator[None]:
    """Ctrl-C waits for the end of the block, where its outcome is in hand and can be undone."""
    held: list[bool] = []
    with queued_interrupts(lambda: held.append(True)):
        yield
    if held:
        raise KeyboardInterrupt


class Interrupts:
    """Ctrl-C while a turn is followed: told to `put`; or breaks off what a person or a tool is waited for in."""

    def __init__(self, put: Callable[[], None]) -> None:
        self._put = put
        self._breaking_off = False

    @contextmanager
    def queued(self) -> Iterator[None]:
        with queued_interrupts(self._pressed):
            yield

    @contextmanager
    def breaking_off(self) -> Iterator[None]:
        """Inside `queued`: the block is left by KeyboardInterrupt, by one at most."""
        self._breaking_off = True
        try:
            yield
        finally:
            self._breaking_off = False

    def _pressed(self) -> None:
        if self._breaking_off:
            self._breaking_off = False  # the next one must not break off what is made of this one
            raise KeyboardInterrupt
        self._put()
