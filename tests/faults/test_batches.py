"""Actions in the background whose process is killed: what was done stays done, once, and the next process goes on."""

from __future__ import annotations

import pytest

from tests.faults.servers import until
from tests.faults.sites import Site

pytestmark = pytest.mark.timeout(300)
SESSIONS = 6
BATCH = """
    INSERT INTO sessions_app_batch (action, arguments, who, language, state, total, position, done, skipped, failed,
        lease_owner, created_at)
    VALUES ('deactivate', '{{}}', 'operator:anna', '', 'prepared', {total}, 0, 0, 0, 0, '', '2026-01-01 00:00:00')
"""
PART = """
    INSERT INTO sessions_app_batchpart (batch_id, number, chosen)
    SELECT id, 0, '{chosen}' FROM sessions_app_batch
"""


def test_it_goes_on_where_a_killed_process_stopped(site: Site) -> None:
    node = site.serve("batch:3")
    for number in range(SESSIONS):
        node.client.post("/sessions", json={"session_id": f"s{number}"}).raise_for_status()
    chosen = [pk for (pk,) in site.rows("SELECT id FROM sessions_app_session ORDER BY id")]
    site.change(BATCH.format(total=len(chosen)))
    site.change(PART.format(chosen=chosen))
    site.change("UPDATE sessions_app_batch SET state = 'queued'")
    node.died()
    assert site.rows("SELECT state, position, done FROM sessions_app_batch") == [("running", 2, 2)]

    site.change("UPDATE sessions_app_batch SET lease_until = created_at")  # as if its lease had run out
    node = site.serve()
    until(lambda: site.rows("SELECT state FROM sessions_app_batch") == [("finished",)], 120, "it is finished")
    [counts] = site.rows("SELECT position, done, skipped, failed FROM sessions_app_batch")
    assert counts == (SESSIONS, SESSIONS, 0, 0)
    told = site.rows("SELECT who FROM sessions_app_auditentry WHERE action = 'session.deactivate'")
    assert told == [("operator:anna",)] * SESSIONS
    node.clean()
    assert site.manage("verify_audit")[0] == 0
