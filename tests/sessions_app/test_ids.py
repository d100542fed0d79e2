"""Names are no two alike, in whatever process."""

from __future__ import annotations

import random
import subprocess
import sys

from sessions_app import ids


def test_names_differ_whatever_others_seed() -> None:
    random.seed(1)
    one = ids.new()
    random.seed(1)
    assert one != ids.new()
    assert (one.version, len(one.hex)) == (4, 32)


FORKING = """
import os
from sessions_app import ids
child = os.fork()
os.write(1, ids.new().hex.encode() + b"\\n")
if child:
    os.waitpid(child, 0)
"""


def test_a_process_that_is_forked_has_names_of_its_own() -> None:
    told = subprocess.run([sys.executable, "-c", FORKING], capture_output=True, check=True, text=True).stdout
    one, other = told.split()
    assert one != other
