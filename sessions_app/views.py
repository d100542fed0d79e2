"""Sessions and /events/* as the contract has them. Reading is queries and metrics, writing is services and runs."""

from __future__ import annotations

from typing import Any

from django.db.models import QuerySet
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import status
from rest_framework.mixins import ListModelMixin
from rest_framework.request import Request
from rest_framework.response import Response

from sessions_app import api, metrics, queries, runs, services
from sessions_app.errors import SessionNotFound
from sessions_app.filters import SessionFilter
from sessions_app.models import Session
from sessions_app.serializers import inbound, measurements
from sessions_app.serializers import sessions as shapes
from sessions_app.session_ids import is_session_id

SESSION_ID = OpenApiParameter("session_id", str, OpenApiParameter.PATH, description="Percent-encoded.")


@api.described(
    list=extend_schema(summary="Sessions, newest activity first", parameters=[inbound.SessionQuery]),
    create=extend_schema(summary="Make a session", request=inbound.NewSession, responses={201: shapes.CreatedSession}),
    retrieve=extend_schema(
        summary="A session, with its messages when asked",
        parameters=[SESSION_ID, inbound.DetailsQuery],
        responses=shapes.SessionDetails,
    ),
    partial_update=extend_schema(
        summary="Rename or describe a session",
        parameters=[SESSION_ID],
        request=inbound.SessionChange,
        responses=shapes.SessionItem,
    ),
    destroy=extend_schema(
        summary="Remove a session; its active run is cancelled first", parameters=[SESSION_ID], responses={204: None}
    ),
    history=extend_schema(summary="The conversation", parameters=[SESSION_ID], responses=shapes.History),
    pending_approvals=extend_schema(
        summary="Tool calls that wait for a person", parameters=[SESSION_ID], responses=shapes.PendingApprovals
    ),
    cancel=extend_schema(
        summary="Stop the active run, else the oldest queued one",
        parameters=[SESSION_ID],
        request=None,
        responses=shapes.Cancelled,
    ),
)
class SessionViewSet(ListModelMixin, api.RESTViewSet):
    queryset = Session.objects.all()
    serializer_class = shapes.SessionItem
    filterset_class = SessionFilter
    pagination_class = api.SessionPage

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        super().initial(request, *args, **kwargs)
        if not is_session_id(kwargs.get("session_id", "-")):
            raise SessionNotFound(session_id=kwargs["session_id"])

    def get_queryset(self) -> QuerySet[Session]:
        return queries.sessions(**api.asked(inbound.SessionQuery, self.request))

    def create(self, request: Request) -> Response:
        wanted = api.checked(inbound.NewSession, request.data)
        session = services.create_session(
            wanted.get("session_id"), correlation_id=api.correlation_id(request), who=api.who(request)
        )
        return Response(shapes.CreatedSession(session).data, status.HTTP_201_CREATED)

    def retrieve(self, request: Request, session_id: str) -> Response:
        found = queries.details(session_id, **api.asked(inbound.DetailsQuery, request))
        return Response(shapes.SessionDetails(found).data)

    def partial_update(self, request: Request, session_id: str) -> Response:
        changes = api.checked(inbound.SessionChange, request.data)
        session = services.update_session(session_id, **changes, who=api.who(request))
        return Response(shapes.SessionItem(session).data)

    def destroy(self, request: Request, session_id: str) -> Response:
        services.delete_session(session_id, who=api.who(request))
        return Response(status=status.HTTP_204_NO_CONTENT)

    def history(self, request: Request, session_id: str) -> Response:
        return Response(shapes.History(queries.history(session_id)).data)

    def pending_approvals(self, request: Request, session_id: str) -> Response:
        return Response(shapes.PendingApprovals(queries.pending_approvals(session_id)).data)

    def cancel(self, request: Request, session_id: str) -> Response:
        return Response(shapes.cancelled(session_id, runs.request_cancel(session_id, who=api.who(request))))


@api.described(
    metrics=extend_schema(summary="Switches, work, tools, decisions and errors", responses=measurements.Metrics),
    session=extend_schema(
        summary="What a session's agents asked of the model",
        parameters=[SESSION_ID],
        responses={200: measurements.SessionMetrics, 404: measurements.NoMetrics},
    ),
    sessions=extend_schema(summary="Sessions that have metrics", responses=measurements.MeasuredSessions),
    audit_log=extend_schema(
        summary="The newest critical events, newest last",
        parameters=[inbound.AuditQuery],
        responses=measurements.AuditLog,
        filters=False,
    ),
    stats=extend_schema(summary="The log and its deliveries", responses=measurements.Stats),
)
class MetricsViewSet(api.RESTViewSet):
    filter_backends = ()
    pagination_class = None

    def metrics(self, request: Request) -> Response:
        return Response(measurements.Metrics(metrics.overview()).data)

    def session(self, request: Request, session_id: str) -> Response:
        found = metrics.of_session(session_id)
        if found is None:
            return Response({"error": f"No metrics found for session {session_id}"}, status.HTTP_404_NOT_FOUND)
        return Response(measurements.SessionMetrics(found).data)

    def sessions(self, request: Request) -> Response:
        measured = queries.measured_sessions()
        return Response({"sessions": measured, "count": len(measured)})

    def audit_log(self, request: Request) -> Response:
        filters = api.asked(inbound.AuditQuery, request)
        entries = metrics.audit_log(**filters)
        return Response(measurements.AuditLog({"audit_log": entries, "count": len(entries), "filters": filters}).data)

    def stats(self, request: Request) -> Response:
        return Response(measurements.Stats(metrics.stats()).data)
