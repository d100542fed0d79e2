"""What operators do from the lists, on a running server: runs are cancelled and retried, many sessions are acted on in
the background, and sessions are downloaded while others talk."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from django.contrib.auth.models import User
from django.test import Client

from sessions_app.models import AuditEntry, Batch, BatchState, Run, RunState, Session
from tests import talk
from tests.conftest import RunningServer
from tests.model_server import ModelServer, text, tool_calls
from tests.waiting import until

RUNS, SESSIONS = "/admin/sessions_app/run/", "/admin/sessions_app/session/"


@pytest.fixture
def anna(server: RunningServer) -> Iterator[httpx.Client]:
    """An operator's browser, without its scripts."""
    user = User.objects.create_superuser("anna", password="x")
    signed_in = Client()
    signed_in.force_login(user)
    cookies = {name: morsel.value for name, morsel in signed_in.cookies.items()}
    with httpx.Client(base_url=server.url, cookies=cookies, timeout=30, follow_redirects=True) as one:
        one.get("/admin/")
        one.get(SESSIONS)
        yield one


def post(browser: httpx.Client, address: str, action: str, *pks: int, **more: str) -> httpx.Response:
    page = browser.get(SESSIONS)
    token = page.text.split('name="csrfmiddlewaretoken" value="')[1].split('"')[0]
    form: dict[str, Any] = {"csrfmiddlewaretoken": token, "index": "0", **more}
    if action:
        form |= {"action": action, "_selected_action": [str(pk) for pk in pks]}
    return browser.post(address, data=form, headers={"Referer": str(browser.base_url)})


def test_a_run_is_cancelled_and_retried_from_the_list(
    anna: httpx.Client, client: httpx.Client, model: ModelServer, server: RunningServer
) -> None:
    model.reply(tool_calls([("c1", "read_file", '{"path": "a.txt"}')]))
    talk.say(client, "s", "read it", agent_type="coder")
    run = Run.objects.get()
    assert "Cancel runs?" in post(anna, RUNS, "cancel", run.pk).text
    run.refresh_from_db()
    assert run.state == RunState.WAITING
    assert "1 run." in post(anna, RUNS, "cancel", run.pk, confirmed="cancel").text
    run.refresh_from_db()
    assert run.state == RunState.CANCELLED
    model.reply(text("Done at last"))
    assert "Retry runs?" in post(anna, RUNS, "retry", run.pk).text
    post(anna, RUNS, "retry", run.pk, confirmed="retry", back=str(run.pk))
    server.idle()
    again = Run.objects.order_by("-pk")[0]
    assert (again.pk != run.pk, again.state) == (True, RunState.COMPLETED)
    told = dict(AuditEntry.objects.filter(action__startswith="run.").values_list("action", "who"))
    assert told == {"run.cancel": "operator:anna", "run.retry": "operator:anna"}
    page = anna.get(f"{RUNS}{run.pk}/change/").text
    assert 'value="retry"' in page
    assert "no interrupted or failed turn" in post(anna, RUNS, "retry", run.pk, confirmed="retry").text


def test_many_sessions_are_acted_on_by_the_server_itself(anna: httpx.Client) -> None:
    Session.objects.bulk_create([Session(session_id=f"s{number}") for number in range(60)])
    post(anna, SESSIONS, "deactivate", Session.objects.order_by("pk")[0].pk, select_across="1")
    batch = Batch.objects.get()
    post(anna, f"/admin/sessions_app/batch/{batch.pk}/start/", "")
    until(lambda: Batch.objects.get().state == BatchState.FINISHED, 120)
    batch.refresh_from_db()
    assert (batch.done, batch.skipped, batch.failed) == (60, 0, 0)
    assert not Session.objects.filter(is_active=True).exists()
    assert "60 of 60" in anna.get(f"/admin/sessions_app/batch/{batch.pk}/change/").text


def test_sessions_are_downloaded_as_json_lines(anna: httpx.Client, client: httpx.Client, model: ModelServer) -> None:
    model.reply(tool_calls([("c1", "write_file", '{"path": "a.txt", "content": "привет"}')]))
    talk.say(client, "first", "write it", agent_type="coder")
    model.reply(text("Hello\u202e"))
    talk.say(client, "second", "hi", agent_type="coder")
    pks = list(Session.objects.order_by("pk").values_list("pk", flat=True))
    answer = post(anna, SESSIONS, "export", *pks)
    assert answer.headers["content-type"].startswith("application/x-ndjson")
    assert "attachment" in answer.headers["content-disposition"]
    lines = [json.loads(line) for line in answer.text.splitlines()]
    heads = [line for line in lines if line["kind"] == "session"]
    assert [line["session_id"] for line in heads] == ["first", "second"]
    of_first = [line["kind"] for line in lines if line["kind"] != "session" and line["session_id"] == pks[0]]
    assert list(dict.fromkeys(of_first)) == ["message", "run", "call", "approval", "switch", "event"]
    assert "Hello\u202e" in [line.get("content") for line in lines]
    assert of_first.count("event") == Session.objects.get(pk=pks[0]).last_seq
    assert not {"lease_owner", "idempotency_key", "request_hash"} & {name for line in lines for name in line}
    entry = AuditEntry.objects.get(action="session.export")
    assert (entry.who, json.loads(entry.after)["ids"]) == ("operator:anna", pks)
