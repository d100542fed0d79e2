"""What a person can say to the client itself: one function a command, its docstring is its help."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from agents_app.terminal.rendering import text_of
from agents_app.terminal.rest import RestFailed
from agents_app.terminal.safe_text import one_line

if TYPE_CHECKING:
    from agents_app.terminal.chat import Chat

Command = Callable[["Chat", str], bool | None]
_commands: dict[str, Command] = {}
ROLE_STYLES = {"user": "bold", "tool": "dim"}


class Quit(Exception):
    pass


def command(function: Command) -> Command:
    _commands[function.__name__.removesuffix("_")] = function
    return function


def run(chat: Chat, line: str) -> bool:
    """Whether it went well; a command that says nothing about it did."""
    name, _, argument = line[1:].strip().partition(" ")
    if name not in _commands:
        chat.screen.failure(
            f"There is no command /{name}. Try /help; a message that begins with / is sent as //{name} …"
        )
        return False
    try:
        return _commands[name](chat, argument.strip()) is not False
    except RestFailed as fault:
        chat.screen.failure(str(fault))
        return False


@command
def help_(chat: Chat, _argument: str) -> None:
    """this list"""
    for name, function in sorted(_commands.items()):
        chat.screen.line(f"  /{name:<9} {function.__doc__}")
    chat.screen.note(
        "  Ctrl-C stops a running answer; at the prompt it leaves. A line ending in \\ goes on in the next."
    )


@command
def agents(chat: Chat, _argument: str) -> None:
    """the agents there are"""
    for agent in chat.rest.agents():
        chat.screen.line(f"  {one_line(text_of(agent, 'type')):<13} {one_line(text_of(agent, 'description'))}")


@command
def switch(chat: Chat, argument: str) -> bool:
    """go on with another agent: /switch debug"""
    if not argument:
        chat.screen.failure("Which agent? /agents lists them.")
        return False
    return chat.conversation.switch(argument)


@command
def session(chat: Chat, argument: str) -> None:
    """the id of this session; with an id: open that one"""
    if argument:
        chat.open(argument)
        chat.take_up_pending()
    chat.screen.note(f"session {chat.session_id}")


@command
def new(chat: Chat, _argument: str) -> None:
    """begin a new session"""
    chat.open()
    chat.screen.note(f"session {chat.session_id}")


@command
def history(chat: Chat, _argument: str) -> None:
    """what was said so far"""
    for message in chat.rest.history(chat.session_id):
        role = one_line(text_of(message, "role"))
        for said in spoken(message):
            chat.screen.painted(ROLE_STYLES.get(role, "cyan"), f"{role}:")
            chat.screen.line(f"  {said}")


@command
def quit_(_chat: Chat, _argument: str) -> None:
    """leave; the session stays on the server"""
    raise Quit


def spoken(message: dict[str, Any]) -> list[str]:
    """A stored message as lines: its text, or one line a call."""
    calls = [call.get("function") for call in message.get("tool_calls") or [] if isinstance(call, dict)]
    asked = [
        one_line(f"{text_of(call, 'name')} {text_of(call, 'arguments')}") for call in calls if isinstance(call, dict)
    ]
    text = text_of(message, "content")
    return ([one_line(text, 500) if message.get("role") == "tool" else text] if text else []) + asked
