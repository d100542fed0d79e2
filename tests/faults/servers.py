"""PostgreSQL and Redis servers of our own, that may be stopped, frozen and emptied; and fresh databases."""

from __future__ import annotations

import itertools
import os
import random
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psycopg
from redis import Redis
from redis.exceptions import RedisError

POSTGRES = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
_numbers = itertools.count(1)


def until(holds: Callable[[], Any], seconds: float, what: str) -> Any:
    """Asks again and again until it holds; what it then returned."""
    deadline = time.monotonic() + seconds
    while not (found := holds()):
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        time.sleep(0.02)
    return found


def lasting_port() -> int:
    """A free port that stays free while its server is down: below those that the system gives to connections."""
    while True:
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", random.randint(15_000, 30_000)))
            return int(probe.getsockname()[1])


def missing_postgres() -> str:
    """Why no PostgreSQL of our own can be started; empty when one can."""
    if not POSTGRES:
        return "PostgreSQL is not installed (/usr/lib/postgresql/*/bin)"
    if os.getuid() == 0 and shutil.which("runuser") is None:
        return "PostgreSQL refuses root, and there is no runuser"
    return ""


def missing_redis() -> str:
    return "" if shutil.which("redis-server") else "redis-server is not installed"


class Postgres:
    """A cluster of our own, that may be stopped."""

    def __init__(self, directory: Path) -> None:
        self.directory, self.port = directory / "cluster", lasting_port()
        self.directory.mkdir()
        if os.getuid() == 0:
            directory.chmod(0o711)
            shutil.chown(self.directory, "postgres")
        self._run("initdb", "-U", "runtime", "-A", "trust", "--no-sync")

    @property
    def url(self) -> str:
        return f"postgres://runtime@127.0.0.1:{self.port}/postgres"

    def _run(self, program: str, *arguments: str) -> None:
        command = [str(POSTGRES[-1] / program), "-D", str(self.directory), *arguments]
        as_postgres = ["runuser", "-u", "postgres", "--"] if os.getuid() == 0 else []
        # Files, not pipes: the server would inherit them and never close them.
        with (self.directory.parent / f"{program}.log").open("a") as log:
            done = subprocess.run(
                as_postgres + command,
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                check=False,
                timeout=60,
            )
        assert done.returncode == 0, (self.directory.parent / f"{program}.log").read_text()

    def start(self) -> None:
        options = f"-p {self.port} -k {self.directory} -c listen_addresses=127.0.0.1 -c fsync=off"
        self._run("pg_ctl", "-l", str(self.directory / "log"), "-w", "-o", options, "start")

    def stop(self, mode: str = "immediate") -> None:
        """`immediate` is a crash of the whole server: no client hears a word."""
        self._run("pg_ctl", "-m", mode, "-w", "stop")

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Every process of the server stands still: its sockets take what is sent, and nobody reads it."""
        postmaster = int((self.directory / "postmaster.pid").read_text().split()[0])
        children = Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text().split()
        stopped = [postmaster, *map(int, children)]
        try:
            for pid in stopped:
                os.kill(pid, signal.SIGSTOP)
            yield
        finally:
            for pid in stopped:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)

    def fresh(self) -> str:
        """A new database."""
        name = f"site_{next(_numbers)}"
        with psycopg.connect(self.url, autocommit=True) as link:
            link.execute(f'CREATE DATABASE "{name}"')
        return f"{self.url.rpartition('/')[0]}/{name}"

    def connections(self) -> int:
        with psycopg.connect(self.url) as link:
            found = link.execute("SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'")
            return int((found.fetchone() or (0,))[0]) - 1


@contextmanager
def postgres() -> Iterator[Postgres]:
    """In a folder of its own: pytest's are closed to other users, and the server is one."""
    with TemporaryDirectory(prefix="faults-") as directory:
        cluster = Postgres(Path(directory))
        cluster.start()
        try:
            yield cluster
        finally:
            if (cluster.directory / "postmaster.pid").exists():
                cluster.stop()


class OwnRedis:
    """A Redis of our own, that may be stopped, frozen and emptied."""

    def __init__(self, directory: Path) -> None:
        self.directory, self.port = directory, lasting_port()
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        words = ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        with (self.directory / "redis.log").open("ab") as log:
            self.process = subprocess.Popen(
                words, cwd=self.directory, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
            )
        until(self._answers, 30, "Redis answers")

    def _answers(self) -> bool:
        with closing(Redis(port=self.port)) as link:
            try:
                return bool(link.ping())
            except (OSError, RedisError):
                return False

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait(30)
            self.process = None

    def signal(self, signum: int) -> None:
        assert self.process is not None
        self.process.send_signal(signum)

    def channels(self) -> list[str]:
        """The channels that somebody listens to."""
        with closing(Redis(port=self.port)) as link:
            return [name.decode() for name in link.pubsub_channels()]

    def flush(self) -> None:
        with closing(Redis(port=self.port)) as link:
            link.flushall()


@contextmanager
def own_redis(directory: Path) -> Iterator[OwnRedis]:
    server = OwnRedis(directory)
    server.start()
    try:
        yield server
    finally:
        server.stop()


@contextmanager
def database(directory: Path) -> Iterator[str]:
    """A fresh database where the suite's own is: on its PostgreSQL, or a SQLite file."""
    shared = os.environ.get("AGENT_RUNTIME__DB_URL", "")
    if not shared.startswith("postgres"):
        yield f"sqlite:///{directory / 'runtime.sqlite3'}"
        return
    name = f"faults_{os.getpid()}_{next(_numbers)}"
    server = f"postgres://{shared.partition('://')[2]}"
    with psycopg.connect(server, autocommit=True) as link:
        link.execute(f'CREATE DATABASE "{name}"')
    try:
        yield f"{server.rpartition('/')[0]}/{name}"
    finally:
        with psycopg.connect(server, autocommit=True) as link:
            link.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
