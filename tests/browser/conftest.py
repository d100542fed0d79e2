"""A real browser on the real server: Debian's chromium, driven by playwright."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.contrib.auth.models import User
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from tests.conftest import RunningServer

CHROMIUM = shutil.which("chromium")
ARGUMENTS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip


@pytest.fixture(scope="package")
def chromium() -> Iterator[Browser]:
    if not CHROMIUM:
        pytest.skip("no chromium here: apt-get install chromium")
    # Playwright's loop lives in this thread, where the tests use the ORM; nothing awaits in it.
    os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"] = "1"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()
    del os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"]


class Operator:
    """A signed-in operator's browser. What the pages complain about or try to run is collected."""

    def __init__(self, context: BrowserContext, url: str) -> None:
        self.url = f"{url}/admin/"
        self.complaints: list[str] = []
        self.page: Page = context.new_page()
        self.page.on("dialog", self._refuse)
        self.page.on("console", lambda said: self.complaints.append(said.text) if said.type == "error" else None)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))

    def _refuse(self, dialog: Any) -> None:
        self.complaints.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def sign_in(self, name: str = "anna") -> None:
        if not User.objects.filter(username=name).exists():
            User.objects.create_superuser(name, password="a-long-password")
        self.open("")
        self.page.fill("#id_username", name)
        self.page.fill("#id_password", "a-long-password")
        self.page.click("input[type=submit]")
        self.page.wait_for_selector("nav.places")

    def open(self, path: str) -> Page:
        self.page.goto(self.url + path)
        return self.page


@pytest.fixture
def options() -> dict[str, Any]:
    """A browser context's options; a test may name its own."""
    return {"locale": "en"}


@contextmanager
def signed_in(chromium: Browser, url: str, name: str, **options: Any) -> Iterator[Operator]:
    context = chromium.new_context(**options)
    one = Operator(context, url)
    one.sign_in(name)
    yield one
    context.close()


@pytest.fixture
def operator(server: RunningServer, chromium: Browser, options: dict[str, Any]) -> Iterator[Operator]:
    with signed_in(chromium, server.url, "anna", **options) as one:
        yield one
