"""What needs a person now, the most urgent first: what it is, why, and where it is mended. A fixed number of queries.

Each kind is read by an index of what is unfinished, and shows at most `SHOWN` rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db.models import Count, Max
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from sessions_app import breakers, gauges
from sessions_app.admin import board, shown
from sessions_app.conf import settings
from sessions_app.models import (
    Approval,
    ApprovalState,
    Breaker,
    BreakerState,
    DeliveryState,
    EventDelivery,
    Run,
    RunState,
    Session,
    ToolCall,
    ToolCallState,
)

# An IDE answers within seconds, or its person has a dialog open; after this nobody can say whether the call ran.
IN_DOUBT_SECONDS = 60
NEAR_END_SECONDS = 3600
SHOWN = 5


@dataclass(frozen=True, slots=True)
class Trouble:
    """One thing that a person has to see to. `session` can be freed by cancelling its turn; `address` leads to the
    place where it is mended, and `deed` says what one does there."""

    title: str
    why: str
    address: str
    deed: str
    tone: str = "bad"
    session: Session | None = None
    since: datetime | None = None


def found() -> list[Trouble]:
    """All that there is, at most `SHOWN` of a kind."""
    return [*_lost(), *_in_doubt(), *_queued(), *_near_their_end(), *_plumbing()]


def _name(session: Session) -> str:
    return session.title or session.session_id


def _page(session: Session, place: str = "") -> str:
    return reverse("admin:sessions_app_session_change", args=[session.pk]) + place


def _lost() -> Iterator[Trouble]:
    for run in gauges.lost_runs().select_related("session").order_by("pk")[:SHOWN]:
        why = _("The process that worked on this turn is gone, and nobody has ended the turn yet.")
        yield Trouble(_name(run.session), why, _page(run.session), _("Open"), session=run.session, since=run.created_at)


def _in_doubt() -> Iterator[Trouble]:
    late = timezone.now() - timedelta(seconds=IN_DOUBT_SECONDS)
    out = ToolCall.objects.filter(run__state=RunState.WAITING, state=ToolCallState.OUT, requested_at__lt=late)
    rows = out.select_related("session").only("name", "requested_at", "session__session_id", "session__title")
    for call in rows.order_by("requested_at", "pk")[:SHOWN]:
        why = _("{tool} went out to the client, and nothing has come back: nobody here can say whether it ran.")
        yield Trouble(
            _name(call.session), why.format(tool=call.name), _page(call.session, f"#call-{call.pk}"), _("Settle it"),
            session=call.session, since=call.requested_at,
        )  # fmt: skip


def _queued() -> Iterator[Trouble]:
    late = timezone.now() - timedelta(seconds=settings.QUEUE_WAIT_SECONDS)
    rows = Run.objects.filter(state=RunState.QUEUED, created_at__lt=late).select_related("session").order_by("pk")
    for run in rows[:SHOWN]:
        why = _("The turn has waited for a place longer than it may.")
        yield Trouble(_name(run.session), why, _page(run.session), _("Open"), session=run.session, since=run.created_at)


def _near_their_end() -> Iterator[Trouble]:
    soon = timezone.now() + timedelta(seconds=NEAR_END_SECONDS)
    rows = Approval.objects.filter(state=ApprovalState.PENDING, expires_at__lt=soon).order_by("expires_at", "pk")
    for approval in rows.select_related("call", "session")[:SHOWN]:
        left = max((approval.expires_at - timezone.now()).total_seconds(), 0) if approval.expires_at else 0
        why = _("{tool} waits for approval; the time for it ends in {time}.")
        yield Trouble(
            _name(approval.session), why.format(tool=approval.call.name, time=shown.duration(left)),
            _page(approval.session, f"#call-{approval.call_id}"), _("Decide"), tone="waits", since=approval.created_at,
        )  # fmt: skip


def _plumbing() -> Iterator[Trouble]:
    circuit, broken = breakers.state(), gauges.broken_states()
    if circuit.state != BreakerState.CLOSED:
        why = circuit.last_error or _("Requests failed one after the other.")
        yield Trouble(
            _("The language model is not asked"), why, board.front_page(Breaker), _("Open"), since=circuit.opened_at
        )
    dead = EventDelivery.objects.filter(state=DeliveryState.DEAD)
    rows = dead.order_by("handler").values("handler").annotate(count=Count("pk"), error=Max("last_error"))
    for row in rows[:SHOWN]:
        title = ngettext("{count} dead letter of {handler}", "{count} dead letters of {handler}", row["count"])
        address = f"{board.front_page(EventDelivery)}?state__exact=dead"
        told = title.format(count=row["count"], handler=row["handler"])
        yield Trouble(told, row["error"] or "—", address, _("Replay or discard"), tone="waits")
    if broken:
        title = ngettext("{count} broken state", "{count} broken states", broken).format(count=broken)
        why = _("The doctor names what should never be, and mends it.")
        yield Trouble(title, why, reverse("admin:sessions_app_session_doctor") + "?whole=1", _("Open"))
