"""The program around a conversation: options, slash commands, exit codes, and a real terminal."""

import io
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from agents_app.terminal.approval import edit
from agents_app.terminal.chat import Chat, Server
from agents_app.terminal.commands import spoken
from agents_app.terminal.folder import Folder
from agents_app.terminal.keyboard import TypedKeyboard
from agents_app.terminal.ledger import Ledger
from agents_app.terminal.palette import Palette
from agents_app.terminal.screen import Screen
from agents_app.terminal.shell import HIDDEN_PREFIXES
from tests.agents_app.terminal_server import KEY, Peer, Script, playing

MANAGE = Path(__file__).parents[2] / "manage.py"


class Lines:
    """A person who types these lines and then ends the input."""

    def __init__(self, *lines: str, interactive: bool = True) -> None:
        self.interactive = interactive
        self._lines = iter(lines)

    def message(self, prompt: str) -> str:
        try:
            return next(self._lines)
        except StopIteration:
            raise EOFError from None

    answer = message


@contextmanager
def chatting(
    folder: Path, *scripts: Script, lines: Lines, rest: dict[str, Any] | None = None
) -> Iterator[tuple[Chat, io.StringIO]]:
    paper = io.StringIO()
    with playing(*scripts) as server:
        server.rest |= REST | (rest or {})
        chat = Chat(Server(server.url, KEY), Screen(paper, Palette(enabled=False)), lines, Folder(folder))
        try:
            chat.open("s1")
            yield chat, paper
        finally:
            chat.close()


CALL = {"id": "c1", "type": "function", "function": {"name": "read_file", "arguments": '{"path": "a"}'}}
REST = {
    "/agents": {"agents": [{"type": "coder", "description": "writes \x1bcode"}, "nonsense"], "total": 2},
    "/sessions/s1": {"session": {}},
    "/sessions/s1/history": {
        "messages": [
            {"role": "user", "content": "hi\x1b[2J"},
            {"role": "assistant", "content": "Hello", "tool_calls": [CALL]},
            {"role": "tool", "content": "line\n" * 500},
        ]
    },
    "/sessions/s1/pending-approvals": {"pending_approvals": []},
}


def silent(peer: Peer) -> None:
    """Nothing is said to it."""


def two_answers(peer: Peer) -> None:
    for text in ("One", "Two"):
        peer.taken("user_message")
        peer.answer(text)


def test_lines_are_said_until_the_input_ends(tmp_path: Path) -> None:
    with chatting(tmp_path, two_answers, lines=Lines("hi", "  ", "//etc")) as (chat, paper):
        assert chat.loop() == 0
    assert paper.getvalue() == "\nOne\n\n\nTwo\n\n"


def test_commands_are_carried_out_here(tmp_path: Path) -> None:
    lines = Lines("/help", "/agents", "/history", "/session", "/switch", "/nonsense x", "/quit", "never said")
    with chatting(tmp_path, silent, lines=lines) as (chat, paper):
        assert chat.loop() == 0
    shown = paper.getvalue()
    for part in (
        "  /switch    go on with another agent: /switch debug\n",
        "  coder         writes ␛code\n",
        'user:\n  hi␛[2J\nassistant:\n  Hello\nassistant:\n  read_file {"path": "a"}\ntool:\n  line line',
        "session s1\n",
        "✗ Which agent? /agents lists them.\n",
        "✗ There is no command /nonsense.",
    ):
        assert part in shown


def test_switching_new_sessions_and_other_sessions(tmp_path: Path) -> None:
    def first(peer: Peer) -> None:
        assert peer.taken("switch_agent")["agent_type"] == "debug"
        peer.send(type="agent_switched", content="x", metadata={"to_agent": "debug"}, is_final=True)
        peer.end()

    with chatting(tmp_path, first, silent, silent, lines=Lines("/switch debug", "/new", "/session s1")) as (
        chat,
        paper,
    ):
        assert chat.loop() == 0
        assert chat.session_id == "s1"
    assert re.fullmatch(r"\n→ debug\n\nsession chat-[0-9a-f]{12}\n\nsession s1\n\n", paper.getvalue())


def test_decisions_that_wait_are_asked_about_when_a_session_is_opened_again(tmp_path: Path) -> None:
    def script(peer: Peer) -> None:
        assert peer.taken("hitl_decision")["call_id"] == "c9"
        peer.answer("Fine")

    approval = {"call_id": "c9", "tool_name": "write_file", "arguments": {"path": "a", "content": "b"}}
    rest = {"/sessions/s1/pending-approvals": {"pending_approvals": [approval], "count": 1}}
    with chatting(tmp_path, script, lines=Lines("r", ""), rest=rest) as (chat, paper):
        assert chat.loop(known_session=True) == 0
    assert "1 calls of this session wait for your decision\n• write_file a\n" in paper.getvalue()


def test_rest_that_fails_is_said_and_the_chat_goes_on(tmp_path: Path) -> None:
    failing_all = {"/agents": (500, {}), "/sessions/s1/history": b"no", "/sessions/s1/pending-approvals": (500, {})}
    with chatting(tmp_path, silent, lines=Lines("/agents", "/history"), rest=failing_all) as (chat, paper):
        assert chat.loop(known_session=True) == 0
    assert "✗ The server answered 500\n" in paper.getvalue()


def failing(peer: Peer) -> None:
    peer.taken("user_message")
    peer.error("LLM_ERROR", "No.")
    peer.end()


def test_a_pipe_ends_with_the_outcome_of_its_last_line(tmp_path: Path) -> None:
    with chatting(tmp_path, failing, lines=Lines("hi", interactive=False)) as (chat, _):
        assert chat.loop() == 1


# --- the command itself, in a process of its own


def program(url: str, folder: Path, *options: str) -> list[str]:
    return [sys.executable, str(MANAGE), "chat", "--url", url, "--cwd", str(folder), *options]


def environment(folder: Path, **more: str) -> dict[str, str]:
    own = {name: value for name, value in os.environ.items() if not name.startswith((*HIDDEN_PREFIXES, "NO_COLOR"))}
    ours = {"INTERNAL_API_KEY": KEY, "SECRET_KEY": "s" * 50, "DB_URL": f"sqlite:///{folder}/none.sqlite3"}
    return {**own, **{f"AGENT_RUNTIME__{name}": value for name, value in ours.items()}, "TERM": "xterm", **more}


def run(url: str, folder: Path, *options: str, typed: str = "", **more: str) -> subprocess.CompletedProcess[str]:
    command = program(url, folder, *options)
    return subprocess.run(
        command, input=typed, env=environment(folder, **more), capture_output=True, text=True, timeout=60, check=False
    )


def answering(peer: Peer) -> None:
    assert peer.taken("user_message")["agent_type"] == "coder"
    peer.answer("Hello \x1b[31mthere")


def test_once_prints_the_answer_and_nothing_else(tmp_path: Path) -> None:
    with playing(answering) as server:
        done = run(server.url, tmp_path, "--once", "hi", "--agent", "coder", "--session", "mine")
        assert (done.returncode, done.stdout, done.stderr) == (0, "Hello ␛[31mthere\n", "")
        assert server.requests[0].path == "/ws/mine"
    assert list(tmp_path.iterdir()) == []


def test_once_fails_where_the_turn_failed(tmp_path: Path) -> None:
    with playing(failing) as server:
        done = run(server.url, tmp_path, "--once", "hi")
        assert (done.returncode, done.stdout) == (1, "✗ No. [LLM_ERROR]\n")


def test_once_that_the_person_stops_exits_as_interrupted(tmp_path: Path) -> None:
    children: SimpleQueue[subprocess.Popen[str]] = SimpleQueue()

    def script(peer: Peer) -> None:
        peer.taken("user_message")
        peer.tokens("One ")
        children.get(timeout=30).send_signal(signal.SIGINT)
        peer.taken("cancel")
        peer.closing("One ", is_final=False)
        peer.error("CANCELLED", "Stopped.")
        peer.end()

    with playing(script) as server:
        command = program(server.url, tmp_path, "--once", "count")
        with subprocess.Popen(command, env=environment(tmp_path), stdout=subprocess.PIPE, text=True) as child:
            children.put(child)
            shown, _ = child.communicate(timeout=60)
        assert (child.returncode, "■ Stopped." in shown) == (130, True)


def test_lines_from_a_pipe_are_messages_without_prompts_or_colours(tmp_path: Path) -> None:
    with playing(two_answers) as server:
        server.rest |= REST
        done = run(server.url, tmp_path, "--session", "s1", typed="hi\nagain\\\nand more\n")
        assert done.returncode == 0, done.stderr
        assert done.stdout == f"session s1 · files in {tmp_path} · /help\nOne\nTwo\n"
        assert server.heard[1]["content"] == "again\nand more"


@pytest.mark.parametrize(
    ("options", "more", "code", "why"),
    [
        (["--key", "wrong"], {}, 2, "the key was not accepted"),
        (["--key", "two\nlines"], {}, 1, "no header can carry"),
        (["--cwd", "/none"], {}, 1, "--cwd '/none': No such file"),
        (["--url", "http://x"], {}, 1, "--url 'http://x': an address like ws://"),
        (["--url", "ws://127.0.0.1:1"], {}, 2, "cannot be reached"),
    ],
)
def test_what_keeps_it_from_starting_is_said_in_one_line(
    tmp_path: Path, options: list[str], more: dict[str, str], code: int, why: str
) -> None:
    with playing() as server:
        done = run(server.url, tmp_path, *options, **more)
    assert done.returncode == code
    assert why in done.stderr
    assert done.stderr.count("\n") == 1


def test_the_same_in_this_process(tmp_path: Path, settings: object, capsys: pytest.CaptureFixture[str]) -> None:
    with playing(failing) as server:
        with pytest.raises(SystemExit) as left:
            call_command("chat", url=server.url, key=KEY, cwd=str(tmp_path), once="hi", plain=True)
        assert left.value.code == 1
        with pytest.raises(CommandError):
            call_command("chat", url=server.url, key="wrong", cwd=str(tmp_path), once="hi")
    assert capsys.readouterr().out == "✗ No. [LLM_ERROR]\n"


class Terminal:
    """The program on a pseudo-terminal, as a person has it before them."""

    def __init__(self, command: list[str], environment: dict[str, str]) -> None:
        self.pid, self._fd = pty.fork()
        if self.pid == 0:
            os.execve(command[0], command, environment)  # noqa: S606  our own program
        self.seen = b""

    def until(self, text: str) -> str:
        """Reads on until `text` appears; everything up to and with it since the last call."""
        while text.encode() not in self.seen:
            ready, _, _ = select.select([self._fd], [], [], 30)
            assert ready, f"{text!r} did not appear in {self.seen!r}"
            self.seen += os.read(self._fd, 65_536)
        shown, self.seen = self.seen.split(text.encode(), 1)
        return shown.decode() + text

    def type(self, text: str) -> None:
        os.write(self._fd, text.encode())

    def leave(self) -> None:
        """Ctrl-C at the prompt, and a key behind it: one that comes between the prompt and the wait for a key is only
        noticed with the next key, and that is Python's own way."""
        self.type("\x03\r")

    def exit_code(self) -> int:
        _, status = os.waitpid(self.pid, 0)
        os.close(self._fd)
        return os.waitstatus_to_exitcode(status)


def test_a_person_at_a_terminal_approves_stops_and_leaves(tmp_path: Path) -> None:
    def script(peer: Peer) -> None:
        assert peer.taken("user_message")["content"] == "write a file"
        peer.call("c1", "write_file", requires_approval=True, path="a.txt", content="new\n")
        peer.end()
        assert peer.taken("hitl_decision")["decision"] == "approve"
        peer.call("c1", "write_file", path="a.txt", content="new\n")
        peer.end()
        assert peer.taken("tool_result")["result"] == "Created a.txt (4 bytes)"
        peer.answer("Written.")
        peer.taken("user_message")
        peer.tokens("One ", "two ")
        peer.hear("cancel")
        peer.error("CANCELLED", "Stopped.")
        peer.end()

    with playing(script) as server:
        screen = Terminal(program(server.url, tmp_path), environment(tmp_path))
        screen.until("> ")
        screen.type("write a file\r")
        asked = screen.until("[a/e/r] ")
        assert "\x1b[33m• write_file a.txt\x1b[0m" in asked
        screen.type("a\r")
        screen.until("Written.")
        screen.until("> ")
        screen.type("count\r")
        screen.until("two ")
        screen.type("\x03")
        screen.until("Stopped.")
        screen.until("> ")
        screen.leave()
        assert screen.exit_code() == 0
    assert (tmp_path / "a.txt").read_text() == "new\n"


# --- small things


def test_a_keyboard_on_a_pipe_ends_with_its_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("one\\\r\ntwo\n \udcff \n"))
    keys = TypedKeyboard()
    assert not keys.interactive
    assert keys.message("> ") == "one\ntwo"
    assert keys.answer("> ") == "?"
    with pytest.raises(EOFError):
        keys.message("> ")


@pytest.mark.parametrize(
    ("editor", "result"),
    [
        ("sed -i s/old/new/", {"path": "new\u202e"}),
        ("true", None),
        ("false", None),
        ("sed -i s/{//", None),
        ("sed -i '1,$d;$a[]'", None),
        ("no-such-editor-here", None),
        ("sed 'unclosed", None),
    ],
)
def test_the_editor_changes_the_arguments_or_nothing_does(
    monkeypatch: pytest.MonkeyPatch, editor: str, result: dict[str, str] | None
) -> None:
    monkeypatch.setenv("VISUAL", editor)
    complaints: list[str] = []
    assert edit({"path": "old\u202e"}, lambda _: "", complaints.append) == result
    assert len(complaints) == (0 if result or editor == "true" else 1)


def test_what_is_no_object_is_no_edit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VISUAL", raising=False)
    monkeypatch.delenv("EDITOR", raising=False)
    complaints: list[str] = []
    assert edit({"path": "old"}, lambda _: "[1]", complaints.append) is None
    assert complaints == ["Not edited: the arguments are a JSON object"]


@pytest.mark.parametrize(
    ("message", "lines"),
    [
        ({"role": "user", "content": "hi"}, ["hi"]),
        ({"role": "assistant", "content": None, "tool_calls": [CALL, "x", {}]}, ['read_file {"path": "a"}']),
        ({"role": "tool", "content": "a\nb"}, ["a b"]),
        ({}, []),
    ],
)
def test_stored_messages_become_lines(message: dict[str, object], lines: list[str]) -> None:
    assert spoken(message) == lines


def said(message_id: str) -> dict[str, str]:
    return {"type": "user_message", "message_id": message_id}


def test_the_ledger_knows_what_is_still_to_come() -> None:
    ledger = Ledger()
    assert not ledger.waiting
    ledger.sent(said("a"))
    ledger.sent(said("b"))
    ledger.acknowledged({"message_id": "a", "run_id": 1})
    ledger.acknowledged({"message_id": "unknown", "run_id": 1})
    assert ledger.reconnected() == [said("b")]
    ledger.ended({"run_id": 2})
    ledger.ended({"run_id": 1})
    assert ledger.waiting
    assert ledger.failed() == said("b")
    assert not ledger.waiting
    ledger.ended({"run_id": 1})


def test_an_end_that_comes_after_the_next_message_ends_the_turn_before_it() -> None:
    ledger = Ledger()
    for message_id in ("a", "b"):  # a switch of agents has no run, so both ends look alike
        ledger.sent(said(message_id))
        if message_id == "b":
            ledger.ended({"run_id": None})
        ledger.acknowledged({"message_id": message_id, "run_id": None})
        assert ledger.waiting
        ledger.closed()
        assert not ledger.waiting
    ledger.sent(said("c"))
    ledger.acknowledged({"message_id": "c", "run_id": None})
    ledger.ended({"run_id": None})
    assert ledger.waiting
    ledger.ended({"run_id": None})
    assert not ledger.waiting


def test_after_a_reconnection_only_what_is_said_again_is_surely_answered() -> None:
    ledger = Ledger()
    ledger.sent(said("a"))
    ledger.acknowledged({"message_id": "a", "run_id": 1})
    assert ledger.engaged
    assert ledger.reconnected() == []
    assert (ledger.waiting, ledger.engaged) == (True, False)
    ledger.closed()
    assert not ledger.waiting
    json.dumps(said("a"))
