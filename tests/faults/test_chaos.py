"""A short chaos: the long one is `manage.py chaos --minutes N`."""

from __future__ import annotations

import pytest

from tests.faults import chaos


@pytest.mark.timeout(300)
def test_a_quarter_of_a_minute_of_chaos_breaks_nothing() -> None:
    assert chaos.run(minutes=0.25, seed=3, say=print)
