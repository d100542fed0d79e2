"""The approval rules' pages that try rules against the stored calls: a whole set, or one rule before it is saved. They
change nothing."""

from __future__ import annotations

import json
from typing import Any

from django import forms
from django.contrib import admin
from django.contrib.admin.helpers import AdminForm
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import path
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from agents_app.policy import RuleSet
from agents_app.rehearsal import Difference, Report, rehearse
from sessions_app import policies, strict_json
from sessions_app.admin import shown
from sessions_app.admin.policy import PolicyRuleAdmin
from sessions_app.models import PolicyRule, RuleAction
from sessions_app.policies import PolicyInvalid

admin.site.unregister(PolicyRule)
MAX_DAYS, WEEK = 365, 7


class Trial(forms.Form):
    days = forms.IntegerField(
        label=gettext_lazy("Calls of the last days"), min_value=1, max_value=MAX_DAYS, initial=WEEK
    )
    rules = forms.CharField(
        label=gettext_lazy("Rules as JSON"),
        max_length=500_000,
        widget=forms.Textarea({"rows": 18, "cols": 100, "spellcheck": "false", "wrap": "off"}),
    )

    def clean_rules(self) -> RuleSet:
        try:
            given = strict_json.loads(self.cleaned_data["rules"])
            return RuleSet.of(policies.plain(policies.validated(given)))
        except (PolicyInvalid, ValueError) as problem:
            raise forms.ValidationError(shown.visible(problem)) from None


@admin.register(PolicyRule)
class TriedRuleAdmin(PolicyRuleAdmin):
    change_form_template = "admin/agents_app/rule_form.html"

    def get_urls(self) -> list[Any]:
        trial = path("try/", self.admin_site.admin_view(self.trial), name="sessions_app_policyrule_try")
        return [trial, *super().get_urls()]

    def changeform_view(
        self, request: HttpRequest, object_id: str | None = None, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        """As Django's; its button "Try" judges the stored calls with what stands in the form, and saves nothing."""
        if request.method == "POST" and "_try" in request.POST:
            return self._tried(request, object_id)
        return super().changeform_view(request, object_id, form_url, extra_context)

    def render_change_form(
        self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any
    ) -> HttpResponse:
        context["may_try"] = _may_try(request)
        return super().render_change_form(request, context, *args, **kwargs)

    def _tried(self, request: HttpRequest, object_id: str | None) -> HttpResponse:
        rule = self.get_object(request, object_id) if object_id is not None else None
        if object_id is not None and rule is None:
            return super().changeform_view(request, object_id)  # says that it is gone
        may = self.has_change_permission(request, rule) if rule else self.has_add_permission(request)
        if not (may and _may_try(request)):
            raise PermissionDenied
        form = self.get_form(request, rule, change=rule is not None)(request.POST, instance=rule)
        report = _rehearsed(form.save(commit=False)) if form.is_valid() else None
        return self._form_again(request, rule, form, report)

    def _form_again(self, request: HttpRequest, rule: Any, form: Any, report: Report | None) -> HttpResponse:
        """The form with what stands in it, and the report beside it."""
        fieldsets: Any = list(self.get_fieldsets(request, rule))
        fields = AdminForm(form, fieldsets, {}, (), model_admin=self)
        stored = PolicyRule.objects.get(pk=rule.pk) if rule else None  # checking a form writes into its row
        context = {
            **self.admin_site.each_context(request),
            "title": _("Add approval rule"),
            "adminform": fields,
            "errors": form.errors,
            "media": self.media + fields.media,
            "inline_admin_formsets": [],
            "object_id": rule.pk if rule else None,
            "original": stored,
            "is_popup": False,
            "preserved_filters": self.get_preserved_filters(request),
            **_told(report),
        }
        return self.render_change_form(request, context, add=rule is None, change=rule is not None, obj=stored)

    def trial(self, request: HttpRequest) -> HttpResponse:
        """Judges the stored calls by the rules in the form: at first those that count now."""
        if not (self.has_view_permission(request) and _may_try(request)):
            raise PermissionDenied
        now = json.dumps(policies.rules(), ensure_ascii=False, indent=2)
        form = Trial(request.POST) if request.method == "POST" else Trial(initial={"rules": now, "days": WEEK})
        report = None
        if form.is_bound and form.is_valid():
            report = rehearse(form.cleaned_data["rules"], days=form.cleaned_data["days"])
        context = {
            **self.admin_site.each_context(request),
            "title": _("Try rules"),
            "opts": self.opts,
            "form": form,
            **_told(report),
        }
        return TemplateResponse(request, "admin/agents_app/try_rules.html", context)


def _may_try(request: HttpRequest) -> bool:
    """The report shows what calls were about."""
    return request.user.has_perm("sessions_app.view_toolcall")


def _rehearsed(candidate: PolicyRule) -> Report:
    """The last week's calls under the rules with the candidate in its place, beside the rules as they are."""
    others = list(PolicyRule.objects.exclude(pk=candidate.pk).order_by("order", "id"))
    last = candidate.pk is None  # a new rule has the highest id: it is the last of those with its number
    rules = sorted([*others, candidate], key=lambda one: (one.order, last and one is candidate, one.pk or 0))
    now = RuleSet.of(policies.rules())
    return rehearse(RuleSet.of(policies.plain(rules)), days=WEEK, beside=now)


def _told(report: Report | None) -> dict[str, Any]:
    if report is None:
        return {"report": None}
    rows = [(_("These rules would have"), report.would_be)]
    if report.by_now:
        rows = [
            (_("With this rule they would have"), report.would_be),
            (_("As they are, the rules would have"), report.by_now),
        ]
    rows.append((_("In fact"), report.was))
    counts = [
        (words, [counted[act] for act in (RuleAction.ASK, RuleAction.ALLOW, RuleAction.FORBID)])
        for words, counted in rows
    ]
    changed = report.changed()
    return {
        "report": report,
        "counts": counts,
        "lines": [_line(one) for one in changed],
        "changed": sum(one.count for one in changed),
    }


def _line(one: Difference) -> dict[str, Any]:
    """What the page says of one difference; the template makes what a model wrote visible text."""
    return {
        "tool": one.tool,
        "was": RuleAction(one.was).label,
        "would_be": RuleAction(one.would_be).label,
        "count": one.count,
        "examples": one.examples,
        "more": one.count - len(one.examples),
    }
