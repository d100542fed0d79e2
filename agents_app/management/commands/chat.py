"""`manage.py chat`: try an agent from a terminal, without an IDE."""

from __future__ import annotations

import sys
from typing import Any
from urllib.parse import urlsplit

from django.core.management.base import BaseCommand, CommandError, CommandParser

from agents_app.terminal.chat import INTERRUPTED, Chat, Server
from agents_app.terminal.conversation import LinkRefused
from agents_app.terminal.folder import Folder
from agents_app.terminal.keyboard import NoKeyboard, TypedKeyboard
from agents_app.terminal.palette import Palette
from agents_app.terminal.screen import Screen
from sessions_app.conf import settings

DEFAULT_URL = "ws://127.0.0.1:8001"
NOT_CONNECTED = 2


class Command(BaseCommand):
    help = "Talk to the agents of a running server, with the files of a folder at hand."
    requires_system_checks = ()
    requires_migrations_checks = False

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--url", default=DEFAULT_URL, help="the server's WebSocket address (default: %(default)s)")
        parser.add_argument("--key", help="the server's key; better in AGENT_RUNTIME__INTERNAL_API_KEY, which ps hides")
        parser.add_argument("--session", metavar="ID", help="go on in this session (default: a new one)")
        parser.add_argument("--agent", default="", help="begin with this agent instead of letting the server choose")
        parser.add_argument("--cwd", default=".", metavar="FOLDER", help="the folder that tools may touch")
        parser.add_argument("--once", metavar="MESSAGE", help="say this, print the answer, exit 0 if it went well")
        parser.add_argument("--plain", action="store_true", help="no colours and no passing hints")

    def handle(self, *args: Any, **options: Any) -> None:
        code = chat(options)
        if code:
            raise SystemExit(code)


def chat(options: dict[str, Any]) -> int:
    """Runs the client; its exit code."""
    once, keyboard = options["once"], TypedKeyboard()
    screen = Screen(_forgiving(sys.stdout), Palette.of(sys.stdout, plain=options["plain"]))
    server = Server(_url(options["url"]), _key(options["key"]))
    program = Chat(
        server, screen, keyboard if once is None else NoKeyboard(), _folder(options["cwd"]), options["agent"]
    )
    try:
        program.open(options["session"])
        if once is not None:
            return program.once(once)
        _welcome(program)
        return program.loop(known_session=options["session"] is not None)
    except KeyboardInterrupt:
        return INTERRUPTED
    except LinkRefused as fault:
        raise CommandError(f"{fault}", returncode=NOT_CONNECTED) from fault
    finally:
        program.close()


def _welcome(program: Chat) -> None:
    program.screen.note(f"session {program.session_id} · files in {program.folder.root} · /help")


def _url(text: str) -> str:
    if urlsplit(text).scheme not in {"ws", "wss"} or not urlsplit(text).hostname:
        raise CommandError(f"--url {text!r}: an address like {DEFAULT_URL}")
    return text.rstrip("/")


def _key(given: str | None) -> str:
    key = given or settings.INTERNAL_API_KEY
    if not key.isascii() or not key.isprintable():
        raise CommandError("The key holds characters that no header can carry.")
    return str(key)


def _folder(path: str) -> Folder:
    try:
        return Folder(path)
    except OSError as fault:
        raise CommandError(f"--cwd {path!r}: {fault.strerror or fault}") from fault


def _forgiving(stream: Any) -> Any:
    """An answer in Russian does not end the program on a terminal that cannot show it."""
    if hasattr(stream, "reconfigure"):
        stream.reconfigure(errors="replace")
    return stream
