"""Sessions: the list, and one session's page with its conversation beside its timeline."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.db.models import Exists, OuterRef, QuerySet, Subquery
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.urls import path
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from sessions_app import services
from sessions_app.admin import actions, checkup, columns, deletion, filters, finding, overview, shown
from sessions_app.admin.stored import ShownSafely
from sessions_app.models import Approval, ApprovalState, Run, Session


@admin.register(Session)
class SessionAdmin(ShownSafely):
    list_display = ("name", "about", "agent", "state", "message_count", "used")
    list_filter = ("is_active", filters.WithRuns, ("current_agent", filters.ByValue), "last_activity", "created_at")
    search_fields = ("session_id", "title", "owner")
    search_help_text = gettext_lazy("Session id, title, owner or the text of a message")
    list_per_page = 50
    list_max_show_all = 50
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER
    fields = ("title", "description")
    actions = (*(actions.as_admin_action(action) for action in actions.ACTIONS), actions.export)

    # --- the list
    @admin.display(description=gettext_lazy("session id"), ordering="session_id")
    def name(self, session: Session) -> SafeString:
        return format_html('<bdi class="mono">{}</bdi>', shown.visible(session.session_id))

    @admin.display(description=gettext_lazy("title"), ordering="title")
    def about(self, session: Session) -> str:
        return shown.visible(session.title) or "—"

    @admin.display(description=gettext_lazy("agent"), ordering="current_agent")
    def agent(self, session: Session) -> SafeString:
        return columns.mark(session.current_agent, "agent")

    @admin.display(description=gettext_lazy("state"))
    def state(self, session: Session) -> SafeString:
        return overview.state(session)

    @admin.display(description=gettext_lazy("last activity"), ordering="last_activity")
    def used(self, session: Session) -> SafeString:
        iso = session.last_activity.isoformat(" ", "seconds")
        return format_html('<time datetime="{}" title="{}">{}</time>', iso, iso, shown.ago(session.last_activity))

    def get_queryset(self, request: HttpRequest) -> Any:
        runs = Run.objects.filter(session=OuterRef("pk")).order_by("-pk")
        pending = Approval.objects.filter(session=OuterRef("pk"), state=ApprovalState.PENDING)
        return (
            super()
            .get_queryset(request)
            .annotate(last_run=Subquery(runs.values("state")[:1]), waits_for_approval=Exists(pending))
        )

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Session], search_term: str
    ) -> tuple[QuerySet[Session], bool]:
        words = search_term.strip()
        return (queryset.filter(filters.saying(words)) if words else queryset), False

    def get_actions(self, request: HttpRequest) -> Any:
        return {name: found for name, found in super().get_actions(request).items() if name != "delete_selected"}

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    # --- one session
    def save_model(self, request: HttpRequest, obj: Session, form: Any, change: bool) -> None:
        who = actions.operator(request)
        services.update_session(obj.session_id, title=obj.title, description=obj.description, who=who)

    def render_change_form(
        self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any
    ) -> HttpResponse:
        seen = overview.of(context["original"], **overview.window(request.GET))
        return super().render_change_form(request, context | seen, *args, **kwargs)

    def delete_view(self, request: HttpRequest, object_id: str, extra_context: Any = None) -> Any:
        """Asks and deletes as the action does: Django's own page would list every event."""
        session = self.get_object(request, object_id)
        if session is None:
            return redirect("admin:sessions_app_session_changelist")
        if not self.has_delete_permission(request, session):
            raise PermissionDenied
        deed = actions.named("delete")
        one = self.get_queryset(request).filter(pk=session.pk)
        return actions.ask_or_apply(self, request, one, deed) or redirect("admin:sessions_app_session_changelist")

    def get_urls(self) -> list[Any]:
        older = path(
            "delete-older/", self.admin_site.admin_view(self.delete_older), name="sessions_app_session_delete_older"
        )
        home = path("home/", self.admin_site.admin_view(self.home), name="sessions_app_session_home")
        find = path("find/", self.admin_site.admin_view(self.find), name="sessions_app_session_find")
        return [older, home, find, *checkup.urls(self), *super().get_urls()]

    def find(self, request: HttpRequest) -> HttpResponse:
        """What the box in the header finds."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        words = request.GET.get("q", "")
        groups = finding.everything(words, request.user)
        context = {
            **self.admin_site.each_context(request),
            "title": _("Search"),
            "words": words,
            "groups": groups,
            "said": finding.said(words),
            "any_hits": any(group.hits for group in groups),
            "limited": max((group.looked_at or 0 for group in groups), default=0),
        }
        return TemplateResponse(request, "admin/sessions_app/find.html", context)

    def home(self, request: HttpRequest) -> HttpResponse:
        """The parts of the home page that change, for its script to put in place."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        context = self.admin_site.each_context(request)
        return TemplateResponse(request, "admin/sessions_app/home.html", context)

    def delete_older(self, request: HttpRequest) -> HttpResponse:
        if not self.has_delete_permission(request):
            raise PermissionDenied
        return deletion.delete_older(self, request)
