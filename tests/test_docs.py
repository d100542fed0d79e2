"""The documents tell the truth: their examples run, their links lead somewhere, their tables are complete."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import reduce
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.parse import unquote
from xml.etree import ElementTree

import httpx
import pytest
from django.core.management import get_commands

from runtime_project.openapi import document
from tests.model_server import ModelServer, text, tool_calls
from tests.runtime_project import programs

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
ENGLISH = [ROOT / "README.md", *sorted(DOCS.glob("*.md"))]
RUSSIAN = [ROOT / "README.ru.md", *sorted((DOCS / "ru").glob("*.md"))]
PAGES = [*ENGLISH, *RUSSIAN, ROOT / "CHANGELOG.md"]
SETTING = re.compile(r"AGENT_RUNTIME__([A-Z_]+[A-Z])(?![A-Z_*])")
ROW = re.compile(r"^\| `AGENT_RUNTIME__([A-Z_]+)` \| (.+?) \| .+ \|$", re.MULTILINE)
# "... `some/file.py` ...:" and the block of code that goes into it.
EXAMPLE = re.compile(r"`([\w/]+\.py)`:?\n*\n```python\n(.*?)```", re.DOTALL)
READERS = ("text", "whole", "number", "flag", "names", "prices")


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


# --- settings ----------------------------------------------------------------------------------------------------


def known_settings() -> dict[str, Any]:
    """The names that settings.py reads, with their defaults."""
    found: dict[str, Any] = {}
    for node in ast.walk(ast.parse((ROOT / "runtime_project" / "settings.py").read_text())):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name) or node.func.id not in READERS:
            continue
        if isinstance(node.args[0], ast.Constant):
            found[str(node.args[0].value)] = _value(node.args[1]) if len(node.args) > 1 else ""
    return found


def _value(node: ast.expr) -> Any:
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult):
        return _value(node.left) * _value(node.right)
    return ast.literal_eval(node)


def shown(default: Any) -> str:
    return f"`{str(default).lower() if isinstance(default, bool) else default}`"


@pytest.mark.parametrize("page", [DOCS / "settings.md", DOCS / "ru" / "settings.md"], ids=name_of)
def test_the_table_of_settings_is_complete_and_its_defaults_are_right(page: Path) -> None:
    rows = ROW.findall(page.read_text())
    known = known_settings()
    assert sorted(name for name, _ in rows) == sorted(known)
    assert {name: default for name, default in rows if known[name] != ""} == {
        name: shown(default) for name, default in known.items() if default != ""
    }


@pytest.mark.parametrize("page", [*PAGES, ROOT / ".env.example"], ids=name_of)
def test_no_page_names_a_setting_that_there_is_not(page: Path) -> None:
    named = {name.removesuffix("_FILE") for name in SETTING.findall(page.read_text())}
    assert named <= known_settings().keys()


# --- the two languages, and what the pages refer to --------------------------------------------------------------


def test_every_page_is_there_in_both_languages() -> None:
    assert {page.name for page in DOCS.glob("*.md")} == {page.name for page in (DOCS / "ru").glob("*.md")}


@pytest.mark.parametrize(
    ("english", "russian"),
    [(page, DOCS / "ru" / page.name if page.parent == DOCS else ROOT / "README.ru.md") for page in ENGLISH],
    ids=lambda page: name_of(page),
)
def test_both_languages_have_the_same_examples_in_code(english: Path, russian: Path) -> None:
    code = re.compile(r"```(?:python|ini|nginx)\n.*?```", re.DOTALL)
    assert code.findall(english.read_text()) == code.findall(russian.read_text())


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_link_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if target.startswith(("http://", "https://")):
            continue
        path, _, anchor = target.partition("#")
        leads_to = (page.parent / path).resolve() if path else page
        assert leads_to.exists(), f"{name_of(page)}: {target}"
        assert not anchor or unquote(anchor) in anchors(leads_to), f"{name_of(page)}: {target}"


def anchors(page: Path) -> set[str]:
    """The headings as the places where the pages are read name them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_command_a_page_names_exists(page: Path) -> None:
    assert set(re.findall(r"manage\.py ([a-z_]+)", page.read_text())) <= get_commands().keys()


@pytest.mark.parametrize("page", [DOCS / "api.md", DOCS / "ru" / "api.md"], ids=name_of)
def test_the_list_of_paths_is_complete(page: Path) -> None:
    listed = dict(re.findall(r"^\| `(/[^`]*)` \| ([A-Z, ]+) \|$", page.read_text(), re.MULTILINE))
    paths = document()["paths"]
    for path, methods in listed.items():
        if path in paths:  # retrying a run by its number is a stream that the document has under its session
            assert methods.split(", ") == [method.upper() for method in paths[path]], path
    assert {path for path in paths if path.removeprefix("/api/v1") not in listed} <= listed.keys()


@pytest.mark.parametrize("page", [DOCS / "architecture.md", DOCS / "ru" / "architecture.md"], ids=name_of)
def test_every_function_on_the_way_of_a_token_exists(page: Path) -> None:
    named = [one.split(".") for one in re.findall(r"`([a-z_]+\.[A-Za-z][\w.]*)`", page.read_text())]
    functions = [(module, names) for module, *names in named if names != ["py"]]
    assert len(functions) >= 8
    for module, names in functions:
        reduce(getattr, names, import_module(f"agents_app.{module}"))


@pytest.mark.parametrize("picture", [DOCS / "architecture.svg", DOCS / "ru" / "architecture.svg"], ids=name_of)
def test_the_picture_is_a_picture_for_light_and_dark(picture: Path) -> None:
    assert ElementTree.parse(picture).getroot().tag == "{http://www.w3.org/2000/svg}svg"  # noqa: S314  our own file
    assert "prefers-color-scheme: dark" in picture.read_text()


def test_the_changelog_has_this_version() -> None:
    [version] = re.findall(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert f"\n## [{version}] - " in (ROOT / "CHANGELOG.md").read_text()
    assert known_settings()["VERSION"] == version


# --- the examples, run -------------------------------------------------------------------------------------------


@pytest.fixture
def extended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inbox: Inbox) -> Path:
    """A copy of the project with what README and the page on extending it say added to it."""
    copy = tmp_path / "project"
    for part in ("runtime_project", "sessions_app", "agents_app", "tests"):
        shutil.copytree(ROOT / part, copy / part, ignore=shutil.ignore_patterns("__pycache__"))
    for part in ("manage.py", "pyproject.toml"):
        shutil.copy(ROOT / part, copy)
    for page in (ROOT / "README.md", DOCS / "extending.md"):
        for path, code in EXAMPLE.findall(page.read_text()):
            add(copy / path, code.replace("https://hooks.example.com/agent-runtime", inbox.url))
    monkeypatch.setattr(programs, "ROOT", copy)
    return copy


def add(file: Path, code: str) -> None:
    """A new file, or more of one that is there: imports at its top, all else at its end."""
    if not file.exists():
        file.write_text(code)
    elif code.startswith("import "):
        file.write_text(re.sub(r"(?m)^from sessions_app", f"{code}\nfrom sessions_app", file.read_text(), count=1))
    else:
        file.write_text(f"{file.read_text()}\n\n{code}")


class Inbox:
    """Somebody else's server, which is told what happened."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}/agent-runtime"
        self.came: list[Any] = []
        self.something = threading.Event()


@pytest.fixture
def inbox() -> Iterator[Inbox]:
    with _listening() as one:
        yield one


@contextmanager
def _listening() -> Iterator[Inbox]:
    class Taker(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(204)
            self.end_headers()
            one.came.append(json.loads(body))
            one.something.set()

        def log_message(self, *_: Any) -> None:
            return

    with ThreadingHTTPServer(("127.0.0.1", 0), Taker) as server:
        one = Inbox(server.server_port)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield one
        server.shutdown()


def test_the_examples_of_an_agent_a_tool_and_a_handler_work(extended: Path, tmp_path: Path, inbox: Inbox) -> None:
    key = "a-key-for-tests-0123456789"
    with ModelServer() as model:
        model.reply(tool_calls([("c1", "current_time", '{"hours": 3}')]))
        model.reply(text("It is late."))
        told = {"AGENT_RUNTIME__LLM_PROXY_URL": model.url, "AGENT_RUNTIME__LLM_MODEL": "scripted"}
        with programs.serving(tmp_path, AGENT_RUNTIME__INTERNAL_API_KEY=key, **told) as server:
            with httpx.Client(base_url=server.url, headers={"X-Internal-Auth": key}, trust_env=False) as client:
                agents = {agent["type"]: agent for agent in client.get("/agents").json()["agents"]}
                message = {"type": "user_message", "content": "Review this", "agent_type": "reviewer"}
                body = {"session_id": "s1", "message": message}
                answer = client.post("/agent/message/stream", json=body, timeout=30).text
            assert inbox.something.wait(30)
    assert agents["reviewer"]["allowed_tools"] == ["read_file", "search_in_code", "current_time", "attempt_completion"]
    assert '"content":"It is late."' in answer
    assert model.requests[-1].body["messages"][-1]["content"].endswith("+03:00")
    assert [(told["session"], told["agent"]) for told in inbox.came] == [("s1", "reviewer")]


@pytest.mark.skipif(
    "postgres" in os.environ.get("AGENT_RUNTIME__DB_URL", ""),
    reason="two test runs at once would share one test database on PostgreSQL",
)
def test_the_example_of_a_test_passes(extended: Path) -> None:
    command = [sys.executable, "manage.py", "test", "tests/agents_app/test_reviewer.py", "-q", "-p", "no:cacheprovider"]
    run = subprocess.run(command, cwd=extended, capture_output=True, text=True, timeout=100, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "2 passed" in run.stdout


def test_the_examples_are_in_the_style_of_the_house(extended: Path) -> None:
    files = sorted({path for page in ENGLISH for path, _ in EXAMPLE.findall(page.read_text()) if "/" in path})
    assert len(files) == 5
    for command in (["check"], ["format", "--check"]):
        run = subprocess.run(
            [sys.executable, "-m", "ruff", *command, "--no-cache", *files],
            cwd=extended, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert run.returncode == 0, run.stdout + run.stderr


@pytest.mark.parametrize("page", [DOCS / "api.md", DOCS / "ru" / "api.md"], ids=name_of)
def test_the_example_of_a_client_talks(page: Path, tmp_path: Path) -> None:
    [code] = [code for path, code in EXAMPLE.findall(page.read_text()) if path == "talk.py"]
    key = "a-key-for-tests-0123456789"
    options = {"AGENT_RUNTIME__INTERNAL_API_KEY": key, "AGENT_RUNTIME__DEMO_MODEL_WORD_SECONDS": "0"}
    with programs.serving(tmp_path, **options) as server:
        environment = os.environ | {"URL": server.url, "KEY": key}
        run = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60, check=False
        )
    assert run.returncode == 0, run.stderr
    assert "demo model" in run.stdout
