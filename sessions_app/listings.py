"""What /api/v1 has beside the contract: pages of messages, events, runs, tool calls and approvals."""

from __future__ import annotations

from typing import Any

from django.db.models import QuerySet
from drf_spectacular.utils import extend_schema
from rest_framework.mixins import ListModelMixin
from rest_framework.request import Request
from rest_framework.response import Response

from sessions_app import api, filters, owners, queries, runs
from sessions_app.models import Approval, Event, Message, Run, Session, ToolCall
from sessions_app.serializers import listings as shapes
from sessions_app.serializers import sessions as session_shapes
from sessions_app.views import SESSION_ID


class Listing(ListModelMixin, api.RESTViewSet):
    pagination_class = api.Page

    def get_queryset(self) -> QuerySet[Any]:
        return owners.visible(super().get_queryset(), "session")

    def named_session(self) -> Session:
        return queries.session(self.kwargs["session_id"])


@api.described(list=extend_schema(summary="A session's messages, in order", parameters=[SESSION_ID]))
class MessageListing(Listing):
    queryset = Message.objects.order_by("number")
    serializer_class = shapes.MessageItem
    filterset_class = filters.MessageFilter

    def get_queryset(self) -> QuerySet[Message]:
        return Message.objects.filter(session=self.named_session()).listed().order_by("number")


@api.described(list=extend_schema(summary="A session's events, in order", parameters=[SESSION_ID]))
class EventListing(Listing):
    queryset = Event.objects.order_by("seq")
    serializer_class = shapes.EventItem
    filterset_class = filters.EventFilter

    def get_queryset(self) -> QuerySet[Event]:
        return self.named_session().events.order_by("seq")


@api.described(
    list=extend_schema(summary="Runs, newest first"),
    retrieve=extend_schema(summary="A run", responses=shapes.RunItem),
    cancel=extend_schema(summary="Stop this run", request=None, responses=session_shapes.Cancelled),
)
class RunViewSet(Listing):
    queryset = Run.objects.select_related("session").order_by("-id")
    serializer_class = shapes.RunItem
    filterset_class = filters.RunFilter

    def retrieve(self, request: Request, run_id: int) -> Response:
        return Response(shapes.RunItem(queries.run(run_id)).data)

    def cancel(self, request: Request, run_id: int) -> Response:
        run = queries.run(run_id)
        stopped = runs.request_cancel(run.session.session_id, run_id=run.pk, who=api.who(request))
        return Response(session_shapes.cancelled(run.session.session_id, stopped))


@api.described(list=extend_schema(summary="Tool calls, newest first"))
class ToolCallListing(Listing):
    queryset = ToolCall.objects.select_related("session").order_by("-id")
    serializer_class = shapes.ToolCallItem
    filterset_class = filters.ToolCallFilter


@api.described(list=extend_schema(summary="Approvals, newest first"))
class ApprovalListing(Listing):
    queryset = Approval.objects.select_related("session", "call").order_by("-id")
    serializer_class = shapes.ApprovalItem
    filterset_class = filters.ApprovalFilter
