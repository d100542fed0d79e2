"""What a session's page shows, read with the same number of queries whatever the session holds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.db.models import Avg, Count, OuterRef, Subquery, Sum
from django.utils import timezone
from django.utils.formats import date_format
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _

from sessions_app.admin import board, columns, conversation, shown, timeline, waterfall
from sessions_app.closing import UNFINISHED
from sessions_app.conf import settings
from sessions_app.models import LLMRequest, RunState, Session

MOMENT = "j M Y H:i"
SHOWN_RUNS = SHOWN_REQUESTS = 20


def state(session: Any) -> SafeString:
    """A session's state in one pill. Reads what the list's query annotated."""
    if not session.is_active:
        return columns.mark(_("expired") if session.expired_at else _("closed"), "quiet")
    if session.waits_for_approval:
        return columns.mark(_("waiting for approval"), "waits")
    if session.last_run in (*UNFINISHED, RunState.FAILED, RunState.INTERRUPTED):
        return columns.mark(RunState(session.last_run).label, columns.tone(session.last_run))
    return columns.mark(_("idle"), "good")


def window(params: Mapping[str, str]) -> dict[str, int]:
    """Which part of the conversation an address asks for; nonsense asks for the newest."""
    return {
        name: int(params[name])
        for name in ("before", "after")
        if params.get(name, "").isdecimal() and len(params[name]) < 10
    }


def of(session: Session, **where: int) -> dict[str, Any]:
    page = conversation.page(session, **where)
    return {
        "page": page,
        "state": state(session),
        "moments": timeline.moments(session, last_seq=page.last_seq),
        "runs": _shown_runs(session),
        "switches": session.agent_switches.order_by("-id")[:50],
        "requests": session.llm_requests.order_by("-id")[:SHOWN_REQUESTS],
        "facts": _facts(session),
        "is_busy": getattr(session, "last_run", "") in UNFINISHED,
    }


def _runs(session: Session) -> Any:
    asked = LLMRequest.objects.filter(run=OuterRef("pk"), purpose=LLMRequest.ANSWER).order_by("pk")
    rows = session.runs.defer("request").annotate(
        tokens=Sum("llm_requests__total_tokens"), first_token_ms=Subquery(asked.values("first_token_ms")[:1])
    )
    return rows.order_by("-id")[:SHOWN_RUNS]


def _shown_runs(session: Session) -> list[dict[str, Any]]:
    runs = list(_runs(session))
    bars = waterfall.bars(runs)
    return [{**_shown_run(run), "bars": bars[run.pk]} for run in runs]


def _shown_run(run: Any) -> dict[str, Any]:
    ended = run.ended_at or timezone.now()
    return {
        "run": run,
        "tone": columns.tone(run.state),
        "took": shown.duration(max((ended - run.created_at).total_seconds(), 0)),
        "first_token": _seconds(run.first_token_ms),
    }


def _seconds(milliseconds: float | None) -> str:
    return "—" if milliseconds is None else shown.duration(milliseconds / 1000)


def _facts(session: Session) -> list[tuple[str, object]]:
    used = LLMRequest.objects.filter(session=session).aggregate(
        count=Count("pk"), tokens=Sum("total_tokens"), first=Avg("first_token_ms")
    )
    spent = _spent(session)
    return [
        *([(_("Owner"), shown.visible(session.owner))] if session.owner else []),
        (_("Messages"), session.message_count),
        (_("Events"), session.last_seq),
        (_("Agent switches"), session.switch_count),
        (_("Model requests"), used["count"]),
        (_("Tokens"), used["tokens"] or 0),
        *([(_("Cost"), f"{spent:,.4f}")] if spent is not None else []),
        (_("First token, average"), _seconds(used["first"])),
        (_("Created"), date_format(session.created_at, MOMENT)),
        (_("Last activity"), date_format(session.last_activity, MOMENT)),
    ]


def _spent(session: Session) -> float | None:
    """What its tokens cost; None, without a query, when no price is set."""
    if not settings.MODEL_PRICES:
        return None
    asked = LLMRequest.objects.filter(session=session).values("model")
    rows = list(asked.annotate(prompt=Sum("prompt_tokens"), completion=Sum("completion_tokens")))
    return board.cost({row["model"]: row["prompt"] for row in rows}, {row["model"]: row["completion"] for row in rows})
