"""The download of sessions, which is written down as an act of who asked for it."""

from __future__ import annotations

from typing import Any

from django.contrib.admin.models import CHANGE, LogEntry
from django.db.models import QuerySet
from django.http import HttpRequest, StreamingHttpResponse
from django.utils import timezone

from sessions_app import audit, exporting
from sessions_app.models import Session

NAMED_IDS = 100  # in the audit
LOGGED = 50  # in the admin's own history, session by session


def download(request: HttpRequest, sessions: QuerySet[Session], *, who: str) -> StreamingHttpResponse:
    """The chosen sessions, one after the other; what is chosen is fixed now."""
    chosen = list(sessions.order_by("pk").values_list("pk", flat=True))
    first: Any = list(Session.objects.filter(pk__in=chosen[:LOGGED]).order_by("pk"))
    if first:
        LogEntry.objects.log_actions(request.user.pk, first, CHANGE, "Exported")  # type: ignore[arg-type]
    subject = first[0].session_id if len(chosen) == 1 and first else ""
    told = {"sessions": len(chosen), "ids": chosen[:NAMED_IDS], "all_ids": audit.digest(chosen)}
    audit.record_installation(audit.SESSION_EXPORT, who, subject=subject, after=told)
    name = f"sessions-{timezone.now():%Y%m%d-%H%M%S}.jsonl"
    headers = {"Content-Disposition": f'attachment; filename="{name}"', "Cache-Control": "no-store"}
    return StreamingHttpResponse(
        exporting.lines(chosen), content_type="application/x-ndjson; charset=utf-8", headers=headers
    )
