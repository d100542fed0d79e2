"""The doctor's page: what is broken by named check, and its repair.

It asks what an index answers, however much is stored; the checks that read every session, message and event only when
somebody wants the whole (`?whole=1`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from django.contrib import messages
from django.contrib.admin.models import CHANGE, LogEntry
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse, QueryDict
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.urls import path, reverse
from django.utils.translation import gettext as _
from django.utils.translation import ngettext
from django.views.decorators.http import require_POST

from sessions_app import batches, doctor, gauges
from sessions_app.admin import background, shown
from sessions_app.admin.actions import operator
from sessions_app.doctor import BROKEN, WATCHED, Broken, Finding
from sessions_app.models import Session

REPAIRS = "sessions_app.change_session"
SHOWN = 50  # findings of a check by name; more are counted, and repaired in the background
PAGE = "admin:sessions_app_session_doctor"


@dataclass(frozen=True, slots=True)
class Check:
    broken: Broken
    findings: Sequence[Finding]

    @property
    def meaning(self) -> str:
        return _(self.broken.meaning)

    @property
    def can_repair(self) -> bool:
        """Asked instead of `broken.repair`: a template would call that."""
        return self.broken.repair is not None

    @property
    def named(self) -> Sequence[Finding]:
        return self.findings[:SHOWN]

    @property
    def unnamed(self) -> int:
        return max(len(self.findings) - SHOWN, 0)


def urls(model_admin: Any) -> list[Any]:
    view = model_admin.admin_site.admin_view

    def show(request: HttpRequest) -> HttpResponse:
        return _page(model_admin, request)

    def mend(request: HttpRequest) -> HttpResponse:
        return _repair(model_admin, request)

    return [
        path("doctor/", view(show), name="sessions_app_session_doctor"),
        path("doctor/repair/", view(require_POST(mend)), name="sessions_app_session_repair"),
    ]


def _page(model_admin: Any, request: HttpRequest) -> HttpResponse:
    if not model_admin.has_view_permission(request):
        raise PermissionDenied
    is_whole = _is_whole(request.GET)
    found = doctor.examine(() if is_whole else WATCHED)
    checks = [Check(broken, [one for one in found if one.broken is broken]) for broken in BROKEN]
    asked = [check for check in checks if is_whole or check.broken.name in WATCHED]
    context = {
        **model_admin.admin_site.each_context(request),
        "title": _("Doctor"),
        "opts": model_admin.opts,
        "broken": [check for check in asked if check.findings],
        "sound": [check for check in asked if not check.findings],
        "unasked": [check for check in checks if check not in asked],
        "is_whole": is_whole,
        "count": len(found),
        "may_repair": request.user.has_perm(REPAIRS),
        "can_repair": any(finding.broken.repair for finding in found),
    }
    return TemplateResponse(request, "admin/sessions_app/session/doctor.html", context)


def _repair(model_admin: Any, request: HttpRequest) -> HttpResponse:
    """One finding (`check` and `session`), all of a check, or all that the page has found. What has healed meanwhile is
    left alone."""
    if not request.user.has_perm(REPAIRS):
        raise PermissionDenied
    found = _asked_for(request)
    if len(found) > SHOWN:
        return _in_background(request, found)
    done = [finding for finding in found if doctor.repair(finding, who=operator(request))]
    _note(model_admin, request, done, len(found) - len(done))
    is_whole = _is_whole(request.POST)
    if is_whole:
        doctor.note(doctor.examine())
    else:
        gauges.note_broken(gauges.WATCHDOG, len(doctor.examine(WATCHED)))
    return redirect(reverse(PAGE) + ("?whole=1" if is_whole else ""))


def _is_whole(told: QueryDict) -> bool:
    return told.get("whole") == "1"


def _asked_for(request: HttpRequest) -> list[Finding]:
    check, session = request.POST.get("check", ""), request.POST.get("session", "")
    if check and check not in {broken.name for broken in BROKEN}:
        raise Http404
    names = [check] if check else () if _is_whole(request.POST) else WATCHED
    found = [finding for finding in doctor.examine(names) if finding.broken.repair]
    return [finding for finding in found if not session or str(finding.session_pk) == session]


def _in_background(request: HttpRequest, found: Sequence[Finding]) -> HttpResponse:
    """One batch a check."""
    pk = 0
    for name in dict.fromkeys(finding.broken.name for finding in found):
        chosen = [finding.session_pk for finding in found if finding.broken.name == name]
        pk = batches.prepare("repair", chosen, who=operator(request), arguments={"check": name}).pk
        background.begin(request, pk)
    return redirect("admin:sessions_app_batch_change", pk)


def _note(model_admin: Any, request: HttpRequest, done: Sequence[Finding], left: int) -> None:
    for finding in done:
        row: Any = [Session(pk=finding.session_pk, session_id=finding.session_id)]
        LogEntry.objects.log_actions(request.user.pk, row, CHANGE, f"Repaired {finding.broken.name}")  # type: ignore[arg-type]
    said = ngettext("{count} broken state repaired.", "{count} broken states repaired.", len(done))
    model_admin.message_user(request, said.format(count=len(done)), messages.SUCCESS if done else messages.WARNING)
    if left:
        told = ngettext("{count} had healed by itself.", "{count} had healed by themselves.", left)
        model_admin.message_user(request, shown.visible(told.format(count=left)), messages.WARNING)
