"""Keys that programs call with: made, revoked, and what a server must know to recognise one.

A key leaves `create` once, for whoever asked, and is stored nowhere.
"""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db.models import Q
from django.utils import timezone

from sessions_app import audit, database
from sessions_app.errors import KeyInvalid, KeyNotFound
from sessions_app.models import APIKey

ENVIRONMENT = "env"  # the id of AGENT_RUNTIME__INTERNAL_API_KEY
USE_WRITTEN_EVERY = timedelta(minutes=1)
NAME_CHARACTERS = 100


@dataclass(frozen=True, slots=True)
class Known:
    """What it takes to recognise a key."""

    key_id: str
    digest: bytes
    expires_at: datetime | None

    def expired(self) -> bool:
        return self.expires_at is not None and self.expires_at <= timezone.now()


def digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()


def create(name: str, *, by: str, expires_at: datetime | None = None) -> tuple[APIKey, str]:
    """Makes a key of 256 random bits; returns its row and the key. Raises KeyInvalid."""
    name = " ".join(name.split())
    if not name or len(name) > NAME_CHARACTERS or not name.isprintable():
        raise KeyInvalid(why=f"a name has 1 to {NAME_CHARACTERS} characters and no control characters")
    if expires_at is not None and expires_at <= timezone.now():
        raise KeyInvalid(why="it would have expired already")
    key_id = f"key-{secrets.token_hex(4)}"
    key = f"{key_id}.{secrets.token_urlsafe(32)}"
    row = APIKey(key_id=key_id, name=name, digest=digest(key.encode()).hex(), created_by=by, expires_at=expires_at)
    until = expires_at.isoformat() if expires_at else ""
    with database.atomic():
        row.save(force_insert=True)
        audit.record_installation(audit.KEY_CREATE, by, subject=key_id, after={"active": True, "expires_at": until})
    return row, key


def revoke(key_id: str, *, by: str) -> bool:
    """Ends a key for good; False when it had ended before. Raises KeyNotFound, also for the environment's own key."""
    with database.atomic():
        rows = APIKey.objects.filter(key_id=key_id).exclude(digest="")
        ended = rows.filter(revoked_at=None).update(revoked_at=timezone.now(), revoked_by=by)
        if not ended and not rows.exists():
            raise KeyNotFound(key_id=key_id)
        if ended:
            audit.record_installation(
                audit.KEY_REVOKE, by, subject=key_id, before={"active": True}, after={"active": False}
            )
    return bool(ended)


def listed() -> list[APIKey]:
    return list(APIKey.objects.order_by("id"))


def active() -> tuple[Known, ...]:
    """The keys that open the door, but for the environment's."""
    valid = APIKey.objects.filter(revoked_at=None).exclude(digest="")
    found = valid.filter(Q(expires_at=None) | Q(expires_at__gt=timezone.now()))
    return tuple(
        Known(key_id, bytes.fromhex(stored), expires_at)
        for key_id, stored, expires_at in found.values_list("key_id", "digest", "expires_at")
    )


def mark_used(key_id: str, at: datetime) -> None:
    """Writes down that a key was used, once a minute however many processes say so."""
    stale = Q(last_used_at=None) | Q(last_used_at__lte=at - USE_WRITTEN_EVERY)
    with database.atomic():
        if not APIKey.objects.filter(stale, key_id=key_id).update(last_used_at=at) and key_id == ENVIRONMENT:
            row = APIKey(key_id=key_id, name="AGENT_RUNTIME__INTERNAL_API_KEY", last_used_at=at)
            APIKey.objects.bulk_create([row], ignore_conflicts=True)
