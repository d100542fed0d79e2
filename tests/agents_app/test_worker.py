"""Who executes turns: what each executor needs, what it loads, and what it refuses."""

from __future__ import annotations

import json
from argparse import ArgumentTypeError
from pathlib import Path
from typing import Any

import pytest

from agents_app import checks
from agents_app.management.commands import worker
from tests.runtime_project.programs import manage

ENGINE = "procrastinate.contrib.django"
POSTGRES = {"AGENT_RUNTIME__DB_URL": "postgres://nobody@127.0.0.1:1/nothing"}  # named, never asked
REDIS = {"AGENT_RUNTIME__REDIS_URL": "redis://127.0.0.1:1/0"}
WORKER = {"AGENT_RUNTIME__EXECUTOR": "worker"}
SHOW = """
import json, sys
from django.conf import settings
import runtime_project.asgi
print(json.dumps([settings.EXECUTOR, settings.INSTALLED_APPS[-1], "procrastinate" in sys.modules]))
"""


@pytest.mark.parametrize(
    ("executor", "on_sqlite", "redis", "missing"),
    [
        ("inline", True, "", []),
        ("inline", False, "", []),
        ("worker", False, "redis://redis", []),
        ("worker", False, "", ["Redis"]),
        ("worker", True, "redis://redis", ["PostgreSQL"]),
        ("worker", True, "", ["PostgreSQL", "Redis"]),
    ],
)
def test_workers_need_postgresql_and_redis(
    settings: Any, executor: str, on_sqlite: bool, redis: str, missing: list[str]
) -> None:
    settings.EXECUTOR, settings.ON_SQLITE, settings.REDIS_URL = executor, on_sqlite, redis
    found = checks.workers_can_be_reached(None)
    assert [message.id for message in found] == ["agents_app.E005"] * len(missing)
    assert [message.msg.split()[2].rstrip(":") for message in found] == missing


def test_an_unknown_executor_is_refused(settings: Any) -> None:
    settings.EXECUTOR = "celery"
    [found] = checks.choices_are_known(None)
    assert found.msg == "AGENT_RUNTIME__EXECUTOR is 'celery'."


@pytest.mark.parametrize("command", ["serve", "worker", "migrate"])
def test_nothing_starts_on_sqlite_with_workers(tmp_path: Path, command: str) -> None:
    done = manage(tmp_path, command, **WORKER, **REDIS)
    assert done.returncode == 1
    assert "AGENT_RUNTIME__EXECUTOR=worker needs PostgreSQL" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_worker_is_of_no_use_where_servers_execute_their_runs(tmp_path: Path) -> None:
    done = manage(tmp_path, "worker")
    assert done.returncode == 1
    assert "Set AGENT_RUNTIME__EXECUTOR=worker" in done.stderr


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, ["inline", "drf_spectacular_sidecar", False]),
        (POSTGRES | REDIS, ["inline", "drf_spectacular_sidecar", False]),
        (POSTGRES | REDIS | WORKER, ["worker", ENGINE, True]),
    ],
    ids=["sqlite", "postgresql", "workers"],
)
def test_the_engine_is_installed_and_loaded_for_workers_alone(
    tmp_path: Path, variables: dict[str, str], expected: list[Any]
) -> None:
    done = manage(tmp_path, "shell", "--no-imports", "-c", SHOW, **variables)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == expected


@pytest.mark.parametrize("given", ["0", "-1", "many", "", "²"])
def test_a_number_of_runs_is_one_or_more(given: str) -> None:
    with pytest.raises(ArgumentTypeError, match="give 1 or more"):
        worker.positive(given)
