"""execute_command: in the folder, without input, bounded in time and output, without the runtime's own settings."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
from pathlib import Path
from threading import Thread
from typing import IO, Annotated

from pydantic import Field

from agents_app.terminal.folder import Folder, ToolFailed, failures_named
from agents_app.terminal.interrupts import deferred_interrupts
from agents_app.terminal.toolbox import tool

MAX_OUTPUT_BYTES = 256 * 1024
# The key of the runtime is none of a command's business, and so none of the model's.
HIDDEN_PREFIXES = ("AGENT_RUNTIME__", "DJANGO_")


@tool()
def execute_command(
    folder: Folder,
    /,
    command: str,
    cwd: str | None = None,
    timeout: Annotated[int, Field(ge=1, le=300)] = 60,
    shell: bool = False,
) -> str:
    """Ctrl-C and the timeout end everything that the command started in its process group."""
    place, running = folder.locate(cwd or "."), list[tuple[subprocess.Popen[bytes], Output]]()
    try:
        with failures_named(command[:80]), deferred_interrupts():
            child = _started(command, place, shell=shell)
            assert child.stdout is not None  # noqa: S101  it was asked for
            running.append((child, Output(child.stdout)))  # who reads the pipe also closes it
        return _watched(*running[0], timeout)
    finally:
        for child, _ in running:
            _end_group(child)


def _watched(child: subprocess.Popen[bytes], output: Output, timeout_seconds: int) -> str:
    try:
        code = child.wait(timeout_seconds)
    except subprocess.TimeoutExpired:
        _end_group(child)
        raise ToolFailed(f"Stopped after {timeout_seconds} seconds. Output so far:\n{output.text()}") from None
    _end_group(child)  # what it left behind holds the output open
    return f"exit code {code}\n{output.text()}"


def _started(command: str, place: Path, *, shell: bool) -> subprocess.Popen[bytes]:
    words = command if shell else shlex.split(command)
    if not words:
        raise ToolFailed("The command is empty")
    return subprocess.Popen(  # noqa: S603  a command is what the person approved
        words,
        shell=shell,
        cwd=place,
        env={name: value for name, value in os.environ.items() if not name.startswith(HIDDEN_PREFIXES)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


class Output:
    """Keeps the beginning and the end of what a command writes, and reads the rest away."""

    def __init__(self, pipe: IO[bytes]) -> None:
        self._head, self._tail, self._left_out = bytearray(), bytearray(), 0
        self._reading = Thread(target=self._read, args=[pipe], daemon=True)
        self._reading.start()

    def text(self) -> str:
        """All of it, to be asked once the command has ended."""
        self._reading.join(timeout=2)
        gap = f"\n… {self._left_out} bytes left out …\n".encode() if self._left_out else b""
        return bytes(self._head + gap + self._tail).decode("utf-8", "replace")

    def _read(self, pipe: IO[bytes]) -> None:
        with pipe:
            while part := os.read(pipe.fileno(), 65_536):
                self._add(part)

    def _add(self, part: bytes) -> None:
        half = MAX_OUTPUT_BYTES // 2
        room = half - len(self._head)
        self._head += part[:room]
        self._tail += part[room:]
        self._left_out += max(len(self._tail) - half, 0)
        del self._tail[:-half]


def _end_group(child: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()
