"""The keys that programs call with: made here, shown once, revoked. What is shown later never includes a key."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin, messages
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.utils import timezone
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from sessions_app import keys
from sessions_app.admin import columns
from sessions_app.admin.actions import operator
from sessions_app.admin.columns import text
from sessions_app.admin.stored import StoredRows
from sessions_app.models import APIKey


class NewKey(forms.ModelForm):  # type: ignore[type-arg]
    class Meta:
        model = APIKey
        fields = ("name", "expires_at")

    def clean_expires_at(self) -> Any:
        moment = self.cleaned_data["expires_at"]
        if moment is not None and moment <= timezone.now():
            raise forms.ValidationError(_("This is in the past."))
        return moment


@admin.register(APIKey)
class APIKeyAdmin(StoredRows):
    list_display = (
        text(APIKey, "key_id"), text(APIKey, "name"), "state", "created_at", text(APIKey, "created_by"), "last_used_at",
        "expires_at",
    )  # fmt: skip
    search_fields = ("key_id", "name")
    actions: Any = ("revoke",)
    form = NewKey

    @admin.display(description=gettext_lazy("state"))
    def state(self, key: APIKey) -> SafeString:
        if key.revoked_at:
            return columns.mark(_("revoked"), "bad")
        if key.expires_at and key.expires_at <= timezone.now():
            return columns.mark(_("expired"), "quiet")
        return columns.mark(_("active"), "good")

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return request.user.has_perm("sessions_app.add_apikey")

    def has_revoke_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("sessions_app.change_apikey")

    def get_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        if obj is None:
            return ("name", "expires_at")
        return [field for field in super().get_fields(request, obj) if getattr(field, "__name__", "") != "shown_digest"]

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        return self.get_fields(request, obj) if obj else ()

    def save_model(self, request: HttpRequest, obj: APIKey, form: Any, change: bool) -> None:
        row, key = keys.create(obj.name, by=operator(request), expires_at=obj.expires_at)
        obj.__dict__.update(row.__dict__, shown_once=key)

    def response_add(self, request: HttpRequest, obj: Any, post_url_continue: str | None = None) -> HttpResponse:
        """The answer itself shows the key: a message would be kept in the session, and that is the database."""
        context = {**self.admin_site.each_context(request), "title": _("The new key"), "opts": self.opts, "made": obj}
        page = TemplateResponse(request, "admin/sessions_app/apikey/made.html", context)
        page["Cache-Control"] = "no-store"
        return page

    @admin.action(description=gettext_lazy("Revoke, in every process and for open connections"), permissions=["revoke"])
    def revoke(self, request: HttpRequest, queryset: Any) -> None:
        chosen = queryset.exclude(digest="").values_list("key_id", flat=True)
        ended = sum(keys.revoke(key_id, by=operator(request)) for key_id in chosen)
        said = ngettext("{count} key is revoked.", "{count} keys are revoked.", ended).format(count=ended)
        self.message_user(request, said, messages.SUCCESS if ended else messages.WARNING)
