"""The versions that the approval rules have been in: read, compared with others, and made the rules again."""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.template.response import TemplateResponse
from django.urls import path
from django.utils.translation import gettext as _

from sessions_app import policies
from sessions_app.admin import policy_words, shown
from sessions_app.admin.actions import operator, seen
from sessions_app.admin.columns import text
from sessions_app.admin.stored import StoredRows
from sessions_app.models import PolicyVersion
from sessions_app.policies import PolicyInvalid, RulesChanged

CHANGE_RULES = "sessions_app.change_policyrule"


@admin.register(PolicyVersion)
class PolicyVersionAdmin(StoredRows):
    list_display = ("number", "created_at", text(PolicyVersion, "who"), text(PolicyVersion, "note"))
    search_fields = ("who", "note")
    ordering = ("-number",)
    long_fields = ("rules",)

    def get_urls(self) -> list[Any]:
        view = self.admin_site.admin_view(self.restore)
        return [path("<int:pk>/restore/", view, name="sessions_app_policyversion_restore"), *super().get_urls()]

    def render_change_form(
        self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any
    ) -> HttpResponse:
        one: PolicyVersion = context["original"]
        before = PolicyVersion.objects.filter(number__lt=one.number).order_by("-number").first()
        newest = policies.version()
        context |= {
            "rules": [policy_words.told(rule) for rule in one.rules],
            "before": before,
            "since_before": policy_words.differences(before.rules if before else [], one.rules),
            "newest": newest,
            "is_newest": newest.pk == one.pk,
            "until_newest": policy_words.differences(one.rules, newest.rules),
            "may_restore": request.user.has_perm(CHANGE_RULES),
        }
        return super().render_change_form(request, context, *args, **kwargs)

    def restore(self, request: HttpRequest, pk: int) -> HttpResponse:
        """Asks with what would change, then makes the rules what they were in this version; that is a new version."""
        if not request.user.has_perm(CHANGE_RULES):
            raise PermissionDenied
        wanted = get_object_or_404(PolicyVersion, pk=pk)
        if request.method != "POST":
            return self._question(request, wanted)
        try:
            made = policies.restore(wanted.number, who=operator(request), seen=seen(request))
        except RulesChanged:
            self.message_user(request, _("The rules have changed meanwhile. Look again."), messages.ERROR)
            return redirect("admin:sessions_app_policyversion_restore", pk)
        except PolicyInvalid as problem:
            self.message_user(request, shown.visible(problem), messages.ERROR)
            return redirect("admin:sessions_app_policyversion_change", pk)
        told = _("The rules are those of version {number} again, as version {made}.")
        self.message_user(request, told.format(number=wanted.number, made=made.number), messages.SUCCESS)
        return redirect("admin:sessions_app_policyrule_changelist")

    def _question(self, request: HttpRequest, wanted: PolicyVersion) -> HttpResponse:
        newest = policies.version()
        context = {
            **self.admin_site.each_context(request),
            "title": _("Roll back to version {number}").format(number=wanted.number),
            "opts": self.opts,
            "wanted": wanted,
            "newest": newest,
            "differences": policy_words.differences(newest.rules, wanted.rules),
        }
        return TemplateResponse(request, "admin/sessions_app/policyversion/restore.html", context)
