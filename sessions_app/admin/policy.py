"""The approval rules, which operators write and put in order. Their versions are in `policy_versions`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db import models
from django.db.models import Max
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import path, reverse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.http import require_POST

from sessions_app import policies
from sessions_app.admin import policy_words
from sessions_app.admin.actions import operator
from sessions_app.admin.columns import text
from sessions_app.admin.stored import ShownSafely
from sessions_app.models import PolicyRule, PolicyVersion
from sessions_app.policies import RuleNotFound

STEP = 10
# What a press of a button does to a rule: (rule_pk, who=...) -> the version that it made, if any.
DEEDS: dict[str, Callable[..., PolicyVersion | None]] = {
    "up": lambda pk, who: policies.move(pk, up=True, who=who),
    "down": lambda pk, who: policies.move(pk, up=False, who=who),
    "on": lambda pk, who: policies.switch(pk, on=True, who=who),
    "off": lambda pk, who: policies.switch(pk, on=False, who=who),
}


@admin.register(PolicyRule)
class PolicyRuleAdmin(ShownSafely):
    """Rules are tried from the top; the first enabled one that matches decides."""

    formfield_overrides: ClassVar[Any] = {  # patterns are code: no wrapping, no spelling
        models.TextField: {"widget": forms.Textarea({"rows": 4, "cols": 60, "spellcheck": "false", "wrap": "off"})}
    }
    actions = None
    list_display = (text(PolicyRule, "pattern"),)
    list_per_page = policies.MAX_RULES
    sortable_by: ClassVar[Any] = ()
    ordering = ("order", "id")
    fieldsets = (
        (None, {"fields": (("pattern", "action"), "reason")}),
        (
            gettext_lazy("Only for calls like these"),
            {"fields": ("agent", ("paths", "commands"), ("argument", "expression"))},
        ),
        (gettext_lazy("For how long"), {"fields": (("expires_seconds", "valid_until"),)}),
        (gettext_lazy("Place in the order"), {"fields": (("order", "enabled"),)}),
    )

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        rows = list(PolicyRule.objects.order_by("order", "id"))
        rules = [
            policy_words.told(plain, pk=rule.pk, is_first=rule == rows[0], is_last=rule == rows[-1])
            for rule, plain in zip(rows, policies.plain(rows), strict=True)
        ]
        more = {"rules": rules, "may_change": self.has_change_permission(request)}
        return super().changelist_view(request, more | (extra_context or {}))

    def get_changeform_initial_data(self, request: HttpRequest) -> Any:
        """A new rule is tried last, until somebody moves it."""
        last = PolicyRule.objects.aggregate(last=Max("order"))["last"] or 0
        return {"order": str(last + STEP), **super().get_changeform_initial_data(request)}

    def get_urls(self) -> list[Any]:
        act = self.admin_site.admin_view(require_POST(self.act))
        return [path("<int:pk>/do/<slug:name>/", act, name="sessions_app_policyrule_do"), *super().get_urls()]

    def act(self, request: HttpRequest, pk: int, name: str) -> HttpResponse:
        """Moves a rule, or switches it on or off: each press is one version, in the operator's name."""
        if not self.has_change_permission(request):
            raise PermissionDenied
        if name not in DEEDS:
            raise Http404
        rules = reverse("admin:sessions_app_policyrule_changelist")
        try:
            made = DEEDS[name](pk, who=operator(request))
        except RuleNotFound:
            self.message_user(request, _("Somebody has removed this rule meanwhile."), messages.ERROR)
            return redirect(rules)
        rule = self.get_object(request, str(pk))
        if made and rule:
            self.log_change(
                request, rule, [{"changed": {"fields": ["order" if name in ("up", "down") else "enabled"]}}]
            )
        return redirect(f"{rules}#{name}-{pk}")  # the keyboard stays on the button that was pressed

    def changeform_view(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        return _as_one_change(request, super().changeform_view, request, *args, **kwargs)

    def delete_view(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        return _as_one_change(request, super().delete_view, request, *args, **kwargs)


def _as_one_change(request: HttpRequest, view: Callable[..., HttpResponse], *args: Any, **kwargs: Any) -> HttpResponse:
    """However many rules a form changes, it makes one version, in the operator's name."""
    if request.method != "POST":
        return view(*args, **kwargs)
    with policies.changing(operator(request)):
        return view(*args, **kwargs)
