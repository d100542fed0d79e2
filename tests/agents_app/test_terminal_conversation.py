"""The client's side of the protocol, against a scripted server on a real socket."""

import json
import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from agents_app.terminal.conversation import Left, LinkRefused
from tests.agents_app.terminal_desk import Desk, Keys
from tests.agents_app.terminal_server import KEY, Peer, Script, playing
from tests.waiting import until

IN_A_SHELL = {"shell": True}


@contextmanager
def desk(folder: Path, *scripts: Script, keys: Keys | None = None) -> Iterator[Desk]:
    with playing(*scripts) as server:
        person = Desk(server.url, folder, keys or Keys())
        try:
            person.server = server
            person.conversation.opened()
            yield person
        finally:
            person.link.close()


def test_tokens_are_shown_as_they_come_and_the_turn_ends(tmp_path: Path) -> None:
    def script(peer: Peer) -> None:
        message = peer.taken("user_message")
        assert message["content"] == " hi "
        assert len(message["message_id"]) == 36
        switch = {"from_agent": "orchestrator", "to_agent": "coder", "reason": "it is code", "confidence": "high"}
        peer.send(type="agent_switched", content="Switched", metadata=switch, is_final=False)
        peer.answer("Hello there")

    with desk(tmp_path, script) as person:
        assert person.conversation.say(" hi ")
        assert person.screen == "→ coder: it is code\nHello there\n"
        request = person.server.requests[0]
        assert request.path == "/ws/a%20session%2F%C3%BC"
        assert request.headers["X-Internal-Auth"] == KEY


def test_a_chosen_agent_and_a_switch_are_said(tmp_path: Path) -> None:
    def script(peer: Peer) -> None:
        assert peer.taken("user_message")["agent_type"] == "debug"
        peer.answer("ok")
        asked = peer.taken("switch_agent")
        assert asked["agent_type"] == "ask"
        peer.send(type="agent_switched", content="Switched", metadata={"to_agent": "ask"}, is_final=True)
        peer.end()

    with desk(tmp_path, script) as person:
        assert person.conversation.say("hi", agent_type="debug")
        assert person.conversation.switch("ask")
        assert person.screen == "ok\n→ ask\n"


def test_an_error_ends_the_turn_and_the_next_one_works(tmp_path: Path) -> None:
    def script(peer: Peer) -> None:
        peer.taken("user_message")
        peer.tokens("Half")
        peer.error("LLM_CUT", "It broke \x1boff.")
        peer.end()
        peer.hear("user_message")
        peer.error("SESSION_FULL", "No more.")
        peer.taken("user_message")
        peer.answer("Well")

    with desk(tmp_path, script) as person:
        assert [person.conversation.say("one"), person.conversation.say("two"), person.conversation.say("three")] == [
            False,
            False,
            True,
        ]
        assert person.screen == "Half\n✗ It broke ␛off. [LLM_CUT]\n✗ No more. [SESSION_FULL]\nWell\n"


def test_frames_that_nobody_knows_are_passed_over(tmp_path: Path) -> None:
    def script(peer: Peer) -> None:
        peer.taken("user_message")
        for garbage in ("not json", "[]", '{"type": "new"}', "{}", b"\xff", "[" * 100_000):
            peer.socket.send(garbage)
        peer.answer("Fine")

    with desk(tmp_path, script) as person:
        assert person.conversation.say("hi")
        assert person.screen == "Fine\n"


# --- calls


def test_reading_runs_unasked_one_call_after_the_other_and_each_result_is_sent_as_made(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("alpha")

    def script(peer: Peer) -> None:
        peer.taken("user_message")
        peer.tokens("Let me look.")
        peer.closing("Let me look.", is_final=False)
        peer.call("c1", "read_file", path="a.txt")
        peer.call("c2", "read_file", path="../b.txt")
        peer.end()
        first = peer.taken("tool_result")
        assert (first["call_id"], first["result"]) == ("c1", "alpha")
        peer.end()
        second = peer.taken("tool_result")
        assert (second["call_id"], second["error"]) == ("c2", "'../b.txt' is outside the folder")
        peer.answer("Read")

    with desk(tmp_path, script) as person:
        assert person.conversation.say("read")
        assert person.screen == (
            "Let me look.\n• read_file a.txt\n  1 lines\n"
            "• read_file ../b.txt\n  ✗ '../b.txt' is outside the folder\nRead\n"
        )


def approved_write(peer: Peer, **final: str) -> None:
    """The call that needs approval, the decision, the call again."""
    peer.taken("user_message")
    peer.call("c1", "write_file", requires_approval=True, path="a.txt", content="new\n")
    peer.end()
    decision = peer.taken("hitl_decision")
    assert decision["call_id"] == "c1"
    peer.call("c1", "write_file", **{"path": "a.txt", "content": "new\n", **final})
    peer.end()


def test_an_approved_call_runs_when_the_server_sends_it_again(tmp_path: Path) -> None:
    def script(peer: Peer) -> None:
        approved_write(peer)
        assert peer.heard_last["decision"] == "approve"
        assert peer.taken("tool_result")["result"] == "Created a.txt (4 bytes)"
        peer.answer("Done")

    with desk(tmp_path, script, keys=Keys("a")) as person:
        assert person.conversation.say("write")
        assert (tmp_path / "a.txt").read_text() == "new\n"
        assert person.keys.prompts == ["approve, edit or reject? [a/e/r]"]
        asked = "• write_file a.txt\n  │ path: a.txt\n  │ content:\n  │     new\n  │     \n"
        assert person.screen == f"{asked}  Created a.txt (4 bytes)\nDone\n"


def test_nothing_is_written_before_the_server_says_so(tmp_path: Path) -> None:
    def script(peer: Peer) -> None:
        peer.taken("user_message")
        peer.call("c1", "write_file", requires_approval=True, path="a.txt", content="new")
        peer.end()
        peer.taken("hitl_decision")
        assert not (tmp_path / "a.txt").exists()
        peer.error("CANCELLED")
        peer.end()

    with desk(tmp_path, script, keys=Keys("approve")) as person:
        assert not person.conversation.say("write")
    assert not (tmp_path / "a.txt").exists()


def test_a_rejected_call_tells_why(tmp_path: Path) -> None:
    def script(peer: Peer) -> None:
        peer.taken("user_message")
        peer.call("c1", "execute_command", requires_approval=True, command="rm -rf /")
        peer.end()
        decision = peer.taken("hitl_decision")
        assert (decision["decision"], decision["feedback"]) == ("reject", "never")
        peer.answer("Sorry")

    with desk(tmp_path, script, keys=Keys("what?", "r", "never")) as person:
        assert person.conversation.say("clean up")
        assert person.keys.prompts[-1] == "why? (may be empty)"


def test_edited_arguments_are_sent_run_as_agreed_and_asked_again_when_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("VISUAL", raising=False)
    monkeypatch.delenv("EDITOR", raising=False)

    def script(peer: Peer) -> None:
        peer.taken("user_message")
        peer.call("c1", "write_file", requires_approval=True, path="a.txt", content="x")
        peer.end()
        assert peer.hear("hitl_decision")["modified_arguments"] == {"path": ".."}
        peer.error("ARGUMENTS_REFUSED", "No content.")
        edited = peer.taken("hitl_decision")["modified_arguments"]
        assert edited == {"path": "b.txt", "content": "y"}
        peer.call("c1", "write_file", **edited)
        peer.end()
        assert peer.taken("tool_result")["result"] == "Created b.txt (1 bytes)"
        peer.answer("Done")

    keys = Keys("e", '{"path": ".."}', "e", "not json", "e", '{"path": "b.txt", "content": "y"}')
    with desk(tmp_path, script, keys=keys) as person:
        assert person.conversation.say("write")
        assert "✗ No content. [ARGUMENTS_REFUSED]" in person.screen
        assert "✗ Not edited:" in person.screen


def test_what_was_approved_is_what_runs_anything_else_is_asked_about(tmp_path: Path) -> None:
    def script(peer: Peer) -> None:
        approved_write(peer, content="something else")
        assert peer.taken("tool_result")["error"] == "The user did not allow this call."
        peer.answer("Hm")

    with desk(tmp_path, script, keys=Keys("a", "n")) as person:
        assert person.conversation.say("write")
        assert person.keys.prompts[-1] == "run it here? [y/n]"
    assert not (tmp_path / "a.txt").exists()


@pytest.mark.parametrize(("answer", "written"), [("y", True), ("", False)])
def test_a_writing_call_that_the_server_allows_is_asked_about_here(tmp_path: Path, answer: str, written: bool) -> None:
    def script(peer: Peer) -> None:
        peer.taken("user_message")
        peer.call("c1", "write_file", path="a.txt", content="x")
        peer.end()
        assert ("result" in peer.taken("tool_result")) is written
        peer.answer("Done")

    with desk(tmp_path, script, keys=Keys(answer)) as person:
        assert person.conversation.say("write")
    assert (tmp_path / "a.txt").exists() is written


def test_with_nobody_to_ask_nothing_dangerous_runs(tmp_path: Path) -> None:
    def script(peer: Peer) -> None:
        peer.taken("user_message")
        peer.call("c1", "write_file", requires_approval=True, path="a.txt", content="x")
        peer.call("c2", "execute_command", command="touch a.txt")
        peer.call("c3", "launch", requires_approval=True)
        peer.end()
        assert peer.taken("hitl_decision")["feedback"] == "Nobody was at the keyboard to approve it."
        peer.end()
        assert "error" in peer.taken("tool_result")
        peer.end()
        assert peer.taken("tool_result")["error"] == "This client has no tool 'launch'."
        peer.answer("Well")

    with desk(tmp_path, script, keys=Keys(interactive=False)) as person:
        assert person.conversation.say("write")
    assert list(tmp_path.iterdir()) == []


def test_a_policy_may_ask_about_reading_too(tmp_path: Path) -> None:
    def script(peer: Peer) -> None:
        peer.taken("user_message")
        peer.call("c1", "list_files", requires_approval=True)
        peer.end()
        assert peer.taken("hitl_decision")["decision"] == "approve"
        peer.call("c1", "list_files")
        peer.end()
        assert peer.taken("tool_result")["result"] == "(nothing)"
        peer.answer("Empty")

    with desk(tmp_path, script, keys=Keys("a")) as person:
        assert person.conversation.say("list")


def test_a_call_told_twice_runs_once(tmp_path: Path) -> None:
    def script(peer: Peer) -> None:
        peer.taken("user_message")
        peer.call("c1", "execute_command", command="echo x >> log", **IN_A_SHELL)
        peer.call("c1", "execute_command", command="echo x >> log", **IN_A_SHELL)
        peer.end()
        result = peer.taken("tool_result")
        assert result["result"] == "exit code 0\n"
        peer.call("c1", "execute_command", command="echo x >> log", **IN_A_SHELL)
        peer.answer("Done")

    with desk(tmp_path, script, keys=Keys("y")) as person:
        assert person.conversation.say("run")
    assert (tmp_path / "log").read_text() == "x\n"


def test_decisions_left_over_from_an_earlier_connection_are_taken_up(tmp_path: Path) -> None:
    def script(peer: Peer) -> None:
        decision = peer.taken("hitl_decision")
        assert (decision["call_id"], decision["decision"]) == ("old", "reject")
        peer.answer("As you like")

    call = {"type": "tool_call", "call_id": "old", "tool_name": "delete_file", "requires_approval": True}
    with desk(tmp_path, script, keys=Keys("r", "")) as person:
        assert person.conversation.take_up([{**call, "arguments": {"path": "a"}}])
        assert "feedback" not in person.server.heard[0]


# --- Ctrl-C


def test_ctrl_c_cancels_the_running_turn(tmp_path: Path) -> None:
    people: list[Desk] = []

    def script(peer: Peer) -> None:
        peer.taken("user_message")
        peer.tokens("One ", "two ")
        until(lambda: people and "One two " in people[0].screen)  # else the key is heard between the two
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        peer.taken("cancel")
        peer.closing("One two ", is_final=False)
        peer.error("CANCELLED", "Stopped.")
        peer.end()
        peer.taken("user_message")
        peer.answer("Again")

    with desk(tmp_path, script) as person:
        people.append(person)
        assert not person.conversation.say("count")
        assert "One two " in person.screen
        assert "■ Stopped." in person.screen
        assert person.conversation.say("once more")


def test_ctrl_c_a_second_time_leaves(tmp_path: Path) -> None:
    def script(peer: Peer) -> None:
        peer.taken("user_message")
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        peer.hear("cancel")
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    with desk(tmp_path, script) as person, pytest.raises(Left):
        person.conversation.say("count")


def interrupted() -> str:
    raise KeyboardInterrupt


def test_ctrl_c_at_a_question_cancels_the_turn_and_runs_nothing(tmp_path: Path) -> None:
    def script(peer: Peer) -> None:
        peer.taken("user_message")
        peer.call("c1", "write_file", requires_approval=True, path="a.txt", content="x")
        peer.call("c2", "write_file", requires_approval=True, path="b.txt", content="x")
        peer.end()
        peer.taken("cancel")  # nothing else is told: nobody reads the log of a turn that waits

    with desk(tmp_path, script, keys=Keys(interrupted)) as person:
        assert not person.conversation.say("write")
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_while_a_command_runs_ends_the_command(tmp_path: Path) -> None:
    def script(peer: Peer) -> None:
        peer.taken("user_message")
        peer.call("c1", "execute_command", command="touch started; read x < pipe; touch ended", **IN_A_SHELL)
        peer.end()
        with open(tmp_path / "pipe", "wb"):  # returns when the command has come to its reading
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
            peer.taken("cancel")

    os.mkfifo(tmp_path / "pipe")
    with desk(tmp_path, script, keys=Keys("y")) as person:
        assert not person.conversation.say("run")
    assert sorted(place.name for place in tmp_path.iterdir()) == ["pipe", "started"]


# --- dropped connections


def test_a_dropped_connection_goes_on_after_the_last_cursor_without_losing_or_repeating_text(tmp_path: Path) -> None:
    last: list[str] = []

    def first(peer: Peer) -> None:
        peer.taken("user_message")
        peer.tokens("One ")
        last.append(peer.send(type="assistant_message", token="two ", is_final=False))
        peer.cut()

    def second(peer: Peer) -> None:
        assert peer.hear("resume")["after"] == last[0]
        peer.tokens("three ", "four")
        peer.closing("One two three four")

    with desk(tmp_path, first, second) as person:
        assert person.conversation.say("count")
        shown = person.screen.replace("\nconnection lost, connecting again …\nconnected again\n", "")
        assert shown == "One two three four\n"
        assert person.server.heard_types() == ["user_message", "resume"]


def test_a_message_without_an_acknowledgement_is_said_again_with_the_same_id(tmp_path: Path) -> None:
    def first(peer: Peer) -> None:
        peer.hear("user_message")
        peer.cut()

    def second(peer: Peer) -> None:
        peer.taken("user_message")
        peer.answer("Once")

    with desk(tmp_path, first, second) as person:
        assert person.conversation.say("hi")
        ids = [message["message_id"] for message in person.server.heard]
        assert ids[0] == ids[1]
        assert person.screen.endswith("Once\n")


def test_a_message_that_the_server_had_taken_is_not_shown_twice(tmp_path: Path) -> None:
    """Its acknowledgement was lost: the log brings its answer, and the message said again brings the same frames."""
    frames = [
        {"type": "assistant_message", "token": "Same ", "is_final": False, "cursor": "90.5-tag"},
        {"type": "assistant_message", "token": "", "content": "Same answer", "is_final": True, "cursor": "91.0-tag"},
    ]

    def first(peer: Peer) -> None:
        peer.taken("user_message")
        peer.answer("Before")
        peer.hear("user_message")
        peer.cut()

    def second(peer: Peer) -> None:
        peer.hear("resume")
        again = peer.hear("user_message")
        for frame in frames:
            peer.socket.send(json.dumps(frame))
        peer.ack(again)
        for frame in frames:
            peer.socket.send(json.dumps(frame))
        peer.end()

    with desk(tmp_path, first, second) as person:
        assert person.conversation.say("one")
        assert person.conversation.say("two")
        assert person.screen.count("Same answer") == 1


def test_a_result_made_while_the_connection_was_down_is_said_when_it_is_back(tmp_path: Path) -> None:
    dropped = threading.Event()

    def first(peer: Peer) -> None:
        peer.taken("user_message")
        peer.call("c1", "execute_command", command="true")
        peer.end()
        peer.cut()

    def second(peer: Peer) -> None:
        peer.hear("resume")
        dropped.set()
        result = peer.taken("tool_result")
        assert result["result"] == "exit code 0\n"
        peer.answer("Done")

    def agreed() -> str:
        assert dropped.wait(30)
        return "y"

    with desk(tmp_path, first, second, keys=Keys(agreed)) as person:
        assert person.conversation.say("run")
        assert person.screen.endswith("Done\n")


def test_a_connection_that_came_and_went_at_the_prompt_is_no_news(tmp_path: Path) -> None:
    back = threading.Event()

    def first(peer: Peer) -> None:
        peer.taken("user_message")
        peer.answer("One")
        peer.cut()

    def second(peer: Peer) -> None:
        peer.hear("resume")
        back.set()
        peer.taken("user_message")
        peer.answer("Two")

    with desk(tmp_path, first, second) as person:
        assert person.conversation.say("one")
        assert back.wait(30)
        assert person.conversation.say("two")
        shown = person.screen.replace("connection lost, connecting again …\nconnected again\n", "")
        assert shown == "One\nTwo\n"


def test_an_end_that_was_lost_with_the_connection_does_not_keep_the_next_call_waiting(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("alpha")

    def first(peer: Peer) -> None:
        peer.taken("user_message")
        peer.call("c1", "read_file", path="a.txt")
        peer.call("c2", "read_file", path="a.txt")
        peer.end()
        peer.taken("tool_result")
        peer.cut()

    def second(peer: Peer) -> None:
        peer.hear("resume")
        assert peer.taken("tool_result")["call_id"] == "c2"
        peer.answer("Both")

    with desk(tmp_path, first, second) as person:
        assert person.conversation.say("compare")
        assert person.screen.endswith("Both\n")


def test_a_turn_told_before_its_message_is_acknowledged_ends_all_the_same(tmp_path: Path) -> None:
    """After a resume another task of the server tells the log, and may be the first to speak."""

    def script(peer: Peer) -> None:
        message = peer.hear("user_message")
        peer.answer("Fast")
        peer.ack(message)
        message = peer.hear("user_message")
        peer.error("LLM_ERROR", "Faster.")
        peer.end(8)
        peer.ack(message, 8)
        peer.taken("user_message")
        peer.answer("Slow")

    with desk(tmp_path, script) as person:
        assert person.conversation.say("one")
        assert not person.conversation.say("two")
        assert person.conversation.say("three")
        assert person.screen == "Fast\n✗ Faster. [LLM_ERROR]\nSlow\n"


def test_a_cancel_is_repeated_on_the_new_connection(tmp_path: Path) -> None:
    def first(peer: Peer) -> None:
        peer.taken("user_message")
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        peer.hear("cancel")
        peer.cut()

    def second(peer: Peer) -> None:
        peer.hear("resume")
        peer.taken("cancel")
        peer.error("CANCELLED", "Stopped.")

    with desk(tmp_path, first, second) as person:
        assert not person.conversation.say("count")
        assert person.screen.endswith("■ Stopped.\n")


def test_a_message_that_is_too_big_is_not_said_for_ever(tmp_path: Path) -> None:
    def first(peer: Peer) -> None:
        peer.hear("user_message")
        peer.socket.close(1009, "too big")

    def second(peer: Peer) -> None:
        peer.taken("user_message")
        peer.call("c1", "list_files")
        peer.end()
        peer.hear("tool_result")
        peer.socket.close(1009, "too big")

    def third(peer: Peer) -> None:
        peer.hear("resume")
        assert peer.taken("tool_result")["error"] == "The result was too big to be sent."
        peer.answer("Pity")

    with desk(tmp_path, first, second, third) as person:
        assert not person.conversation.say("x")
        assert "✗ The message was too big for the server." in person.screen
        assert not person.conversation.say("y")
        assert person.screen.endswith("Pity\n")


def test_a_server_that_is_away_for_a_while_is_tried_again(tmp_path: Path) -> None:
    def first(peer: Peer) -> None:
        peer.taken("user_message")
        person.server.refused_first += [503, 500]
        peer.socket.close(1013, "later")

    def second(peer: Peer) -> None:
        peer.hear("resume")
        peer.answer("Back")

    with desk(tmp_path, first, second) as person:
        assert person.conversation.say("hi")
        assert person.screen.endswith("Back\n")


@pytest.mark.parametrize(("code", "why"), [(4401, "the key was not accepted"), (4404, "the session no longer exists")])
def test_a_refusal_is_final(tmp_path: Path, code: int, why: str) -> None:
    def script(peer: Peer) -> None:
        peer.taken("user_message")
        peer.socket.close(code)

    with desk(tmp_path, script) as person, pytest.raises(LinkRefused, match=why):
        person.conversation.say("hi")


def test_a_wrong_key_is_said(tmp_path: Path) -> None:
    with playing() as server:
        person = Desk(server.url, tmp_path, Keys(), key="wrong")
        with pytest.raises(LinkRefused, match="the key was not accepted"):
            person.conversation.opened()
        person.link.send({"type": "cancel"}, 1)
        person.link.close()


def test_no_server_at_all_is_said_at_once(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"ws://127.0.0.1:{free.getsockname()[1]}"
        person = Desk(url, tmp_path, Keys())
        with pytest.raises(LinkRefused, match="cannot be reached"):
            person.conversation.opened()
        person.link.close()


def test_a_server_that_speaks_no_websocket_is_said(tmp_path: Path) -> None:
    with playing() as server:
        server.refused_first.append(200)
        person = Desk(server.url, tmp_path, Keys())
        with pytest.raises(LinkRefused, match="answered 200"):
            person.conversation.opened()
        person.link.close()


def test_what_came_between_two_messages_is_shown_with_the_next(tmp_path: Path) -> None:
    told = threading.Event()

    def script(peer: Peer) -> None:
        peer.taken("user_message")
        peer.closing("Mine")
        peer.tokens("Theirs")
        peer.closing("Theirs")
        peer.end()
        assert peer.socket.ping().wait(30)  # its answer says that all before it has arrived
        told.set()
        peer.taken("user_message")
        peer.answer("Mine again")

    with desk(tmp_path, script) as person:
        assert person.conversation.say("one")
        assert told.wait(30)
        assert person.conversation.say("two")
        assert person.screen == "Mine\nTheirs\nMine again\n"
