"""The acting pages in a browser: what happens is seen while it happens, and an operator takes part in it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import httpx
import pytest
from django.utils import timezone
from playwright.sync_api import Browser, Page, expect

from sessions_app import batches, database
from sessions_app.admin import shown
from sessions_app.closing import UNFINISHED
from sessions_app.models import Approval, ApprovalState, AuditEntry, Event, Run, Session, ToolCall, ToolCallState
from tests.browser.conftest import Operator, signed_in
from tests.conftest import RunningServer
from tests.model_server import Gate, ModelServer, text, tool_calls
from tests.sessions_app.test_admin_hostile import HOSTILE
from tests.talk import PATH

pytestmark = [
    pytest.mark.browser,
    # WhiteNoise hands Django a plain file: on ASGI it is read whole, with a warning, and closed by the collector.
    pytest.mark.filterwarnings("ignore:StreamingHttpResponse must consume synchronous iterators"),
    pytest.mark.filterwarnings("ignore:Exception ignored in. <_io.FileIO:pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning"),
]
INBOX = "sessions_app/approval/inbox/"
PATIENCE_MS = 30_000
WRITE = ("c1", "write_file", '{"path": "a.txt", "content": "safe_\\u202egnp.exe"}')


@pytest.fixture(autouse=True)
def _patient() -> None:
    expect.set_options(timeout=PATIENCE_MS)


def say(client: httpx.Client, content: str = "hi", session_id: str = "s") -> Session:
    message = {"type": "user_message", "content": content, "agent_type": "coder"}
    client.post(PATH, json={"session_id": session_id, "message": message}).raise_for_status()
    return Session.objects.get(session_id=session_id)


def open_session(operator: Operator, session: Session) -> Page:
    page = operator.open(f"sessions_app/session/{session.pk}/change/")
    page.wait_for_selector("html[data-live=on]")
    return page


def ask(client: httpx.Client, model: ModelServer, session_id: str = "s") -> Session:
    model.reply(tool_calls([WRITE]))
    return say(client, session_id=session_id)


def test_tokens_appear_while_the_turn_runs(operator: Operator, client: httpx.Client, model: ModelServer) -> None:
    page = open_session(operator, say(client))
    gate = Gate()
    model.reply(text("Half an ", gate, "answer"))
    page.fill("#say", "and now?")
    page.click("text=Send")
    expect(page.locator(".entry[data-open] .text")).to_have_text("Half an ")
    gate.open()
    expect(page.locator(".entry >> nth=-1").locator(".text")).to_have_text("Half an answer")
    expect(page.locator("[data-open]")).to_have_count(0)
    expect(page.locator("#timeline")).to_contain_text("Run completed")
    assert operator.complaints == []


def test_hostile_text_is_text_also_while_it_streams(
    operator: Operator, client: httpx.Client, model: ModelServer
) -> None:
    page = open_session(operator, say(client))
    for payload in HOSTILE.values():
        gate = Gate()
        model.reply(text(payload, gate, " end"))
        page.fill("#say", payload)
        page.click("text=Send")
        expect(page.locator(".entry[data-open] .text")).to_contain_text(shown.visible(payload)[:4])
        assert page.locator("[data-open] .text > *").count() == 0
        gate.open()
        expect(page.locator("[data-open]")).to_have_count(0)
    assert operator.complaints == []


def test_an_operator_approves_and_settles_in_the_clients_place(
    operator: Operator, client: httpx.Client, model: ModelServer
) -> None:
    page = open_session(operator, ask(client, model))
    expect(page.locator(".will-run")).to_contain_text("safe_⟦U+202E⟧gnp.exe")
    page.click("#waiting >> text=Approve >> nth=0")
    expect(page.locator("#waiting")).to_contain_text("out at the client")
    page.click("text=Settle it")
    page.fill("#waiting textarea", "written")
    model.reply(text("All done"))
    page.click("text=It ran")
    expect(page.locator("#conversation")).to_contain_text("All done")
    expect(page.locator("#waiting .ask")).to_have_count(0)
    assert Approval.objects.get().decided_by == "operator:anna"
    assert model.requests[-1].body["messages"][-1]["content"] == "written"


def test_an_edit_that_no_check_passes_is_refused_and_the_call_still_waits(
    operator: Operator, client: httpx.Client, model: ModelServer
) -> None:
    page = open_session(operator, ask(client, model))
    page.click("#waiting >> text=Edit and approve")
    for broken in ("{", '{"path": 5}', "[1]"):
        page.fill("#waiting textarea", broken)
        page.click("text=Approve as edited")
        expect(page.locator("ul.messagelist.live .error")).to_be_visible()
    assert Approval.objects.get().state == ApprovalState.PENDING
    page.fill("#waiting textarea", '{"path": "b.txt", "content": "x"}')
    page.click("text=Approve as edited")
    expect(page.locator("#waiting")).to_contain_text("out at the client")
    assert ToolCall.objects.get().arguments["path"] == "b.txt"


def test_what_one_operator_decides_leaves_the_others_inbox_and_a_lost_race_says_so(
    operator: Operator, chromium: Browser, server: RunningServer, client: httpx.Client, model: ModelServer
) -> None:
    ask(client, model)
    with signed_in(chromium, server.url, "boris", locale="en") as other:
        mine, theirs = operator.open(INBOX), other.open(INBOX)
        expect(theirs.locator(".ask")).to_have_count(1)
        theirs.route("**/inbox/parts/", lambda route: route.abort())  # they do not hear of it in time
        mine.keyboard.press("a")
        expect(mine.locator(".ask")).to_have_count(0)
        assert Approval.objects.get().decided_by == "operator:anna"
        theirs.keyboard.press("a")
        expect(theirs.locator("ul.messagelist.live .error")).to_contain_text("operator:anna")
        theirs.unroute("**/inbox/parts/")
        expect(theirs.locator(".ask")).to_have_count(0)
    assert Approval.objects.get().decided_by == "operator:anna"


def test_keys_move_choose_and_reject_and_the_chosen_are_decided_together(
    operator: Operator, client: httpx.Client, model: ModelServer
) -> None:
    for number in range(3):
        ask(client, model, f"s{number}")
    page = operator.open(INBOX)
    model.always(lambda body: text("Then not"))
    page.keyboard.press("j")
    page.keyboard.press("r")
    page.keyboard.type("too risky")
    page.keyboard.press("Enter")
    expect(page.locator(".ask")).to_have_count(2)
    rejected = Approval.objects.get(state=ApprovalState.REJECTED)
    assert (rejected.session.session_id, rejected.feedback) == ("s1", "too risky")
    page.check("#choose-all")
    page.click("text=Approve the chosen")
    expect(page.locator(".ask")).to_have_count(0)
    assert ToolCall.objects.filter(state=ToolCallState.OUT).count() == 2
    assert operator.complaints == []


def test_a_note_and_a_handover_are_in_the_timeline_and_no_client_hears_the_note(
    operator: Operator, client: httpx.Client, model: ModelServer
) -> None:
    page = open_session(operator, say(client))
    page.fill("#note", "asked the team")
    page.click("text=Add")
    expect(page.locator("#timeline")).to_contain_text("asked the team")
    page.select_option("#switch-to", "ask")
    page.click("button:text-is('Switch')")
    expect(page.locator("#switches")).to_contain_text("Switched by operator:anna")
    assert Event.objects.get(type="NoteAdded").data == {"who": "operator:anna", "note": "asked the team"}
    told = client.get("/sessions/s/stream?after=0.0&events=all&follow=false").text
    assert "asked the team" not in told
    assert "agent_switched" in told


def test_a_viewer_sees_everything_and_can_do_nothing(
    operator: Operator, chromium: Browser, server: RunningServer, client: httpx.Client, model: ModelServer
) -> None:
    from django.contrib.auth.models import Permission, User

    session = ask(client, model)
    viewer = User.objects.create_user("vera", password="a-long-password", is_staff=True)
    viewer.user_permissions.set(Permission.objects.filter(codename__startswith="view_"))
    with signed_in(chromium, server.url, "vera", locale="en") as other:
        page = open_session(other, session)
        expect(page.locator("#waiting")).to_contain_text("write_file")
        assert page.locator("form[data-deed]").count() == 0
        token = page.input_value("input[name=csrfmiddlewaretoken] >> nth=0")
        for name in ("say", "decide", "settle", "switch", "cancel", "note"):
            address = f"{other.url}sessions_app/session/{session.pk}/do/{name}/"
            answer = page.request.post(address, form={"csrfmiddlewaretoken": token, "call_id": "c1", "content": "x"})
            assert answer.status == 403, name
    assert Approval.objects.get().state == ApprovalState.PENDING


def test_a_button_that_leaves_the_page_still_works_after_the_page_has_renewed_itself(
    operator: Operator, client: httpx.Client, model: ModelServer
) -> None:
    page = open_session(operator, ask(client, model))
    page.evaluate("document.getElementById('head').dataset.old = 1")
    expect(page.locator("#head[data-old]")).to_have_count(0)
    page.click("button:has-text('Deactivate')")
    page.click("button.danger")
    expect(page.locator("ul.messagelist")).to_be_visible()
    assert Approval.objects.get().state != ApprovalState.PENDING
    assert operator.complaints == []


def test_home_says_which_session_is_stuck_and_frees_it(
    operator: Operator, client: httpx.Client, model: ModelServer
) -> None:
    session = ask(client, model, "stuck")
    page = operator.open("")
    expect(page.locator("#attention")).to_contain_text("Nothing needs")
    Approval.objects.update(expires_at=timezone.now() + timedelta(minutes=9))
    expect(page.locator("#attention")).to_contain_text("write_file waits for approval")
    page.click("#attention >> text=Decide")
    page.wait_for_selector("html[data-live=on]")
    page.click("#waiting >> text=Approve >> nth=0")
    expect(page.locator("#waiting")).to_contain_text("out at the client")
    ToolCall.objects.update(requested_at=timezone.now() - timedelta(minutes=9))
    operator.open("")
    page.evaluate("document.getElementById('attention').dataset.old = 1")
    expect(page.locator("#attention[data-old]")).to_have_count(0)  # the page has renewed itself
    page.click("button:has-text('Free the session')")
    page.click("button.danger")
    expect(page.locator("#conversation")).to_be_visible()
    assert not Run.objects.filter(session=session, state__in=UNFINISHED).exists()
    operator.open("")
    expect(page.locator("#attention")).to_contain_text("Nothing needs")


def test_a_turn_is_cancelled_with_one_click_and_a_confirmation(
    operator: Operator, client: httpx.Client, model: ModelServer
) -> None:
    session = ask(client, model)
    page = open_session(operator, session)
    page.click("#stop summary")
    page.click("#stop button")
    expect(page.locator("#stop details")).to_have_count(0)
    expect(page.locator("#waiting article")).to_have_count(0)
    assert AuditEntry.objects.get(action="run.cancel").session == session
    assert operator.complaints == []


def begun_elsewhere() -> int:
    """A background action that is at work in another process, as this server sees it."""
    rows = [Session.objects.create(session_id=f"s{number}") for number in range(3)]
    batch = batches.prepare("deactivate", [row.pk for row in rows], who="operator:bert")
    assert batches.start(batch.pk, who="operator:bert")
    assert batches.claim(batch.pk, "elsewhere", 3600)
    assert batches.step(batch.pk, "elsewhere", 3600)
    return batch.pk


def test_a_background_action_is_stopped_from_its_page(operator: Operator, server: RunningServer) -> None:
    def written(job: Callable[..., Any], *arguments: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(database.write("", job, *arguments), server.loop).result(30)

    batch = written(begun_elsewhere)
    page = operator.open(f"sessions_app/batch/{batch}/change/")
    expect(page.locator("#batch-progress [role=status]")).to_have_text("1 of 3")
    page.click("#stop-batch summary")
    page.click("#stop-batch button")
    expect(page.locator("#batch-progress")).to_have_attribute("data-state", "stopped")
    expect(page.locator("#stop-batch")).to_have_count(0)
    assert not written(batches.step, batch, "elsewhere", 3600)
    assert Session.objects.filter(is_active=True).count() == 2
    assert operator.complaints == []


def test_a_background_action_is_watched_to_its_end(operator: Operator) -> None:
    Session.objects.bulk_create([Session(session_id=f"s{number}", current_agent="coder") for number in range(60)])
    page = operator.open("sessions_app/session/")
    page.click("#action-toggle")
    page.click(".actions .question a")
    page.select_option("select[name=action]", "deactivate")
    page.click("button[name=index]")
    page.click("button.danger")
    expect(page.locator("#batch-progress")).to_have_attribute("data-state", "finished", timeout=4 * PATIENCE_MS)
    expect(page.locator("#batch-progress [role=status]")).to_have_text("60 of 60")
    expect(page.locator("#stop-batch")).to_have_count(0)
    assert not Session.objects.filter(is_active=True).exists()
    assert operator.complaints == []
