"""Fills a new database of the runtime before its server starts: `python -m bench.fill SESSIONS MESSAGES`.

Prints, as JSON, the paths that read a little of what is now stored: of a short session and of a long one.
"""

from __future__ import annotations

import json
import os
import sys

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "runtime_project.settings")
SHORT, AT_ONCE = 100, 2000


def main(sessions: int, messages: int) -> None:
    django.setup()
    from django.core.management import call_command

    from sessions_app.models import Session

    call_command("migrate", interactive=False, verbosity=0)
    for first in range(0, sessions, AT_ONCE):
        some = range(first, min(first + AT_ONCE, sessions))
        Session.objects.bulk_create(Session(session_id=f"stored-{n}", title=f"Session {n}") for n in some)
    short, long = conversation("short", min(SHORT, messages)), conversation("long", messages)
    listed = {"session list, first page": ["/sessions?limit=100"]}
    print(json.dumps(listed | reads("short", short) | reads("long", long)))


def conversation(name: str, messages: int):  # type: ignore[no-untyped-def]
    """A session of whole turns: a question, its answer, and their events."""
    from sessions_app import events
    from sessions_app.models import Event, Message, Session

    session = Session.objects.create(session_id=name, message_count=messages, last_number=messages)
    roles = (Message.USER, Message.ASSISTANT)
    rows = [
        Message(session=session, number=n, role=roles[(n + 1) % 2], content=f"message {n} " + "lorem ipsum " * 25)
        for n in range(1, messages + 1)
    ]
    Message.objects.bulk_create(rows, AT_ONCE)
    log = []
    for row in rows:
        if row.role == Message.USER:
            log.append((events.MESSAGE_RECEIVED, row, {"role": "user"}))
        else:
            log.append((events.MESSAGE_OPENED, row, {"agent": "coder"}))
            log.append((events.MESSAGE_COMPLETED, row, {"is_final": True, "shown": True}))
    Event.objects.bulk_create(
        (Event(session=session, seq=seq, type=t, message=m, data=d) for seq, (t, m, d) in enumerate(log, 1)), AT_ONCE
    )
    Session.objects.filter(pk=session.pk).update(last_seq=len(log))
    session.refresh_from_db()
    return session


def reads(name: str, session) -> dict[str, list[str]]:  # type: ignore[no-untyped-def]
    near_end = f"{session.last_seq - 3}.0-{session.cursor_tag}"
    last_page = max(session.message_count - 50, 0)
    return {
        f"history page, {name}": [f"/api/v1/sessions/{name}/messages?limit=50&offset={last_page}"],
        f"resume at the end, {name}": [f"/sessions/{name}/stream?after={near_end}&follow=false"],
    }


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
