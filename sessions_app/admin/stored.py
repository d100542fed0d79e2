"""The admin of rows that tell what happened: looked at, searched and filtered, never edited by hand."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

from django.contrib import admin
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.core.paginator import Paginator
from django.db import models
from django.http import HttpRequest, HttpResponse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.text import capfirst

from sessions_app.admin import columns, shown

if TYPE_CHECKING:
    Rows = models.QuerySet[Any]
    AnyModelAdmin = admin.ModelAdmin[Any]
    AnyPaginator = Paginator[Any]
else:
    AnyModelAdmin, AnyPaginator = admin.ModelAdmin, Paginator

COUNTED_ROWS = 10_000
EMPTY: tuple[Any, ...] = (None, "", [], {})


class CountsUpTo(AnyPaginator):
    """Counts no further than `COUNTED_ROWS`: a log of millions opens as fast as a short one; older rows by filters."""

    @cached_property
    def count(self) -> int:
        rows: Rows = self.object_list  # type: ignore[assignment]
        return rows.order_by()[:COUNTED_ROWS].count()

    @property
    def has_more(self) -> bool:
        return self.count >= COUNTED_ROWS


class ShownSafely(AnyModelAdmin):
    """A row's name in titles is a client's text: shown with its hidden characters visible."""

    def render_change_form(
        self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any
    ) -> HttpResponse:
        if row := context.get("original"):
            context |= {"title": f"{capfirst(str(self.opts.verbose_name))} {shown.visible(row)}", "subtitle": None}
        return super().render_change_form(request, context, *args, **kwargs)

    def action_checkbox(self, obj: models.Model) -> SafeString:
        """As Django's; the name in its label, too."""
        box = '<input type="checkbox" name="{}" value="{}" class="action-select" aria-label="{}">'
        return format_html(box, ACTION_CHECKBOX_NAME, obj.pk, shown.visible(obj))

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        title = {"title": capfirst(str(self.opts.verbose_name_plural))}
        return super().changelist_view(request, {**title, **(extra_context or {})})

    def history_view(
        self, request: HttpRequest, object_id: str, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        row = self.get_object(request, object_id)
        title = {"title": shown.visible(row)} if row else {}
        return super().history_view(request, object_id, {**title, **(extra_context or {})})


class StoredRows(ShownSafely):
    actions: Any = None
    list_per_page = 50
    list_max_show_all = 50
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER
    paginator = CountsUpTo
    sortable_by: ClassVar[Any] = ()
    ordering: ClassVar[Any] = ("-id",)
    # Too long for a list: loaded for a row's own page only.
    long_fields: tuple[str, ...] = ()

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def get_queryset(self, request: HttpRequest) -> Rows:
        return super().get_queryset(request).defer(*self.long_fields)

    def get_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        """What the row holds; what it leaves empty is not worth a line."""
        fields = [field for field in self.opts.concrete_fields if not field.primary_key]
        return [columns.whole(field) for field in fields if obj is None or field.value_from_object(obj) not in EMPTY]

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        return self.get_fields(request, obj)
