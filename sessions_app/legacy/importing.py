"""Takes the replaced service's sessions over, one by one, in transactions of at most BATCH messages.

What was read is remembered by its row, so that a second run adds only what is new, and only to sessions in which
nothing was said here meanwhile. What is taken over owes nothing to handlers and counts for no metric of turns.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from django.db import DatabaseError
from django.utils import timezone

from sessions_app import audit, database, writing
from sessions_app.legacy import repair
from sessions_app.legacy.repair import Light
from sessions_app.legacy.report import CONTINUED, DELETED_HERE, DELETED_THERE, NO_CALL, STRANGERS, UNCHANGED, Report
from sessions_app.legacy.source import Row, Source
from sessions_app.legacy.taking import Found, Switch, Taking, is_pending
from sessions_app.models import ORCHESTRATOR, LegacyRow, LegacySession, Message, Run, RunState, Session, ToolCall
from sessions_app.session_ids import is_session_id

BATCH = 500
AGENT_CHARACTERS = 32
Seen = dict[str, set[str]]


@dataclass(slots=True)
class Import:
    """One run over one source. With `dry` everything is read and counted, and nothing is written; without `known`
    there is nothing here yet to compare with. `agent` gives the name that an agent has here, if there is one."""

    source: Source
    who: str
    agent: Callable[[str], str | None]
    progress: Callable[[int], object]
    dry: bool = False
    known: bool = True
    report: Report = field(default_factory=Report)
    _approvals: dict[str, list[Row]] = field(default_factory=lambda: defaultdict(list))

    def run(self) -> Report:
        """Never raises for a bad row; raises for a source or a database that fails."""
        sessions = list(self.source.rows("sessions"))
        names = {repair.text(row["id"]) for row in sessions}
        self._look_for_strays(names)
        for row in sessions:
            self._take(row)
        if self.report.taken and not self.dry:
            with database.atomic():
                audit.record_installation(audit.LEGACY_IMPORT, self.who, after=_counted(self.report.taken))
        return self.report

    def _look_for_strays(self, names: set[str]) -> None:
        for row in self.source.rows("messages", only=("id", "session_db_id")):
            if repair.text(row["session_db_id"]) not in names:
                self.report.refuse("messages", row["id"], "its session does not exist")
                self.progress(1)
        for row in self.source.rows("pending_approvals"):
            name = repair.text(row["session_id"])
            if name in names:
                self._approvals[name].append(row)
            else:
                self.report.refuse("pending_approvals", row["id"], "its session does not exist")

    # --- one session ---

    def _take(self, row: Row) -> None:
        name = repair.text(row["id"])
        if row["deleted_at"] not in (None, ""):
            return self._leave(DELETED_THERE, row)
        if not is_session_id(name):
            self.report.refuse("sessions", row["id"], "no session can be called so")
            return self._leave("", row)
        taken = LegacySession.objects.filter(source_id=name).select_related("session").first() if self.known else None
        if why := self._why_not(name, row, taken):
            return self._leave(why, row)
        try:
            self._take_over(name, row, taken)
        except DatabaseError as error:
            self.report.refuse("sessions", row["id"], f"the database refuses it: {type(error).__name__}")
        return None

    def _leave(self, why: str, row: Row) -> None:
        self.report.left[why] += bool(why)
        for _ in self.source.rows("messages", where="session_db_id", value=row["id"], only=("id",)):
            self.progress(1)

    def _why_not(self, name: str, row: Row, taken: LegacySession | None) -> str:
        if taken is None:
            return STRANGERS if self.known and Session.objects.filter(session_id=name).exists() else ""
        if taken.session is None:
            return DELETED_HERE
        return "" if taken.born == _born(row) else STRANGERS

    def _take_over(self, name: str, row: Row, taken: LegacySession | None) -> None:
        seen = _seen(taken)
        session = taken.session if taken else None
        found, rows = self._found(name, row, seen, session)
        new = sum(map(len, rows.values()))
        if taken is not None and not new:
            self.report.left[UNCHANGED] += 1
            return
        if taken is not None and session is not None and not _is_untouched(taken, session):
            self.report.left[CONTINUED] += 1
            return
        self.report.repairs.update(found.repairs)
        self.report.taken["sessions" if taken is None else "sessions with something new"] += 1
        if self.dry:
            self._count(found)
            return
        self._write(name, found, rows, taken)

    def _count(self, found: Found) -> None:
        """As if it were written."""
        waiting, taken = found.waiting, self.report.taken
        for place in found.placed:
            taken["messages"] += 1 + sum(answer is not None for answer in place.answers)
            pairs = zip(place.row.call_ids, place.answers, strict=True)
            missing = [wanted for wanted, answer in pairs if answer is None]
            last = place is found.placed[-1]
            self.report.repairs[repair.UNANSWERED] += sum(not (last and wanted in waiting) for wanted in missing)
        taken["approvals that wait"] += len(waiting)
        taken["approvals that have ended"] += len(found.approvals) - len(waiting)
        taken["agent switches"] += len(found.switches)

    # --- reading ---

    def _found(self, name: str, row: Row, seen: Seen, session: Session | None) -> tuple[Found, dict[str, list[str]]]:
        """What is new of the session, arranged, and the rows that it was read from."""
        rows: dict[str, list[str]] = defaultdict(list)
        used = set(ToolCall.objects.filter(session=session).values_list("call_id", flat=True)) if session else set()
        repairs: Counter[str] = Counter()
        light = self._light(row, seen["messages"], rows["messages"], repairs)
        arranged = repair.arrange(repair.in_time(light), used, repairs)
        found = Found(row, repairs, arranged.placed, arranged.orphans)
        if session is None:
            repairs[repair.ORPHANS_LEFT_OUT] += len(arranged.orphans)
            found.orphans = []
        first = light[0].at if light else None
        found.born = repair.moment(row["created_at"]) or first or timezone.now()
        found.last_activity = repair.moment(row["last_activity"])
        self._find_agents(found, row, seen["agent_switches"], rows["agent_switches"])
        self._find_approvals(found, name, seen["pending_approvals"], rows["pending_approvals"])
        return found, rows

    def _light(self, session_row: Row, seen: set[str], new: list[str], repairs: Counter[str]) -> list[Light]:
        light = []
        before = repair.moment(session_row["created_at"]) or timezone.now()
        for row in self.source.rows("messages", where="session_db_id", value=session_row["id"]):
            self.progress(1)
            row_id = repair.text(row["id"])[: repair.ID_CHARACTERS]
            if row_id in seen:
                before = repair.moment(row["timestamp"]) or before
                continue
            if not row_id:
                self.report.refuse("messages", row["id"], "it has no id")
                continue
            new.append(row_id)
            role = repair.text(row["role"]).strip().lower()
            if role in repair.SYSTEM_ROLES:
                repairs[repair.SYSTEM_LEFT_OUT] += 1
            elif role not in repair.ROLES:
                self.report.refuse("messages", row["id"], f"no provider knows the role {role[:40]!r}")
            else:
                at = repair.moment(row["timestamp"])
                repairs[repair.NO_TIME] += at is None
                before = at or before
                light.append(_lightened(row, row_id, repair.ROLES[role], before, repairs))
        return light

    def _find_agents(self, found: Found, row: Row, seen: set[str], new: list[str]) -> None:
        for context in self.source.rows("agent_contexts", where="session_db_id", value=row["id"]):
            found.agent = self.agent(repair.text(context["current_agent"])) or ORCHESTRATOR  # which routes
            found.switch_count = repair.whole(context["switch_count"])
            for one in self.source.rows("agent_switches", where="context_db_id", value=context["id"]):
                row_id = repair.text(one["id"])[: repair.ID_CHARACTERS]
                at, target = repair.moment(one["switched_at"]), self._agent_there(one["to_agent"])
                if row_id in seen:
                    continue
                new.append(row_id)
                if at is None or not target:
                    self.report.refuse("agent_switches", one["id"], "its time or its agent cannot be read")
                    continue
                came_from = self._agent_there(one["from_agent"]) or ORCHESTRATOR
                reason, confidence = repair.text(one["reason"]), _confidence(one["metadata_json"])
                found.switches.append(Switch(row_id, at, came_from, target, reason, confidence))
        found.switches.sort(key=lambda switch: switch.at)

    def _agent_there(self, name: Any) -> str:
        """Also one that is not offered here: it is history."""
        told = repair.text(name)[:AGENT_CHARACTERS]
        return self.agent(told) or told

    def _find_approvals(self, found: Found, name: str, seen: set[str], new: list[str]) -> None:
        calls = {wanted for place in found.placed for wanted in place.row.call_ids}
        for one in self._approvals.pop(name, []):
            row_id = repair.text(one["id"])[: repair.ID_CHARACTERS]
            if row_id in seen:
                continue
            new.append(row_id)
            call_id = repair.text(one["call_id"]) or repair.text(one["request_id"])
            if call_id not in calls:
                self.report.left[NO_CALL] += 1
            elif call_id not in found.approvals or is_pending(one):
                found.approvals[call_id] = one

    # --- writing ---

    def _write(self, name: str, found: Found, rows: dict[str, list[str]], taken: LegacySession | None) -> None:
        continues = taken is not None
        if taken is None:
            taken = self._begin(name, found)
        session = taken.session
        assert session is not None  # noqa: S101  for the type checker
        taking = Taking(session, found, lambda keys: self.source.whole("messages", keys))
        if continues:
            with writing.locked(session.pk) as change:
                taking.take_late_answers(change)
                taken.last_number = change.session.last_number
        for start in range(0, len(found.placed), BATCH):
            batch = found.placed[start : start + BATCH]
            with writing.locked(session.pk) as change:
                taking.store(change, batch)
                ids = [one.row_id for place in batch for one in (place.row, *place.answers) if one is not None]
                _remember(taken, {"messages": ids}, change.session.last_number)
        with writing.locked(session.pk) as change:
            taking.finish(change, is_new=not taken.complete)
            taken.complete = True
            _remember(taken, rows, change.session.last_number)
        self.report.taken.update(taking.taken)
        self.report.repairs.update(taking.repairs)

    def _begin(self, name: str, found: Found) -> LegacySession:
        """The session with its first events, closed until all of it is here."""
        with database.atomic():
            change = writing.created(name, who=self.who)
            change.owed = False
            session, row = change.session, found.row
            session.title = repair.text(row["title"])[:255]
            session.description = repair.text(row["description"])
            session.is_active = False
            for event in change.events:
                event.at = found.born
                event.data["imported"] = True
            change.store()
            Session.objects.filter(pk=session.pk).update(created_at=found.born)
            return LegacySession.objects.create(source_id=name, session=session, born=_born(row))


def _lightened(row: Row, row_id: str, role: str, at: Any, repairs: Counter[str]) -> Light:
    calls = repair.calls_of(row["tool_calls"], repairs) if role == Message.ASSISTANT else []
    content = repair.text(row["content"])
    return Light(
        key=row["key"],
        row_id=row_id,
        role=role,
        at=at,
        answers=repair.text(row["tool_call_id"]) if role == Message.TOOL else "",
        call_ids=tuple(call.call_id for call in calls),
        says=bool(content.strip() if role == Message.USER else content),
    )


def _is_untouched(taken: LegacySession, session: Session) -> bool:
    """Nothing was said here since, and nothing is being said but what was taken over waiting."""
    unfinished = Run.objects.filter(session=session, state__in=[RunState.QUEUED, RunState.RUNNING])
    return session.last_number == taken.last_number and not unfinished.exists()


def _seen(taken: LegacySession | None) -> Seen:
    seen: Seen = defaultdict(set)
    if taken is not None:
        for table, row_id in LegacyRow.objects.filter(taken=taken).values_list("table", "row_id").iterator():
            seen[table].add(row_id)
    return seen


def _remember(taken: LegacySession, rows: dict[str, list[str]], last_number: int) -> None:
    LegacyRow.objects.bulk_create(
        (LegacyRow(taken=taken, table=table, row_id=row_id) for table, ids in rows.items() for row_id in ids),
        batch_size=BATCH,
        ignore_conflicts=True,  # remembered with its batch, or an id that is there twice
    )
    taken.last_number = last_number
    taken.save(update_fields=["last_number", "complete"])


def _born(row: Row) -> str:
    at = repair.moment(row["created_at"])
    return at.isoformat() if at else ""


def _confidence(raw: Any) -> str:
    try:
        told = json.loads(raw) if isinstance(raw, str) else raw
    except ValueError:
        return ""
    return repair.text(told.get("confidence"))[:32] if isinstance(told, dict) else ""


def _counted(taken: Counter[str]) -> dict[str, int]:
    return {name.replace(" ", "_"): n for name, n in taken.items()}
