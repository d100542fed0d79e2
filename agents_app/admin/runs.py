"""Runs: cancelled and retried from their list and from a run's own page."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from asgiref.sync import async_to_sync
from django.contrib import admin, messages
from django.contrib.admin.models import CHANGE, LogEntry
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from agents_app import actions
from agents_app.actions import Caller
from agents_app.admin import deeds
from sessions_app import batches, bulk
from sessions_app.admin import asking, shown
from sessions_app.admin.actions import AT_ONCE, operator
from sessions_app.admin.records import RunAdmin
from sessions_app.closing import UNFINISHED
from sessions_app.errors import RuntimeFault
from sessions_app.models import Run
from sessions_app.runs import RETRIABLE

admin.site.unregister(Run)


@admin.register(Run)
class ActingRunAdmin(RunAdmin):
    actions: Any = ("cancel", "retry")
    change_form_template = "admin/agents_app/run.html"

    def has_act_permission(self, request: HttpRequest) -> bool:
        """A run is its session's: who might change the one may stop the other, and ask again."""
        return request.user.has_perm(deeds.SESSION)

    def render_change_form(
        self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any
    ) -> HttpResponse:
        run, may = context["original"], self.has_act_permission(request)
        context |= {"may_cancel": may and run.state in UNFINISHED, "may_retry": may and run.state in RETRIABLE}
        return super().render_change_form(request, context, *args, **kwargs)

    @admin.action(description=gettext_lazy("Cancel"), permissions=["act"])
    def cancel(self, request: HttpRequest, chosen: QuerySet[Run]) -> HttpResponse | None:
        chosen = chosen.filter(state__in=UNFINISHED).order_by("pk")
        if chosen.count() > AT_ONCE or not asking.is_confirmed(request, "cancel"):
            warning = _("They stop. What was written of the answers is kept; open tool calls are closed.")
            return self._ask(request, "cancel", _("Cancel runs"), warning, chosen)
        return self._do(request, chosen, lambda run: bulk.cancel_run(run, who=operator(request)), "Cancelled")

    @admin.action(description=gettext_lazy("Retry"), permissions=["act"])
    def retry(self, request: HttpRequest, chosen: QuerySet[Run]) -> HttpResponse | None:
        """Each is a turn of this server's: no more than a page of them at once."""
        chosen = chosen.filter(state__in=RETRIABLE).order_by("pk")
        if chosen.count() > AT_ONCE:
            told = _("That is more than {limit} runs at once. Narrow the list first.").format(limit=AT_ONCE)
            self.message_user(request, told, messages.WARNING)
            return None
        if not asking.is_confirmed(request, "retry"):
            warning = _(
                "The model is asked again, each where it is its session's last; what was cut off is not shown to it."
            )
            return self._ask(request, "retry", _("Retry runs"), warning, chosen)
        caller = Caller(operator(request), getattr(request, "scope", {}).get("correlation_id", ""))
        return self._do(request, chosen, lambda run: async_to_sync(actions.retry_run)(run.pk, caller), "Retried")

    def _ask(self, request: HttpRequest, action: str, title: str, warning: str, chosen: QuerySet[Run]) -> HttpResponse:
        batch = None
        if chosen.count() > AT_ONCE:
            pks = list(chosen.values_list("pk", flat=True))
            batch = batches.prepare("cancel_runs", pks, who=operator(request))
        return asking.ask(self, request, chosen, action=action, title=title, warning=warning, batch=batch)

    def _do(
        self, request: HttpRequest, chosen: QuerySet[Run], deed: Callable[[Run], object], said: str
    ) -> HttpResponse | None:
        done = []
        for run in chosen.select_related("session"):
            try:
                deed(run)
            except RuntimeFault as fault:
                self.message_user(request, f"{run}: {shown.visible(fault.text())}", messages.ERROR)
            else:
                done.append(run)
        if done:
            LogEntry.objects.log_actions(request.user.pk, done, CHANGE, said)  # type: ignore[arg-type]
        told = ngettext("{count} run.", "{count} runs.", len(done)).format(count=len(done))
        self.message_user(request, told, messages.SUCCESS if done else messages.WARNING)
        back = request.POST.get("back", "")
        is_run = back.isdecimal() and len(back) < 19 and Run.objects.filter(pk=back).exists()
        return redirect("admin:sessions_app_run_change", back) if is_run else None
