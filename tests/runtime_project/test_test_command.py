"""`manage.py test`: Django's habits, pytest's options, one exit code."""

from pathlib import Path

import pytest

from agents_app.management.commands.test import pytest_arguments
from tests.runtime_project.programs import ROOT, manage

HERE = "tests/runtime_project/test_test_command.py"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([], []),
        (["-k", "foo", "-x", "tests/flows"], ["-k", "foo", "-x", "tests/flows"]),
        (["--failfast", "--keepdb", "--noinput"], ["-x", "--reuse-db"]),
        (["-v", "2"], ["-v"]),
        (["-v2"], ["-v"]),
        (["-v"], ["-v"]),
        (["-vv"], ["-vv"]),
        (["--verbosity=0"], ["-q"]),
        (["--verbosity", "1"], []),
        (["--verbosity", "3", "-x"], ["-vv", "-x"]),
        (["--verbosity=9"], ["-vv"]),
        (["--parallel"], []),
        (["--parallel", "4", "-x"], ["-x"]),
        (["--parallel=auto", "tests"], ["tests"]),
        (["--settings=other.settings"], ["--ds", "other.settings"]),
        (["--settings", "other.settings"], ["--ds", "other.settings"]),
        (["--cov=agents_app", "--cov-branch"], ["--cov=agents_app", "--cov-branch"]),
        (["tests.runtime_project"], ["tests/runtime_project"]),
        (["runtime_project"], ["tests/runtime_project"]),
        (["tests.runtime_project.test_test_command"], [HERE]),
        (["runtime_project.test_test_command"], [HERE]),
        (["tests.runtime_project.test_test_command.test_help"], [f"{HERE}::test_help"]),
        ([HERE], [HERE]),
        ([f"{HERE}::test_help"], [f"{HERE}::test_help"]),
        (["-k", "tests.runtime_project"], ["-k", "tests.runtime_project"]),
        (["no.such.label"], ["no.such.label"]),
        (["-k"], ["-k"]),
    ],
)
def test_arguments(given: list[str], expected: list[str]) -> None:
    assert pytest_arguments(given, root=ROOT) == expected


def test_help(tmp_path: Path) -> None:
    done = manage(tmp_path, "test", "--help")
    assert done.returncode == 0
    assert "--keepdb" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--collect-only", "-q", "tests.runtime_project.test_keys"], 0),
        (["-q", "-k", "no_test_is_called_so", "tests.runtime_project.test_keys"], 5),
        (["-q", "tests/no_such_folder"], 4),
    ],
)
def test_exit_code_is_that_of_pytest(tmp_path: Path, arguments: list[str], code: int) -> None:
    done = manage(tmp_path, "test", "-p", "no:cacheprovider", *arguments)
    assert done.returncode == code, done.stdout + done.stderr
