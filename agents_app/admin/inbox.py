"""The approval inbox: everything that waits for a person, across sessions, the oldest first."""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.urls import path
from django.utils.translation import gettext as _
from django.utils.translation import ngettext
from django.views.decorators.http import require_POST

from agents_app.admin import deeds
from agents_app.admin.waiting import WaitingCall
from sessions_app.admin import shown
from sessions_app.admin.records import ApprovalAdmin
from sessions_app.errors import RuntimeFault
from sessions_app.models import Approval, ApprovalState

admin.site.unregister(Approval)
SHOWN = 50


@admin.register(Approval)
class InboxAdmin(ApprovalAdmin):
    front_page = "admin:sessions_app_approval_inbox"

    def get_urls(self) -> list[Any]:
        view = self.admin_site.admin_view
        return [
            path("inbox/", view(self.inbox), name="sessions_app_approval_inbox"),
            path("inbox/parts/", view(self.parts), name="sessions_app_approval_inbox_parts"),
            path("inbox/decide/", view(require_POST(self.bulk)), name="sessions_app_approval_inbox_decide"),
            *super().get_urls(),
        ]

    def inbox(self, request: HttpRequest) -> HttpResponse:
        return self._page(request, "admin/agents_app/inbox.html")

    def parts(self, request: HttpRequest) -> HttpResponse:
        """What waits now, for the page's script to put in place."""
        return self._page(request, "admin/agents_app/inbox_items.html")

    def _page(self, request: HttpRequest, template: str) -> HttpResponse:
        if not self.has_view_permission(request):
            raise PermissionDenied
        pending = Approval.objects.filter(state=ApprovalState.PENDING).order_by("created_at", "pk")
        found = list(pending.select_related("call", "session")[: SHOWN + 1])
        context = {
            **self.admin_site.each_context(request),
            "title": _("Approvals that wait"),
            "opts": self.opts,
            "items": [WaitingCall(approval.call, approval) for approval in found[:SHOWN]],
            "more": pending.count() - SHOWN if len(found) > SHOWN else 0,
            "may_decide": request.user.has_perm(deeds.APPROVAL),
        }
        return TemplateResponse(request, template, context)

    def bulk(self, request: HttpRequest) -> HttpResponse:
        """One decision for all that are chosen, each on its own: who was faster elsewhere has won there."""
        deed = deeds.DEEDS["decide"]
        if not request.user.has_perms(deed.permissions):
            raise PermissionDenied
        chosen = [pk for pk in request.POST.getlist("call") if pk.isdecimal() and len(pk) < 19][:SHOWN]
        decision = request.POST.get("decision", "")
        done, lost, feedback = 0, [], request.POST.get("feedback", "")
        for approval in Approval.objects.filter(pk__in=chosen).select_related("call", "session").order_by("pk"):
            fields = {
                "call_id": approval.call.call_id,
                "decision": decision,
                "feedback": feedback,
            }
            try:
                deeds.do(request, approval.session, deed, fields)
                done += 1
            except RuntimeFault as fault:
                lost.append(f"{shown.visible(approval.call.name)}: {shown.visible(fault.text())}")
        said = ngettext("{count} call decided.", "{count} calls decided.", done).format(count=done)
        if request.headers.get("accept") == "application/json":
            return JsonResponse({"text": " ".join([said, *lost]), "ok": not lost}, status=409 if lost else 200)
        self.message_user(request, said, messages.SUCCESS)
        for one in lost:
            self.message_user(request, one, messages.ERROR)
        return redirect("admin:sessions_app_approval_inbox")
