"""Real `manage.py` processes for the tests: an environment of their own, a database in a folder of their own."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

ROOT = Path(__file__).resolve().parents[2]
START_SECONDS = 40


@dataclass(slots=True)
class Server:
    process: subprocess.Popen[str]
    greeting: str
    url: str
    errors: Path

    def stop(self) -> int:
        self.process.terminate()
        return self.process.wait(timeout=START_SECONDS)


def environment(directory: Path, **variables: str) -> dict[str, str]:
    """The caller's environment without any setting of the runtime, plus a database in `directory`."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("AGENT_RUNTIME__")}
    inherited.pop("PORT", None)
    database = f"sqlite:///{directory / 'runtime.sqlite3'}"
    return inherited | {"AGENT_RUNTIME__DB_URL": database, "PYTHONUNBUFFERED": "1"} | variables


def manage(directory: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "manage.py", *arguments],
        cwd=ROOT,
        env=environment(directory, **variables),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


@contextmanager
def serving(directory: Path, *arguments: str, command: str = "serve", **variables: str) -> Iterator[Server]:
    """A server on a free port that answers; killed at the end if it still runs."""
    errors = directory / f"errors-{time.monotonic_ns()}"
    with errors.open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "manage.py", command, "--port", "0", *arguments],
            cwd=ROOT,
            env=environment(directory, **variables),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    with process:
        try:
            greeting = _greeting(process)
            found = re.search(r"^Agent runtime \S+ on (\S+)$", greeting, re.MULTILINE)
            assert found, f"no address in {greeting!r}; errors: {errors.read_text()}"
            _wait_until_healthy(found[1], process, errors)
            yield Server(process, greeting, found[1], errors)
        finally:
            if process.poll() is None:
                process.kill()


def _greeting(process: subprocess.Popen[str]) -> str:
    """What the program says until it serves, or until it ends."""
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if line.startswith("Ctrl-C"):
            break
    return "".join(lines)


def _wait_until_healthy(url: str, process: subprocess.Popen[str], errors: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if httpx.get(f"{url}/health", timeout=5, trust_env=False).status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.05)
    raise AssertionError(f"{url} never became healthy: {errors.read_text()}")
