"""A server that is frozen past its lease, while another takes over, and wakes up: it writes and shows nothing more."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from tests import talk
from tests.faults.checker import Checker, Ledger
from tests.faults.servers import until
from tests.faults.sites import LEASE_SECONDS, Node, Site
from tests.listening import following, posting, truth
from tests.model_server import Gate, text, tool_calls

pytestmark = pytest.mark.timeout(300)
READ = '{"path": "a.txt"}'
# Long enough for a lease of the one who slept to have ended, and for the other's watch to have seen it.
TAKEN_OVER_SECONDS = LEASE_SECONDS + 30


def events(site: Site) -> int:
    return int(site.rows("SELECT count(*) FROM sessions_app_event")[0][0])


def kept(node: Node, session_id: str, content: str) -> None:
    """Waits for the checkpoint of an answer."""
    history = lambda: talk.history(node.client, session_id)["messages"]  # noqa: E731
    until(lambda: history()[-1]["content"] == content, 5, f"a checkpoint of {content!r}")


@pytest.mark.parametrize("ending", ["text", "calls", "silence"])
def test_a_sleeper_that_lost_its_turn_neither_writes_nor_shows(
    site: Site, ledger: Ledger, stack: ExitStack, ending: str
) -> None:
    sleeper, other = site.serve(), site.serve()
    gate = Gate()
    replies = {"text": text("One ", gate, "two three"), "silence": text("One ", Gate())}
    replies["calls"] = tool_calls([("call_1", "read_file", READ)], "One ")
    if ending == "calls":
        replies["calls"].parts.insert(2, gate)  # type: ignore[attr-defined]
    site.model.reply(replies[ending])
    first = stack.enter_context(posting(sleeper.client, "s", "First", agent_type="coder"))
    first.until(lambda heard: heard.tokens == "One ")
    ledger.ack("s", "First")
    ledger.saw("s", "One ")
    kept(other, "s", "One ")
    sleeper.freeze()
    with following(other.client, "s", "0.0") as log:
        cut = log.until(lambda heard: heard.error is not None, TAKEN_OVER_SECONDS)
    assert cut.error is not None
    assert cut.error["code"] == "INTERRUPTED"
    gate.open()  # what the model says now waits in the sleeper's socket
    site.model.reply(text("Second answer"))
    assert talk.say(other.client, "s", "Second").contents == ["Second answer"]
    ledger.ack("s", "Second")
    before = events(site)
    sleeper.thaw()
    heard = first.ended()
    assert heard.tokens == "One "
    assert heard.error == cut.error
    assert site.runs() == ["interrupted", "completed"]
    assert events(site) == before
    assert talk.say(sleeper.client, "s", "Third").contents == ["Hello world"]
    ledger.ack("s", "Third")
    messages = [row["content"] for row in truth(other.client, "s")]
    assert messages == ["First", "One ", "Second", "Second answer", "Third", "Hello world"]
    Checker(site, ledger).check(sleeper)
    for node in (sleeper, other):
        node.clean()


def test_a_sleeper_that_wakes_in_time_goes_on(site: Site, ledger: Ledger, stack: ExitStack) -> None:
    node = site.serve(AGENT_RUNTIME__LEASE_SECONDS="60")
    gate = Gate()
    site.model.reply(text("One ", gate, "two"))
    answer = stack.enter_context(posting(node.client, "s", "Go", agent_type="coder"))
    answer.until(lambda heard: heard.tokens == "One ")
    ledger.ack("s", "Go")
    node.freeze()
    gate.open()
    node.thaw()
    assert answer.ended().contents == ["One two"]
    Checker(site, ledger).check(node, doctor=False)


def test_a_sleeper_whose_turn_nobody_took_goes_on(site: Site, stack: ExitStack) -> None:
    """Alone on its database, it finds its lease run out and its run still its own: it may take it up, or end it as
    interrupted, but the story is one story."""
    node = site.serve()
    gate = Gate()
    site.model.reply(text("One ", gate, "two"))
    answer = stack.enter_context(posting(node.client, "s", "Go", agent_type="coder"))
    answer.until(lambda heard: heard.tokens == "One ")
    kept(node, "s", "One ")
    node.freeze()
    until(lambda: overdue(site), LEASE_SECONDS + 30, "the lease runs out")
    gate.open()
    node.thaw()
    heard = answer.ended()
    assert [row["content"] for row in truth(node.client, "s")] == ["Go", heard.tokens]
    assert heard.tokens == "One two"


def overdue(site: Site) -> bool:
    now = "strftime('%Y-%m-%d %H:%M:%f', 'now')" if site.on_sqlite else "now()"
    late = f"SELECT count(*) FROM sessions_app_run WHERE state = 'running' AND lease_until < {now}"  # noqa: S608
    return bool(site.rows(late)[0][0])
