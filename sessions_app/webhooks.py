"""Webhooks as rows: added, changed, enabled and disabled here; and which events each is owed.

Processes know the rows by heart, so that an event costs no statement more. They are read again when one changes here,
and at the latest after MAX_AGE_SECONDS when one changed in another process; a server looks every second.
"""

from __future__ import annotations

import re
import secrets
import threading
import time
from fnmatch import fnmatchcase
from typing import Any
from urllib.parse import urlsplit

from django.db import transaction
from django.db.models.signals import post_delete, post_save
from django.dispatch import receiver

from sessions_app import audit, database, events, sealing
from sessions_app.errors import WebhookInvalid, WebhookNotFound
from sessions_app.models import Event, Webhook, WebhookAttempt
from sessions_app.prepared import Select

MAX_AGE_SECONDS = 5.0
SECRET_BYTES = 32
PURPOSE = "webhook secret"
ERROR_CHARACTERS = 200  # what the column holds
UNSEEMLY = re.compile(r"[\s\x00-\x20\x7f]")

# --- checking ----------------------------------------------------------------------------------------------------


def checked_url(text: str) -> str:
    """Raises WebhookInvalid. Whether the address may be reached is asked when it is resolved, each time."""
    url = text.strip()
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as wrong:
        raise WebhookInvalid(why="the address is no URL") from wrong
    if parts.scheme not in ("http", "https"):
        raise WebhookInvalid(why="the address must begin with http:// or https://")
    if not parts.hostname or UNSEEMLY.search(url) or port == 0:
        raise WebhookInvalid(why="the address is no URL")
    if "@" in parts.netloc:
        raise WebhookInvalid(why="the address must hold no user name and no password")
    if len(url) > 2000:
        raise WebhookInvalid(why="the address is longer than 2000 characters")
    return url.partition("#")[0]


def checked_patterns(text: str) -> str:
    """Event types and globs over them, by commas. Raises WebhookInvalid."""
    patterns = split_patterns(text)
    for pattern in patterns:
        if not any(fnmatchcase(type_, pattern) for type_ in events.TYPES):
            raise WebhookInvalid(why=f"there is no event type {pattern!r}")
    joined = ", ".join(patterns)
    if not patterns or len(joined) > 500:
        raise WebhookInvalid(why="name event types, or patterns such as Tool*, by commas, or * for all")
    return joined


def split_patterns(text: str) -> list[str]:
    return list(dict.fromkeys(text.replace(",", " ").split()))


# --- changing ----------------------------------------------------------------------------------------------------


def add(
    url: str, *, patterns: str = "*", include_content: bool = False, enabled: bool = True, who: str
) -> tuple[Webhook, str]:
    """The webhook and its secret, which is not shown again. Raises WebhookInvalid."""
    webhook = Webhook(
        url=checked_url(url),
        patterns=checked_patterns(patterns),
        include_content=include_content,
        enabled=enabled,
        created_by=who,
    )
    secret = _new_secret(webhook)
    with database.atomic():
        webhook.save()
        audit.record_installation(audit.WEBHOOK_ADD, who, subject=str(webhook.pk), after=_facts(webhook))
    return webhook, secret


def change(webhook: Webhook, *, who: str) -> None:
    """Stores what was changed of it. Raises WebhookInvalid and WebhookNotFound."""
    webhook.url, webhook.patterns = checked_url(webhook.url), checked_patterns(webhook.patterns)
    with database.atomic():
        before = _facts(named(webhook.pk))
        webhook.save()
        name, after = str(webhook.pk), _facts(webhook)
        audit.record_installation(audit.WEBHOOK_CHANGE, who, subject=name, before=before, after=after)


def rotate_secret(webhook: Webhook, *, who: str) -> str:
    """A new secret, which is not shown again; the old one is of no more use."""
    secret = _new_secret(webhook)
    with database.atomic():
        webhook.save(update_fields=["sealed_secret"])
        audit.record_installation(audit.WEBHOOK_ROTATE, who, subject=str(webhook.pk))
    return secret


def note_test(webhook: Webhook, *, who: str) -> None:
    """Writes down who had it told of an event that never happened."""
    audit.record_installation(audit.WEBHOOK_TEST, who, subject=str(webhook.pk))


def _facts(webhook: Webhook) -> dict[str, Any]:
    return {
        "url": audit.digest(webhook.url),
        "patterns": split_patterns(webhook.patterns),
        "include_content": webhook.include_content,
        "enabled": webhook.enabled,
    }


def _new_secret(webhook: Webhook) -> str:
    secret = f"whsec_{secrets.token_urlsafe(SECRET_BYTES)}"
    webhook.sealed_secret = sealing.seal(secret, purpose=PURPOSE)
    return secret


def secret_of(webhook: Webhook) -> str:
    """Raises sealing.Unreadable."""
    return sealing.unseal(webhook.sealed_secret, purpose=PURPOSE)


def enable(webhook_id: int, *, who: str) -> Webhook:
    return _set(webhook_id, enabled=True, because="", who=who)


def disable(webhook_id: int, *, because: str, who: str = audit.SYSTEM) -> Webhook:
    """From now on it is owed nothing; what it was owed becomes dead letters when its time comes."""
    return _set(webhook_id, enabled=False, because=because, who=who)


def _set(webhook_id: int, *, enabled: bool, because: str, who: str) -> Webhook:
    webhook = named(webhook_id)
    webhook.enabled, webhook.disabled_because = enabled, because
    change(webhook, who=who)
    return webhook


def named(webhook_id: int) -> Webhook:
    """Raises WebhookNotFound."""
    found = Webhook.objects.filter(pk=webhook_id).first()
    if found is None:
        raise WebhookNotFound(webhook_id=webhook_id)
    return found


def note_attempt(webhook: Webhook, event: Event | None, *, status: int | None, duration_ms: int, error: str) -> None:
    """Keeps how one request went, unless the event's session was deleted meanwhile."""
    if event is not None and not Event.objects.filter(pk=event.pk).exists():
        return
    WebhookAttempt.objects.create(
        webhook=webhook, event=event, status=status, duration_ms=duration_ms, error=error[:ERROR_CHARACTERS]
    )


# --- known by heart ----------------------------------------------------------------------------------------------

_ALL = Select[Webhook](lambda: Webhook.objects.order_by("pk"))
_known: tuple[Webhook, ...] = ()
_read_at: float | None = None
_reading = threading.Lock()  # or an older reading could end after a newer one


def known() -> tuple[Webhook, ...]:
    """All webhooks as they were last read, the disabled ones too: those still may be owed something."""
    return _known


def refresh() -> None:
    """Reads them again: one statement."""
    global _known, _read_at
    with _reading:
        _known, _read_at = tuple(_ALL.all()), time.monotonic()
        enabled = [webhook for webhook in _known if webhook.enabled]
        events.subscribe_stored((pattern, one.handler) for one in enabled for pattern in split_patterns(one.patterns))


def _refresh_when_old() -> None:
    if _read_at is None or time.monotonic() - _read_at > MAX_AGE_SECONDS:
        refresh()


def forget() -> None:
    """As in an installation without webhooks that was just read: for tests, whose tables are emptied."""
    global _known, _read_at
    _known, _read_at = (), time.monotonic()
    events.subscribe_stored(())


events.before_storing(_refresh_when_old)


@receiver([post_save, post_delete], sender=Webhook)
def _changed(**_: object) -> None:
    transaction.on_commit(refresh, robust=True)
