"""What every REST view shares: English for programs, bodies of any framing, checked query strings, pages."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.translation import override
from drf_spectacular.utils import extend_schema_view
from rest_framework import serializers
from rest_framework.pagination import LimitOffsetPagination
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView
from rest_framework.viewsets import GenericViewSet

V = TypeVar("V", bound=type[Any])
# Neither database has larger integers; beyond it is out of range rather than an error of the database.
LARGEST_INTEGER = 2**63 - 1 - 2**20


class RESTView(APIView):
    """A view for programs: they read English whatever their Accept-Language says."""

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        with override("en"):
            return super().dispatch(request, *args, **kwargs)

    def initialize_request(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Request:
        # REST framework takes a body without a length (chunked) for none.
        request.META["CONTENT_LENGTH"] = str(len(request.body))
        return super().initialize_request(request, *args, **kwargs)


class RESTViewSet(RESTView, GenericViewSet[Any]):
    """The same for a viewset; `checked` reads its input."""


def described(**schemas: Callable[[Any], Any]) -> Callable[[V], V]:
    """Class decorator: the schemas of a view's methods; extend_schema_view knows only actions that a router made."""

    def describe(view: V) -> V:
        for name, schema in schemas.items():
            if name in vars(view):
                setattr(view, name, schema(getattr(view, name)))
            else:
                extend_schema_view(**{name: schema})(view)
        return view

    return describe


def checked(serializer: type[serializers.Serializer[Any]], data: Any) -> dict[str, Any]:
    """The validated values; raises ValidationError, which is answered with the list of fields."""
    bound = serializer(data=data)
    bound.is_valid(raise_exception=True)
    return dict(bound.validated_data)


def asked(serializer: type[serializers.Serializer[Any]], request: Request) -> dict[str, Any]:
    """The checked query string; unknown parameters are ignored."""
    return checked(serializer, request.query_params.dict())


def correlation_id(request: Request) -> str:
    """The request's id, as the gate made or took it over."""
    return str(getattr(request._request, "scope", {}).get("correlation_id", ""))


def who(request: Request) -> str:
    """Whoever calls, as the audit names them."""
    return str(getattr(request.user, "name", "") or "")


class PageQuery(serializers.Serializer[Any]):
    limit = serializers.IntegerField(default=100, min_value=1, max_value=1000)
    offset = serializers.IntegerField(default=0, min_value=0, max_value=LARGEST_INTEGER)


class Page(LimitOffsetPagination):
    """`limit` and `offset`, refused rather than corrected when they are wrong; `total` counts all that match."""

    default_limit = 100
    max_limit = 1000
    results_key = "results"

    def paginate_queryset(self, queryset: QuerySet[Any], request: Request, view: Any = None) -> list[Any]:  # type: ignore[override]
        query = asked(PageQuery, request)
        self.limit, self.offset = query["limit"], query["offset"]
        self.count = queryset.count()
        return list(queryset[self.offset : self.offset + self.limit]) if self.offset < self.count else []

    def get_paginated_response(self, data: Any) -> Response:
        return Response({self.results_key: data, "total": self.count, "limit": self.limit, "offset": self.offset})

    def get_schema_operation_parameters(self, view: Any) -> list[dict[str, Any]]:
        limit = {"type": "integer", "minimum": 1, "maximum": self.max_limit, "default": self.default_limit}
        offset = {"type": "integer", "minimum": 0, "default": 0}
        return [
            {"name": name, "in": "query", "required": False, "schema": schema}
            for name, schema in (("limit", limit), ("offset", offset))
        ]

    def get_paginated_response_schema(self, schema: dict[str, Any]) -> dict[str, Any]:
        numbers = {name: {"type": "integer"} for name in ("total", "limit", "offset")}
        return {
            "type": "object",
            "required": [self.results_key, *numbers],
            "properties": {self.results_key: schema, **numbers},
        }


class SessionPage(Page):
    results_key = "sessions"
