"""Settings, from the environment alone. README lists them; the ones without a prefix are Django's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import environ
from django.core.exceptions import ImproperlyConfigured
from django.utils.translation import gettext_lazy as _

from runtime_project import keys, logs

BASE_DIR = Path(__file__).resolve().parent.parent
env = environ.FileAwareEnv()
environ.Env.read_env(str(BASE_DIR / ".env"))
PREFIX = "AGENT_RUNTIME__"


def text(name: str, default: str = "") -> str:
    return str(env.str(PREFIX + name, default=default))


def whole(name: str, default: int) -> int:
    return int(_read(env.int, name, default, "a whole number"))


def number(name: str, default: float) -> float:
    return float(_read(env.float, name, default, "a number"))


def flag(name: str, default: bool) -> bool:
    return bool(env.bool(PREFIX + name, default=default))


def _read(reader: Any, name: str, default: float, kind: str) -> Any:
    if not text(name):  # set to nothing is not set
        return default
    try:
        return reader(PREFIX + name)
    except ValueError:
        raise ImproperlyConfigured(f"AGENT_RUNTIME__{name} must be {kind}, not {text(name)[:40]!r}") from None


def names(name: str) -> list[str]:
    return [part.strip() for part in text(name).split(",") if part.strip()]


def given(name: str) -> bool:
    return bool(text(name))


DEBUG = flag("DEBUG", False)
VERSION = text("VERSION", "0.1.0")

# --- database: SQLite in one file by default, PostgreSQL by URL -------------------------------------------------
DATA_DIR = BASE_DIR / "var"
# How long a statement waits before its caller hears that the storage is away: shorter than a client's patience.
LOCK_WAIT_SECONDS, POOL_WAIT_SECONDS = 8, 5
DB_URL = text("DB_URL") or f"sqlite:///{DATA_DIR / 'runtime.sqlite3'}"


SQLITE_PRAGMAS = {
    "journal_mode": "WAL",
    "synchronous": text("SQLITE_SYNCHRONOUS", "NORMAL"),
    "busy_timeout": LOCK_WAIT_SECONDS * 1000,
    "temp_store": "MEMORY",  # what a statement may have to undo, too: in a file, each page of it is two system calls
    "wal_autocheckpoint": 4000,  # pages; most are written again and again until they are copied into the file
}


def prices(name: str) -> dict[str, tuple[float, float]]:
    """`model=prompt/answer` by commas, such as `small=0.15/0.6,large=2.5/10`."""
    found = {}
    for part in names(name):
        model, _, both = part.rpartition("=")
        prompt, _, answer = both.partition("/")
        try:
            found[model] = (float(prompt), float(answer or prompt))
        except ValueError:
            raise ImproperlyConfigured(f"AGENT_RUNTIME__{name} must be like model=0.15/0.6, not {part!r}") from None
    return found


def database(url: str) -> dict[str, Any]:
    """Django's settings for `sqlite:///path` or `postgres[ql]://...`; a `+driver` in the scheme is ignored."""
    scheme, separator, rest = url.partition("://")
    if scheme.split("+")[0] not in {"sqlite", "postgres", "postgresql"}:
        named = f" begins with {scheme!r}" if separator else " has no scheme"
        raise SystemExit(f"AGENT_RUNTIME__DB_URL{named}: give sqlite:///path or postgres://user:password@host/name.")
    config: dict[str, Any] = env.db_url_config(scheme.split("+")[0] + separator + rest)
    if config["ENGINE"].endswith("sqlite3"):
        config["ENGINE"] = "runtime_project.sqlite3"
        config["OPTIONS"] = {
            "transaction_mode": "IMMEDIATE",
            "timeout": LOCK_WAIT_SECONDS,
            "init_command": "; ".join(f"PRAGMA {name}={value}" for name, value in SQLITE_PRAGMAS.items()),
        }
        # Tests cross threads, so their database is a file as well.
        config["TEST"] = {"NAME": str(DATA_DIR / "test.sqlite3")}
    else:
        config["OPTIONS"] = {
            **config.get("OPTIONS", {}),
            "pool": {"min_size": 1, "max_size": whole("DB_POOL_SIZE", 10), "timeout": POOL_WAIT_SECONDS},
        }
        config["CONN_HEALTH_CHECKS"] = True
    return config


DATABASES = {"default": database(DB_URL)}
DB_PREPARE = flag("DB_PREPARE", True)
ON_SQLITE = DATABASES["default"]["ENGINE"].endswith("sqlite3")
DATABASE_DIR = Path(DATABASES["default"]["NAME"]).parent if ON_SQLITE else DATA_DIR
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

REDIS_URL = text("REDIS_URL")
# Redis publishes across its database numbers: what another installation says there must not be heard here.
CHANNEL_PREFIX = f"agent-runtime.{Path(urlsplit(REDIS_URL).path).name or 0}.{Path(DATABASES['default']['NAME']).name}."
CHANNEL_LAYERS: dict[str, Any] = {
    "default": {
        "BACKEND": "channels_redis.pubsub.RedisPubSubChannelLayer",
        "CONFIG": {"hosts": [REDIS_URL], "prefix": CHANNEL_PREFIX},
    }
    if REDIS_URL
    else {"BACKEND": "channels.layers.InMemoryChannelLayer"}
}

# --- who may call ------------------------------------------------------------------------------------------------
SECRET_KEY = text("SECRET_KEY") or keys.stored_secret("secret_key", directory=DATABASE_DIR)
INTERNAL_API_KEY_GENERATED = not text("INTERNAL_API_KEY")
INTERNAL_API_KEY = text("INTERNAL_API_KEY") or keys.stored_secret("internal_api_key", directory=DATABASE_DIR)
# The API is called by container names; its key protects it. The admin's hosts are checked by the gate.
ALLOWED_HOSTS = ["*"]
ADMIN_HOSTS = names("ADMIN_HOSTS")
TRUSTED_PROXIES = names("TRUSTED_PROXIES")
OWNER_HEADER = text("OWNER_HEADER")
JWT_JWKS_URL = text("JWT_JWKS_URL")
JWT_ISSUER = text("JWT_ISSUER")
JWT_AUDIENCE = text("JWT_AUDIENCE")
JWT_ALGORITHMS = names("JWT_ALGORITHMS") or ["RS256", "ES256"]
JWT_LEEWAY_SECONDS = number("JWT_LEEWAY_SECONDS", 10)
RATE_LIMIT_PER_MINUTE = whole("RATE_LIMIT_PER_MINUTE", 600)
SESSION_RATE_LIMIT_PER_MINUTE = whole("SESSION_RATE_LIMIT_PER_MINUTE", 120)
ADMIN_LOGINS_PER_MINUTE = whole("ADMIN_LOGINS_PER_MINUTE", 10)
MAX_SOCKETS_PER_ADDRESS = whole("MAX_SOCKETS_PER_ADDRESS", 4096)
MAX_BODY_BYTES = whole("MAX_BODY_BYTES", 16 * 1024 * 1024)
DATA_UPLOAD_MAX_MEMORY_SIZE = MAX_BODY_BYTES
DATA_UPLOAD_MAX_NUMBER_FIELDS = 20_000

HTTPS = flag("HTTPS", False)
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = SECURE_SSL_REDIRECT = HTTPS
SECURE_HSTS_SECONDS = 31_536_000 if HTTPS else 0
SECURE_HSTS_INCLUDE_SUBDOMAINS = SECURE_HSTS_PRELOAD = HTTPS
# Only the admin and its pages are for browsers: the Gateway speaks plain http to the API.
SECURE_REDIRECT_EXEMPT = [r"^(?!admin(/|$))"]
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https") if HTTPS else None
SESSION_COOKIE_SAMESITE = CSRF_COOKIE_SAMESITE = "Lax"
CSRF_TRUSTED_ORIGINS = names("CSRF_TRUSTED_ORIGINS")
X_FRAME_OPTIONS = "DENY"

# --- the model ---------------------------------------------------------------------------------------------------
LLM_PROXY_URL = text("LLM_PROXY_URL").rstrip("/")
LLM_MODEL = text("LLM_MODEL", "fake-llm")
LLM_FALLBACK_MODELS = names("LLM_FALLBACK_MODELS")
LLM_API_KEY = text("LLM_API_KEY")
LLM_STREAM = text("LLM_STREAM", "auto").lower()
LLM_CONNECT_TIMEOUT_SECONDS = number("LLM_CONNECT_TIMEOUT_SECONDS", 5)
LLM_FIRST_BYTE_TIMEOUT_SECONDS = number("LLM_FIRST_BYTE_TIMEOUT_SECONDS", 120)
LLM_IDLE_TIMEOUT_SECONDS = number("LLM_IDLE_TIMEOUT_SECONDS", 60)
LLM_TOTAL_TIMEOUT_SECONDS = number("LLM_TOTAL_TIMEOUT_SECONDS", 360)
LLM_STREAM_TOTAL_TIMEOUT_SECONDS = number("LLM_STREAM_TOTAL_TIMEOUT_SECONDS", 1800)
if given("LLM_TOTAL_TIMEOUT_SECONDS") and not given("LLM_STREAM_TOTAL_TIMEOUT_SECONDS"):
    LLM_STREAM_TOTAL_TIMEOUT_SECONDS = LLM_TOTAL_TIMEOUT_SECONDS  # who bounds answers means those that stream as well
LLM_RETRY_BUDGET_SECONDS = number("LLM_RETRY_BUDGET_SECONDS", 55)
LLM_ROUTING_TIMEOUT_SECONDS = number("LLM_ROUTING_TIMEOUT_SECONDS", 20)
# model -> what a million tokens cost, of the prompt and of the answer.
MODEL_PRICES = prices("MODEL_PRICES")
BREAKER_FAILURES = whole("BREAKER_FAILURES", 8)
BREAKER_RESET_SECONDS = number("BREAKER_RESET_SECONDS", 10)
LLM_CONTEXT_TOKENS = whole("LLM_CONTEXT_TOKENS", 0)
DEMO_MODEL_WORD_SECONDS = number("DEMO_MODEL_WORD_SECONDS", 0.03)

# --- turns -------------------------------------------------------------------------------------------------------
MULTI_AGENT_MODE = flag("MULTI_AGENT_MODE", True)
CLIENT_TOOLS = names("CLIENT_TOOLS")
STREAM_MODE = text("STREAM_MODE", "auto").lower()
LANGUAGE = text("LANGUAGE").lower()
ON_BUSY = text("ON_BUSY", "wait").lower()
QUEUE_WAIT_SECONDS = number("QUEUE_WAIT_SECONDS", 300)
MAX_WAITING_MESSAGES = whole("MAX_WAITING_MESSAGES", 20)
MAX_CONCURRENT_TURNS = whole("MAX_CONCURRENT_TURNS", 0)
MAX_CONCURRENT_TURNS_PER_KEY = whole("MAX_CONCURRENT_TURNS_PER_KEY", 0)
MAX_QUEUED_TURNS = whole("MAX_QUEUED_TURNS", 100)
MAX_MESSAGES_PER_SESSION = whole("MAX_MESSAGES_PER_SESSION", 1000)
MAX_STEPS_PER_RUN = whole("MAX_STEPS_PER_RUN", 50)
MAX_SWITCHES_PER_RUN = whole("MAX_SWITCHES_PER_RUN", 8)
MAX_MISTAKES_PER_RUN = whole("MAX_MISTAKES_PER_RUN", 5)
MAX_ANSWER_BYTES = whole("MAX_ANSWER_BYTES", 4 * 1024 * 1024)
MAX_TURN_SECONDS = number("MAX_TURN_SECONDS", 3600)
APPROVAL_EXPIRY_SECONDS = number("APPROVAL_EXPIRY_SECONDS", 86400)
KEEPALIVE_SECONDS = number("KEEPALIVE_SECONDS", 15)
SESSION_IDLE_EXPIRE_HOURS = number("SESSION_IDLE_EXPIRE_HOURS", 0)
SESSION_PURGE_DAYS = number("SESSION_PURGE_DAYS", 0)
EVENT_RETENTION_DAYS = number("EVENT_RETENTION_DAYS", 0)
EXECUTOR = text("EXECUTOR", "inline").lower()  # who runs turns: the server that took the message, or `manage.py worker`
LEASE_SECONDS = number("LEASE_SECONDS", 15)
SHUTDOWN_GRACE_SECONDS = number("SHUTDOWN_GRACE_SECONDS", 8)
GATEWAY_URL = text("GATEWAY_URL")
EVENT_LOG = flag("EVENT_LOG", False)
TRACES_ENDPOINT = text("TRACES_ENDPOINT")
METRICS_PUBLIC = flag("METRICS_PUBLIC", False)  # whether /metrics is answered without the key
WEBHOOK_ATTEMPTS = whole("WEBHOOK_ATTEMPTS", 10)
WEBHOOK_TIMEOUT_SECONDS = number("WEBHOOK_TIMEOUT_SECONDS", 10)
WEBHOOK_ALLOWED_NETWORKS = names("WEBHOOK_ALLOWED_NETWORKS")
FAILPOINTS = names("FAILPOINTS")  # for the fault suite alone: where to die

# --- Django ------------------------------------------------------------------------------------------------------
INSTALLED_APPS = [
    "daphne",
    "sessions_app",  # before the admin: its templates come first
    "agents_app",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "whitenoise.runserver_nostatic",
    "django.contrib.staticfiles",
    "channels",
    "rest_framework",
    "django_filters",
    "drf_spectacular",
    "drf_spectacular_sidecar",
]
if EXECUTOR == "worker" and not ON_SQLITE:  # it has no tables elsewhere
    INSTALLED_APPS.append("procrastinate.contrib.django")
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.locale.LocaleMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]
ROOT_URLCONF = "runtime_project.urls"
ASGI_APPLICATION = "runtime_project.asgi.application"
APPEND_SLASH = False
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator"},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
]
STATIC_URL = "/static/"
WHITENOISE_USE_FINDERS = True
WHITENOISE_AUTOREFRESH = DEBUG

LANGUAGE_CODE = "en"
LANGUAGES = [("en", _("English")), ("ru", _("Russian"))]
USE_I18N = USE_TZ = True
TIME_ZONE = "UTC"

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": ["runtime_project.rest.GateAuthentication"],
    "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.IsAuthenticated"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_PARSER_CLASSES": ["runtime_project.rest.StrictJSONParser"],
    "DEFAULT_CONTENT_NEGOTIATION_CLASS": "runtime_project.rest.AlwaysJSON",
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
    "DEFAULT_FILTER_BACKENDS": ["django_filters.rest_framework.DjangoFilterBackend"],
    "EXCEPTION_HANDLER": "runtime_project.rest.as_json",
    "UNAUTHENTICATED_USER": None,
}
SPECTACULAR_SETTINGS = {
    "TITLE": "Agent runtime",
    "DESCRIPTION": "The server between an IDE's gateway and an LLM: routes, streams, asks, remembers.",
    "VERSION": VERSION,
    "SERVE_INCLUDE_SCHEMA": False,
    "SERVE_PUBLIC": True,
    "SERVE_AUTHENTICATION": [],
    "SERVE_PERMISSIONS": ["rest_framework.permissions.AllowAny"],
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
    "REDOC_DIST": "SIDECAR",
}

LOG_LEVEL = text("LOG_LEVEL", "INFO").upper()
LOG_FORMAT = text("LOG_FORMAT", "auto").lower()
LOGGING = logs.config(
    level=LOG_LEVEL,
    form="text" if LOG_FORMAT == "auto" and DEBUG else LOG_FORMAT,
    secrets=[
        SECRET_KEY,
        INTERNAL_API_KEY,
        LLM_API_KEY,
        str(DATABASES["default"].get("PASSWORD") or ""),
        urlsplit(REDIS_URL).password or "",
    ],
)
