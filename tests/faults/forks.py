"""`manage.py` processes in a second instead of five: forked from a process that has imported what they all import.

Nothing of ours is imported before the fork, and no setting read: a child is what a fresh interpreter would be.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import IO, Any

ROOT = Path(__file__).resolve().parents[2]
IMPORTED = """
    channels.generic.http channels.generic.websocket channels.routing channels_redis.pubsub daphne.server
    django.contrib.admin.options django.core.handlers.asgi django.core.management.commands.migrate django.db.models
    django.db.backends.postgresql.base django.db.backends.sqlite3.base django.urls drf_spectacular environ httpx
    inflection jsonschema limits.aio.storage limits.aio.strategies orjson psycopg psycopg_pool pydantic rest_framework
    uvicorn uvicorn.loops.uvloop uvicorn.protocols.http.httptools_impl wcmatch.glob websockets whitenoise yaml
"""


class Forked:
    """A child of the forking process, with what `subprocess.Popen` has of use."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None

    def poll(self) -> int | None:
        if self.returncode is None:
            self.returncode = forks().ask(poll=self.pid)
        return self.returncode

    def wait(self, seconds: float) -> int:
        deadline = time.monotonic() + seconds
        while (code := self.poll()) is None:
            if time.monotonic() > deadline:
                raise TimeoutError(f"process {self.pid} still runs after {seconds:g} s")
            time.sleep(0.02)
        return code

    def send(self, signum: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, signum)


class Forks:
    """The process that forks the others; when this one is gone, so are they."""

    def __init__(self) -> None:
        self._asking = threading.Lock()
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "tests.faults.forks"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, **question: Any) -> Any:
        with self._asking:
            assert self._process.stdin is not None
            assert self._process.stdout is not None
            print(json.dumps(question), file=self._process.stdin, flush=True)
            return json.loads(self._process.stdout.readline())

    def start(self, *arguments: str, env: Mapping[str, str], out: Path, errors: Path) -> Forked:
        return Forked(self.ask(start=arguments, env=dict(env), out=str(out), errors=str(errors)))


@cache
def forks() -> Forks:
    return Forks()


# --- in the forking process --------------------------------------------------------------------------------------


def main(questions: IO[str], answers: IO[str]) -> None:
    for name in IMPORTED.split():
        with contextlib.suppress(Exception):  # what needs settings to be imported is imported by the child
            importlib.import_module(name)
    gc.freeze()
    children: set[int] = set()
    for line in questions:
        question = json.loads(line)
        if "start" in question:
            children.add(answer := _fork(question))
        else:
            answer = _poll(question["poll"], children)
        print(json.dumps(answer), file=answers, flush=True)
    for pid in children:
        os.kill(pid, signal.SIGKILL)


def _poll(pid: int, children: set[int]) -> int | None:
    done, status = os.waitpid(pid, os.WNOHANG)
    if not done:
        return None
    children.discard(pid)
    return os.waitstatus_to_exitcode(status)


def _fork(question: dict[str, Any]) -> int:
    pid = os.fork()
    if pid:
        return pid
    code = 70
    try:
        _become(question)
        code = _manage(question["start"])
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _become(question: dict[str, Any]) -> None:
    """Takes on the environment and the files that a new process would have been given."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    for number, (path, mode) in enumerate(
        [(os.devnull, os.O_RDONLY), (question["out"], flags), (question["errors"], flags)]
    ):
        os.dup2(os.open(path, mode, 0o600), number)
    os.environ.clear()
    os.environ.update(question["env"])
    sys.argv = ["manage.py", *question["start"]]
    random.seed()


def _manage(arguments: list[str]) -> int:
    from django.core.management import execute_from_command_line

    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "runtime_project.settings")
    try:
        execute_from_command_line(["manage.py", *arguments])
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        import traceback

        traceback.print_exc()
        return 1
    return 0


if __name__ == "__main__":
    own_answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever an import prints is no answer
    main(sys.stdin, own_answers)
