"""`manage.py test`: the suite by pytest, in a process of its own, so that nothing is imported before it is measured."""

import importlib.util
import os
import sys
from collections.abc import Container
from pathlib import Path

from django.core.management.base import BaseCommand, CommandError

from sessions_app.conf import settings

HELP = """usage: manage.py test [labels] [pytest options]

Runs the tests with pytest; what it does not know itself goes to pytest as it is:
  manage.py test                                everything
  manage.py test tests/flows -k resume -x       paths and options of pytest
  manage.py test tests.flows.test_rest          dotted labels, as Django has them; sessions_app means tests/sessions_app

Django's options work too:
  --failfast        stop at the first failure (pytest: -x)
  --keepdb          keep the test database (pytest-django: --reuse-db)
  -v N, --verbosity N
  --parallel [N]    accepted; the tests run one after the other
  --noinput         accepted; nothing is ever asked

All of pytest's options: python -m pytest --help
"""
VERBOSITY = {"0": ["-q"], "1": [], "2": ["-v"], "3": ["-vv"]}
RENAMED = {"--failfast": ["-x"], "--keepdb": ["--reuse-db"], "--noinput": [], "--no-input": []} | {
    f"-v{level}": words for level, words in VERBOSITY.items()
}
PROCESSES = {"auto", *map(str, range(65))}
# Options of pytest whose value must not be taken for a label.
WITH_VALUE = {"-k", "-m", "-p", "-c", "-o", "-W", "-n", "--ds"}


class Command(BaseCommand):
    help = "Runs the tests with pytest."

    def run_from_argv(self, argv: list[str]) -> None:
        if {"-h", "--help"} & set(argv[2:]):
            self.stdout.write(HELP)
            return
        if importlib.util.find_spec("pytest") is None:
            sys.exit("pytest is not installed here: run `pip install -r requirements-dev.txt` first.")
        os.chdir(settings.BASE_DIR)
        os.execv(sys.executable, [sys.executable, "-m", "pytest", *pytest_arguments(argv[2:], root=Path())])  # noqa: S606

    def handle(self, *args: object, **options: object) -> None:
        raise CommandError("The tests run in a process of their own: call `manage.py test`.")


def pytest_arguments(arguments: list[str], *, root: Path) -> list[str]:
    """Django's habits in pytest's words; everything else stays as it is."""
    waiting, words = list(arguments), []
    while waiting:
        words += _translated(waiting.pop(0), waiting, root)
    return words


def _translated(word: str, waiting: list[str], root: Path) -> list[str]:
    name, _, value = word.partition("=")
    if name == "--settings":
        return ["--ds", value or waiting.pop(0)]
    if word in WITH_VALUE:
        return [word, *(waiting.pop(0) for _ in waiting[:1])]
    if name in {"-v", "--verbosity"}:
        return VERBOSITY.get(value or _value(waiting, VERBOSITY) or "2", ["-vv"])
    if name == "--parallel":
        _value(waiting, PROCESSES)
        return []
    if word in RENAMED:
        return RENAMED[word]
    return [word if word.startswith("-") else _path(word, root)]


def _value(waiting: list[str], known: Container[str]) -> str:
    return waiting.pop(0) if waiting and waiting[0] in known else ""


def _path(label: str, root: Path) -> str:
    """`tests.flows.test_rest.Story.test_one` as `tests/flows/test_rest.py::Story::test_one`; a path stays as it is."""
    if "/" in label or "::" in label or label.endswith(".py"):
        return label
    parts = label.split(".")
    for folder in (Path("tests"), Path()):
        if (root / folder.joinpath(*parts)).is_dir():
            return folder.joinpath(*parts).as_posix()
        for cut in range(len(parts), 0, -1):
            module = folder.joinpath(*parts[:cut]).with_suffix(".py")
            if (root / module).is_file():
                return "::".join([module.as_posix(), *parts[cut:]])
    return label
