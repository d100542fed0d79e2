"""The terminal client against the real server: what a developer sees who tries an agent without an IDE."""

from __future__ import annotations

import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx

from tests import talk
from tests.agents_app.terminal_desk import Desk, Keys
from tests.conftest import KEY, RunningServer
from tests.model_replies import Gate, text, tool_calls
from tests.model_server import ModelServer


@contextmanager
def desk(url: str, folder: Path, *answers: Any) -> Iterator[Desk]:
    person = Desk(url, folder, Keys(*answers), key=KEY, session="at-the-desk")
    try:
        person.conversation.opened()
        yield person
    finally:
        person.link.close()


class Wire:
    """A connection to the server that can be cut in the middle of a turn."""

    def __init__(self, target: str) -> None:
        self._target = ("127.0.0.1", int(target.rpartition(":")[2]))
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = []
        self.connections = threading.Semaphore(0)
        self.url = f"ws://127.0.0.1:{self._listening.getsockname()[1]}"
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def cut(self) -> None:
        while self._open:
            with suppress(OSError):  # it has ended by itself
                self._open.pop().shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(30)
        self._listening.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listening.accept()
            except OSError:
                return
            far = socket.create_connection(self._target)
            self._open += [near, far]
            self.connections.release()
            for source, sink in ((near, far), (far, near)):
                self._threads.append(threading.Thread(target=self._pass_on, args=[source, sink]))
                self._threads[-1].start()

    @staticmethod
    def _pass_on(source: socket.socket, sink: socket.socket) -> None:
        """Each thread closes what it reads from; the other end hears that nothing more comes."""
        try:
            while data := source.recv(65_536):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        finally:
            source.close()


def test_reading_needs_no_approval_and_the_answer_knows_the_file(server: RunningServer, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("# Little project\n")
    with desk(server.websocket_url, tmp_path) as person:
        assert person.conversation.say("read README.md")
    assert "• read_file README.md\n" in person.screen
    assert "Little project" in person.screen


def test_writing_is_approved_and_then_done(server: RunningServer, client: httpx.Client, tmp_path: Path) -> None:
    with desk(server.websocket_url, tmp_path, "a") as person:
        assert person.conversation.say("write hello.py that prints hi")
    assert "hi" in (tmp_path / "hello.py").read_text()
    shown = [one for one in talk.history(client, "at-the-desk")["messages"] if one["role"] == "assistant"]
    assert all(one["content"] in person.screen for one in shown if one["content"])


def test_a_rejection_is_told_to_the_model(server: RunningServer, client: httpx.Client, tmp_path: Path) -> None:
    with desk(server.websocket_url, tmp_path, "r", "not today") as person:
        assert person.conversation.say("write hello.py that prints hi")
    assert list(tmp_path.iterdir()) == []
    told = [one["content"] for one in talk.history(client, "at-the-desk")["messages"] if one["role"] == "tool"]
    assert told == ["The user rejected this call: not today"]


def test_two_files_are_compared_by_two_calls_at_once(server: RunningServer, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\n")
    (tmp_path / "b.txt").write_text("two\n")
    with desk(server.websocket_url, tmp_path) as person:
        assert person.conversation.say("compare a.txt and b.txt")
    assert person.screen.index("• read_file a.txt") < person.screen.index("• read_file b.txt")


def test_refused_edits_are_asked_about_again(
    server: RunningServer, model: ModelServer, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.delenv("VISUAL", raising=False)
    monkeypatch.delenv("EDITOR", raising=False)
    model.reply(tool_calls([("c1", "write_file", '{"path": "a.txt", "content": "x"}')]), text("Done now"))
    edited = '{"path": "b.txt", "content": "y", "encoding": "utf-8", "create_dirs": false, "backup": false}'
    with desk(server.websocket_url, tmp_path, "e", '{"path": 5}', "e", edited) as person:
        assert person.conversation.say("write")
    assert (tmp_path / "b.txt").read_text() == "y"
    assert [one.name for one in tmp_path.iterdir()] == ["b.txt"]


def test_agents_are_switched_and_errors_shown(server: RunningServer, tmp_path: Path) -> None:
    with desk(server.websocket_url, tmp_path) as person:
        assert not person.conversation.switch("debug")  # the session is not there yet
    with desk(server.websocket_url, tmp_path) as person:
        assert person.conversation.say("hello", agent_type="ask")
        assert person.conversation.switch("debug")
        assert not person.conversation.switch("nobody")
    assert "→ debug: User requested\n" in person.screen
    assert "✗ " in person.screen


def test_ctrl_c_stops_the_answer_and_the_session_goes_on(
    server: RunningServer, model: ModelServer, tmp_path: Path
) -> None:
    gate = Gate()
    model.reply(text("one two ", gate, "three"), text("Again"))
    stop = threading.Thread(
        target=lambda: gate.reached.wait(30) and signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
    )
    with desk(server.websocket_url, tmp_path) as person:
        stop.start()
        assert not person.conversation.say("count")
        stop.join()
        assert person.conversation.say("again")
    assert "■ " in person.screen
    assert "three" not in person.screen
    assert person.screen.endswith("Again\n")


def interrupted() -> str:
    raise KeyboardInterrupt


def test_ctrl_c_at_a_question_closes_the_call(server: RunningServer, client: httpx.Client, tmp_path: Path) -> None:
    with desk(server.websocket_url, tmp_path, interrupted) as person:
        assert not person.conversation.say("write hello.py that prints hi")
        server.idle()
        assert client.get("/sessions/at-the-desk/pending-approvals").json()["count"] == 0
        assert person.conversation.say("hello")
    assert list(tmp_path.iterdir()) == []


def test_a_connection_cut_in_the_middle_of_an_answer_loses_and_repeats_nothing(
    server: RunningServer, model: ModelServer, tmp_path: Path
) -> None:
    first, second = Gate(), Gate()
    answer = "one two three four five six"
    model.reply(text("one two ", first, "three four ", second, "five six"))
    wire = Wire(server.url)

    def trouble() -> None:
        for gate in (first, second):
            reached = gate.reached.wait(30) and wire.connections.acquire(timeout=30)
            wire.cut()
            gate.open()
            assert reached

    cutting = threading.Thread(target=trouble)
    try:
        with desk(wire.url, tmp_path) as person:
            cutting.start()
            assert person.conversation.say("count", agent_type="ask")
            cutting.join()
    finally:
        wire.close()
    notices = ("connection lost, connecting again …\n", "connected again\n")
    shown = person.screen
    for notice in notices:
        shown = shown.replace(notice, "")
    assert shown.partition("\n")[2].replace("\n", "") == answer
