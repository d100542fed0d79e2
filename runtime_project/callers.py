"""Who is calling: the holder of a key, a person with a token, or an operator whose browser is logged in."""

from __future__ import annotations

import hmac
import re
import time
from dataclasses import dataclass, field
from http.cookies import CookieError, SimpleCookie
from importlib import import_module
from urllib.parse import urlsplit

from django.contrib.auth import SESSION_KEY, get_user_model

from runtime_project import tokens
from runtime_project.keyring import keyring
from runtime_project.origin import Scope, headers_of
from sessions_app import audit, database, owners
from sessions_app.conf import settings
from sessions_app.errors import RuntimeFault
from sessions_app.keys import ENVIRONMENT

SESSION_COOKIE = re.compile(r"[0-9a-z]{8,64}")  # what Django makes; PostgreSQL fails at a NUL
KEY_HEADER = b"x-internal-auth"


@dataclass(frozen=True, slots=True)
class Principal:
    """Who was let in: by a key (`name` is its id then), by a token, or as an operator; and whose sessions there are for
    them. A token's right ends at `expires_at`, in unix seconds. An operator may do what the account may, while it
    and the `login` session last."""

    name: str
    key_id: str = ""
    owner: str = owners.SERVICE
    expires_at: float | None = None
    may_act: bool = True
    may_decide: bool = True
    login: str = field(default="", repr=False)

    @property
    def may_end(self) -> bool:
        """Whether the right to be here can end while a connection lasts."""
        return self.expires_at is not None or bool(self.login) or self.key_id not in ("", ENVIRONMENT)

    async def stays(self) -> bool:
        if self.expires_at is not None:
            return time.time() < self.expires_at
        if self.login:
            return await self._is_logged_in()
        return await keyring.holds(self.key_id)

    async def _is_logged_in(self) -> bool:
        """Whether the operator would be let in again, with no right less."""
        try:
            now = await database.read(_operator, self.login)
        except RuntimeFault:  # the storage is away: what was read last goes on
            return True
        return now is not None and now.may_act >= self.may_act and now.may_decide >= self.may_decide


NOBODY = Principal("")  # on a page that asks nobody, or has its own login


async def principal_of(scope: Scope) -> Principal | None:
    """Whoever holds the key; else, for what a browser may do without a form token, a logged-in operator."""
    if _is_sent(scope, KEY_HEADER):
        key = _one_header(scope, KEY_HEADER)
        key_id = await keyring.find(key) if key is not None else None
        owner = _owner(scope)
        return Principal(key_id, key_id, owner) if key_id and owner is not None else None
    if settings.JWT_JWKS_URL and (tokens_sent := _bearers(scope)):
        person = await tokens.check(tokens_sent[0]) if len(tokens_sent) == 1 else None
        if person is None:
            return None
        return Principal(audit.person(person.subject), owner=person.subject, expires_at=person.expires_at)
    if scope["type"] == "websocket" and not same_origin(scope):
        return None
    if scope["type"] == "websocket" or scope["method"] in ("GET", "HEAD"):
        cookie = _session_cookie(scope)
        return await database.read(_operator, cookie) if cookie else None
    return None


def _is_sent(scope: Scope, name: bytes) -> bool:
    """Also when it is misspelt: some proxies take an underscore for a hyphen."""
    return name in [key.replace(b"_", b"-") for key, _ in scope["headers"]]


def _one_header(scope: Scope, name: bytes) -> bytes | None:
    """The header's value when it is sent once and spelt right: else it is somebody else's idea of the caller."""
    found = [(key, value) for key, value in scope["headers"] if key.replace(b"_", b"-") == name]
    return found[0][1].strip() if len(found) == 1 and found[0][0] == name else None


def _bearers(scope: Scope) -> list[bytes]:
    sent = (value.strip().partition(b" ") for value in headers_of(scope, b"authorization"))
    return [token.strip() for scheme, _, token in sent if scheme.lower() == b"bearer"]


def _owner(scope: Scope) -> str | None:
    """Whom the holder of a key acts for; None when that cannot be told, and nobody is let in."""
    header = settings.OWNER_HEADER.lower().encode()
    if not header or not _is_sent(scope, header):
        return owners.SERVICE
    try:
        owner = (_one_header(scope, header) or b"").decode()
    except UnicodeDecodeError:
        return None
    return owner if owners.is_owner(owner) else None


def same_origin(scope: Scope) -> bool:
    """Browsers send Origin with every WebSocket; it must be the host that they think they talk to."""
    origins, hosts = headers_of(scope, b"origin"), headers_of(scope, b"host")
    if len(origins) != 1 or len(hosts) != 1:
        return False
    return urlsplit(origins[0].decode("latin-1")).netloc.lower() == hosts[0].decode("latin-1").lower()


def _session_cookie(scope: Scope) -> str:
    try:
        cookies = SimpleCookie("; ".join(value.decode("latin-1") for value in headers_of(scope, b"cookie")))
    except CookieError:
        return ""
    found = cookies.get(settings.SESSION_COOKIE_NAME)
    return found.value if found and SESSION_COOKIE.fullmatch(found.value) else ""


def _operator(session_key: str) -> Principal | None:
    """The staff member of a login session that is still good."""
    store = import_module(settings.SESSION_ENGINE).SessionStore(session_key)
    user_id = store.get(SESSION_KEY)
    if user_id is None:
        return None
    user = get_user_model().objects.filter(pk=user_id, is_active=True, is_staff=True).first()
    if user is None or not hmac.compare_digest(store.get("_auth_user_hash", ""), user.get_session_auth_hash()):
        return None
    if not user.has_perm("sessions_app.view_session"):
        return None
    acts, decides = (user.has_perm(f"sessions_app.change_{model}") for model in ("session", "approval"))
    return Principal(audit.operator(user.get_username()), may_act=acts, may_decide=decides, login=session_key)
