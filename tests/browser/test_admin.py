"""The admin in a browser: it runs nothing that a model wrote, needs no inline script, fits a phone, frees a session."""

from __future__ import annotations

from typing import Any

import pytest

from sessions_app import policies
from sessions_app.models import Message, PolicyRule, PolicyVersion, Run, RunState, Session, ToolCall, ToolCallState
from tests.browser.conftest import Operator
from tests.sessions_app import admin_rows
from tests.sessions_app.test_admin_hostile import HOSTILE

pytestmark = [
    pytest.mark.browser,
    # WhiteNoise hands Django a plain file: on ASGI it is read whole, with a warning, and closed by the collector.
    pytest.mark.filterwarnings("ignore:StreamingHttpResponse must consume synchronous iterators"),
    pytest.mark.filterwarnings("ignore:Exception ignored in. <_io.FileIO:pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning"),
]
PHONE = {"viewport": {"width": 390, "height": 844}}
PAGES = [
    "", *(f"sessions_app/{table}/" for table in admin_rows.TABLES), "sessions_app/session/delete-older/?days=1",
    "sessions_app/approval/inbox/", "sessions_app/policyrule/add/", "sessions_app/policyrule/try/",
    "sessions_app/policyversion/",
]  # fmt: skip


def session_page(session: Session) -> str:
    return f"sessions_app/session/{session.pk}/change/"


def version_pages(text: str) -> list[str]:
    """Of the rules' versions: the newest, the one before it with what has changed since, and the way back to that."""
    with policies.changing(text, text):
        PolicyRule.objects.update(reason=f"{text}, too")
        PolicyRule.objects.create(pattern=text, reason=text, paths=text, commands=text)
    newest, before = PolicyVersion.objects.order_by("-number")[:2]
    pages = [f"sessions_app/policyversion/{one.pk}/change/" for one in (newest, before)]
    rule = PolicyRule.objects.order_by("-pk")[0]
    return [
        *pages, f"sessions_app/policyversion/{before.pk}/restore/", f"sessions_app/policyrule/{rule.pk}/change/",
    ]  # fmt: skip


def test_no_payload_runs_and_a_policy_without_inline_script_blocks_nothing(operator: Operator) -> None:
    for kind, text in HOSTILE.items():
        session = admin_rows.conversation(f"{kind} {text}", text=text, days_old=2)
        page = operator.open(session_page(session))
        page.evaluate("document.querySelectorAll('details').forEach(folded => folded.open = true)")
        page.hover("#conversation .call summary")
        for path in version_pages(text):
            operator.open(path)
    for path in PAGES:
        operator.open(path)
    assert operator.complaints == []


def test_an_operator_finds_the_stuck_session_and_frees_it(operator: Operator) -> None:
    stuck = admin_rows.conversation("stuck")
    run = Run.objects.create(session=stuck, state=RunState.WAITING)
    asked = Message.objects.get(session=stuck, number=2)  # an open call: the watchdog ends what waits for nothing
    ToolCall.objects.create(session=stuck, run=run, message=asked, call_id="open", name="x", state=ToolCallState.OUT)
    page = operator.open("")
    page.click(".tile >> nth=0")
    page.click("#result_list a:has-text('stuck')")
    page.click("text=Cancel the turn")
    run.refresh_from_db()
    assert run.state == RunState.WAITING
    page.click("#stop button.danger")
    page.wait_for_selector("ul.messagelist li")
    run.refresh_from_db()
    assert run.state == RunState.CANCELLED
    assert session_page(stuck) in page.url


def test_a_call_is_unfolded_with_the_keyboard(operator: Operator) -> None:
    page = operator.open(session_page(admin_rows.conversation("s", text="read_file")))
    page.focus(".call summary")
    page.keyboard.press("Enter")
    assert page.is_visible(".call pre.block")


@pytest.mark.parametrize("options", [PHONE])
def test_no_page_is_wider_than_a_phone(operator: Operator, options: dict[str, Any]) -> None:
    session = admin_rows.conversation("s" * 200, text="word " * 6, days_old=2)
    for path in (*PAGES, *version_pages("word " * 6), session_page(session)):
        page = operator.open(path)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, path


@pytest.mark.parametrize(
    ("options", "ground"),
    [({"color_scheme": "light"}, "rgb(244, 246, 249)"), ({"color_scheme": "dark"}, "rgb(15, 18, 23)")],
)
def test_the_pages_follow_the_systems_light_and_dark(operator: Operator, ground: str) -> None:
    page = operator.open("")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == ground


@pytest.mark.parametrize("options", [{"locale": "ru-RU"}])
def test_a_russian_browser_reads_russian(operator: Operator, options: dict[str, Any]) -> None:
    page = operator.open(session_page(admin_rows.conversation("s")))
    assert page.inner_text("#timeline-title").startswith("Лента событий")
