"""Whatever a client or a model wrote reaches the operator's browser as text, on every page."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest
from django.apps import apps
from django.test import Client
from django.urls import reverse

from tests.sessions_app import admin_rows
from tests.sessions_app.test_admin import act, listing, operator, own_page, visitor

__all__ = ["operator", "visitor"]
pytestmark = pytest.mark.django_db
HOSTILE = {
    "script": "<script>alert(1)</script>",
    "closing": "</pre></details></title><script>alert(1)</script>",
    "handler": "<img src=x onerror=alert(1)>",
    "attribute": '" onmouseover="alert(1)" x="\' onfocus=\'alert(1)',
    "link": '<a href="javascript:alert(1)">open</a>',
    "markdown": "[open](javascript:alert(1))",
    "svg": "<svg/onload=alert(1)><animate onbegin=alert(1)>",
    "template": "{{ request.user }}{% debug %}",
    "entity": "&lt;script&gt;alert(1)&lt;/script&gt;",
    "bidi": "safe_\u202egnp.exe\u2066\u200f",
    "control": "\x1b[2J\x07\u2028\u200b",
}
# A form's field holds the stored text itself, else saving would change it.
FIELD = re.compile(r'<input type="text"[^>]*>|<textarea.*?</textarea>', re.DOTALL)


class Page(HTMLParser):
    """What a browser would run, or follow, of a page."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.dangers: list[str] = []
        self._in_script = False
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = dict(attrs)
        self._in_script = tag == "script"
        self.dangers += [f"<{tag} {name}>" for name in names if name.startswith("on") or name == "style"]
        self.dangers += [
            f"{name}={value}" for name, value in attrs if (value or "").lower().strip().startswith("javascript:")
        ]
        if tag in ("style", "iframe", "object", "animate") or (tag == "script" and "src" not in names):
            self.dangers.append(f"<{tag}>")

    def handle_endtag(self, tag: str) -> None:
        self._in_script = False

    def handle_data(self, data: str) -> None:
        if self._in_script and data.strip():
            self.dangers.append(f"inline script: {data[:40]}")


def every_page(client: Client, session: object) -> dict[str, str]:
    """The source of each page that shows a stored text."""
    addresses = [reverse("admin:index"), reverse("admin:app_list", args=["sessions_app"]), own_page(session)]
    for table in admin_rows.TABLES:
        row = apps.get_model("sessions_app", table)._default_manager.first()
        addresses += [listing(table), own_page(row), reverse(f"admin:sessions_app_{table}_history", args=[row.pk])]
    addresses += [f"{own_page(session)}?after=2", reverse("admin:sessions_app_session_delete_older") + "?days=1"]
    pages = {address: client.get(address).content.decode() for address in addresses}
    pages["question"] = act(client, "delete", session).content.decode()  # type: ignore[arg-type]
    return pages


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_text_is_text_on_every_page(operator: Client, kind: str) -> None:
    text = HOSTILE[kind]
    session = admin_rows.conversation(f"id {text}", text=text, days_old=2)
    act(operator, "activate", session)
    for address, source in every_page(operator, session).items():
        assert Page(source).dangers == [], address
        assert not set(FIELD.sub("", source)) & set("\x1b\x07\u202e\u2066\u200f\u2028\u200b"), address
        assert kind in ("attribute", "markdown", "template", "entity", "bidi", "control") or text not in source, address


def test_the_corpus_is_really_on_the_session_page(operator: Client) -> None:
    session = admin_rows.conversation("s", text=HOSTILE["script"])
    source = operator.get(own_page(session)).content.decode()
    assert source.count("&lt;script&gt;alert(1)&lt;/script&gt;") >= 20
    bidi = admin_rows.conversation("t", text=HOSTILE["bidi"])
    assert operator.get(own_page(bidi)).content.decode().count("⟦U+202E⟧") >= 20
