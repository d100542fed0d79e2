"""`manage.py serve`: migrates, says what to try next, and serves in the foreground with uvicorn."""

import gc
import json
import os
import socket
import sys
from argparse import ArgumentTypeError
from pathlib import Path
from typing import Any

import uvicorn
from django.core.exceptions import ImproperlyConfigured
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import DatabaseError, InterfaceError, connection
from django.db.migrations.executor import MigrationExecutor
from django.db.utils import ConnectionHandler
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.supervisors import Multiprocess

from sessions_app.conf import settings

DEFAULT_PORT = 8001
BACKLOG = 2048
# Longer than the pools of httpx clients keep a connection (5 s): a server that hangs up first loses their next request.
KEEP_ALIVE_SECONDS = 75
# The runs have had their grace when the server hears of its end; their last chunks still have to leave.
STOP_MARGIN_SECONDS = 1
MIGRATION_LOCK = 0x6167656E74  # "agent": PostgreSQL's advisory lock, so that two hosts never migrate at once


class Command(BaseCommand):
    help = "Migrates the database and serves the runtime in the foreground (uvicorn)."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
        parser.add_argument(
            "--port", type=port_number, help=f"port to listen on (default: the variable PORT, else {DEFAULT_PORT})"
        )
        parser.add_argument(
            "--workers", type=int, default=1, help="processes (default: 1; more need PostgreSQL and Redis)"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        workers = checked_workers(options["workers"])
        port = default_port() if options["port"] is None else options["port"]
        listener = listening_socket(options["host"], port)
        with listener:
            open_database()
            migrate()
            self.stdout.write(greeting(address(*listener.getsockname()[:2])))
            self.stdout.flush()
            run(listener, workers=workers)


class JSONProtocol(HttpToolsProtocol):
    """uvicorn's own, but what is no HTTP at all gets its refusal as JSON too."""

    def send_400_response(self, msg: str) -> None:
        body = json.dumps({"detail": msg}).encode()
        head = b"HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\nconnection: close\r\n"
        self.transport.write(head + b"content-length: %d\r\n\r\n%s" % (len(body), body))
        self.transport.close()


def port_number(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) > 65535:
        raise ArgumentTypeError(f"{text!r} is no port: give a number from 0 (any free one) to 65535")
    return int(text)


def default_port() -> int:
    try:
        return port_number(os.environ.get("PORT") or str(DEFAULT_PORT))
    except ArgumentTypeError as fault:
        raise CommandError(f"The variable PORT is wrong: {fault}.") from fault


def checked_workers(workers: int) -> int:
    if workers < 1:
        raise CommandError(f"--workers is {workers}: at least one process has to serve.")
    if workers > 1 and connection.vendor == "sqlite":
        raise CommandError(
            "--workers needs PostgreSQL: SQLite lets one process write at a time. Set AGENT_RUNTIME__DB_URL=postgres://..."
        )
    if workers > 1 and "InMemory" in settings.CHANNEL_LAYERS["default"]["BACKEND"]:
        raise CommandError(
            "--workers needs Redis: the in-memory channel layer lives in one process. Set AGENT_RUNTIME__REDIS_URL=redis://..."
        )
    return workers


def listening_socket(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as fault:
        reason = os.strerror(fault.errno) if fault.errno and fault.errno > 0 else fault.strerror
        raise CommandError(f"Cannot listen on {host} port {port}: {reason}. Give another --port or --host.") from fault
    listener.set_inheritable(True)
    return listener


def open_database() -> None:
    """One connection of its own, outside any pool: the reason why it fails, if it does, in one line and at once."""
    config: dict[str, Any] = dict(connection.settings_dict)
    config["OPTIONS"] = {name: value for name, value in config["OPTIONS"].items() if name != "pool"}
    if connection.vendor == "sqlite":
        _make_directory(str(config["NAME"]))
    else:
        config["OPTIONS"].setdefault("connect_timeout", 5)
    try:
        trial = ConnectionHandler({"default": config})["default"]
        trial.ensure_connection()
        trial.close()
    except (DatabaseError, InterfaceError, ImproperlyConfigured) as fault:
        raise CommandError(f"Cannot open the database {database_name()}: {_one_line(fault)}") from fault


def migrate() -> None:
    """Applies what is not applied yet; where nothing is, nothing is written."""
    from sessions_app.legacy import recognised  # knows models; a worker imports this module before the apps are loaded

    try:
        if recognised.is_legacy():
            raise CommandError(recognised.REFUSAL)
        if _is_behind():
            with connection.cursor() as cursor:
                if connection.vendor == "postgresql":
                    cursor.execute("SELECT pg_advisory_lock(%s)", [MIGRATION_LOCK])
                call_command("migrate", interactive=False, verbosity=0)
    except DatabaseError as fault:
        raise CommandError(f"Cannot migrate the database {database_name()}: {_one_line(fault)}") from fault
    finally:
        connection.close()
        if connection.vendor == "postgresql":
            connection.close_pool()  # type: ignore[attr-defined]


def greeting(url: str) -> str:
    socket_url = url.replace("http", "ws", 1)
    chat = "chat" if url.endswith(f":{DEFAULT_PORT}") else f"chat --url {socket_url}"
    return f"""
Agent runtime {settings.VERSION} on {url}
  model     {model_name()}
  database  {database_name()}{executor()}

Try it in another terminal:
  {curl(url)}
  {program()} {chat}
Or in a browser:
  {url}/docs    the API
  {url}/admin/  the sessions; its first account: {program()} createsuperuser

Ctrl-C stops.
"""


def curl(url: str) -> str:
    """One line to copy. It names the operator's own key and shows only one that was made here."""
    key = settings.INTERNAL_API_KEY if settings.INTERNAL_API_KEY_GENERATED else "$AGENT_RUNTIME__INTERNAL_API_KEY"
    body = {"session_id": "first", "message": {"type": "user_message", "content": "What can you do?"}}
    headers = f'-H "X-Internal-Auth: {key}" -H "Content-Type: application/json"'
    return f"curl -N {url}/agent/message/stream {headers} -d '{json.dumps(body)}'"


def program() -> str:
    """How this very program is called from here, whatever environment the other terminal is in."""
    python = os.path.relpath(sys.executable)
    return f"{sys.executable if python.startswith(os.pardir) else python} {sys.argv[0]}"


def address(host: str, port: int) -> str:
    reachable = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104  compared, not bound
    return f"http://[{reachable}]:{port}" if ":" in reachable else f"http://{reachable}:{port}"


def model_name() -> str:
    if settings.LLM_PROXY_URL:
        return f"{settings.LLM_MODEL} at {settings.LLM_PROXY_URL.rpartition('@')[2]}"
    return f"{settings.LLM_MODEL} (built in: a demonstration without a network)"


def executor() -> str:
    return f"\n  runs      by workers, each: {program()} worker" if settings.EXECUTOR == "worker" else ""


def database_name() -> str:
    config = connection.settings_dict
    if connection.vendor == "sqlite":
        return f"SQLite {config['NAME']}"
    return f"PostgreSQL {config['NAME']} at {config['HOST'] or 'the local socket'}:{config['PORT'] or 5432}"


def run(listener: socket.socket, *, workers: int) -> None:
    config = uvicorn.Config(
        _import_path(settings.ASGI_APPLICATION),
        workers=workers,
        http=JSONProtocol,
        lifespan="auto",
        log_config=None,
        log_level="warning",
        access_log=False,  # uvicorn writes whole addresses, and a query string is none of a log's business
        proxy_headers=False,  # the gate decides whom to believe
        server_header=False,
        ws_max_size=settings.MAX_BODY_BYTES,
        backlog=BACKLOG,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=STOP_MARGIN_SECONDS,
    )
    try:
        if workers > 1:
            Multiprocess(config, sockets=[listener]).run()
            gc.freeze()  # a last collection of all that was loaded would make the end late
        else:
            _serve_here(uvicorn.Server(config), listener)
    except KeyboardInterrupt:
        return


def _serve_here(server: uvicorn.Server, listener: socket.socket) -> None:
    server.run(sockets=[listener])
    if not server.started:
        raise CommandError("The server did not start: the reason is in the log above.")


def _is_behind() -> bool:
    executor = MigrationExecutor(connection)
    return bool(executor.migration_plan(executor.loader.graph.leaf_nodes()))


def _make_directory(name: str) -> None:
    if "mode=memory" in name or name == ":memory:":
        raise CommandError(
            "AGENT_RUNTIME__DB_URL names a database in memory, and every thread would see its own: name a file."
        )
    try:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
    except OSError as fault:
        raise CommandError(f"Cannot make the directory of the database {name!r}: {fault.strerror}.") from fault


def _import_path(dotted: str) -> str:
    module, _, name = dotted.rpartition(".")
    return f"{module}:{name}"


def _one_line(fault: Exception) -> str:
    return " ".join(str(fault).split())
