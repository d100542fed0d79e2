"""Filters of the lists."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from django.contrib import admin
from django.db.models import Q, QuerySet
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _

from sessions_app import events
from sessions_app.admin import finding, shown, timeline
from sessions_app.closing import UNFINISHED
from sessions_app.models import Approval, ApprovalState, Message, Run, RunState, Session

FAILED = (events.TASK_FAILED, events.TASK_INTERRUPTED)


class WithRuns(admin.SimpleListFilter):
    """Sessions by what their runs are doing, or have come to."""

    title = _("runs")
    parameter_name = "runs"

    def lookups(self, request: HttpRequest, model_admin: Any) -> Any:
        return [("unfinished", _("under way")), ("approval", _("waiting for approval")), *RunState.choices]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        if self.value() == "approval":
            return queryset.filter(pk__in=Approval.objects.filter(state=ApprovalState.PENDING).values("session"))
        states = {"unfinished": UNFINISHED}.get(str(self.value()), [self.value()])
        return (
            queryset.filter(pk__in=Run.objects.filter(state__in=states).values("session")) if self.value() else queryset
        )


class ByValue(admin.AllValuesFieldListFilter):
    """Whatever values a column of few distinct ones holds, as visible text."""

    def choices(self, changelist: Any) -> Iterator[Any]:
        for choice in super().choices(changelist):
            yield {**choice, "display": shown.visible(choice["display"])}


class ByAgent(admin.SimpleListFilter):
    """Rows of a long table by agent: which agents there are is read from the sessions, which are far fewer."""

    title = _("agent")
    parameter_name = "agent"

    def lookups(self, request: HttpRequest, model_admin: Any) -> Any:
        agents = Session.objects.order_by("current_agent").values_list("current_agent", flat=True).distinct()
        return [(agent, shown.visible(agent)) for agent in agents]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return queryset.filter(agent=self.value()) if self.value() else queryset


class OfType(admin.SimpleListFilter):
    """Events by type; the types are known, so the log is not searched for them."""

    title = _("type")
    parameter_name = "type"

    def lookups(self, request: HttpRequest, model_admin: Any) -> Any:
        return [
            ("failed", _("Run failed or interrupted")),
            *((name, words) for name, (words, _tone) in timeline.WORDS.items()),
        ]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        name = self.value()
        return events.of_types(queryset, FAILED if name == "failed" else [name]) if name else queryset


def saying(words: str) -> Q:
    """Sessions by id, title, owner, or by the text of a message among the newest of all."""
    recent, _looked_at = finding.newest(Message)
    said = Message.objects.filter(recent & finding.holding(words, "content")).values("session")
    return finding.holding(words, "session_id", "title", "owner") | Q(pk__in=said)
