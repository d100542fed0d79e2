"""The benchmark works: every workload, on every target, for a moment. How fast anything is, is not tested."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

from bench import report
from bench.targets import RAW, RUNTIME
from bench.trials import Result

ROOT = Path(__file__).resolve().parent.parent


def test_every_workload_runs_on_every_target() -> None:
    env = {name: value for name, value in os.environ.items() if not name.startswith("AGENT_RUNTIME__")}
    command = [sys.executable, "-m", "bench", "--smoke"]
    run = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=240, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "| CPU per paced token, of T0agent's |" in run.stdout
    assert '"workload": "stored"' in run.stdout


def test_the_report_has_medians_of_ratios_and_a_picture() -> None:
    costs = [(RUNTIME, 30.0), (RAW, 20.0), (RUNTIME, 50.0), (RUNTIME, 40.0)]
    found = report.Results([Result("paced", target, {"CPU us a token": cost}) for target, cost in costs])
    rows = {row.what: row for row in report.rows(found)}
    assert rows["CPU per paced token, of T0agent's"].value == 2.0
    assert rows["CPU per paced token, of T0agent's"].verdict == "reached"
    assert rows["CPU per turn, of T0b's"].verdict == "not measured"
    assert rows["Two processes, of one"].verdict == "not measurable here"
    assert "| 2.00 x | <= 2.5 | <= 1.8 | reached |" in report.page(found, "")
    ElementTree.fromstring(report.picture([*rows.values()]))  # noqa: S314  our own picture
