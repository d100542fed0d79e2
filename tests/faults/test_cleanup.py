"""Cleaning up beside live servers, and killed in the middle: nothing half-deleted, nobody's message lost."""

from __future__ import annotations

import shutil
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests import talk
from tests.faults.servers import until
from tests.faults.sites import KILLED, Site
from tests.model_server import text

pytestmark = pytest.mark.timeout(300)
AT_ONCE = {
    "AGENT_RUNTIME__SESSION_IDLE_EXPIRE_HOURS": "0.00003",
    "AGENT_RUNTIME__SESSION_PURGE_DAYS": "0.000001",
    "AGENT_RUNTIME__EVENT_RETENTION_DAYS": "0.000001",
}
SESSIONS, ROUNDS = 4, 12
PORTION = 20
ORPHANS = """
    SELECT count(*) FROM sessions_app_message WHERE session_id NOT IN (SELECT id FROM sessions_app_session)
    UNION ALL
    SELECT count(*) FROM sessions_app_event WHERE session_id NOT IN (SELECT id FROM sessions_app_session)
    UNION ALL
    SELECT count(*) FROM sessions_app_auditentry
    WHERE session_id IS NOT NULL AND session_id NOT IN (SELECT id FROM sessions_app_session)
"""


def sound(site: Site) -> None:
    assert site.doctor() == (0, "Nothing is broken.\n")
    code, said = site.manage("verify_audit")
    assert code == 0, said
    assert site.rows(ORPHANS) == [(0,), (0,), (0,)]


def names(site: Site) -> set[str]:
    return {name for (name,) in site.rows("SELECT session_id FROM sessions_app_session")}


def test_a_purge_that_is_killed_leaves_whole_sessions_and_goes_on_later(site: Site, tmp_path: Path) -> None:
    node = site.serve()
    site.model.always(lambda body: text("Answer"))
    for number in range(PORTION + 5):
        node.client.post("/sessions", json={"session_id": f"s{number}"}).raise_for_status()
    talk.say(node.client, "s0", "hello", agent_type="coder")
    node.kill()
    assert site.manage("cleanup", **{**AT_ONCE, "AGENT_RUNTIME__SESSION_PURGE_DAYS": "0"})[0] == 0

    code, said = site.manage("cleanup", failpoints=["purging:2"], **AT_ONCE)
    assert code == KILLED, said
    assert names(site) == {f"s{number}" for number in range(PORTION, PORTION + 5)}
    sound(site)
    if site.on_sqlite:
        verify_a_copy(site, tmp_path)

    code, said = site.manage("cleanup", **AT_ONCE)
    assert (code, names(site)) == (0, set()), said
    sound(site)


def verify_a_copy(site: Site, tmp_path: Path) -> None:
    """Also one from which the last row was taken."""
    original = Path(site.database.removeprefix("sqlite:///"))
    copy = tmp_path / "copy of it.sqlite3"
    shutil.copy(original, copy)
    code, said = site.manage("verify_audit", "--file", str(copy))
    assert (code, "nothing was changed or removed" in said) == (0, True), said
    other = Site(site.stack, tmp_path, f"sqlite:///{copy}")
    other.change("DELETE FROM sessions_app_auditentry WHERE id = (SELECT max(id) FROM sessions_app_auditentry)")
    code, said = site.manage("verify_audit", "--file", str(copy))
    assert (code, "is missing" in said) == (1, True), said
    assert site.manage("verify_audit")[0] == 0


def test_messages_that_race_with_the_cleanup_are_answered_or_told_why_not(site: Site) -> None:
    """The server cleans up by its schedule, a command does beside it, and people go on talking to the same sessions."""
    node = site.serve(**AT_ONCE)
    site.model.always(lambda body: text("Answer to ", body["messages"][-1]["content"]))
    heard: Counter[str] = Counter()

    def converse(session_id: str) -> None:
        for number in range(ROUNDS):
            answer = talk.say(node.client, session_id, f"{number}", agent_type="coder")
            if answer.error is None:
                assert answer.contents == [f"Answer to {number}"], answer.frames
                heard["answered"] += 1
            else:
                heard[answer.error["code"]] += 1

    with ThreadPoolExecutor(SESSIONS + 1) as pool:
        talking = [pool.submit(converse, f"s{number}") for number in range(SESSIONS)]
        while not all(one.done() for one in talking):
            code, said = site.manage("cleanup", **AT_ONCE)
            assert code == 0, said
        for one in talking:
            one.result()
    assert heard["answered"] > 0
    assert set(heard) <= {"answered", "SESSION_EXPIRED", "CURSOR_EXPIRED"}, heard
    until(lambda: not names(site), 60, "the server purges what is left by itself")
    node.clean()
    sound(site)
