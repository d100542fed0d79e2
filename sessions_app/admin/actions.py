"""What an operator may do to sessions. Everything that takes something away first shows what, and asks; what is more
than a few sessions is done in the background."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from django.contrib import admin, messages
from django.contrib.admin.models import CHANGE, DELETION, LogEntry
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponseBase
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.utils.translation import gettext_lazy, ngettext, override

from sessions_app import audit, batches, bulk
from sessions_app.admin import exporting, previews, shown
from sessions_app.errors import RuntimeFault
from sessions_app.models import Session

AT_ONCE = 50  # and more than that in the background

MAX_DIGITS = 18


@dataclass(frozen=True, slots=True)
class SessionAction:
    """Its name is that of the deed in `bulk.py`."""

    name: str
    warning: Any = ""
    permission: str = "change"
    preview: Callable[[QuerySet[Session]], dict[str, Any]] = previews.touched

    @property
    def label(self) -> Any:
        return bulk.DEEDS[self.name].label

    @property
    def asks(self) -> bool:
        return bool(self.warning)


ACTIONS = (
    SessionAction(
        "cancel_run",
        gettext_lazy("The run under way stops. What was written of the answer is kept; open tool calls are closed."),
    ),
    SessionAction(
        "deactivate",
        gettext_lazy("A run under way is cancelled, and no message is taken until the session is activated again."),
    ),
    SessionAction("activate"),
    SessionAction("reset_agent"),
    SessionAction(
        "clear_messages",
        gettext_lazy("The conversation goes for good. The session and its log of events stay."),
    ),
    SessionAction(
        "expire",
        gettext_lazy(
            "As if nobody had used the session for long: a run under way is cancelled, no message is taken, and the "
            "clean-up purges it in its time, where it does. Activating it takes that back."
        ),
    ),
    SessionAction(
        "purge",
        gettext_lazy("All of this goes for good, at once. A session in use stays, whole."),
        permission="delete",
        preview=previews.purged,
    ),
    SessionAction(
        "delete",
        gettext_lazy("The sessions go for good, also those in use, with their messages, runs, approvals and events."),
        permission="delete",
        preview=previews.removed,
    ),
)


def named(name: str) -> SessionAction:
    return next(action for action in ACTIONS if action.name == name)


def as_admin_action(action: SessionAction) -> Callable[..., HttpResponseBase | None]:
    @admin.action(description=action.label, permissions=[action.permission])
    def run(model_admin: Any, request: HttpRequest, sessions: QuerySet[Session]) -> HttpResponseBase | None:
        return ask_or_apply(model_admin, request, sessions, action)

    run.__name__ = action.name
    return run


@admin.action(description=gettext_lazy("Export as JSON lines"), permissions=["change"])
def export(model_admin: Any, request: HttpRequest, sessions: QuerySet[Session]) -> HttpResponseBase:
    return exporting.download(request, sessions, who=operator(request))


def ask_or_apply(
    model_admin: Any, request: HttpRequest, sessions: QuerySet[Session], action: SessionAction
) -> HttpResponseBase | None:
    if sessions.count() > AT_ONCE:
        return ask_for_many(model_admin, request, sessions, action)
    if action.asks and request.POST.get("confirmed") != action.name:
        return _question(model_admin, request, sessions, action)
    apply(model_admin, request, list(sessions), action)
    back = request.POST.get("back", "")
    if back.isdecimal() and len(back) < 19 and Session.objects.filter(pk=back).exists():
        return redirect("admin:sessions_app_session_change", back)
    return redirect("admin:sessions_app_session_changelist") if back else None


def ask_for_many(
    model_admin: Any,
    request: HttpRequest,
    sessions: QuerySet[Session],
    action: SessionAction,
    **arguments: Any,
) -> TemplateResponse:
    """Freezes what is chosen, shows it, and asks: what is agreed to then is what was seen."""
    chosen = list(sessions.order_by("pk").values_list("pk", flat=True))
    batch = batches.prepare(action.name, chosen, who=operator(request), arguments=arguments)
    return _question(model_admin, request, sessions, action, batch=batch)


def _question(
    model_admin: Any, request: HttpRequest, sessions: QuerySet[Session], action: SessionAction, **more: Any
) -> TemplateResponse:
    context = {
        **model_admin.admin_site.each_context(request),
        "title": action.label,
        "action": action,
        "opts": model_admin.opts,
        "selected": request.POST.getlist("_selected_action"),
        "select_across": request.POST.get("select_across", "0"),
        "back": request.POST.get("back", ""),
        "going": action.preview(sessions),
        **more,
    }
    return TemplateResponse(request, "admin/sessions_app/session/confirm.html", context)


def apply(model_admin: Any, request: HttpRequest, sessions: list[Session], action: SessionAction) -> int:
    """Does it to each session, writes who did it, and says how it went. Returns to how many it was done."""
    done = []
    for session in sessions:
        try:
            bulk.COMMANDS[action.name](session.session_id, who=operator(request))
        except RuntimeFault as fault:
            text = f"{shown.visible(session)}: {shown.visible(fault.text())}"
            model_admin.message_user(request, text, messages.ERROR)
        else:
            done.append(session)
    _record(request, done, action)
    if done:
        text = ngettext("{action}: {count} session.", "{action}: {count} sessions.", len(done))
        model_admin.message_user(request, text.format(action=action.label, count=len(done)), messages.SUCCESS)
    return len(done)


def operator(request: HttpRequest) -> str:
    """Whoever is logged in, as the audit names them."""
    return audit.operator(request.user.get_username())


def seen(request: HttpRequest) -> int:
    """The number of the version that the form was shown with; -1, which none has, where it is no number."""
    told = request.POST.get("seen", "")
    return int(told) if told.isascii() and told.isdecimal() and len(told) <= MAX_DIGITS else -1


def _record(request: HttpRequest, sessions: list[Session], action: SessionAction) -> None:
    flag = DELETION if action.permission == "delete" else CHANGE
    with override("en"):
        message = str(action.label)
    if sessions:
        LogEntry.objects.log_actions(request.user.pk, sessions, flag, message)  # type: ignore[arg-type]
