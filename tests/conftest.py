"""A real server, a real model server, a real database: what every flow test stands on."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
import uvicorn
from django.utils import translation
from hypothesis import HealthCheck
from hypothesis import settings as examples

from tests.model_server import ModelServer

KEY = "a-key-for-tests-0123456789"
# A busy machine is slow, and that is no finding.
examples.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
examples.load_profile("patient")


def pytest_configure(config: pytest.Config) -> None:
    """Processes that test side by side share a Redis, not their sessions."""
    from django.conf import settings

    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as a shell starts what goes in the background
        signal.signal(signal.SIGINT, signal.default_int_handler)

    layer = settings.CHANNEL_LAYERS["default"].get("CONFIG")
    if layer is not None:
        layer["prefix"] = f"{layer['prefix']}.{os.getpid()}"
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]  # the others are slow on purpose


@pytest.fixture(scope="session")
def django_db_modify_db_settings(
    django_db_modify_db_settings_parallel_suffix: None, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """On SQLite each test process has a database file of its own: threads share it, other processes do not."""
    from django.conf import settings
    from django.db import connections

    if settings.ON_SQLITE:
        name = str(tmp_path_factory.mktemp("database") / "test.sqlite3")
        for config in (settings.DATABASES["default"], connections["default"].settings_dict):
            config["TEST"]["NAME"] = name


@pytest.fixture(scope="session")
def django_db_setup(django_db_setup: None) -> Iterator[None]:
    """Ends our threads and their connections before the database goes."""
    yield
    from sessions_app import database

    database.stop()


@pytest.fixture(autouse=True)
def _no_language_left() -> Iterator[None]:
    """A request activates its language for the thread, and nobody takes it back."""
    yield
    translation.deactivate()


@pytest.fixture(autouse=True)
def _same_start(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test inherits another's limits, rules or settings, nor the environment's."""
    from agents_app import breaker, definitions, policy, ratelimits
    from runtime_project import tokens
    from runtime_project.keyring import keyring
    from sessions_app import webhooks

    # Every half a minute the watchdog would mend what a test has laid out broken.
    monkeypatch.setattr("agents_app.supervisor.WATCH_TICKS", 10**9)
    settings.INTERNAL_API_KEY = KEY
    settings.DEMO_MODEL_WORD_SECONDS = 0
    settings.LLM_PROXY_URL, settings.LLM_MODEL, settings.LLM_STREAM = "", "fake-llm", "auto"
    settings.LANGUAGE = settings.OWNER_HEADER = settings.JWT_JWKS_URL = ""
    settings.REDIS_URL = ""  # rate limits of one test are not the next one's; the layer keeps its Redis
    keyring.forget()
    breaker.forget()
    definitions.forget()
    tokens.forget()
    policy.forget()
    ratelimits.reset()
    webhooks.forget()


@dataclass
class RunningServer:
    """The application on a real socket, in a thread of this process."""

    url: str
    loop: asyncio.AbstractEventLoop

    @property
    def websocket_url(self) -> str:
        return self.url.replace("http", "ws", 1)

    def idle(self) -> None:
        """Waits until no turn runs."""
        from agents_app.supervisor import supervisor

        asyncio.run_coroutine_threadsafe(supervisor.idle(), self.loop).result(30)


@pytest.fixture(scope="session")
def _server_thread() -> Iterator[RunningServer]:
    from runtime_project.asgi import application

    config = uvicorn.Config(
        application, port=0, log_config=None, proxy_headers=False, ws_max_size=2**20, timeout_graceful_shutdown=2
    )
    server = uvicorn.Server(config)
    loops: list[asyncio.AbstractEventLoop] = []
    started = threading.Event()

    async def serve() -> None:
        loops.append(asyncio.get_running_loop())
        sockets = [config.bind_socket()]
        ports.append(sockets[0].getsockname()[1])
        task = asyncio.create_task(server.serve(sockets))
        while not server.started:  # noqa: ASYNC110  uvicorn has nothing to await
            await asyncio.sleep(0.01)
        started.set()
        await task

    ports: list[int] = []

    def run() -> None:
        with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:  # the event loop that `serve` has
            runner.run(serve())

    thread = threading.Thread(target=run, name="server", daemon=True)
    thread.start()
    assert started.wait(30)
    yield RunningServer(f"http://127.0.0.1:{ports[0]}", loops[0])
    server.should_exit = True
    thread.join(30)


@pytest.fixture
def server(transactional_db: None, _same_start: None, _server_thread: RunningServer) -> Iterator[RunningServer]:
    """The real application over real HTTP; when the test ends, so do its turns."""
    yield _server_thread
    from agents_app.supervisor import supervisor

    asyncio.run_coroutine_threadsafe(supervisor.drain(0), _server_thread.loop).result(30)
    supervisor.draining = False  # the process lives on, for the next test


@pytest.fixture
def client(server: RunningServer) -> Iterator[httpx.Client]:
    """An HTTP client that holds the key."""
    with httpx.Client(base_url=server.url, headers={"X-Internal-Auth": KEY}, timeout=30) as one:
        yield one


@pytest.fixture
def model(settings: Any) -> Iterator[ModelServer]:
    """The scripted model, as the configured upstream."""
    with ModelServer() as one:
        settings.LLM_PROXY_URL, settings.LLM_MODEL = one.url, "scripted"
        yield one
