"""Taking over: what the replaced service stored becomes sound sessions, once, and its database stays as it was."""

from __future__ import annotations

import hashlib
import io
import json
import random
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import httpx
import pytest
from django.core.management import CommandError, call_command

from agents_app import agents
from sessions_app import deliveries, doctor, events, history, services
from sessions_app.legacy import importing, repair, source
from sessions_app.legacy.report import Report
from sessions_app.models import (
    AgentSwitch,
    Approval,
    AuditEntry,
    Event,
    LegacySession,
    Message,
    Run,
    Session,
    Tally,
    ToolCall,
)
from tests import talk
from tests.conftest import RunningServer
from tests.legacy_database import SCHEMA, LegacyDatabase, call, lots, on_postgres, on_sqlite
from tests.listening import stored
from tests.model_server import ModelServer, strict, text
from tests.runtime_project import programs
from tests.workers import DATABASE, fresh_database

KINDS = ["sqlite", pytest.param("postgres", marks=pytest.mark.skipif(
    not DATABASE.startswith("postgres"), reason="needs AGENT_RUNTIME__DB_URL=postgres://..."
))]  # fmt: skip


@pytest.fixture
def legacy(tmp_path: Path) -> Iterator[LegacyDatabase]:
    with on_sqlite(tmp_path / "legacy.sqlite3") as one:
        yield one


def take(legacy: LegacyDatabase, *arguments: str) -> str:
    out = io.StringIO()
    call_command("import_legacy", "--from", legacy.url, *arguments, stdout=out)
    return out.getvalue()


def run(rows: source.Source, *, dry: bool = False) -> Report:
    return importing.Import(rows, "shell:tests", agents.resolve, lambda n: None, dry=dry).run()


def sound(name: str) -> list[dict[str, Any]]:
    """The session's history, which a strict provider takes; nothing of it is broken."""
    session = Session.objects.get(session_id=name)
    rows = list(Message.objects.filter(session=session).order_by("number"))
    sent = [{"role": "system", "content": "s"}, *history.build(rows)]
    assert strict(sent) == []
    shown = [row for row in rows if row.role != "assistant" or row.content or row.tool_calls]
    assert session.message_count == len(shown)
    assert [row.number for row in rows] == list(range(1, session.last_number + 1))
    assert [entry["role"] for entry in sent[1:]] == [row.role for row in rows], "stored as it goes up"
    return sent[1:]


def nothing_is_broken() -> None:
    assert doctor.examine() == []


# --- taken over --------------------------------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("kind", KINDS)
def test_sessions_are_taken_over_as_they_were(tmp_path: Path, kind: str) -> None:
    with ExitStack() as stack:
        if kind == "sqlite":
            legacy = stack.enter_context(on_sqlite(tmp_path / "legacy.sqlite3"))
        else:
            legacy = stack.enter_context(on_postgres(stack.enter_context(fresh_database())))
        legacy.session("s1", title="First", description="of all", last_activity="2025-03-05 12:00:00")
        legacy.session("closed", is_active=False)
        legacy.session("gone", deleted_at="2025-03-05 12:00:00")
        legacy.say("gone", "user", "nobody reads this")
        legacy.say("s1", "user", "Привет 🙂")
        legacy.say("s1", "assistant", "", [call("c1"), call("c2", "write_file", {"path": "ж.md", "content": "x"})])
        legacy.answer("s1", "c2", "two")
        legacy.answer("s1", "c1", "Error: one", name="read_file")
        legacy.say("s1", "assistant", "Done")
        context = legacy.insert("agent_contexts", session_db_id="s1", current_agent="code", switch_count=3)
        legacy.insert(
            "agent_switches", context_db_id=context, from_agent="orchestrator", to_agent="code", reason="to write",
            switched_at="2025-03-02 00:00:01.500000", metadata_json='{"confidence": "high"}',
        )  # fmt: skip
        told = take(legacy)
    assert "2  sessions\n" in told
    assert "5  messages\n" in told
    assert "1  sessions that were deleted there" in told
    assert [entry["role"] for entry in sound("s1")] == ["user", "assistant", "tool", "tool", "assistant"]
    assert [entry["content"] for entry in sound("s1")] == ["Привет 🙂", None, "Error: one", "two", "Done"]
    session = Session.objects.get(session_id="s1")
    assert (session.title, session.description, session.is_active) == ("First", "of all", True)
    assert (session.current_agent, session.switch_count) == ("coder", 3)
    assert session.created_at == datetime(2025, 3, 1, 10, tzinfo=UTC)
    assert session.last_activity == datetime(2025, 3, 5, 12, tzinfo=UTC)
    assert [message.agent for message in session.messages.filter(role="assistant")] == ["coder", "coder"]
    [switch] = AgentSwitch.objects.values_list("from_agent", "to_agent", "reason", "confidence")
    assert switch == ("orchestrator", "coder", "to write", "high")
    assert list(ToolCall.objects.values_list("call_id", "state")) == [("c1", "failed"), ("c2", "completed")]
    assert not Session.objects.get(session_id="closed").is_active
    assert not Session.objects.filter(session_id="gone").exists()
    times = list(Event.objects.filter(session=session).order_by("seq").values_list("at", flat=True))
    assert times == sorted(times)
    nothing_is_broken()


def test_the_api_the_stream_and_the_next_turn_read_what_was_taken_over(
    client: httpx.Client, server: RunningServer, model: ModelServer, legacy: LegacyDatabase
) -> None:
    legacy.session("s1")
    legacy.say("s1", "user", "What is in a.py?")
    legacy.say("s1", "assistant", "I look.", [call("c1")])
    legacy.answer("s1", "c1", "print()")
    legacy.say("s1", "assistant", "A call of print.")
    take(legacy)
    told = talk.history(client, "s1")
    assert told["message_count"] == 4
    assert [message["role"] for message in told["messages"]] == ["user", "assistant", "tool", "assistant"]
    heard = stored(client, "s1")
    assert heard.contents == ["I look.", "A call of print."]
    assert heard.calls == []
    model.reply(text("As I said."))
    talk.say(client, "s1", "And now?", agent_type="coder")
    assert strict(model.requests[-1].body["messages"]) == []
    assert [message["role"] for message in model.requests[-1].body["messages"]][1:] == [
        "user", "assistant", "tool", "assistant", "user",
    ]  # fmt: skip
    assert client.get("/events/audit-log", params={"session_id": "s1"}).json()["count"] == 1
    nothing_is_broken()


def test_an_approval_that_waits_goes_on_waiting_and_can_be_decided(
    client: httpx.Client, server: RunningServer, model: ModelServer, legacy: LegacyDatabase
) -> None:
    legacy.session("s1")
    legacy.say("s1", "user", "Write it")
    legacy.say("s1", "assistant", "I will.", [call("p1", "write_file", '{"path": "a", "content": "b"}'), call("p2")])
    context = legacy.insert("agent_contexts", session_db_id="s1", current_agent="coder")
    assert context
    asked = {"session_id": "s1", "created_at": "2025-03-02 00:00:03", "status": "pending", "details": "{}"}
    legacy.insert("pending_approvals", request_id="p1", call_id="p1", tool_name="write_file", reason="Writes", **asked)
    legacy.insert("pending_approvals", request_id="lost", call_id="lost", tool_name="write_file", **asked)
    dry, told = take(legacy, "--dry-run"), take(legacy)
    assert "1  approvals that wait" in told
    assert "1  approvals whose call is not there" in told
    assert dry == told.replace("Taken over", "Would be taken over")
    nothing_is_broken()
    [waiting] = client.get("/sessions/s1/pending-approvals").json()["pending_approvals"]
    assert (waiting["call_id"], waiting["reason"], waiting["arguments"]) == (
        "p1",
        "Writes",
        {"path": "a", "content": "b"},
    )
    assert [frame["call_id"] for frame in stored(client, "s1").calls] == ["p1"]
    released = talk.send(client, "s1", {"type": "hitl_decision", "call_id": "p1", "decision": "approve"})
    assert released.calls[0]["arguments"] == {"path": "a", "content": "b"}
    model.reply(text("Written."))
    assert talk.send(client, "s1", {"type": "tool_result", "call_id": "p1", "result": "ok"}).contents == ["Written."]
    assert strict(model.requests[-1].body["messages"]) == []
    sound("s1")
    nothing_is_broken()


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    ("status", "answered", "state"),
    [
        ("pending", True, "closed"),
        ("approved", True, "approved"),
        ("rejected", True, "rejected"),
        ("odd", True, "closed"),
    ],
)
def test_an_approval_whose_call_is_over_is_over(
    legacy: LegacyDatabase, status: str, answered: bool, state: str
) -> None:
    legacy.session("s1")
    legacy.say("s1", "user", "Write it")
    legacy.say("s1", "assistant", "", [call("p1", "write_file")])
    legacy.answer("s1", "p1")
    legacy.insert("pending_approvals", request_id="p1", call_id="p1", session_id="s1", status=status)
    take(legacy)
    assert Approval.objects.get().state == state
    assert not Run.objects.filter(state="waiting").exists()
    nothing_is_broken()


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("inactive", [True, False])
def test_an_approval_that_nobody_can_decide_any_more_is_closed(legacy: LegacyDatabase, inactive: bool) -> None:
    legacy.session("s1", is_active=not inactive)
    legacy.say("s1", "user", "Write it")
    legacy.say("s1", "assistant", "", [call("p1", "write_file")])
    if not inactive:
        legacy.say("s1", "user", "Never mind")
    legacy.insert("pending_approvals", request_id="p1", call_id="p1", session_id="s1", status="pending")
    take(legacy)
    assert Approval.objects.get().state == "closed"
    assert sound("s1")[2]["content"] == history.NO_RESULT
    nothing_is_broken()


# --- repaired ----------------------------------------------------------------------------------------------------


def broken(legacy: LegacyDatabase, chance: random.Random, session: str) -> None:
    """A conversation in which whatever can be wrong is wrong at times."""
    ids = ["call_1", "call_2"]
    for _ in range(chance.randrange(1, 20)):
        role = chance.choice(["user", "assistant", "assistant", "tool", "tool", "system", "developer", "nobody", "AI"])
        content = chance.choice(["text", "", None, " ", "nul \x00 inside", 5, b"\xff\xfe"])
        calls: Any = None
        if role in ("assistant", "AI"):
            calls = chance.choice([
                None, "", "[]", "null", "not json", "{", "[1]", '"x"', json.dumps({"id": "c"}), "[" * 5000,
                [call(chance.choice(ids))],
                [call(one, arguments=chance.choice(["{}", "[]", "", "{", None, {"a": 1}, 5])) for one in ids[:2]],
                [call(ids[0]), call(ids[0])],
                [{"id": chance.choice(ids), "tool_name": "echo", "arguments": {"text": "x"}}],
                [{"type": "function", "function": {"name": "echo"}}],
                [call("x" * 300), call("")],
            ])  # fmt: skip
        values: dict[str, Any] = {"tool_call_id": chance.choice([*ids, None, "unknown"])} if role == "tool" else {}
        if chance.random() < 0.15:
            values["timestamp"] = chance.choice([None, "yesterday", "2025-03-02T00:00:01Z", "9999-99-99"])
        legacy.say(session, role, content, calls, **values)


@pytest.mark.django_db(transaction=True)
def test_whatever_is_wrong_with_a_history_a_strict_provider_takes_it_afterwards(legacy: LegacyDatabase) -> None:
    chance = random.Random(4)
    names = [f"s{number}" for number in range(30)]
    for name in names:
        legacy.session(name, created_at=chance.choice([None, "2025-03-01", "nonsense", "2025-03-01T10:00:00+03:00"]))
        broken(legacy, chance, name)
    legacy.say("s0", "assistant", "", [call("once")])
    legacy.answer("s0", "once")
    legacy.answer("s0", "once", "and again")
    told = take(legacy, "--dry-run")
    assert not Session.objects.exists()
    assert take(legacy) == told.replace("Would be taken over", "Taken over")
    for name in names:
        sound(name)
    nothing_is_broken()
    for repaired in (
        repair.SYSTEM_LEFT_OUT, repair.EMPTY_LEFT_OUT, repair.ORPHANS_LEFT_OUT, repair.SECOND_ANSWERS, repair.MOVED,
        repair.UNANSWERED, repair.NEW_IDS, repair.BROKEN_CALLS, repair.BROKEN_ARGUMENTS, repair.NO_TIME,
    ):  # fmt: skip
        assert repaired in told
    assert "no provider knows the role 'nobody'" in told
    assert take(legacy).startswith("Taken over: nothing\nRepaired on the way: nothing\n")


@pytest.mark.django_db(transaction=True)
def test_rows_that_cannot_be_taken_over_are_named_and_stop_nothing(legacy: LegacyDatabase) -> None:
    legacy.session("with\nnewline")
    legacy.session("s1")
    legacy.say("with\nnewline", "user", "lost")
    stray = legacy.say("no such session", "user", "lost")
    odd = legacy.say("s1", "oracle", "lost")
    legacy.insert("pending_approvals", id="a9", call_id="c", session_id="nowhere", status="pending")
    legacy.say("s1", "user", "kept")
    told = take(legacy)
    assert "Rows that cannot be taken over: 4" in told
    for row in (f"messages '{stray}'", f"messages '{odd}'", "pending_approvals 'a9'", "sessions 'with"):
        assert row in told
    assert [entry["content"] for entry in sound("s1")] == ["kept"]


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("2025-03-01 10:00:00", datetime(2025, 3, 1, 10, tzinfo=UTC)),
        ("2025-03-01T10:00:00.123456", datetime(2025, 3, 1, 10, 0, 0, 123456, tzinfo=UTC)),
        ("2025-03-01T10:00:00Z", datetime(2025, 3, 1, 10, tzinfo=UTC)),
        ("2025-03-01T13:00:00+03:00", datetime(2025, 3, 1, 10, tzinfo=UTC)),
        (datetime(2025, 3, 1, 10), datetime(2025, 3, 1, 10, tzinfo=UTC)),
        (datetime(2025, 3, 1, 13, tzinfo=timezone(timedelta(hours=3))), datetime(2025, 3, 1, 10, tzinfo=UTC)),
        (1_740_823_200, datetime(2025, 3, 1, 10, tzinfo=UTC)),
        (1_740_823_200_000, datetime(2025, 3, 1, 10, tzinfo=UTC)),
        (None, None),
        ("", None),
        ("soon", None),
        ("0001-01-01T00:00:00+14:00", None),
        (1e300, None),
        (True, None),
    ],
)
def test_times_without_a_zone_are_utc(written: Any, expected: datetime | None) -> None:
    assert repair.moment(written) == expected


# --- again -------------------------------------------------------------------------------------------------------


def conversation(legacy: LegacyDatabase, name: str = "s1") -> None:
    legacy.session(name)
    legacy.say(name, "user", "hello")
    legacy.say(name, "assistant", "hi")


@pytest.mark.django_db(transaction=True)
def test_a_second_run_adds_only_what_is_new(legacy: LegacyDatabase) -> None:
    conversation(legacy)
    take(legacy)
    services.update_session("s1", title="Named here")
    assert "1  sessions without anything new" in take(legacy)
    legacy.say("s1", "user", "more")
    legacy.say("s1", "assistant", "", [call("c1")])
    legacy.answer("s1", "c1")
    conversation(legacy, "s2")
    told = take(legacy)
    assert "1  sessions with something new" in told
    assert "5  messages" in told
    assert [entry["content"] for entry in sound("s1")] == ["hello", "hi", "more", None, "done"]
    assert Session.objects.get(session_id="s1").title == "Named here"
    sound("s2")
    nothing_is_broken()


@pytest.mark.django_db(transaction=True)
def test_what_was_said_deleted_or_made_here_is_left_alone(legacy: LegacyDatabase) -> None:
    for name in ("continued", "deleted", "cleared"):
        conversation(legacy, name)
    take(legacy)
    services.add_message("continued", "user", "said here")
    services.delete_session("deleted")
    services.clear_messages("cleared")
    services.create_session("namesake")
    conversation(legacy, "namesake")
    for name in ("continued", "deleted"):
        legacy.say(name, "user", "said there")
    told = take(legacy)
    assert "sessions that were continued here" in told
    assert "sessions that were deleted here" in told
    assert "sessions that exist here already" in told
    assert [entry["content"] for entry in sound("continued")] == ["hello", "hi", "said here"]
    assert not Session.objects.filter(session_id="deleted").exists()
    assert not Message.objects.filter(session__session_id__in=["cleared", "namesake"]).exists()
    nothing_is_broken()


@pytest.mark.django_db(transaction=True)
def test_answers_that_came_after_the_first_run_are_put_where_they_belong(legacy: LegacyDatabase) -> None:
    legacy.session("s1")
    legacy.say("s1", "user", "Do both")
    legacy.say("s1", "assistant", "", [call("out"), call("asked", "write_file")])
    legacy.insert("pending_approvals", request_id="asked", call_id="asked", session_id="s1", status="pending")
    take(legacy)
    assert Run.objects.filter(state="waiting").exists()
    legacy.answer("s1", "out", "it ran after all")
    legacy.answer("s1", "asked", "written")
    legacy.say("s1", "assistant", "Both are done.")
    take(legacy)
    assert [entry["content"] for entry in sound("s1")] == [
        "Do both", None, "it ran after all", "written", "Both are done.",
    ]  # fmt: skip
    assert Approval.objects.get().state == "approved"
    assert not Run.objects.filter(state="waiting").exists()
    nothing_is_broken()


class Failing(source.SQLiteSource):
    """A source that goes away while it is read."""

    left = 2

    def whole(self, table: str, keys: Sequence[Any]) -> dict[Any, source.Row]:
        self.left -= 1
        if self.left < 0:
            raise sqlite3.OperationalError("disk I/O error")
        return super().whole(table, keys)


@pytest.mark.django_db(transaction=True)
def test_a_run_that_was_cut_is_finished_by_the_next(legacy: LegacyDatabase, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importing, "BATCH", 4)
    legacy.session("s1")
    for number in range(6):
        legacy.say("s1", "user", f"question {number}")
        legacy.say("s1", "assistant", f"answer {number}")
    rows = Failing(legacy.url.removeprefix("sqlite:///"))
    with pytest.raises(sqlite3.OperationalError):
        run(rows)
    rows.close()
    half = Session.objects.get(session_id="s1")
    assert (half.message_count, half.is_active) == (8, False)
    nothing_is_broken()
    take(legacy)
    assert [entry["content"] for entry in sound("s1")][-1] == "answer 5"
    assert len(sound("s1")) == 12
    assert Session.objects.get(session_id="s1").is_active
    nothing_is_broken()


# --- what it leaves alone ----------------------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("mode", ["DELETE", "WAL"])
def test_the_source_is_only_read(legacy: LegacyDatabase, mode: str) -> None:
    legacy.link.execute(f"PRAGMA journal_mode={mode}")
    conversation(legacy)
    legacy.link.close()
    path = Path(legacy.url.removeprefix("sqlite:///"))
    before, beside = hashlib.sha256(path.read_bytes()).hexdigest(), sorted(path.parent.iterdir())
    path.chmod(0o444)
    take(legacy, "--dry-run")
    take(legacy)
    assert hashlib.sha256(path.read_bytes()).hexdigest() == before
    assert sorted(path.parent.iterdir()) == beside
    sound("s1")


@pytest.mark.django_db(transaction=True)
def test_a_service_that_still_runs_is_read_with_its_newest_rows(legacy: LegacyDatabase) -> None:
    legacy.link.execute("PRAGMA journal_mode=WAL")
    conversation(legacy)  # in the log beside the file, and the link is still open
    take(legacy)
    assert len(sound("s1")) == 2


@pytest.mark.django_db(transaction=True)
def test_an_older_file_without_some_columns_and_tables_is_taken_over(tmp_path: Path) -> None:
    schema = """
    CREATE TABLE sessions (id TEXT PRIMARY KEY, created_at TEXT);
    CREATE TABLE messages (id INTEGER PRIMARY KEY, session_db_id TEXT, role TEXT, content TEXT, tool_calls TEXT,
        timestamp TEXT);
    CREATE TABLE pending_approvals (id INTEGER PRIMARY KEY, call_id TEXT, session_id TEXT);
    """
    with on_sqlite(tmp_path / "old.sqlite3", schema) as legacy:
        legacy.insert("sessions", id="s1", created_at="2025-03-01")
        legacy.say("s1", "user", "hello", id=1)
        legacy.say("s1", "assistant", "", [call("c1")], id=2)
        legacy.insert("pending_approvals", id=1, call_id="c1", session_id="s1")
        take(legacy)
    session = Session.objects.get(session_id="s1")
    assert (session.title, session.is_active, session.current_agent) == ("hello", True, "orchestrator")
    assert Approval.objects.get().state == "pending"
    nothing_is_broken()


@pytest.mark.django_db(transaction=True)
def test_handlers_and_metrics_hear_nothing_and_the_audit_hears_of_it(legacy: LegacyDatabase) -> None:
    events.subscribe("*", "of the legacy tests")
    try:
        legacy.session("s1")
        legacy.say("s1", "assistant", "", [call("c1")])
        legacy.answer("s1", "c1")
        take(legacy)
    finally:
        events.unsubscribe("of the legacy tests")
    assert deliveries.counts()["due"] == 0
    assert not Tally.objects.exists()
    assert not Run.objects.filter(counted=False).exists()
    assert not ToolCall.objects.filter(counted=False).exists()
    assert AuditEntry.objects.filter(session=None, action="legacy.import").count() == 1
    assert AuditEntry.objects.filter(session__session_id="s1", action="session.create").count() == 1


@pytest.mark.django_db(transaction=True)
def test_many_messages_come_in_batches_in_their_order(legacy: LegacyDatabase) -> None:
    legacy.session("s1")
    lots(legacy, "s1", ((f"m{n}", "user" if n % 2 else "assistant", f"text {n}") for n in range(2_100)))
    take(legacy)
    assert [entry["content"] for entry in sound("s1")] == [f"text {n}" for n in range(2_100)]


@pytest.mark.parametrize(
    ("url", "complaint"),
    [
        ("sqlite:////no/such/file.db", "there is no file"),
        ("mysql://host/name", "give sqlite:///path or postgres://"),
        ("postgres://nobody:hunter2@127.0.0.1:1/none", "PostgreSQL"),
    ],
)
@pytest.mark.django_db(transaction=True)
def test_a_source_that_cannot_be_read_is_one_line_without_its_password(url: str, complaint: str) -> None:
    with pytest.raises(CommandError) as told:
        call_command("import_legacy", "--from", url)
    assert complaint in str(told.value)
    assert "hunter2" not in str(told.value)
    assert "\n" not in str(told.value)


@pytest.mark.django_db(transaction=True)
def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("no database " * 100)
    sqlite3.connect(tmp_path / "b.db").execute("CREATE TABLE other (a)")
    for name in ("a.txt", "b.db"):
        with pytest.raises(CommandError):
            call_command("import_legacy", "--from", f"sqlite:///{tmp_path / name}")
    assert not LegacySession.objects.exists()


# --- recognised --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [["serve", "--port", "0"], ["migrate"]])
def test_its_database_file_is_recognised_and_not_touched(
    legacy: LegacyDatabase, tmp_path: Path, arguments: list[str]
) -> None:
    conversation(legacy)
    legacy.link.close()
    path = Path(legacy.url.removeprefix("sqlite:///"))
    before = path.read_bytes()
    done = programs.manage(tmp_path, *arguments, AGENT_RUNTIME__DB_URL=legacy.url)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "manage.py import_legacy --from" in done.stderr
    assert path.read_bytes() == before


def test_its_postgres_database_is_recognised_and_not_touched(tmp_path: Path) -> None:
    if not DATABASE.startswith("postgres"):
        pytest.skip("needs AGENT_RUNTIME__DB_URL=postgres://...")
    with fresh_database() as url, on_postgres(url) as legacy:
        conversation(legacy)
        for arguments in (["serve", "--port", "0"], ["migrate"]):
            done = programs.manage(tmp_path, *arguments, AGENT_RUNTIME__DB_URL=url, AGENT_RUNTIME__REDIS_URL="")
            assert done.returncode == 1
            assert "manage.py import_legacy --from" in done.stderr
        found = legacy.link.execute("SELECT COUNT(*) FROM information_schema.tables WHERE table_schema = 'public'")
        assert found.fetchone()[0] == SCHEMA.count("CREATE TABLE")
