"""What no single feature owns: what is not used at all, frames that no text breaks, the page of promises."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.contrib.sessions.backends.base import SessionBase
from django.contrib.sessions.serializers import JSONSerializer
from hypothesis import given
from hypothesis import settings as bounded
from hypothesis import strategies as st

from agents_app import frames
from tests import talk

ROOT = Path(__file__).resolve().parent.parent
APPS = ("runtime_project", "sessions_app", "agents_app")
PAGES = [ROOT / "docs" / "security.md", ROOT / "docs" / "ru" / "security.md"]
MODULES = {"pickle", "shelve", "marshal", "dill", "xml"}
NAMES = {"eval", "exec", "compile", "mark_safe"}


def test_nothing_runs_unpacks_or_trusts_a_text() -> None:
    for path in (path for app in APPS for path in (ROOT / app).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            where = f"{path}: {ast.unparse(node)}" if isinstance(node, ast.Import | ast.ImportFrom | ast.Call) else ""
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = [getattr(node, "module", None) or "", *(alias.name for alias in node.names)]
                assert not {name.split(".")[0] for name in names} & MODULES, where
            elif isinstance(node, ast.Call):
                assert not (isinstance(node.func, ast.Name) and node.func.id in NAMES), where
                assert "shell=True" not in {ast.unparse(word) for word in node.keywords}, where


def test_templates_escape_everything() -> None:
    for page in (page for app in APPS for page in (ROOT / app).rglob("*.html")):
        assert not re.search(r"\|\s*safe\b|autoescape\s+off|\bstyle=|\son\w+=", page.read_text()), page


def test_what_is_kept_or_sent_between_processes_is_never_pickled() -> None:
    assert SessionBase("x").serializer is JSONSerializer
    backends = {layer["BACKEND"] for layer in settings.CHANNEL_LAYERS.values()}
    assert backends <= {"channels.layers.InMemoryChannelLayer", "channels_redis.pubsub.RedisPubSubChannelLayer"}
    assert {cache["BACKEND"] for cache in settings.CACHES.values()} == {
        "django.core.cache.backends.locmem.LocMemCache"  # of one process
    }


@bounded(deadline=None, derandomize=True, database=None)
@given(st.text(), st.recursive(st.none() | st.booleans() | st.text(), lambda inner: st.dictionaries(st.text(), inner)))
def test_no_text_breaks_out_of_its_frame(text: str, value: Any) -> None:
    if any("\ud800" <= char <= "\udfff" for char in text + repr(value)):
        return  # nothing lets these in
    call = {"type": "tool_call", "call_id": text, "tool_name": text, "arguments": {"value": value}}
    sent = [frames.delta(text, "1.0-abc"), frames.chunk_frame(call, "1.1-abc")]
    body = frames.sse(sent)
    assert body.isascii()
    assert body.splitlines() == body.split(b"\n")[:-1]
    assert talk.parse(body).frames == [{"type": "assistant_message", "token": text, "is_final": False}, call]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.parent.name)
def test_every_test_that_the_page_names_is_there(page: Path) -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", page.read_text())
    assert len(named) > 25
    for path, function in named:
        assert f"def {function}" in (ROOT / path).read_text(), (path, function)
