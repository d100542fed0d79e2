"""Deleting sessions that nobody used for long: how many days, then what goes, then the deed."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from django import forms
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from sessions_app import batches
from sessions_app.admin import actions, background, previews
from sessions_app.models import Session


class Age(forms.Form):
    days = forms.IntegerField(label=gettext_lazy("Not used for, days"), min_value=1, max_value=36_500, initial=30)


class Agreed(forms.Form):
    """The moment comes from the preview: what was used since then is not older than it."""

    before = forms.DateTimeField()


def delete_older(model_admin: Any, request: HttpRequest) -> HttpResponse:
    if request.method == "POST":
        return _delete(model_admin, request)
    form = Age(request.GET if "days" in request.GET else None)
    before = timezone.now() - timedelta(days=form.cleaned_data["days"]) if form.is_valid() else None
    context = {
        **model_admin.admin_site.each_context(request),
        "title": _("Delete old sessions"),
        "opts": model_admin.opts,
        "form": form,
        "before": before,
        "going": previews.removed(older_than(before)) if before else None,
        "at_once": actions.AT_ONCE,
    }
    return TemplateResponse(request, "admin/sessions_app/session/delete_older.html", context)


def older_than(before: datetime) -> Any:
    return Session.objects.filter(last_activity__lt=before).order_by("last_activity", "pk")


def _delete(model_admin: Any, request: HttpRequest) -> HttpResponse:
    agreed = Agreed(request.POST)
    if not agreed.is_valid():
        return redirect("admin:sessions_app_session_delete_older")
    before = agreed.cleaned_data["before"]
    going = older_than(before)
    if going.count() > actions.AT_ONCE:
        return _delete_in_background(model_admin, request, before)
    actions.apply(model_admin, request, list(going), actions.named("delete"))
    return redirect("admin:sessions_app_session_changelist")


def _delete_in_background(model_admin: Any, request: HttpRequest, before: datetime) -> HttpResponse:
    """The preview was the question: it begins at once, and leaves alone what is used before its turn has come."""
    chosen = list(older_than(before).values_list("pk", flat=True))
    who = actions.operator(request)
    batch = batches.prepare("delete", chosen, who=who, arguments={"unused_since": before.isoformat()})
    background.begin(request, batch.pk)
    return redirect("admin:sessions_app_batch_change", batch.pk)
