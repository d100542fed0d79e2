"""The policy editor in a browser: put in order with the keyboard, tried before it is saved, rolled back."""

from __future__ import annotations

import httpx
import pytest
from playwright.sync_api import expect

from sessions_app import policies
from sessions_app.models import PolicyRule, PolicyVersion, Session, ToolCall
from tests.browser.conftest import Operator
from tests.conftest import RunningServer
from tests.model_server import ModelServer, tool_calls
from tests.sessions_app.test_admin_hostile import HOSTILE
from tests.talk import PATH

pytestmark = [
    pytest.mark.browser,
    # WhiteNoise hands Django a plain file: on ASGI it is read whole, with a warning, and closed by the collector.
    pytest.mark.filterwarnings("ignore:StreamingHttpResponse must consume synchronous iterators"),
    pytest.mark.filterwarnings("ignore:Exception ignored in. <_io.FileIO:pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning"),
]
LIST = "sessions_app/policyrule/"
PATIENCE_MS = 30_000


@pytest.fixture(autouse=True)
def _patient() -> None:
    expect.set_options(timeout=PATIENCE_MS)


@pytest.fixture
def rules(server: RunningServer) -> list[PolicyRule]:
    """Three of them, made by others; a test that empties all tables has taken the first ones along."""
    policies.replace([{"pattern": "read_file", "action": "allow"}, {"pattern": "b"}, {"pattern": "c"}], who="setup")
    return list(PolicyRule.objects.order_by("order"))


def order() -> list[str]:
    return [str(rule["pattern"]) for rule in policies.version().rules]


def test_a_rule_is_moved_with_the_keyboard_and_the_focus_stays_on_its_button(
    operator: Operator, rules: list[PolicyRule]
) -> None:
    page = operator.open(LIST)
    button = f"#up-{rules[2].pk}"
    page.focus(button)
    for expected in (["read_file", "c", "b"], ["c", "read_file", "b"]):
        page.keyboard.press("Enter")
        place = str(expected.index("c") + 1)
        expect(page.locator(f"#rule-{rules[2].pk} .place")).to_have_text(place)
        expect(page.locator(button)).to_be_focused()
        assert order() == expected
    assert PolicyVersion.objects.order_by("-number")[0].who == "operator:anna"
    page.click(f"#rule-{rules[0].pk} >> text=Switch off")
    expect(page.locator(f"#rule-{rules[0].pk}.is-off")).to_be_visible()
    assert operator.complaints == []


@pytest.mark.parametrize("kind", ["script", "svg", "bidi"])
def test_a_rule_is_tried_before_it_is_saved_and_the_calls_lead_to_their_sessions(
    operator: Operator, rules: list[PolicyRule], client: httpx.Client, model: ModelServer, kind: str
) -> None:
    model.reply(tool_calls([("c1", "read_file", '{"path": "a.txt"}')]))
    message = {"type": "user_message", "content": "hi", "agent_type": "coder"}
    client.post(PATH, json={"session_id": "s", "message": message}).raise_for_status()
    ToolCall.objects.update(arguments={"path": HOSTILE[kind]})
    before = policies.version().number
    page = operator.open(f"{LIST}{rules[0].pk}/change/")
    page.select_option("#id_action", "forbid")
    page.fill("#id_reason", HOSTILE[kind][:100])
    page.click("button[name=_try]")
    expect(page.locator("#report")).to_contain_text("1 call would have fared otherwise")
    expect(page.locator("#id_action")).to_have_value("forbid")
    assert page.locator("#report :is(script, img, svg, a[href^=javascript])").count() == 0
    assert (policies.version().number, order()[0]) == (before, "read_file")
    assert PolicyRule.objects.get(pk=rules[0].pk).action == "allow"
    page.click("#report a")
    page.wait_for_selector("#conversation")
    assert page.url.endswith(f"/session/{Session.objects.get().pk}/change/")
    assert operator.complaints == []


def test_an_older_version_is_compared_and_rolled_back(operator: Operator, rules: list[PolicyRule]) -> None:
    old = policies.version()
    policies.replace([{"pattern": "c", "action": "forbid"}, {"pattern": "b"}], who="boris")
    page = operator.open("sessions_app/policyversion/")
    page.click(f"#result_list tbody a:text-is('{old.number}')")
    expect(page.locator(".difference-removed")).to_contain_text("read_file")
    expect(page.locator(".difference-changed ins")).to_have_text("forbid")
    page.click("#roll-back")
    expect(page.locator(".difference-added")).to_contain_text("read_file")
    assert order() == ["c", "b"]
    page.click("button:has-text('Roll back')")
    expect(page.locator("ul.messagelist")).to_contain_text(f"version {old.number}")
    assert order() == ["read_file", "b", "c"]
    assert operator.complaints == []
