"""Processes on cores of their own, and what they have cost so far."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Self

TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
TELLS_NANOSECONDS = Path("/proc/self/schedstat").exists()
START_SECONDS = 60
STOP_SECONDS = 15
SETTLING_SECONDS = 1.0


class Process:
    """A server that runs while the block does, and is ready when it begins."""

    def __init__(
        self, command: Sequence[str], *, port: int, cores: set[int], log: Path, env: dict[str, str] | None = None
    ) -> None:
        self.port, self._cores, self._command, self._log = port, cores, command, log
        self._env = os.environ | (env or {})

    def __enter__(self) -> Self:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command, stdout=log, stderr=log, env=self._env, preexec_fn=self._pin
            )  # fmt: skip
        until = time.monotonic() + START_SECONDS
        while not is_listening(self.port):
            if self._process.poll() is not None or time.monotonic() > until:
                self.__exit__()
                raise SystemExit(f"{' '.join(self._command)} did not start:\n{self._log.read_text()[-2000:]}")
            time.sleep(0.05)
        return self

    def settle(self) -> None:
        """Returns when all its processes have started, which keeps a core busy: the first one listens long before."""
        until = time.monotonic() + START_SECONDS
        while time.monotonic() < until:
            before = self.cpu_seconds()
            time.sleep(SETTLING_SECONDS)
            if self.cpu_seconds() - before < SETTLING_SECONDS / 4:
                return

    def _pin(self) -> None:
        os.sched_setaffinity(0, self._cores)

    def __exit__(self, *_: object) -> None:
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def cpu_seconds(self) -> float:
        """User and system time of the process and its children: of all their threads, as the scheduler counts it, to
        the nanosecond; where it does not tell, in ticks of 10 ms."""
        tree = _tree(self._process.pid)
        if TELLS_NANOSECONDS:
            return sum(_run_nanoseconds(pid) for pid in tree) / 1e9
        fields = [_stat(pid) for pid in tree]
        return sum(int(one[11]) + int(one[12]) for one in fields) / TICKS_A_SECOND

    def resident_bytes(self) -> int:
        return sum(int(_stat(pid)[21]) for pid in _tree(self._process.pid)) * PAGE_BYTES


def _tree(pid: int) -> list[int]:
    children: list[int] = []
    for thread in Path(f"/proc/{pid}/task").iterdir():
        with suppress(FileNotFoundError):  # it has ended meanwhile
            children += map(int, (thread / "children").read_text().split())
    return [pid, *(one for child in children for one in _tree(child))]


def _run_nanoseconds(pid: int) -> int:
    spent = 0
    for thread in Path(f"/proc/{pid}/task").iterdir():
        with suppress(FileNotFoundError):  # it has ended meanwhile
            spent += int((thread / "schedstat").read_text().split()[0])
    return spent


def _stat(pid: int) -> list[str]:
    """The fields of /proc/<pid>/stat after the name, which may hold anything."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def is_listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def cores() -> tuple[set[int], set[int]]:
    """One core for the server under test, the others for the model and the clients; the same where there is one."""
    first, *others = sorted(os.sched_getaffinity(0))
    return {first}, set(others or [first])
