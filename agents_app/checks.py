"""System checks: what every start and `manage.py check` prove about settings and agents. Imported by apps.py."""

import ipaddress
from collections.abc import Sequence
from typing import Any

from django.core import checks
from django.db import connection

from agents_app import agents, definitions
from sessions_app.conf import settings
from sessions_app.legacy import recognised
from sessions_app.models import AgentVersion

# Keys that stand in examples, READMEs and old compose files: everybody knows them.
# fmt: off
KNOWN_SAMPLES = frozenset({
    "change-me", "change-me-in-production", "change-me-internal-key", "change_me", "changeme", "insecure",
    "my-secret-key", "my-super-secret-key", "secret", "super-secret", "supersecret", "your-api-key",
    "your-internal-api-key", "your-key-here", "your-secret-key",
})
# fmt: on
SHORT_KEY_CHARACTERS = 16

# With a shared secret, or with `none`, whoever reads the issuer's public keys could sign.
PUBLIC_KEY_ALGORITHMS = frozenset(
    {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"}
)
CHOICES = {
    "LLM_STREAM": ("auto", "true", "false"),
    "STREAM_MODE": ("auto", "tokens", "messages"),
    "ON_BUSY": ("wait", "reject", "interrupt", "rollback"),
    "LANGUAGE": ("", "en", "ru"),
    "EXECUTOR": ("inline", "worker"),
    "LOG_FORMAT": ("auto", "json", "text"),
}


@checks.register(checks.Tags.compatibility)
def runserver_is_asgi(app_configs: Any, **kwargs: Any) -> list[checks.CheckMessage]:
    """Without daphne before staticfiles, `runserver` is a WSGI server: it streams nothing and has no WebSocket."""
    apps = list(settings.INSTALLED_APPS)
    staticfiles = apps.index("django.contrib.staticfiles") if "django.contrib.staticfiles" in apps else len(apps)
    if "daphne" in apps[:staticfiles] and getattr(settings, "ASGI_APPLICATION", None):
        return []
    return [
        checks.Error(
            "manage.py runserver would not be an ASGI server: it would hold every stream back until its end.",
            hint="Put 'daphne' before 'django.contrib.staticfiles' in INSTALLED_APPS and set ASGI_APPLICATION.",
            id="agents_app.E001",
        )
    ]


@checks.register(checks.Tags.security)
def keys_are_secret(app_configs: Any, **kwargs: Any) -> list[checks.CheckMessage]:
    found: list[checks.CheckMessage] = []
    for name in ("INTERNAL_API_KEY", "SECRET_KEY"):
        if getattr(settings, name).strip().lower() in KNOWN_SAMPLES and not settings.DEBUG:
            found.append(_sample(name))
    if not found and len(settings.INTERNAL_API_KEY) < SHORT_KEY_CHARACTERS:
        found.append(
            checks.Warning(
                f"AGENT_RUNTIME__INTERNAL_API_KEY has less than {SHORT_KEY_CHARACTERS} characters.",
                hint="A good one: python -c 'import secrets; print(secrets.token_urlsafe(32))'",
                id="agents_app.W001",
            )
        )
    return found


@checks.register()
def choices_are_known(app_configs: Any, **kwargs: Any) -> list[checks.CheckMessage]:
    return [
        checks.Error(
            f"AGENT_RUNTIME__{name} is {getattr(settings, name)!r}.",
            hint=f"It may be {', '.join(repr(choice) for choice in choices)}.",
            id="agents_app.E003",
        )
        for name, choices in CHOICES.items()
        if getattr(settings, name) not in choices
    ]


@checks.register()
def workers_can_be_reached(app_configs: Any, **kwargs: Any) -> list[checks.CheckMessage]:
    """Workers take runs from PostgreSQL, and their tokens come over Redis."""
    if settings.EXECUTOR != "worker":
        return []
    missing = []
    if settings.ON_SQLITE:
        missing.append("PostgreSQL: set AGENT_RUNTIME__DB_URL=postgres://...")
    if not settings.REDIS_URL:
        missing.append("Redis: set AGENT_RUNTIME__REDIS_URL=redis://...")
    return [
        checks.Error(
            f"AGENT_RUNTIME__EXECUTOR=worker needs {what}",
            hint="Or leave AGENT_RUNTIME__EXECUTOR out: then each server executes its own runs.",
            id="agents_app.E005",
        )
        for what in missing
    ]


@checks.register(checks.Tags.security)
def tokens_are_bound(app_configs: Any, **kwargs: Any) -> list[checks.CheckMessage]:
    """A token must be made for this service, by the issuer it names, and proved by a public key."""
    if not settings.JWT_JWKS_URL:
        return []
    wrong = [
        f"AGENT_RUNTIME__{name} is not set." for name in ("JWT_ISSUER", "JWT_AUDIENCE") if not getattr(settings, name)
    ]
    if not settings.JWT_JWKS_URL.startswith(("https://", "http://")):
        wrong.append("AGENT_RUNTIME__JWT_JWKS_URL is no http(s) address.")
    if unknown := sorted(set(settings.JWT_ALGORITHMS) - PUBLIC_KEY_ALGORITHMS):
        wrong.append(f"AGENT_RUNTIME__JWT_ALGORITHMS names {', '.join(unknown)}.")
    hint = f"Tokens need issuer and audience; algorithms are among {', '.join(sorted(PUBLIC_KEY_ALGORITHMS))}."
    return [checks.Error(problem, hint=hint, id="agents_app.E006") for problem in wrong]


@checks.register(checks.Tags.database)
def the_database_is_ours(
    app_configs: Any, databases: Sequence[str] | None = None, **kwargs: Any
) -> list[checks.CheckMessage]:
    """Only for those who open it anyway, to migrate it: they name it."""
    refused = bool(databases) and recognised.is_legacy()
    return [checks.Error(recognised.REFUSAL, id="agents_app.E007")] if refused else []


@checks.register()
def networks_are_networks(app_configs: Any, **kwargs: Any) -> list[checks.CheckMessage]:
    return [
        checks.Error(
            f"AGENT_RUNTIME__{name} names {text!r}, which is no network.",
            hint="Give addresses or networks by commas: 10.20.0.0/16,127.0.0.1",
            id="agents_app.E008",
        )
        for name in ("TRUSTED_PROXIES", "WEBHOOK_ALLOWED_NETWORKS")
        for text in getattr(settings, name)
        if not _is_network(text)
    ]


def _is_network(text: str) -> bool:
    try:
        ipaddress.ip_network(text, strict=False)
    except ValueError:
        return False
    return True


@checks.register()
def agents_are_sound(app_configs: Any, **kwargs: Any) -> list[checks.CheckMessage]:
    return [checks.Error(problem, id="agents_app.E004") for problem in agents.problems()]


@checks.register(checks.Tags.database)
def overrides_fit_the_code(
    app_configs: Any, databases: Sequence[str] | None = None, **kwargs: Any
) -> list[checks.CheckMessage]:
    """`manage.py check --database default`: what operators have set, and the code can no longer follow."""
    if not databases or AgentVersion._meta.db_table not in connection.introspection.table_names():
        return []
    hint = "The agents work without it. Set it anew under Agents in the admin."
    return [checks.Warning(told, hint=hint, id="agents_app.W002") for told in definitions.misfits()]


def _sample(name: str) -> checks.CheckMessage:
    return checks.Error(
        f"AGENT_RUNTIME__{name} is a sample that everybody knows.",
        hint="Choose a random one, or leave it out: a random one is then made and kept beside the database.",
        id="agents_app.E002",
    )
