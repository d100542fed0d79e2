"""What can be done to many rows in the background, by name: to one row at a time, each time one transaction."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from django.db.models import Model
from django.utils.dateparse import parse_datetime
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from sessions_app import cleanup, doctor, runs, services
from sessions_app.errors import NothingToDo, RunNotFound, SessionNotFound
from sessions_app.models import Run, Session

Arguments = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Deed:
    """`apply(row, arguments, who)` raises RuntimeFault where it is refused. `permissions`: who may have it done."""

    label: Any
    apply: Callable[[Any, Arguments, str], object]
    permissions: tuple[str, ...] = ("sessions_app.change_session",)
    model: type[Model] = Session


def _cancel(session_id: str, *, who: str) -> Run:
    run = runs.request_cancel(session_id, who=who)
    if run is None:
        raise NothingToDo(why=_("no run is under way"))
    return run


COMMANDS: dict[str, Callable[..., object]] = {  # (session_id, *, who)
    "cancel_run": _cancel,
    "deactivate": services.deactivate,
    "activate": services.activate,
    "clear_messages": services.clear_messages,
    "reset_agent": services.reset_agent,
    "expire": services.expire,
    "purge": cleanup.purge,
    "delete": services.delete_session,
}
DELETES = ("sessions_app.delete_session",)


def _command(name: str) -> Callable[[Session, Arguments, str], object]:
    return lambda session, arguments, who: COMMANDS[name](session.session_id, who=who)


def _delete(session: Session, arguments: Arguments, who: str) -> None:
    """With `unused_since` only what nobody has used since then: what was agreed to was old."""
    agreed = parse_datetime(arguments.get("unused_since", ""))
    held = Session.objects.select_for_update().filter(pk=session.pk).first()  # not used between the look and the deed
    if held is None:  # its name may be another session's by now
        raise SessionNotFound(session_id=session.session_id)
    if agreed is not None and held.last_activity >= agreed:
        raise NothingToDo(why=_("it was used meanwhile"))
    services.delete_session(held.session_id, who=who)


def _cancel_run(run: Run, arguments: Arguments, who: str) -> None:
    cancel_run(run, who=who)


def cancel_run(run: Run, *, who: str) -> Run:
    """Stops this one run. Raises RunNotFound, and NothingToDo when it has ended."""
    found = runs.request_cancel(run.session.session_id, run_id=run.pk, who=who)
    if found is None:
        raise NothingToDo(why=_("it has ended"))
    return found


def _repair(session: Session, arguments: Arguments, who: str) -> None:
    broken = next((one for one in doctor.BROKEN if one.name == arguments.get("check")), None)
    finding = doctor.Finding(broken, session.pk, session.session_id) if broken else None
    if finding is None or not doctor.repair(finding, who=who):
        raise NothingToDo(why=_("nothing that can be repaired"))
    doctor.note_repaired(finding)


DEEDS: dict[str, Deed] = {
    "cancel_run": Deed(gettext_lazy("Cancel the active run"), _command("cancel_run")),
    "deactivate": Deed(gettext_lazy("Deactivate"), _command("deactivate")),
    "activate": Deed(gettext_lazy("Activate"), _command("activate")),
    "clear_messages": Deed(gettext_lazy("Clear messages"), _command("clear_messages")),
    "reset_agent": Deed(gettext_lazy("Reset to the orchestrator"), _command("reset_agent")),
    "expire": Deed(gettext_lazy("Expire"), _command("expire")),
    "purge": Deed(gettext_lazy("Purge"), _command("purge"), DELETES),
    "delete": Deed(gettext_lazy("Delete"), _delete, DELETES),
    "cancel_runs": Deed(gettext_lazy("Cancel runs"), _cancel_run, model=Run),
    "repair": Deed(gettext_lazy("Repair"), _repair),
}


def subject(model: type[Model], pk: int) -> tuple[Any, str]:
    """The row and its name. Raises SessionNotFound, RunNotFound when it is gone."""
    row: Any = model._default_manager.filter(pk=pk).first()
    if row is None:
        raise RunNotFound(run_id=pk) if model is Run else SessionNotFound(session_id=pk)
    return row, str(row)
