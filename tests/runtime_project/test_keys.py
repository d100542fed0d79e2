"""Secrets that are made once: whole, private, and the same for everybody who asks."""

import stat
import subprocess
import sys
from pathlib import Path

import pytest

from runtime_project import keys
from tests.runtime_project.programs import ROOT


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_secret_is_made_once_and_kept(tmp_path: Path) -> None:
    first = keys.stored_secret("key", directory=tmp_path / "new")
    assert len(first) >= 50  # what Django asks of a SECRET_KEY
    assert keys.stored_secret("key", directory=tmp_path / "new") == first


def test_two_secrets_differ(tmp_path: Path) -> None:
    assert keys.stored_secret("one", directory=tmp_path) != keys.stored_secret("other", directory=tmp_path)


def test_only_the_owner_may_read_it(tmp_path: Path) -> None:
    keys.stored_secret("key", directory=tmp_path / "new")
    assert mode(tmp_path / "new") == 0o700
    assert mode(tmp_path / "new" / "key") == 0o600


def test_nothing_but_the_secret_is_left_in_the_folder(tmp_path: Path) -> None:
    keys.stored_secret("key", directory=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["key"]


def test_processes_that_race_get_the_same_secret(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from runtime_project import keys; sys.stdin.readline();"
        "print(keys.stored_secret('key', directory=Path(sys.argv[1]) / 'new'))"
    )
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(tmp_path)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(6)
    ]
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write("go\n")
        racer.stdin.flush()
    answers = {racer.communicate(timeout=60)[0].strip() for racer in racers}
    assert answers == {keys.stored_secret("key", directory=tmp_path / "new")}


def test_who_comes_second_keeps_the_first_secret(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("first\n")
    keys._make(tmp_path / "key")
    assert keys.stored_secret("key", directory=tmp_path) == "first"
    assert [path.name for path in tmp_path.iterdir()] == ["key"]


def test_a_folder_that_cannot_be_made_ends_the_program_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(SystemExit, match=r"The secret .*file/key' can be neither read nor made"):
        keys.stored_secret("key", directory=tmp_path / "file")


def test_an_empty_or_binary_secret_is_not_used(tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("\n")
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    with pytest.raises(SystemExit, match="is empty: delete the file"):
        keys.stored_secret("empty", directory=tmp_path)
    with pytest.raises(SystemExit, match="can be neither read nor made"):
        keys.stored_secret("binary", directory=tmp_path)
