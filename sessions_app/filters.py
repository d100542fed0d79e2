"""What the lists of /api/v1 can be narrowed by. Unknown parameters are ignored, wrong values are refused."""

from __future__ import annotations

from datetime import UTC
from typing import Any

import django_filters as filters
from django import forms
from django.core.exceptions import ValidationError
from django.db.models import Q, QuerySet
from django_filters.fields import IsoDateTimeField

from sessions_app.api import LARGEST_INTEGER
from sessions_app.models import ApprovalState, Message, RunState, Session, ToolCallState


class WholeNumber(filters.NumberFilter):  # type: ignore[misc]
    """Refused, rather than sent to the database, when no column could hold it."""

    field_class = forms.IntegerField

    def __init__(self, **options: Any) -> None:
        super().__init__(min_value=0, max_value=LARGEST_INTEGER, **options)


class MomentField(IsoDateTimeField):  # type: ignore[misc]
    """Told in UTC; a moment that is none there (before the year 1, after 9999) is refused."""

    def to_python(self, value: Any) -> Any:
        moment = super().to_python(value)
        try:
            return moment and moment.astimezone(UTC)
        except OverflowError:
            raise ValidationError(self.error_messages["invalid"], code="invalid") from None


class Moment(filters.IsoDateTimeFilter):  # type: ignore[misc]
    field_class = MomentField


class SessionFilter(filters.FilterSet):  # type: ignore[misc]
    current_agent = filters.CharFilter()
    created_after = Moment(field_name="created_at", lookup_expr="gte")
    created_before = Moment(field_name="created_at", lookup_expr="lt")
    active_after = Moment(field_name="last_activity", lookup_expr="gte")
    search = filters.CharFilter(method="named", label="Part of the id or the title.")

    def named(self, rows: QuerySet[Session], name: str, value: Any) -> QuerySet[Session]:
        return rows.filter(Q(session_id__icontains=value) | Q(title__icontains=value))


class MessageFilter(filters.FilterSet):  # type: ignore[misc]
    role = filters.ChoiceFilter(choices=Message.ROLES)
    after = WholeNumber(field_name="number", lookup_expr="gt", label="Only later numbers.")


class RunFilter(filters.FilterSet):  # type: ignore[misc]
    session_id = filters.CharFilter(field_name="session__session_id")
    state = filters.MultipleChoiceFilter(choices=RunState.choices)
    agent = filters.CharFilter()
    created_after = Moment(field_name="created_at", lookup_expr="gte")


class ToolCallFilter(filters.FilterSet):  # type: ignore[misc]
    session_id = filters.CharFilter(field_name="session__session_id")
    call_id = filters.CharFilter()
    tool_name = filters.CharFilter(field_name="name")
    state = filters.MultipleChoiceFilter(choices=ToolCallState.choices)
    run = WholeNumber(field_name="run_id")


class ApprovalFilter(filters.FilterSet):  # type: ignore[misc]
    session_id = filters.CharFilter(field_name="session__session_id")
    state = filters.MultipleChoiceFilter(choices=ApprovalState.choices)
    tool_name = filters.CharFilter(field_name="call__name")


class EventFilter(filters.FilterSet):  # type: ignore[misc]
    type = filters.CharFilter()
    run = WholeNumber(field_name="run_id")
    after = WholeNumber(field_name="seq", lookup_expr="gt", label="Only later events.")
