"""Columns and read-only fields made from a model's fields: text as visible text, states as pills, rows as links."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.db import models
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.text import capfirst

from sessions_app.admin import shown

Column = Callable[[Any], Any]

TONES = {
    "busy": {"running", "out", "open", "active"},
    "waits": {"ask", "waiting", "pending", "queued", "due"},
    "good": {"allow", "completed", "complete", "approved", "edited", "delivered"},
    "bad": {"forbid", "failed", "interrupted", "rejected", "refused", "dead", "expired"},
}
LINE, PAGE = 160, 200_000


def tone(state: str) -> str:
    return next((name for name, states in TONES.items() if state in states), "quiet")


def mark(label: object, tone_name: str) -> SafeString:
    """A pill; its text is escaped like any other."""
    return format_html('<span class="pill pill-{}">{}</span>', tone_name, shown.visible(label))


def link_to(row: models.Model) -> SafeString:
    address = reverse(f"admin:{row._meta.app_label}_{row._meta.model_name}_change", args=[row.pk])
    return format_html('<a href="{}">{}</a>', address, _line(row))


def _column(name: str, label: object, show: Column, *, sortable: bool = True) -> Column:
    show.__name__ = f"shown_{name}"
    show.short_description = label  # type: ignore[attr-defined]
    if sortable:
        show.admin_order_field = name  # type: ignore[attr-defined]
    return show


def _label(model: type[models.Model], name: str) -> object:
    return getattr(model._meta.get_field(name), "verbose_name", name)


def text(model: type[models.Model], name: str) -> Column:
    return _column(name, _label(model, name), lambda row: _line(getattr(row, name)))


def _line(value: object) -> str:
    return shown.visible(shown.cut(str(value), LINE)) if value not in ("", None) else "—"


def pill(model: type[models.Model], name: str) -> Column:
    """A value of a closed set, coloured by what it means."""
    return _column(name, _label(model, name), lambda row: _pill(row, name))


def _pill(row: models.Model, name: str) -> SafeString | str:
    value = getattr(row, name)
    label = getattr(row, f"get_{name}_display", lambda: value)()
    return mark(label, tone(str(value))) if value else "—"


def badge(model: type[models.Model], name: str = "agent") -> Column:
    return _column(
        name, _label(model, name), lambda row: mark(getattr(row, name), "agent") if getattr(row, name) else "—"
    )


def link(model: type[models.Model], name: str) -> Column:
    related = model._meta.get_field(name).related_model
    label = related._meta.verbose_name if isinstance(related, type) else name
    return _column(name, label, lambda row: link_to(getattr(row, name)) if getattr(row, name) else "—", sortable=False)


def whole(field: models.Field[Any, Any]) -> Column | str:
    """The field as a row's own page shows it; numbers, times and yes-or-no as Django does."""
    name, label = field.name, capfirst(field.verbose_name)
    if isinstance(field, models.ForeignKey):
        return link(field.model, name)
    if isinstance(field, models.JSONField):
        return _column(name, label, lambda row: _block(shown.pretty(getattr(row, name), PAGE)))
    if field.choices:
        return pill(field.model, name)
    if isinstance(field, models.TextField):
        return _column(name, label, lambda row: _block(shown.visible(shown.cut(getattr(row, name), PAGE))))
    if isinstance(field, models.CharField):
        return text(field.model, name)
    return name


def _block(content: str) -> SafeString | str:
    return format_html('<pre class="block">{}</pre>', content) if content not in ("", "null") else "—"
