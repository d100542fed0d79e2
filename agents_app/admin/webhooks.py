"""Webhooks: added, changed and tried by operators. A secret is shown once, on the page that answers its making."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from asgiref.sync import async_to_sync
from django import forms
from django.contrib import admin, messages
from django.core.exceptions import ValidationError
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from agents_app import webhooks as telling
from agents_app.handlers import NotDelivered
from sessions_app import webhooks
from sessions_app.admin import asking
from sessions_app.admin.actions import operator
from sessions_app.admin.columns import text
from sessions_app.admin.stored import ShownSafely
from sessions_app.errors import WebhookInvalid
from sessions_app.models import Webhook

if TYPE_CHECKING:
    WebhookModelForm = forms.ModelForm[Webhook]
else:
    WebhookModelForm = forms.ModelForm

TESTED_AT_ONCE = 5


class WebhookForm(WebhookModelForm):
    class Meta:
        model = Webhook
        fields = ("url", "patterns", "include_content", "enabled")

    def clean_url(self) -> str:
        return _checked(webhooks.checked_url, self.cleaned_data["url"])

    def clean_patterns(self) -> str:
        return _checked(webhooks.checked_patterns, self.cleaned_data["patterns"])


def _checked(check: Any, value: str) -> str:
    try:
        return str(check(value))
    except WebhookInvalid as fault:
        raise ValidationError(fault.text()) from fault


@admin.register(Webhook)
class WebhookAdmin(ShownSafely):
    form = WebhookForm
    list_display = ("__str__", text(Webhook, "url"), text(Webhook, "patterns"), "enabled", "newest")
    list_filter = ("enabled",)
    fields = ("url", "patterns", "include_content", "enabled", "disabled_because", "created_by", "created_at")
    readonly_fields = ("disabled_because", "created_by", "created_at")
    actions = ("send_test", "rotate_secret")

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Disabled, never deleted: what it was told stays accountable."""
        return False

    @admin.display(description=gettext_lazy("newest attempt"))
    def newest(self, webhook: Webhook) -> str:
        attempt = webhook.attempts.order_by("-pk").first()
        return (attempt.error or f"HTTP {attempt.status}") if attempt else "—"

    def save_model(self, request: HttpRequest, obj: Webhook, form: Any, change: bool) -> None:
        who = operator(request)
        if not change:
            made, secret = webhooks.add(
                obj.url, patterns=obj.patterns, include_content=obj.include_content, enabled=obj.enabled, who=who
            )
            obj.pk, obj._secret_once = made.pk, secret  # type: ignore[attr-defined]
            return
        if "enabled" in form.changed_data:
            obj.disabled_because = "" if obj.enabled else _("By {who}.").format(who=who)
        webhooks.change(obj, who=who)

    def response_add(self, request: HttpRequest, obj: Webhook, post_url_continue: str | None = None) -> HttpResponse:
        return self._show_secrets(request, [(obj, obj._secret_once)])  # type: ignore[attr-defined]

    @admin.action(description=gettext_lazy("Send a test"), permissions=["change"])
    def send_test(self, request: HttpRequest, chosen: QuerySet[Webhook]) -> None:
        for webhook in chosen.order_by("pk")[:TESTED_AT_ONCE]:
            webhooks.note_test(webhook, who=operator(request))
            self.log_change(request, webhook, "Sent a test")
            try:
                answer = async_to_sync(telling.send_test)(webhook)
            except NotDelivered as fault:
                self.message_user(request, f"{webhook}: {fault}", messages.ERROR)
                continue
            told = f"{webhook}: {answer.error or f'HTTP {answer.status}'} ({answer.duration_ms} ms)"
            self.message_user(request, told, messages.SUCCESS if answer.taken else messages.ERROR)

    @admin.action(description=gettext_lazy("Give a new secret"), permissions=["change"])
    def rotate_secret(self, request: HttpRequest, chosen: QuerySet[Webhook]) -> HttpResponse:
        if not asking.is_confirmed(request, "rotate_secret"):
            return self._ask_to_rotate(request, chosen.order_by("pk"))
        made = [(webhook, webhooks.rotate_secret(webhook, who=operator(request))) for webhook in chosen.order_by("pk")]
        for webhook, _secret in made:
            self.log_change(request, webhook, "Gave a new secret")
        return self._show_secrets(request, made)

    def _ask_to_rotate(self, request: HttpRequest, chosen: QuerySet[Webhook]) -> HttpResponse:
        warning = _("The old one is of no more use at once: its receiver must know the new one.")
        title = _("Give a new secret")
        return asking.ask(self, request, chosen, action="rotate_secret", title=title, warning=warning)

    def _show_secrets(self, request: HttpRequest, made: list[tuple[Webhook, str]]) -> HttpResponse:
        """The answer itself: through a redirect they would have to be stored."""
        context = {**self.admin_site.each_context(request), "title": _("Secret"), "opts": self.opts, "made": made}
        return TemplateResponse(request, "admin/sessions_app/webhook/secret.html", context)  # pages here are no-store
