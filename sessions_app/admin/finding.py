"""One box that finds whatever people have in their hands: an id, some words, a path, an error.

Each kind of row is one group and a fixed number of queries. Text is looked for in the newest rows only, a stretch of
primary keys, so that a search takes as long on a large installation as on a small one; a page says how far it looked.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from django.contrib.auth.models import AbstractBaseUser, AnonymousUser
from django.db import connection
from django.db.models import Max, Model, Q, QuerySet, TextField
from django.db.models.functions import Cast, Left
from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from sessions_app.admin import shown, timeline
from sessions_app.models import DeliveryState, Event, EventDelivery, LLMRequest, Message, Run, Session, ToolCall

SHORTEST, LONGEST = 2, 200
SHOWN = 10
NEWEST_ROWS = 50_000
READ_CHARACTERS = 20_000
BEFORE, EXCERPT = 60, 220
LARGEST_KEY = 2**63 - 1
User = AbstractBaseUser | AnonymousUser


@dataclass(frozen=True, slots=True)
class Hit:
    """One row that fits: where it is shown, what it is, and what of it fits."""

    address: str
    title: str
    detail: str
    at: Any


@dataclass(frozen=True, slots=True)
class Group:
    """The hits of one kind; `more` when there are others, `looked_at` when only so many rows were."""

    name: Any
    hits: list[Hit] = field(default_factory=list)
    more: str = ""
    has_more: bool = False
    looked_at: int | None = None


def everything(words: str, user: User) -> list[Group]:
    """All kinds that this operator may see, those with hits first. Words outside of the limits find nothing."""
    words = words.strip()
    if not SHORTEST <= len(words) <= LONGEST or "\x00" in words:
        return []
    groups = [look(words) for permission, look in KINDS if user.has_perm(f"sessions_app.view_{permission}")]  # type: ignore[union-attr]
    return sorted(groups, key=lambda group: not group.hits)


def spellings(words: str) -> set[str]:
    """SQLite folds the case of ASCII only: other letters are tried in the cases that people write."""
    if words.isascii() or connection.vendor != "sqlite":
        return {words}
    return {words, words.lower(), words.upper(), words.capitalize()}


def holding(words: str, *columns: str) -> Q:
    """That one of the columns has the words in it."""
    found = Q()
    for spelling in spellings(words):
        for column in columns:
            found |= Q(**{f"{column}__icontains": spelling})
    return found


def newest(model: type[Model]) -> tuple[Q, int | None]:
    """That a row is among the newest, and how many those are; None when that is all."""
    last = model._default_manager.aggregate(last=Max("pk"))["last"] or 0
    return Q(pk__gt=last - NEWEST_ROWS), (NEWEST_ROWS if last > NEWEST_ROWS else None)


# --- the kinds ---------------------------------------------------------------------------------------------------


def _sessions(words: str) -> Group:
    recent, looked_at = newest(Session)
    fits = Q(session_id=words) | (recent & holding(words, "session_id", "title", "owner"))
    rows = Session.objects.filter(fits).order_by("-last_activity", "-pk")

    def hit(row: Any) -> Hit:
        return Hit(_page(row.pk), _titled(row), _joined(row.session_id, row.owner), row.last_activity)

    return _group(gettext_lazy("Sessions"), rows, looked_at, hit, reverse("admin:sessions_app_session_changelist"))


def _messages(words: str) -> Group:
    recent, looked_at = newest(Message)
    rows = Message.objects.filter(recent & holding(words, "content")).order_by("-pk").select_related("session")
    rows = rows.defer("content", "reasoning", "tool_calls").annotate(text=Left("content", READ_CHARACTERS))

    def hit(row: Any) -> Hit:
        address = f"{_page(row.session_id)}?before={row.number + 1}#m{row.number}"
        return Hit(address, _titled(row.session), excerpt(row.text, words), row.created_at)

    return _group(gettext_lazy("Messages"), rows, looked_at, hit)


def _calls(words: str) -> Group:
    """By the tool's name, the call's id, or what is in the arguments: a path, a command."""
    recent, looked_at = newest(ToolCall)
    rows = ToolCall.objects.annotate(asked=Cast("arguments", TextField())).filter(recent)
    fits = holding(words, "name", "call_id", "asked")
    for is_ascii in (True, False):  # as Django writes JSON into SQLite, and as `prepared` and PostgreSQL do
        fits |= Q(asked__icontains=json.dumps(words, ensure_ascii=is_ascii)[1:-1])
    rows = rows.filter(fits).order_by("-pk").select_related("session", "message")

    def hit(row: Any) -> Hit:
        address = f"{_page(row.session_id)}?before={row.message.number + 1}#m{row.message.number}"
        asked = json.dumps(row.arguments, ensure_ascii=False)
        return Hit(
            address, _titled(row.session), f"{row.name} {excerpt(asked, words)} · {row.call_id}", row.requested_at
        )

    return _group(gettext_lazy("Tool calls"), rows, looked_at, hit)


def _runs(words: str) -> Group:
    number = words.removeprefix("#")
    is_number = number.isdecimal() and len(number) < len(str(LARGEST_KEY))
    recent, looked_at = newest(Run)
    fits = recent & (Q(correlation_id=words) | Q(idempotency_key=words) | holding(words, "error_code"))
    found = list(Run.objects.filter(fits).order_by("-pk").values_list("pk", flat=True)[: SHOWN + 1])
    if is_number:  # apart: with an OR the database would look at all runs
        found.append(int(number))
    rows = Run.objects.filter(pk__in=found).order_by("-pk")
    rows = rows.select_related("session").defer("request")

    def hit(row: Any) -> Hit:
        detail = _joined(row.get_state_display(), row.error_code, row.correlation_id)
        return Hit(_row(row), f"{row} {_titled(row.session)}", detail, row.created_at)

    return _group(gettext_lazy("Runs"), rows, looked_at, hit)


def _events(words: str) -> Group:
    recent, looked_at = newest(Event)
    fits = Q(correlation_id=words) | Q(causation_id=words)
    if (event_id := _as_uuid(words)) is not None:
        fits |= Q(event_id=event_id)
    rows = Event.objects.filter(recent & fits).order_by("-pk").select_related("session")

    def hit(row: Any) -> Hit:
        title = f"{timeline.words(row.type)[0]} · {_titled(row.session)}"
        return Hit(_row(row), title, timeline.detail(row.data), row.at)

    return _group(gettext_lazy("Events"), rows, looked_at, hit)


def _requests(words: str) -> Group:
    recent, looked_at = newest(LLMRequest)
    rows = LLMRequest.objects.filter(recent & holding(words, "error", "model")).order_by("-pk")

    def hit(row: Any) -> Hit:
        return Hit(_row(row), _titled(row.session), _joined(row.model, row.error), row.started_at)

    return _group(gettext_lazy("Model requests"), rows.select_related("session"), looked_at, hit)


def _deliveries(words: str) -> Group:
    recent, looked_at = newest(EventDelivery)
    fits = recent & Q(state=DeliveryState.DEAD) & holding(words, "handler", "last_error")
    rows = EventDelivery.objects.filter(fits).order_by("-pk").select_related("event__session")

    def hit(row: Any) -> Hit:
        return Hit(_row(row), f"{row.handler} · {_titled(row.event.session)}", row.last_error, row.event.at)

    return _group(gettext_lazy("Dead letters"), rows, looked_at, hit)


KINDS: tuple[tuple[str, Callable[[str], Group]], ...] = (
    ("session", _sessions),
    ("message", _messages),
    ("toolcall", _calls),
    ("run", _runs),
    ("llmrequest", _requests),
    ("eventdelivery", _deliveries),
    ("event", _events),
)


# --- what they share ---------------------------------------------------------------------------------------------


def _group(name: Any, rows: QuerySet[Any], looked_at: int | None, hit: Callable[[Any], Hit], more: str = "") -> Group:
    found = list(rows[: SHOWN + 1])
    hits = [_visible(hit(row)) for row in found[:SHOWN]]
    return Group(name, hits, more, len(found) > SHOWN, looked_at)


def _visible(hit: Hit) -> Hit:
    title, detail = (shown.visible(shown.cut(text, EXCERPT)) for text in (hit.title, hit.detail))
    return Hit(hit.address, title, detail, hit.at)


def excerpt(text: str, words: str) -> str:
    """The text around the first place that has the words; its beginning where they are beyond what was read."""
    at = max(text.casefold().find(words.casefold()), 0)
    first = max(at - BEFORE, 0)
    part = " ".join(text[first : first + EXCERPT - 20].split())
    return f"{'… ' if first else ''}{part}{' …' if len(text) > first + EXCERPT - 20 else ''}"


def marked(text: str, words: str) -> Iterator[tuple[str, bool]]:
    """The text in pieces, each with whether it is what was looked for."""
    folded, wanted, at = text.casefold(), words.strip().casefold(), 0
    if len(folded) != len(text) or not wanted:  # a letter that folds into two: places would not agree
        yield text, False
        return
    while (found := folded.find(wanted, at)) >= 0:
        yield text[at:found], False
        yield text[found : found + len(wanted)], True
        at = found + len(wanted)
    yield text[at:], False


def _page(session_pk: int) -> str:
    return reverse("admin:sessions_app_session_change", args=[session_pk])


def _row(row: Model) -> str:
    return reverse(f"admin:sessions_app_{row._meta.model_name}_change", args=[row.pk])


def _joined(*parts: str) -> str:
    return " · ".join(filter(None, parts))


def _titled(session: Session) -> str:
    return session.title or session.session_id


def _as_uuid(words: str) -> uuid.UUID | None:
    try:
        return uuid.UUID(words)
    except ValueError:
        return None


def said(words: str) -> str:
    """Why words find nothing at all; empty when they are fit to be looked for."""
    if not words.strip():
        return _("A session's id, words, a tool, a path, an error, a run's number, a correlation id.")
    if not SHORTEST <= len(words.strip()) <= LONGEST:
        return _("From {shortest} to {longest} characters.").format(shortest=SHORTEST, longest=LONGEST)
    return ""
