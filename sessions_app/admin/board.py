"""The home page: what is going on now, and what the last day or month was like. A fixed number of small queries."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any

from django.contrib import admin
from django.db.models import Model
from django.urls import reverse
from django.utils import timezone
from django.utils.formats import date_format
from django.utils.translation import gettext as _
from django.utils.translation import pgettext_lazy

from sessions_app import breakers, gauges, hourly
from sessions_app.admin import charts, shown
from sessions_app.closing import UNFINISHED
from sessions_app.conf import settings
from sessions_app.models import (
    Approval,
    Breaker,
    BreakerState,
    Event,
    EventDelivery,
    LLMRequest,
    Run,
    RunState,
    Session,
)

BAD_ENDS = (RunState.FAILED, RunState.INTERRUPTED)
OUTCOMES: dict[str, str] = {
    RunState.COMPLETED: "tone-good",
    RunState.FAILED: "tone-bad",
    RunState.INTERRUPTED: "tone-waits",
    RunState.CANCELLED: "tone-quiet",
    RunState.SUPERSEDED: "tone-busy",
}
BREAKER_WORDS: dict[str, Any] = {
    BreakerState.CLOSED: pgettext_lazy("breaker", "closed"),
    BreakerState.OPEN: pgettext_lazy("breaker", "open"),
    BreakerState.HALF_OPEN: pgettext_lazy("breaker", "half-open"),
}
RANGES = ("24h", "30d")
SLOW_OUTBOX_SECONDS = 60

Tile = dict[str, Any]
Rows = list[tuple[datetime, str, str, int]]


def front_page(model: type[Model]) -> str:
    """Where a model's link leads: its list, unless its admin names a page that is more to the point."""
    name = f"{model._meta.app_label}_{model._meta.model_name}_changelist"
    return reverse(getattr(admin.site.get_model_admin(model), "front_page", f"admin:{name}"))


def tile(label: str, value: object, address: str, tone: str = "", hint: str = "") -> Tile:
    return {"label": label, "value": value, "address": address, "tone": tone, "hint": hint}


# --- tiles -------------------------------------------------------------------------------------------------------


def tiles() -> list[Tile]:
    """What is going on, each number with the list behind it. "Today" begins at midnight of the server's time zone."""
    midnight = timezone.localtime().replace(hour=0, minute=0, second=0, microsecond=0)
    today = hourly.since(midnight)
    return [*_now(), *_today(today, midnight), *_plumbing()]


def _now() -> list[Tile]:
    sessions, waiting = front_page(Session), gauges.approvals_waiting()
    active = Run.objects.filter(state__in=UNFINISHED).count()
    stuck, broken = gauges.stuck_runs(), gauges.broken_states()
    return [
        tile(_("Turns under way"), active, f"{sessions}?runs=unfinished", "busy" if active else ""),
        tile(_("Approvals that wait"), waiting, front_page(Approval), "waits" if waiting else ""),
        tile(_("Stuck turns"), stuck, f"{sessions}?runs=unfinished", "bad" if stuck else ""),
        tile(
            _("Broken states"), broken, reverse("admin:sessions_app_session_doctor") + "?whole=1" * bool(broken),
            "bad" if broken else "",
            _("the doctor names them") if broken else "",
        ),
    ]  # fmt: skip


def _today(rows: Rows, midnight: datetime) -> list[Tile]:
    ends = _by_label(rows, hourly.TURNS)
    ended, bad = sum(ends.values()), sum(ends[state] for state in BAD_ENDS)
    tokens = sum(_by_label(rows, hourly.PROMPT).values()) + sum(_by_label(rows, hourly.COMPLETION).values())
    spent = cost(_by_label(rows, hourly.PROMPT), _by_label(rows, hourly.COMPLETION))
    first = _by_label(rows, hourly.FIRST_TOKEN)
    used = Session.objects.filter(last_activity__gte=midnight).count()
    return [
        tile(_("Sessions today"), charts.number(used), front_page(Session)),
        tile(
            _("Turns that failed today"), f"{bad / ended:.1%}" if ended else "—", f"{front_page(Event)}?type=failed",
            "bad" if bad else "", _("{bad} of {ended}").format(bad=bad, ended=ended),
        ),
        tile(
            _("Tokens today"), charts.number(tokens), front_page(LLMRequest),
            hint="" if spent is None else _("cost {amount}").format(amount=f"{spent:,.2f}"),
        ),
        tile(
            _("First token today, p50"), _seconds(hourly.quantile(first, 0.5)), front_page(LLMRequest),
            hint=_("p95 {time}").format(time=_seconds(hourly.quantile(first, 0.95))),
        ),
    ]  # fmt: skip


def _plumbing() -> list[Tile]:
    lag, dead, circuit = gauges.outbox_lag_seconds(), gauges.dead_letters(), breakers.state()
    deliveries = front_page(EventDelivery)
    closed = circuit.state == BreakerState.CLOSED
    return [
        tile(
            _("Oldest due delivery"), shown.duration(lag) if lag else "—", f"{deliveries}?state__exact=due",
            "waits" if lag > SLOW_OUTBOX_SECONDS else "",
        ),
        tile(_("Dead letters"), dead, f"{deliveries}?state__exact=dead", "bad" if dead else ""),
        tile(
            _("Breaker of the model"), BREAKER_WORDS.get(circuit.state, circuit.state), front_page(Breaker),
            "" if closed else "bad", "" if closed else shown.visible(circuit.last_error),
        ),
    ]  # fmt: skip


def _seconds(value: float | None) -> str:
    return "—" if value is None else shown.duration(value)


def cost(prompt: Mapping[str, int], completion: Mapping[str, int]) -> float | None:
    """What the tokens of each model cost by MODEL_PRICES (per million); None when no price is set."""
    if not settings.MODEL_PRICES:
        return None
    prices = settings.MODEL_PRICES
    parts = [prompt.get(model, 0) * into + completion.get(model, 0) * out for model, (into, out) in prices.items()]
    return sum(parts) / 1_000_000


def _by_label(rows: Rows, name: str) -> Counter[str]:
    found: Counter[str] = Counter()
    for _hour, series, label, value in rows:
        if series == name:
            found[label] += value
    return found


# --- charts ------------------------------------------------------------------------------------------------------


def drawn(range_: str) -> list[charts.Chart]:
    """The charts of the last 24 hours, an hour a column, or of the last 30 days, a day a column."""
    now = timezone.localtime()
    if range_ == "30d":
        begin = now.replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=29)
        slots = [begin + timedelta(days=at) for at in range(30)]
        names = [date_format(slot, "j M") for slot in slots]
        place = {slot.date(): at for at, slot in enumerate(slots)}
        rows = [(place.get(timezone.localtime(hour).date()), *rest) for hour, *rest in hourly.since(begin)]
    else:
        begin = hourly.hour_of(now) - timedelta(hours=23)
        hours = [begin + timedelta(hours=at) for at in range(24)]
        names = [date_format(timezone.localtime(hour), "H:i") for hour in hours]
        places = {hour: at for at, hour in enumerate(hours)}
        rows = [(places.get(hour), *rest) for hour, *rest in hourly.since(begin)]
    return _charts(names, [row for row in rows if row[0] is not None])


def _charts(slots: list[str], rows: list[Any]) -> list[charts.Chart]:
    by_outcome = _columns(rows, len(slots), {hourly.TURNS})
    by_model = _columns(rows, len(slots), {hourly.PROMPT, hourly.COMPLETION})
    by_agent = _columns(rows, len(slots), {hourly.AGENT_TOKENS})
    first = [Counter({label: n for at, name, label, n in rows if name == hourly.FIRST_TOKEN and at == slot})
             for slot in range(len(slots))]  # fmt: skip
    latency = {part: [hourly.quantile(buckets, q) for buckets in first] for part, q in (("p50", 0.5), ("p95", 0.95))}
    outcomes = {state: numbers for state, numbers in by_outcome.items() if state in OUTCOMES}
    return [
        charts.stacked(_("Turns by outcome"), slots, outcomes, css=OUTCOMES, words=lambda state: RunState(state).label),
        charts.lines(_("Time to first token"), slots, latency, {"p50": "series-0", "p95": "series-3"}),
        charts.stacked(_("Tokens by model"), slots, by_model, words=lambda model: model or "—"),
        charts.stacked(_("Tokens by agent"), slots, by_agent, words=lambda agent: agent or "—"),
    ]


def _columns(rows: Iterable[Any], slots: int, names: set[str]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = defaultdict(lambda: [0] * slots)
    for at, name, label, value in rows:
        if name in names:
            found[label][at] += value
    return dict(found)
