"""What handlers and webhooks are owed, and how webhooks took it; dead letters are replayed or discarded here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.contrib import admin, messages
from django.contrib.admin.models import CHANGE, LogEntry
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from sessions_app import deliveries
from sessions_app.admin import asking
from sessions_app.admin.actions import operator
from sessions_app.admin.columns import link, pill, text
from sessions_app.admin.stored import StoredRows
from sessions_app.models import DeliveryState, EventDelivery, WebhookAttempt


@admin.register(EventDelivery)
class EventDeliveryAdmin(StoredRows):
    list_display = (
        text(EventDelivery, "handler"), pill(EventDelivery, "state"), link(EventDelivery, "event"), "attempts",
        "next_at", "delivered_at", text(EventDelivery, "last_error"),
    )  # fmt: skip
    list_filter = ("state",)
    search_fields = ("handler", "last_error")
    list_select_related = ("event",)
    actions: Any = ("replay", "discard")

    def has_settle_permission(self, request: HttpRequest) -> bool:
        """Rows are never edited by hand; who might change them may settle them."""
        return request.user.has_perm("sessions_app.change_eventdelivery")

    @admin.action(description=gettext_lazy("Replay"), permissions=["settle"])
    def replay(self, request: HttpRequest, chosen: QuerySet[EventDelivery]) -> None:
        count = self._settle(request, chosen.exclude(state=DeliveryState.RUNNING), deliveries.replay, "Replay")
        told = ngettext("{count} delivery is due again.", "{count} deliveries are due again.", count)
        self.message_user(request, told.format(count=count), messages.SUCCESS if count else messages.WARNING)

    @admin.action(description=gettext_lazy("Discard dead letters"), permissions=["settle"])
    def discard(self, request: HttpRequest, chosen: QuerySet[EventDelivery]) -> HttpResponse | None:
        dead = chosen.filter(state=DeliveryState.DEAD)
        if not asking.is_confirmed(request, "discard"):
            return self._ask_to_discard(request, dead)
        count = self._settle(request, dead, deliveries.discard, "Discard")
        told = ngettext("{count} dead letter was discarded.", "{count} dead letters were discarded.", count)
        self.message_user(request, told.format(count=count), messages.SUCCESS if count else messages.WARNING)
        return None

    def _ask_to_discard(self, request: HttpRequest, dead: QuerySet[EventDelivery]) -> HttpResponse:
        warning = _("Their handlers are not told of them. They stay listed, and may be replayed as long as they do.")
        oldest = dead.order_by("pk")
        return asking.ask(self, request, oldest, action="discard", title=_("Discard dead letters"), warning=warning)

    def _settle(
        self, request: HttpRequest, chosen: QuerySet[EventDelivery], settle: Callable[..., int], deed: str
    ) -> int:
        """The oldest of the chosen, up to asking.AT_ONCE; for more there is manage.py deliveries."""
        rows = list(chosen.order_by("pk")[: asking.AT_ONCE])
        if request.user.pk is not None:
            LogEntry.objects.log_actions(request.user.pk, rows, CHANGE, deed)
        return settle([row.pk for row in rows], who=operator(request))


@admin.register(WebhookAttempt)
class WebhookAttemptAdmin(StoredRows):
    list_display = (
        "at", link(WebhookAttempt, "webhook"), link(WebhookAttempt, "event"), "status", "duration_ms",
        text(WebhookAttempt, "error"),
    )  # fmt: skip
    list_filter = ("webhook", "at")
    list_select_related = ("webhook", "event")
