"""What a process looks for every second is answered by an index, however much is stored."""

from __future__ import annotations

import pytest
from django.db import connection

from sessions_app import approvals, gauges, handover, leases, places

pytestmark = [
    pytest.mark.django_db,
    pytest.mark.skipif(
        connection.vendor != "sqlite", reason="PostgreSQL reads small tables as a whole, whatever the index"
    ),
]
LOOKS = {
    "leases that have ended": lambda: leases.late(),
    "runs that nobody has claimed": lambda: handover._unclaimed(),
    "runs whose owner is gone": lambda: gauges.lost_runs(),
    "messages that wait": lambda: places._waiting().order_by("pk"),
    "approvals past their time": lambda: approvals.late().order_by("expires_at"),
}


@pytest.mark.parametrize("name", LOOKS)
def test_an_index_answers(name: str) -> None:
    plan = LOOKS[name]().explain().splitlines()
    whole = [line for line in plan if "SCAN" in line and "USING" not in line]
    assert whole == [], plan
