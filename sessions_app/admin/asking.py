"""The page that asks before something is done to rows that are no sessions."""

from __future__ import annotations

from typing import Any

from django.db.models import QuerySet
from django.http import HttpRequest
from django.template.response import TemplateResponse

from sessions_app.models import Batch

SHOWN = 20
AT_ONCE = 900  # Django takes no more than 1000 fields of a form


def is_confirmed(request: HttpRequest, action: str) -> bool:
    """An agreement to one action is none to another."""
    return request.POST.get("confirmed") == action


def ask(
    model_admin: Any,
    request: HttpRequest,
    chosen: QuerySet[Any],
    *,
    action: str,
    title: Any,
    warning: Any,
    batch: Batch | None = None,
) -> TemplateResponse:
    """Names the first of what is chosen, and offers to go on with just these rows, at most AT_ONCE, or with `batch`:
    what is agreed to is what was seen, whatever else would match by then."""
    pks = [] if batch else list(chosen.values_list("pk", flat=True)[:AT_ONCE])
    count = batch.total if batch else len(pks)
    context = {
        **model_admin.admin_site.each_context(request),
        "title": title,
        "warning": warning,
        "action": action,
        "batch": batch,
        "opts": model_admin.opts,
        "rows": list(chosen[:SHOWN]),
        "unnamed": max(count - SHOWN, 0),
        "selected": pks,
        "back": request.POST.get("back", ""),
    }
    return TemplateResponse(request, "admin/sessions_app/confirm.html", context)
