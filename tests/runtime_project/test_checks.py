"""System checks: what stops a start, and what is only said."""

from typing import Any

import pytest

from agents_app import checks


def ids(found: list[Any]) -> list[str]:
    return [message.id for message in found]


def test_the_project_as_it_is_has_no_complaints() -> None:
    found = [
        *checks.runserver_is_asgi(None),
        *checks.choices_are_known(None),
        *checks.agents_are_sound(None),
    ]
    assert found == []


@pytest.mark.parametrize(
    ("key", "debug", "expected"),
    [
        ("a-long-and-private-key-0123456789", False, []),
        ("0123456789abcdef", False, []),
        ("0123456789abcde", False, ["agents_app.W001"]),
        ("change-me", False, ["agents_app.E002"]),
        (" Your-Internal-API-Key ", False, ["agents_app.E002"]),
        ("change-me", True, ["agents_app.W001"]),
        ("your-internal-api-key", True, []),
    ],
)
def test_a_sample_key_stops_production_and_a_short_one_only_warns(
    settings: Any, key: str, debug: bool, expected: list[str]
) -> None:
    settings.INTERNAL_API_KEY, settings.DEBUG = key, debug
    assert ids(checks.keys_are_secret(None)) == expected


def test_a_sample_secret_key_stops_production(settings: Any) -> None:
    settings.SECRET_KEY, settings.INTERNAL_API_KEY = "insecure", "a-long-and-private-key-0123456789"
    found = checks.keys_are_secret(None)
    assert ids(found) == ["agents_app.E002"]
    assert "SECRET_KEY" in found[0].msg
    assert "insecure" not in found[0].msg


@pytest.mark.parametrize("name", ["LLM_STREAM", "STREAM_MODE", "ON_BUSY", "LANGUAGE"])
def test_an_unknown_choice_is_named_with_its_value(settings: Any, name: str) -> None:
    setattr(settings, name, "sideways")
    [found] = checks.choices_are_known(None)
    assert found.id == "agents_app.E003"
    assert found.msg == f"AGENT_RUNTIME__{name} is 'sideways'."


@pytest.mark.parametrize(
    "apps",
    [
        ["django.contrib.staticfiles"],
        ["django.contrib.staticfiles", "daphne"],
    ],
)
def test_runserver_without_daphne_first_is_an_error(settings: Any, apps: list[str]) -> None:
    settings.INSTALLED_APPS = apps
    assert ids(checks.runserver_is_asgi(None)) == ["agents_app.E001"]


def test_runserver_without_an_asgi_application_is_an_error(settings: Any) -> None:
    settings.ASGI_APPLICATION = None
    assert ids(checks.runserver_is_asgi(None)) == ["agents_app.E001"]


def test_the_demo_models_name_with_a_proxy_is_fine(settings: Any) -> None:
    settings.LLM_PROXY_URL, settings.LLM_MODEL = "http://proxy:8002", "fake-llm"
    assert checks.choices_are_known(None) == []


@pytest.mark.parametrize(
    ("networks", "expected"),
    [([], []), (["10.0.0.0/8", "127.0.0.1", "fd00::/8"], []), (["internal"], ["agents_app.E008"])],
)
@pytest.mark.parametrize("name", ["TRUSTED_PROXIES", "WEBHOOK_ALLOWED_NETWORKS"])
def test_networks_that_are_none_stop_the_start(
    settings: Any, name: str, networks: list[str], expected: list[str]
) -> None:
    setattr(settings, name, networks)
    assert ids(checks.networks_are_networks(None)) == expected
