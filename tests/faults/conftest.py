"""Sites for the fault tests: on SQLite, or on the PostgreSQL that the suite runs on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.faults.checker import Ledger
from tests.faults.servers import database
from tests.faults.sites import Site


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as one:
        yield one


@pytest.fixture
def ledger() -> Ledger:
    return Ledger()


@pytest.fixture
def site(tmp_path: Path, stack: ExitStack) -> Site:
    return Site(stack, tmp_path, stack.enter_context(database(tmp_path)))
