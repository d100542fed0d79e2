"""One session's page, alive: it shows what happens while it happens, and an operator takes part in it."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.urls import path
from django.utils.translation import gettext as _
from django.views.decorators.http import require_POST

from agents_app import agents
from agents_app.admin import deeds
from agents_app.admin.waiting import WaitingCall
from agents_app.frames import Cursor
from sessions_app import events
from sessions_app.admin import overview, shown
from sessions_app.admin.sessions import SessionAdmin
from sessions_app.errors import RuntimeFault
from sessions_app.models import OPEN_CALL_STATES, Event, MessageState, Session, ToolCall
from sessions_app.session_ids import is_session_id

admin.site.unregister(Session)
LIVE = "admin/agents_app/session_live.html"


@admin.register(Session)
class LiveSessionAdmin(SessionAdmin):
    change_form_template = "admin/agents_app/session.html"

    def get_urls(self) -> list[Any]:
        view = self.admin_site.admin_view
        return [
            path("<int:pk>/live/", view(self.live), name="sessions_app_session_live"),
            path("<int:pk>/do/<slug:name>/", view(require_POST(self.do)), name="sessions_app_session_do"),
            *super().get_urls(),
        ]

    def render_change_form(
        self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any
    ) -> HttpResponse:
        context |= _alive(request, context["original"])
        return super().render_change_form(request, context, *args, **kwargs)

    def live(self, request: HttpRequest, pk: int) -> HttpResponse:
        """The parts of the page that change, for the page's script to put in place."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        session = self._session(request, pk)
        context = {
            **self.admin_site.each_context(request),
            **_alive(request, session),
            **overview.of(session, **overview.window(request.GET)),
            "original": session,
            "opts": self.opts,
            "has_change_permission": self.has_change_permission(request, session),
            "has_delete_permission": self.has_delete_permission(request, session),
        }
        return TemplateResponse(request, LIVE, context)

    def do(self, request: HttpRequest, pk: int, name: str) -> HttpResponse:
        """Does what the operator asks for. The page's script gets JSON; a browser without it goes back to the page."""
        deed = deeds.DEEDS.get(name)
        if deed is None:
            raise Http404
        if not request.user.has_perms(deed.permissions):
            raise PermissionDenied
        session = self._session(request, pk)
        try:
            deeds.do(request, session, deed, request.POST.dict())
            said, level, status = str(deed.label), messages.SUCCESS, 200
        except RuntimeFault as fault:
            said, level, status = shown.visible(fault.text()), messages.ERROR, 409
        if request.headers.get("accept") == "application/json":
            return JsonResponse({"text": said, "ok": status == 200}, status=status)
        self.message_user(request, said, level)
        back = request.POST.get("next", "")
        return (
            redirect("admin:sessions_app_approval_inbox")
            if back == "inbox"
            else redirect("admin:sessions_app_session_change", pk)
        )

    def _session(self, request: HttpRequest, pk: int) -> Any:
        session = self.get_queryset(request).filter(pk=pk).first()
        if session is None:
            raise Http404(_("The session is gone."))
        return session


def _alive(request: HttpRequest, session: Session) -> dict[str, Any]:
    calls = list(
        ToolCall.objects.filter(session=session, state__in=OPEN_CALL_STATES).select_related("approval").order_by("pk")
    )
    return {
        "cursor": Cursor(_seq_of_what_is_shown(session)).write(session.cursor_tag),
        "stream": _stream(session),
        "agents": agents.available(),
        "waiting": [WaitingCall(call) for call in calls],
        "may_settle": request.user.has_perms(deeds.DEEDS["settle"].permissions),
        "may_act": request.user.has_perm(deeds.SESSION),
        "may_decide": request.user.has_perm(deeds.APPROVAL),
    }


def _stream(session: Session) -> str:
    """Where the page listens; an id that no client can name has no stream."""
    name = session.session_id
    return f"/sessions/{quote(name, safe='')}/stream" if is_session_id(name) else ""


def _seq_of_what_is_shown(session: Session) -> int:
    """Where the page's stream begins: now, or before the message that is being written, to hear all of it."""
    opened = Event.objects.filter(
        session=session, type=events.MESSAGE_OPENED, message__state=MessageState.OPEN
    ).order_by("-seq")
    first = opened.values_list("seq", flat=True).first()
    return first - 1 if first else session.last_seq
