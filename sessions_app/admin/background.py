"""Actions in the background: begun, watched and stopped by operators."""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.contrib.admin.models import CHANGE, LogEntry
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.template.response import TemplateResponse
from django.urls import path
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.http import require_POST

from sessions_app import batches, bulk
from sessions_app.admin import shown
from sessions_app.admin.actions import operator
from sessions_app.admin.columns import pill, text
from sessions_app.admin.stored import StoredRows
from sessions_app.models import Batch, BatchState

SHOWN_REFUSALS = 200


def begin(request: HttpRequest, pk: int) -> bool:
    """Has a prepared batch done in the operator's name; False when it was begun or is gone."""
    who = operator(request)
    return batches.start(pk, who=who) and _log(request, pk, "Began")


def _log(request: HttpRequest, pk: int, deed: str) -> bool:
    rows: Any = Batch.objects.filter(pk=pk)
    LogEntry.objects.log_actions(request.user.pk, rows, CHANGE, deed)  # type: ignore[arg-type]
    return True


def label(batch: Batch) -> str:
    deed = bulk.DEEDS.get(batch.action)
    name = str(deed.label) if deed else shown.visible(batch.action)
    return f"{name}: {check}" if (check := shown.visible(batch.arguments.get("check", ""))) else name


def may(request: HttpRequest, batch: Batch) -> bool:
    """Who may do it to one may do it to many, and stop it."""
    deed = bulk.DEEDS.get(batch.action)
    return deed is not None and request.user.has_perms(deed.permissions)


@admin.register(Batch)
class BatchAdmin(StoredRows):
    list_display = (
        "number", "what", pill(Batch, "state"), "progress", "done", "skipped", "failed", text(Batch, "who"),
        "created_at", "took",
    )  # fmt: skip
    list_filter = ("state", "created_at")
    search_fields = ("who", "action")
    change_form_template = "admin/sessions_app/batch/change_form.html"

    @admin.display(description="№", ordering="pk")
    def number(self, batch: Batch) -> str:
        return f"#{batch.pk}"

    @admin.display(description=gettext_lazy("action"))
    def what(self, batch: Batch) -> str:
        return label(batch)

    @admin.display(description=gettext_lazy("progress"))
    def progress(self, batch: Batch) -> SafeString:
        named = _("{seen} of {total}").format(seen=batch.position, total=batch.total)
        bar = '<progress max="{}" value="{}" aria-label="{}"></progress> <span class="quiet">{}</span>'
        return format_html(bar, max(batch.total, 1), batch.position, named, named)

    @admin.display(description=gettext_lazy("duration"))
    def took(self, batch: Batch) -> str:
        return duration(batch)

    def get_urls(self) -> list[Any]:
        view = self.admin_site.admin_view
        return [
            path("<int:pk>/start/", view(require_POST(self.start)), name="sessions_app_batch_start"),
            path("<int:pk>/stop/", view(require_POST(self.stop)), name="sessions_app_batch_stop"),
            path("<int:pk>/parts/", view(self.parts), name="sessions_app_batch_parts"),
            *super().get_urls(),
        ]

    def render_change_form(
        self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any
    ) -> HttpResponse:
        context |= seen(request, context["original"])
        return super().render_change_form(request, context, *args, **kwargs)

    def parts(self, request: HttpRequest, pk: int) -> HttpResponse:
        """What changes of a batch's page, for its script to put in place."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        batch = get_object_or_404(Batch, pk=pk)
        context = {**self.admin_site.each_context(request), **seen(request, batch), "original": batch}
        return TemplateResponse(request, "admin/sessions_app/batch/progress.html", context)

    def start(self, request: HttpRequest, pk: int) -> HttpResponse:
        self._allowed(request, pk)
        if not begin(request, pk):
            told = _("It was begun already, or somebody else prepared it.")
            self.message_user(request, told, messages.WARNING)
        return redirect("admin:sessions_app_batch_change", pk)

    def stop(self, request: HttpRequest, pk: int) -> HttpResponse:
        self._allowed(request, pk)
        if batches.stop(pk, who=operator(request)):
            _log(request, pk, "Stopped")
            self.message_user(request, _("Stopped. What was done stays done."), messages.SUCCESS)
        else:
            self.message_user(request, _("It had ended already."), messages.WARNING)
        return redirect("admin:sessions_app_batch_change", pk)

    def _allowed(self, request: HttpRequest, pk: int) -> None:
        if not may(request, get_object_or_404(Batch, pk=pk)):
            raise PermissionDenied


def seen(request: HttpRequest, batch: Batch) -> dict[str, Any]:
    """What a batch's page shows; the same few queries however many rows it is about."""
    return {
        "what": label(batch),
        "took": duration(batch),
        "is_under_way": batch.state in batches.UNFINISHED,
        "is_prepared": batch.state == BatchState.PREPARED,
        "may_act": may(request, batch),
        "is_mine": batch.who == operator(request),
        "refusals": list(batch.refusals.order_by("-is_failure", "pk")[:SHOWN_REFUSALS]),
        "unnamed": max(batch.skipped + batch.failed - SHOWN_REFUSALS, 0),
    }


def duration(batch: Batch) -> str:
    if batch.started_at is None:
        return "—"
    ended = batch.ended_at or timezone.now()
    return shown.duration(max((ended - batch.started_at).total_seconds(), 0))
