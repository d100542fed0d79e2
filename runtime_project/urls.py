"""Who listens where. The contract's paths stand at the root and again under /api/v1/, which has more.

A session's id may hold any character, slashes too: encoded ones are its own (`slashes`). Plain ones are taken as well,
so it is matched greedily, and a known last part wins.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.contrib import admin
from django.urls import URLPattern, URLResolver, include, path, register_converter

from agents_app.asyncapi import AsyncDocument
from agents_app.decisions import DecisionViewSet
from agents_app.views import AgentViewSet
from runtime_project.health import Health, Readiness, metrics
from runtime_project.openapi import Docs, Document
from runtime_project.operators import PatientLogin
from runtime_project.slashes import SessionIdConverter
from sessions_app.listings import ApprovalListing, EventListing, MessageListing, RunViewSet, ToolCallListing
from sessions_app.views import MetricsViewSet, SessionViewSet


def at(route: str, viewset: type[Any], **actions: str) -> URLPattern:
    view: Callable[..., Any] = viewset.as_view(actions)
    return path(route, view)


register_converter(SessionIdConverter, "session")
SESSION = "sessions/<session:session_id>"
ONE_SESSION = at(SESSION, SessionViewSet, get="retrieve", patch="partial_update", delete="destroy")
CONTRACT = [
    path("health", Health.as_view()),
    path("health/live", Health.as_view()),
    path("health/ready", Readiness.as_view()),
    at("sessions", SessionViewSet, get="list", post="create"),
    at(f"{SESSION}/history", SessionViewSet, get="history"),
    at(f"{SESSION}/pending-approvals", SessionViewSet, get="pending_approvals"),
    at(f"{SESSION}/cancel", SessionViewSet, post="cancel"),
    at("agents", AgentViewSet, get="agents"),
    at("agents/<session:session_id>/current", AgentViewSet, get="current"),
    at("agents/<session:session_id>/switch", AgentViewSet, post="switch"),
    at("events/metrics", MetricsViewSet, get="metrics"),
    at("events/metrics/sessions", MetricsViewSet, get="sessions"),
    at("events/metrics/session/<session:session_id>", MetricsViewSet, get="session"),
    at("events/audit-log", MetricsViewSet, get="audit_log"),
    at("events/stats", MetricsViewSet, get="stats"),
]
MORE = [
    at(f"{SESSION}/messages", MessageListing, get="list"),
    at(f"{SESSION}/events", EventListing, get="list"),
    at("runs", RunViewSet, get="list"),
    at("runs/<int:run_id>", RunViewSet, get="retrieve"),
    at("runs/<int:run_id>/cancel", RunViewSet, post="cancel"),
    at("tool-calls", ToolCallListing, get="list"),
    at("approvals", ApprovalListing, get="list"),
    at("approvals/bulk", DecisionViewSet, post="bulk"),
]
admin.site.login_form = PatientLogin
urlpatterns: list[URLPattern | URLResolver] = [
    path("admin/", admin.site.urls),
    path("openapi.json", Document.as_view(), name="openapi"),
    path("asyncapi.json", AsyncDocument.as_view(), name="asyncapi"),
    path("metrics", metrics),
    path("docs", Docs.as_view(), name="docs"),
    path("api/v1/", include([*CONTRACT, *MORE, ONE_SESSION])),
    *CONTRACT,
    ONE_SESSION,
]
handler400 = "runtime_project.rest.bad_request"
handler403 = "runtime_project.rest.forbidden"
handler404 = "runtime_project.rest.not_found"
handler500 = "runtime_project.rest.server_error"
