"""The operators' pages as a browser meets them: what it is told to refuse, cookies, forms, guessed passwords."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.cookies import SimpleCookie
from typing import Any

import httpx
import pytest
from django.contrib.auth.models import User
from django.contrib.auth.signals import user_login_failed

from sessions_app import keys
from sessions_app.models import APIKey
from tests.conftest import RunningServer

LOGIN = "/admin/login/"
PASSWORD = "a-long-password"


@pytest.fixture
def browser(server: RunningServer) -> Iterator[httpx.Client]:
    User.objects.create_superuser("anna", password=PASSWORD)
    with httpx.Client(base_url=server.url, timeout=30) as one:
        yield one


def log_in(browser: httpx.Client, password: str = PASSWORD, **headers: str) -> httpx.Response:
    browser.get(LOGIN)
    form = {"username": "anna", "password": password, "csrfmiddlewaretoken": browser.cookies["csrftoken"]}
    return browser.post(LOGIN, data=form, headers=headers)


@pytest.mark.parametrize("path", [LOGIN, "/admin/", "/admin/sessions_app/session/", "/admin/no/such/page/"])
def test_every_page_tells_the_browser_what_to_refuse(browser: httpx.Client, path: str) -> None:
    for _ in range(2):
        answer = browser.get(path)
        policy = {rule.split()[0]: rule.split()[1:] for rule in answer.headers["content-security-policy"].split("; ")}
        assert policy["default-src"] == ["'self'"]
        assert policy["frame-ancestors"] == policy["base-uri"] == policy["object-src"] == ["'none'"]
        assert policy["form-action"] == ["'self'"]
        assert "unsafe" not in str(policy)
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["x-frame-options"] == "DENY"
        assert answer.headers["referrer-policy"] == "same-origin"
        assert answer.headers["cross-origin-opener-policy"] == "same-origin"
        log_in(browser)


def cookies_of(answer: httpx.Response) -> SimpleCookie:
    return SimpleCookie("\r\n".join(answer.headers.get_list("set-cookie")))


@pytest.mark.parametrize("https", [False, True])
def test_cookies_go_nowhere_else_and_over_https_only_there(browser: httpx.Client, settings: Any, https: bool) -> None:
    settings.SESSION_COOKIE_SECURE = https
    found = cookies_of(log_in(browser))
    settings.CSRF_COOKIE_SECURE = https
    found["csrftoken"] = cookies_of(httpx.get(browser.base_url.join(LOGIN)))["csrftoken"]
    assert {cookie["samesite"] for cookie in found.values()} == {"Lax"}
    assert found["sessionid"]["httponly"]
    assert {bool(cookie["secure"]) for cookie in found.values()} == {https}


def test_a_form_without_its_token_changes_nothing(browser: httpx.Client) -> None:
    assert browser.post(LOGIN, data={"username": "anna", "password": PASSWORD}).status_code == 403
    assert log_in(browser).status_code == 302
    row, _ = keys.create("one", by="anna")
    form = {"action": "revoke", "_selected_action": [row.pk]}
    forged = browser.post("/admin/sessions_app/apikey/", data=form, headers={"Origin": "https://evil.test"})
    assert forged.status_code == 403
    assert browser.post("/admin/sessions_app/apikey/", data=form).status_code == 403
    assert browser.post("/admin/logout/").status_code == 403
    assert APIKey.objects.get().revoked_at is None


@pytest.fixture
def failures() -> Iterator[list[Any]]:
    """The passwords that were compared and were wrong."""
    found: list[Any] = []

    def failed(**told: Any) -> None:
        found.append(told)

    user_login_failed.connect(failed)
    yield found
    user_login_failed.disconnect(failed)


def test_a_password_is_not_guessed_by_trying(
    browser: httpx.Client, server: RunningServer, settings: Any, failures: list[Any]
) -> None:
    settings.ADMIN_LOGINS_PER_MINUTE = 3
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: _guess(server, f"guess-{number}"), range(8)))
    assert len(failures) == 3
    refused = log_in(browser)
    assert (refused.status_code, "sessionid" in browser.cookies) == (200, False)
    assert "Too many attempts. Try again in " in refused.text
    assert "Слишком много попыток." in log_in(browser, **{"Accept-Language": "ru"}).text
    assert len(failures) == 3
    settings.TRUSTED_PROXIES = ["127.0.0.1"]
    assert log_in(browser, **{"X-Forwarded-For": "10.1.1.1"}).status_code == 302


def _guess(server: RunningServer, password: str) -> None:
    with httpx.Client(base_url=server.url, timeout=30) as one:
        assert log_in(one, password).status_code == 200
