"""Whether the service answers, whether it takes new turns, and how what it stands on does; the metrics beside it."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping
from concurrent.futures import wait
from contextlib import suppress
from typing import Any

import redis
from django.core.exceptions import PermissionDenied
from django.db import DatabaseError, InterfaceError, OperationalError, transaction
from django.http import HttpRequest, HttpResponse
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_safe
from drf_spectacular.utils import extend_schema, extend_schema_view
from rest_framework import serializers
from rest_framework.permissions import AllowAny
from rest_framework.request import Request
from rest_framework.response import Response

from agents_app import exposition, llm, vitals
from agents_app.supervisor import supervisor
from runtime_project import probes
from runtime_project.probes import Probe
from sessions_app import breakers, database, gauges, owners
from sessions_app.api import RESTView
from sessions_app.conf import settings
from sessions_app.models import BreakerState, Session

ANSWER_SECONDS = 0.7  # of the second that an answer may take
SCRAPE_SECONDS = 5.0
LEAST_FREE_BYTES = 1024 * 1024  # less holds no long answer
LAGGING_SECONDS = 60
Facts = dict[str, Any]


# --- what it stands on -------------------------------------------------------------------------------------------


def _timed(check: Callable[[], Facts]) -> Callable[[], Facts]:
    """Adds how long the check took; what fails is said to fail, and no more: everybody may read it."""

    def ask() -> Facts:
        began = time.perf_counter()
        try:
            facts = check()
        except (DatabaseError, InterfaceError, redis.RedisError, OSError):
            facts = {"status": "failing"}
        return {**facts, "latency_ms": round((time.perf_counter() - began) * 1000, 1)}

    return ask


def _database() -> Facts:
    """Can a transaction be had: SQLite's one writer may be somebody who does not let go. And can it be written: that is
    tried only when the last write failed, and the space for the next one is looked at."""
    probes.stand_aside(ANSWER_SECONDS)
    if settings.ON_SQLITE and shutil.disk_usage(settings.DATABASE_DIR).free < LEAST_FREE_BYTES:
        return {"status": "failing"}
    with transaction.atomic():
        Session.objects.exists()
    if database.last_write_failed():
        gauges.beat(supervisor.owner)
        database.written()
    return {"status": "ok"}


def _outbox() -> Facts:
    probes.stand_aside(ANSWER_SECONDS)
    lag, dead = gauges.outbox_lag_seconds(), gauges.dead_letters()
    status = "ok" if lag < LAGGING_SECONDS else "failing"
    return {"status": status, "lag_seconds": round(lag, 1), "dead_letters": dead}


def _runs() -> Facts:
    probes.stand_aside(ANSWER_SECONDS)
    stuck = gauges.stuck_runs()
    return {"status": "failing" if stuck else "ok", "stuck": stuck}


def _redis() -> Facts:
    if not settings.REDIS_URL:
        return {"status": "unused"}
    with redis.Redis.from_url(
        settings.REDIS_URL, socket_timeout=ANSWER_SECONDS, socket_connect_timeout=ANSWER_SECONDS
    ) as client:
        client.ping()
    return {"status": "ok"}


def _llm() -> Facts:
    """By its breaker: asking it would be one more request to a model that may be down."""
    if llm.is_demo(settings.LLM_MODEL):
        return {"status": "unused"}
    probes.stand_aside(ANSWER_SECONDS)
    circuit = breakers.state()
    return {"status": "ok" if circuit.state == BreakerState.CLOSED else "failing", "breaker": circuit.state}


PROBES = {
    name: Probe(_timed(check))
    for name, check in {"database": _database, "redis": _redis, "outbox": _outbox, "runs": _runs, "llm": _llm}.items()
}


def examine() -> dict[str, Facts]:
    """Every dependency's state; who has not answered in time is said to hang."""
    asked = {name: probe.asked() for name, probe in PROBES.items()}
    answered, _ = wait(asked.values(), timeout=ANSWER_SECONDS)
    return {
        name: future.result() if future in answered else {"status": "timeout", "latency_ms": None}
        for name, future in asked.items()
    }


def verdict(checks: Mapping[str, Facts], *, draining: bool) -> tuple[int, str]:
    """Degraded is not dead: only a server that goes, or has no database, is to be sent nothing."""
    if draining:
        return 503, "draining"
    if checks["database"]["status"] != "ok":
        return 503, "unavailable"
    healthy = all(facts["status"] in ("ok", "unused") for facts in checks.values())
    return 200, "ready" if healthy else "degraded"


# --- endpoints ---------------------------------------------------------------------------------------------------


class Healthy(serializers.Serializer[None]):
    status = serializers.ChoiceField(["healthy"])
    service = serializers.ChoiceField(["agent-runtime"])
    version = serializers.CharField()


class Check(serializers.Serializer[None]):
    status = serializers.ChoiceField(["ok", "unused", "failing", "timeout"])
    latency_ms = serializers.FloatField(allow_null=True)
    breaker = serializers.CharField(required=False)
    lag_seconds = serializers.FloatField(required=False)
    dead_letters = serializers.IntegerField(required=False)
    stuck = serializers.IntegerField(required=False)


class Ready(serializers.Serializer[None]):
    status = serializers.ChoiceField(["ready", "degraded", "draining", "unavailable"])
    checks = serializers.DictField(child=Check())


@extend_schema_view(
    get=extend_schema(summary="Whether it takes new turns, and what it stands on", responses={200: Ready, 503: Ready})
)
class Readiness(RESTView):
    authentication_classes = ()
    permission_classes = (AllowAny,)

    def get(self, request: Request) -> Response:
        checks = examine()
        code, status = verdict(checks, draining=supervisor.draining)
        headers = {"Retry-After": "5"} if code == 503 else {}
        return Response({"status": status, "checks": checks}, code, headers=headers)


@extend_schema_view(get=extend_schema(summary="Whether the service answers", responses=Healthy))
class Health(RESTView):
    authentication_classes = ()
    permission_classes = (AllowAny,)

    def get(self, request: Request) -> Response:
        return Response({"status": "healthy", "service": "agent-runtime", "version": settings.VERSION})


def _scraped() -> bytes:
    probes.stand_aside(SCRAPE_SECONDS / 3)
    with suppress(OperationalError):  # SQLite's one writer is somebody else: what was counted before is still right
        vitals.report_now(supervisor.owner)
    return exposition.text()


SCRAPE = Probe(_scraped)


@csrf_exempt
@require_safe
def metrics(request: HttpRequest) -> HttpResponse:
    """GET /metrics. The gate asks for the key, unless METRICS_PUBLIC; no single owner's they are."""
    if owners.current() != owners.SERVICE and not settings.METRICS_PUBLIC:
        raise PermissionDenied
    try:
        return HttpResponse(SCRAPE.asked().result(SCRAPE_SECONDS), content_type=exposition.CONTENT_TYPE)
    except (TimeoutError, DatabaseError, InterfaceError):
        return HttpResponse("# no database\n", content_type=exposition.CONTENT_TYPE, status=503)
