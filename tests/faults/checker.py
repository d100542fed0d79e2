"""What must hold after any fault: read from the stored log and tables, and asked of a server that lives.

A Ledger holds what clients were promised: the messages that were acknowledged, the results that were accepted, the
text that was seen. Contents are different for every message, so that each can be found, and found once.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from typing import Any

import httpx

from tests import talk
from tests.faults.sites import Node, Site
from tests.listening import truth
from tests.model_server import strict

Row = dict[str, Any]
SETTLED = {"completed", "failed", "cancelled", "interrupted", "superseded", "waiting"}
GAPS = """
    SELECT session.session_id, count(*), min(event.seq), max(event.seq), session.last_seq
    FROM sessions_app_event event JOIN sessions_app_session session ON session.id = event.session_id
    GROUP BY session.session_id, session.last_seq
"""
ANSWERS = """
    SELECT session.session_id, message.tool_call_id, count(*)
    FROM sessions_app_message message JOIN sessions_app_session session ON session.id = message.session_id
    WHERE message.role = 'tool' GROUP BY session.session_id, message.tool_call_id HAVING count(*) > 1
"""
TWO_ENDS = """
    SELECT run_id, count(*) FROM sessions_app_event
    WHERE type IN ('TaskCompleted', 'TaskFailed', 'TaskCancelled', 'TaskInterrupted', 'TaskSuperseded')
    GROUP BY run_id HAVING count(*) > 1
"""
CLOSED_TWICE = """
    SELECT message_id, count(*) FROM sessions_app_event
    WHERE type = 'MessageCompleted' GROUP BY message_id HAVING count(*) > 1
"""
STARTED_TWICE = """
    SELECT run_id, count(*) FROM sessions_app_event WHERE type = 'TaskStarted' GROUP BY run_id HAVING count(*) > 1
"""


class Ledger:
    """What was promised to the clients of a site, session by session."""

    def __init__(self) -> None:
        self.said: dict[str, set[str]] = {}
        self.acknowledged: dict[str, set[str]] = {}
        self.accepted: dict[str, dict[str, str]] = {}
        self.seen: dict[str, list[str]] = {}
        self._writing = threading.Lock()

    def say(self, session_id: str, content: str) -> None:
        """A client is about to send this, whatever comes of it."""
        with self._writing:
            self.said.setdefault(session_id, set()).add(content)

    def ack(self, session_id: str, content: str) -> None:
        with self._writing:
            self.said.setdefault(session_id, set()).add(content)
            self.acknowledged.setdefault(session_id, set()).add(content)

    def accept(self, session_id: str, call_id: str, text: str) -> None:
        with self._writing:
            self.accepted.setdefault(session_id, {})[call_id] = text

    def saw(self, session_id: str, text: str) -> None:
        """A client has had this text of one answer for more than a second, or heard its end."""
        with self._writing:
            self.seen.setdefault(session_id, []).append(text)


class Checker:
    """Looks for whatever breaks a promise; one complaint a line."""

    def __init__(self, site: Site, ledger: Ledger) -> None:
        self.site, self.ledger = site, ledger

    def check(self, node: Node, *, says: bool = True, doctor: bool = True) -> None:
        found = self.complaints(node, says=says, doctor=doctor)
        assert not found, "\n".join(found)

    def complaints(self, node: Node, *, says: bool = True, doctor: bool = True) -> list[str]:
        self.site.settled()
        found = [*self._tables(), *self._promises(node.client)]
        if says:
            found += self._next_messages(node)
        if doctor:
            found += self._doctor()
        return found

    def _sessions(self) -> list[str]:
        return [session_id for (session_id,) in self.site.rows("SELECT session_id FROM sessions_app_session")]

    def _tables(self) -> Iterator[str]:
        for session_id, count, first, last, told in self.site.rows(GAPS):
            if (first, last, told) != (1, count, count):
                yield f"{session_id}: events {first} to {last} are {count}, the session says {told}"
        for session_id, call_id, count in self.site.rows(ANSWERS):
            yield f"{session_id}: call {call_id} has {count} answers"
        for what, statement in (("ended", TWO_ENDS), ("started", STARTED_TWICE)):
            yield from (f"run {run} {what} {count} times" for run, count in self.site.rows(statement))
        yield from (f"message {pk} was closed {count} times" for pk, count in self.site.rows(CLOSED_TWICE))
        if odd := set(self.site.runs()) - SETTLED:
            yield f"runs are {sorted(odd)}"

    def _promises(self, client: httpx.Client) -> Iterator[str]:
        for session_id in self._sessions():
            try:
                messages = truth(client, session_id)
            except AssertionError as error:
                yield f"{session_id}: the log and the history differ: {error}"
                messages = talk.history(client, session_id)["messages"]
            yield from (f"{session_id}: {complaint}" for complaint in self._kept(session_id, messages))

    def _kept(self, session_id: str, messages: list[Row]) -> Iterator[str]:
        ledger = self.ledger
        users = Counter(row["content"] for row in messages if row["role"] == "user")
        for content in ledger.acknowledged.get(session_id, ()):
            if users[content] == 0 and not self._never_started(session_id, content):
                yield f"acknowledged and lost: {content!r}"
        yield from (f"stored {count} times: {content!r}" for content, count in users.items() if count > 1)
        if invented := set(users) - ledger.said.get(session_id, set(users)):
            yield f"nobody said {sorted(invented)}"
        answers = {row["tool_call_id"]: row["content"] for row in messages if row["role"] == "tool"}
        for call_id, text in ledger.accepted.get(session_id, {}).items():
            if answers.get(call_id) != text:
                yield f"call {call_id}: {text!r} was accepted, the history has {answers.get(call_id)!r}"
        texts = [row["content"] for row in messages if row["role"] == "assistant"]
        for seen in ledger.seen.get(session_id, ()):
            if not any(text.startswith(seen) for text in texts):
                yield f"seen and lost: {seen[:80]!r}"

    def _never_started(self, session_id: str, content: str) -> bool:
        """A message that was cancelled, or waited too long, in the queue: its text is kept with its run."""
        ended = self.site.rows("SELECT request FROM sessions_app_run WHERE started_at IS NULL AND ended_at IS NOT NULL")
        return any(content in str(request) for (request,) in ended)

    def _next_messages(self, node: Node) -> Iterator[str]:
        """No session is stuck, and what goes up for it satisfies a strict provider."""
        for session_id in self._sessions():
            content = f"still there, {session_id}? {len(self.site.model.requests)}"
            self.ledger.ack(session_id, content)
            heard = talk.say(node.client, session_id, content, agent_type="coder")
            if heard.error is not None or not heard.frames:
                yield f"{session_id} is stuck: {heard.frames}"
                continue
            sent = [request.body["messages"] for request in self.site.model.requests if request.body.get("tools")]
            mine = next((one for one in reversed(sent) if one[-1].get("content") == content), None)
            complaints = strict(mine) if mine else ["its next message never went up"]
            yield from (f"{session_id}: {complaint}" for complaint in complaints)

    def _doctor(self) -> Iterator[str]:
        code, said = self.site.doctor()
        if code != 0:
            yield f"the doctor: {said}"
