"""The shipped handler that tells other systems: one delivery for each webhook and event, signed, tried again, logged.

Each webhook is a handler of its own: what is slow or broken there holds up no other.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import time
import uuid
from functools import partial
from typing import Any

from django.utils import timezone

from agents_app import outbound
from agents_app.handlers import Handler, NotDelivered, Undeliverable
from agents_app.outbound import Answer
from sessions_app import database, sealing
from sessions_app import webhooks as stored
from sessions_app.conf import settings
from sessions_app.deliveries import RetryPolicy
from sessions_app.models import Event, Message, Webhook

FIRST_WAIT_SECONDS, WAIT_FACTOR = 5, 3
NOTING_SECONDS = 5
GONE = 410
TEST_TYPE = "WebhookTest"
DISABLED = "The webhook is disabled."
GONE_TOLD = "Its receiver answered 410 Gone."
NO_SECRET = "Its secret cannot be read: SECRET_KEY has changed. Give it a new one: manage.py webhooks rotate."  # noqa: S105
# What of an event's data is told without being asked for: names, numbers and codes; no text of a person or a model, no
# arguments, no results. A key that is not here is left out.
PLAIN_KEYS = frozenset({
    "agent", "call_id", "code", "confidence", "count", "decision", "duration_ms", "from_agent", "is_final", "model",
    "purpose", "requires_approval", "retry_of", "role", "session_id", "shown", "to_agent", "tool_name", "who",
})  # fmt: skip


def handlers() -> dict[str, Handler]:
    """One for each webhook that there is by now, by name; a disabled one's gives up what it is still owed."""
    return {webhook.handler: _handler(webhook) for webhook in stored.known()}


def _handler(webhook: Webhook) -> Handler:
    return Handler(
        name=webhook.handler,
        patterns=tuple(stored.split_patterns(webhook.patterns)),
        call=partial(deliver, webhook),
        in_order=False,
        timeout_seconds=settings.WEBHOOK_TIMEOUT_SECONDS + NOTING_SECONDS,
        retries=RetryPolicy(settings.WEBHOOK_ATTEMPTS, first_seconds=FIRST_WAIT_SECONDS, factor=WAIT_FACTOR),
    )


async def deliver(webhook: Webhook, event: Event) -> None:
    """Posts the event and keeps how it went. Raises NotDelivered."""
    if not webhook.enabled:
        raise Undeliverable(DISABLED)
    told = payload(event)
    if webhook.include_content:
        told |= await database.read(content, event)
    answer = await _posted(webhook, event, told)
    if answer.status == GONE:
        await database.write("", stored.disable, webhook.pk, because=GONE_TOLD)
        raise Undeliverable(answer.error)
    if not answer.taken:
        raise NotDelivered(answer.error)


async def send_test(webhook: Webhook) -> Answer:
    """Posts an event that never happened, also to a disabled webhook, and keeps how it went. Raises NotDelivered when
    it cannot be signed."""
    told = {"event_id": str(uuid.uuid4()), "type": TEST_TYPE, "at": timezone.now().isoformat(), "data": {}}
    return await _posted(webhook, None, told)


async def _posted(webhook: Webhook, event: Event | None, told: dict[str, Any]) -> Answer:
    try:
        secret = stored.secret_of(webhook)
    except sealing.Unreadable:
        raise NotDelivered(NO_SECRET) from None
    body = json.dumps(told).encode()
    headers = signed(secret, body, event_id=told["event_id"], timestamp=int(time.time()))
    answer = await outbound.post(webhook.url, body=body, headers=headers)
    noted = partial(stored.note_attempt, webhook, event, status=answer.status)
    await database.write("", noted, duration_ms=answer.duration_ms, error=answer.error)
    return answer


def signed(secret: str, body: bytes, *, event_id: str, timestamp: int) -> dict[str, str]:
    """The headers of a request. The signature is over the timestamp, a dot, and the body's bytes."""
    digest = hmac.new(secret.encode(), b"%d." % timestamp + body, hashlib.sha256).hexdigest()
    return {
        "Content-Type": "application/json",
        "User-Agent": f"agent-runtime/{settings.VERSION}",
        "X-Webhook-Id": event_id,
        "X-Webhook-Timestamp": str(timestamp),
        "X-Webhook-Signature": f"v1={digest}",
    }


def payload(event: Event) -> dict[str, Any]:
    """The event as JSON: ids, names, numbers and codes."""
    return {
        "event_id": str(event.event_id),
        "type": event.type,
        "at": event.at.isoformat(),
        "session_id": event.session.session_id,
        "seq": event.seq,
        "run_id": event.run_id,
        "message_id": event.message_id,
        "correlation_id": event.correlation_id,
        "causation_id": event.causation_id,
        "data": {key: value for key, value in event.data.items() if key in PLAIN_KEYS},
    }


def content(event: Event) -> dict[str, Any]:
    """What people and models wrote: all of the event's data, and its message as it is by now."""
    message = Message.objects.filter(pk=event.message_id).first() if event.message_id else None
    return {"data": event.data, "message": message and {"role": message.role, "content": message.content}}
