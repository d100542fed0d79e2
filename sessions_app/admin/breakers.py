"""The circuit breaker of the language model's upstream: shown, and closed by hand."""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.contrib.admin.models import CHANGE, LogEntry
from django.http import HttpRequest
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from sessions_app import breakers
from sessions_app.admin.actions import operator
from sessions_app.admin.columns import pill, text
from sessions_app.admin.stored import StoredRows
from sessions_app.models import Breaker


@admin.register(Breaker)
class BreakerAdmin(StoredRows):
    list_display = (
        text(Breaker, "name"), pill(Breaker, "state"), "failures", "opened_at", "next_probe_at",
        text(Breaker, "last_error"),
    )  # fmt: skip
    actions: Any = ("reset",)

    def has_reset_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("sessions_app.change_breaker")

    @admin.action(description=gettext_lazy("Close: ask the language model again"), permissions=["reset"])
    def reset(self, request: HttpRequest, rows: Any) -> None:
        breakers.reset(operator(request))
        LogEntry.objects.log_actions(request.user.pk, list(rows), CHANGE, "Closed by hand")  # type: ignore[arg-type]
        self.message_user(request, _("The language model is asked again."), messages.SUCCESS)
