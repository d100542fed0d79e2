"""Settings from the environment: database URLs of every spelling, and what is off until somebody asks for it."""

import json
from pathlib import Path
from typing import Any

import pytest

from runtime_project.settings import database
from tests.runtime_project.programs import manage

SHOW = (
    "import json; from django.conf import settings; print(json.dumps({name: getattr(settings, name) for name in %r}))"
)


def shown(directory: Path, *names: str, **variables: str) -> dict[str, Any]:
    done = manage(directory, "shell", "--no-imports", "-c", SHOW % (names,), **variables)
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("sqlite:////data/runtime.sqlite3", "/data/runtime.sqlite3"),
        ("sqlite:///relative/runtime.db", "relative/runtime.db"),
        ("sqlite+aiosqlite:////data/runtime.sqlite3", "/data/runtime.sqlite3"),
    ],
)
def test_sqlite_urls(url: str, name: str) -> None:
    config = database(url)
    assert config["ENGINE"] == "runtime_project.sqlite3"
    assert str(config["NAME"]) == name
    assert config["OPTIONS"]["transaction_mode"] == "IMMEDIATE"
    assert "journal_mode=WAL" in config["OPTIONS"]["init_command"]


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+asyncpg", "postgres+psycopg"])
def test_postgresql_urls(scheme: str) -> None:
    config = database(f"{scheme}://user:p%40ss@db.example:5433/runtime")
    assert config["ENGINE"] == "django.db.backends.postgresql"
    assert (config["HOST"], config["PORT"], config["NAME"]) == ("db.example", 5433, "runtime")
    assert (config["USER"], config["PASSWORD"]) == ("user", "p@ss")
    assert config["CONN_HEALTH_CHECKS"]
    assert config["OPTIONS"]["pool"]["max_size"] >= 1


def test_defaults_are_the_embedded_ones_and_safe(tmp_path: Path) -> None:
    names = ("DEBUG", "LLM_MODEL", "LLM_PROXY_URL", "MULTI_AGENT_MODE", "HTTPS", "CHANNEL_LAYERS", "ALLOWED_HOSTS")
    assert shown(tmp_path, *names) == {
        "DEBUG": False,
        "LLM_MODEL": "fake-llm",
        "LLM_PROXY_URL": "",
        "MULTI_AGENT_MODE": True,
        "HTTPS": False,
        "CHANNEL_LAYERS": {"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}},
        "ALLOWED_HOSTS": ["*"],
    }


def test_the_environment_of_the_replaced_service_is_understood(tmp_path: Path) -> None:
    variables = {
        "AGENT_RUNTIME__LLM_PROXY_URL": "http://llm-proxy:8002/",
        "AGENT_RUNTIME__LLM_MODEL": "gpt-x",
        "AGENT_RUNTIME__INTERNAL_API_KEY": "a-long-and-private-key-0123456789",
        "AGENT_RUNTIME__LOG_LEVEL": "debug",
        "AGENT_RUNTIME__MULTI_AGENT_MODE": "false",
        "AGENT_RUNTIME__VERSION": "9.9",
        "AGENT_RUNTIME__GATEWAY_URL": "http://gateway:8000",
    }
    assert shown(tmp_path, *(name.removeprefix("AGENT_RUNTIME__") for name in variables), **variables) == {
        "LLM_PROXY_URL": "http://llm-proxy:8002",
        "LLM_MODEL": "gpt-x",
        "INTERNAL_API_KEY": "a-long-and-private-key-0123456789",
        "LOG_LEVEL": "DEBUG",
        "MULTI_AGENT_MODE": False,
        "VERSION": "9.9",
        "GATEWAY_URL": "http://gateway:8000",
    }


def test_https_turns_on_cookies_hsts_and_the_redirect(tmp_path: Path) -> None:
    names = ("SESSION_COOKIE_SECURE", "CSRF_COOKIE_SECURE", "SECURE_SSL_REDIRECT", "SECURE_HSTS_SECONDS")
    off = shown(tmp_path, *names)
    on = shown(tmp_path, *names, AGENT_RUNTIME__HTTPS="true")
    assert not any(off.values())
    assert all(on.values())


def test_keys_are_made_beside_the_database_and_stay(tmp_path: Path) -> None:
    first = shown(tmp_path, "INTERNAL_API_KEY", "SECRET_KEY")
    assert shown(tmp_path, "INTERNAL_API_KEY", "SECRET_KEY") == first
    assert (tmp_path / "internal_api_key").read_text().strip() == first["INTERNAL_API_KEY"]
    assert first["INTERNAL_API_KEY"] != first["SECRET_KEY"]
