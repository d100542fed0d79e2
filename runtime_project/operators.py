"""What protects the operators' pages: what a browser may do there, and how often somebody may try to log in."""

from __future__ import annotations

from typing import Any

from django.contrib.admin.forms import AdminAuthenticationForm
from django.core.exceptions import ValidationError
from django.utils.translation import gettext_lazy as _

LOGIN = "/admin/login/"
# No script, style or form but our own files: text of a model that got into a page by mistake would still do nothing.
PAGE_HEADERS = [
    (
        b"content-security-policy",
        b"default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    )
]


class PatientLogin(AdminAuthenticationForm):
    """Asks nobody about a password while too many were tried from the caller's address: the gate counts them."""

    def clean(self) -> dict[str, Any]:
        over = getattr(self.request, "scope", {}).get("login_over_limit")
        if over is not None:
            text = _("Too many attempts. Try again in %(seconds)s seconds.")
            raise ValidationError(text, code="too_many", params={"seconds": over.retry_after})
        return super().clean()
