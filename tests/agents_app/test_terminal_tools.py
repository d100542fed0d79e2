"""The tools that run in the person's folder: what they give, what they refuse, and that nothing outside is touched."""

import os
import socket
import stat
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agents_app.terminal import changing, reading, searching, shell, toolbox  # noqa: F401  they bring the tools
from agents_app.terminal.folder import Folder, ToolFailed
from agents_app.terminal.patches import applied
from agents_app.tools import all_tools


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    root = tmp_path / "project"
    (root / "src" / "node_modules").mkdir(parents=True)
    (root / "README.md").write_text("# Title\n\nfirst line\nsecond line\n")
    (root / "src" / "app.py").write_text("def run():\n    return 'first'\n")
    (root / "src" / "node_modules" / "lib.py").write_text("first\n")
    (root / ".hidden").write_text("first secret\n")
    (root / "logo.png").write_bytes(b"\x89PNG\0\0first")
    (tmp_path / "secret.txt").write_text("outside\n")
    (root / "link.txt").symlink_to(tmp_path / "secret.txt")
    (root / "up").symlink_to(tmp_path)
    (root / "inner.md").symlink_to(root / "README.md")
    return Folder(root)


def run(folder: Folder, name: str, **arguments: Any) -> str:
    return toolbox.run(folder, name, arguments)


def test_every_tool_that_the_server_sends_to_clients_is_here_and_only_reading_runs_unasked() -> None:
    sent = {tool.name: tool for tool in all_tools() if tool.side == "client"}
    assert all(toolbox.knows(name) for name in sent)
    assert {name for name in sent if toolbox.reads_only(name)} == {"read_file", "list_files", "search_in_code"}


# --- the folder's edge

OUTSIDE = ["../secret.txt", "/etc/passwd", "link.txt", "up/secret.txt", "src/../../secret.txt", "up", "..", "/"]
PATHS_OF = {
    "read_file": {"path": "{}"},
    "list_files": {"path": "{}"},
    "search_in_code": {"query": "outside", "path": "{}"},
    "write_file": {"path": "{}", "content": "overwritten"},
    "apply_diff": {"path": "{}", "diff": "@@ -1,1 +1,1 @@\n-outside\n+changed"},
    "create_directory": {"path": "{}/made"},
    "delete_file": {"path": "{}/secret.txt"},
    "move_file": {"source": "README.md", "destination": "{}/stolen"},
    "execute_command": {"command": "touch made", "cwd": "{}"},
}


@pytest.mark.parametrize("path", OUTSIDE)
@pytest.mark.parametrize("name", PATHS_OF)
def test_no_tool_leaves_the_folder(folder: Folder, name: str, path: str) -> None:
    arguments = {key: value.format(path) for key, value in PATHS_OF[name].items()}
    with pytest.raises(ToolFailed):
        run(folder, name, **arguments)
    around = folder.root.parent
    assert sorted(place.name for place in around.iterdir()) == ["project", "secret.txt"]
    assert (around / "secret.txt").read_text() == "outside\n"
    assert (folder.root / "README.md").exists()


@pytest.mark.parametrize("path", ["", "  ", "a\0b", "x" * 5_000, "loop/x", "\udcff", "README.md/x"])
def test_unusable_paths_are_refused_in_words(folder: Folder, path: str) -> None:
    (folder.root / "loop").symlink_to(folder.root / "loop")
    with pytest.raises(ToolFailed) as told:
        run(folder, "read_file", path=path)
    assert str(folder.root) not in str(told.value)


PARTS = st.lists(st.sampled_from(["..", ".", "src", "up", "link.txt", "README.md", "", "~", "x y"]), max_size=6)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(PARTS, st.booleans())
def test_whatever_the_path_is_its_place_is_inside(folder: Folder, parts: list[str], absolute: bool) -> None:
    path = ("/" if absolute else "") + "/".join(parts)
    for place_of in (folder.locate, folder.entry):
        try:
            place = place_of(path)
        except ToolFailed:
            continue
        parent = place.parent.resolve() if place_of == folder.entry else place.resolve()
        assert folder.root in (parent, *parent.parents)


def test_links_that_stay_inside_are_followed(folder: Folder) -> None:
    assert run(folder, "read_file", path="inner.md").startswith("# Title")
    assert run(folder, "read_file", path=str(folder.root / "README.md")).startswith("# Title")


def test_a_folder_is_a_folder(folder: Folder) -> None:
    with pytest.raises(NotADirectoryError):
        Folder(folder.root / "README.md")
    with pytest.raises(FileNotFoundError):
        Folder(folder.root / "none")


# --- reading


@pytest.mark.parametrize(
    ("arguments", "result"),
    [
        ({}, "# Title\n\nfirst line\nsecond line\n"),
        ({"start_line": 3}, "first line\nsecond line"),
        ({"end_line": 1}, "# Title"),
        ({"start_line": 3, "end_line": 3}, "first line"),
        ({"start_line": 3, "end_line": 99}, "first line\nsecond line"),
        ({"encoding": "latin-1", "end_line": 1}, "# Title"),
    ],
)
def test_a_file_or_a_range_of_its_lines_is_read(folder: Folder, arguments: dict[str, Any], result: str) -> None:
    assert run(folder, "read_file", path="README.md", **arguments) == result


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ({"path": "none.md"}, "No such file"),
        ({"path": "src"}, "directory|not a regular"),
        ({"path": "logo.png"}, "binary file of 11 bytes"),
        ({"path": "pipe"}, "not a regular file"),
        ({"path": "socket"}, "No such device|not a regular"),
        ({"path": "latin.txt"}, "is not utf-8 text"),
        ({"path": "README.md", "encoding": "nonsense"}, "no text encoding 'nonsense'"),
        ({"path": "README.md", "encoding": "zip"}, "no text encoding 'zip'"),
        ({"path": "README.md", "start_line": 9}, "the file has 4"),
        ({"path": "README.md", "start_line": 3, "end_line": 2}, "No lines 3 to 2"),
        ({"path": "README.md", "start_line": -1}, "the file has 4"),
        ({"path": "README.md", "start_line": "x"}, "start_line"),
        ({"path": 5}, "path"),
        ({}, "path: Missing"),
        ({"path": "README.md", "folder": "/"}, "folder: Unexpected"),
        ({"path": "huge.txt"}, "at most"),
        ({"path": "large.txt"}, "ask for less"),
    ],
)
def test_what_cannot_be_read_is_said(folder: Folder, arguments: dict[str, Any], why: str) -> None:
    os.mkfifo(folder.root / "pipe")
    (folder.root / "latin.txt").write_bytes(b"caf\xe9")
    (folder.root / "large.txt").write_text("x" * (1024 * 1024 + 1))
    with open(folder.root / "huge.txt", "wb") as file:
        file.truncate(9 * 1024 * 1024)
    listening = socket.socket(socket.AF_UNIX)
    here = Path.cwd()
    os.chdir(folder.root)  # a socket's path may not be long
    listening.bind("socket")
    os.chdir(here)
    with listening, pytest.raises(ToolFailed, match=why):
        toolbox.run(folder, "read_file", arguments)


def test_utf_16_is_read_when_it_is_named(folder: Folder) -> None:
    (folder.root / "wide.txt").write_text("привет", encoding="utf-16")
    assert run(folder, "read_file", path="wide.txt", encoding="utf-16") == "привет"


@pytest.mark.parametrize(
    ("arguments", "result"),
    [
        ({}, "README.md\ninner.md\nlink.txt\nlogo.png\nsrc/\nup/"),
        ({"include_hidden": True, "pattern": ".h*"}, ".hidden"),
        ({"path": "src", "recursive": True}, "app.py\nnode_modules/"),
        ({"recursive": True, "pattern": "*.py"}, "src/app.py"),
        ({"recursive": True, "pattern": "src/**/*.py"}, "src/app.py"),
        ({"pattern": "*.zip"}, "(nothing)"),
    ],
)
def test_folders_are_listed_without_following_links(folder: Folder, arguments: dict[str, Any], result: str) -> None:
    assert run(folder, "list_files", **arguments) == result


def test_a_long_list_is_cut(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "MAX_ENTRIES", 2)
    assert run(folder, "list_files") == "README.md\ninner.md\n… and 4 more"
    with pytest.raises(ToolFailed, match="not a folder"):
        run(folder, "list_files", path="README.md")


def test_a_name_that_is_no_text_does_not_break_the_list(folder: Folder) -> None:
    (folder.root / "src" / os.fsdecode(b"caf\xe9.py")).touch()
    assert run(folder, "list_files", path="src", pattern="caf*") == "caf?.py"


@pytest.mark.parametrize(
    ("arguments", "result"),
    [
        ({"query": "FIRST"}, "README.md:3: first line\nsrc/app.py:2: return 'first'"),
        ({"query": "FIRST", "case_sensitive": True}, "(nothing found)"),
        ({"query": "first", "file_pattern": "*.py"}, "src/app.py:2: return 'first'"),
        ({"query": "first", "path": "src"}, "src/app.py:2: return 'first'"),
        ({"query": "first", "path": "README.md"}, "README.md:3: first line"),
        ({"query": "f.rst", "path": "src"}, "(nothing found)"),
        ({"query": "f.rst", "path": "src", "regex": True}, "src/app.py:2: return 'first'"),
        ({"query": "^F", "regex": True, "case_sensitive": True}, "(nothing found)"),
        ({"query": "line", "max_results": 1}, "README.md:3: first line\n… stopped after 1 results"),
    ],
)
def test_code_is_searched_but_not_binaries_links_or_hidden_files(
    folder: Folder, arguments: dict[str, Any], result: str
) -> None:
    assert run(folder, "search_in_code", **arguments) == result


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ({"query": "x", "path": "none"}, "does not exist"),
        ({"query": "("}, "no regular expression"),
        ({"query": ""}, "at least 1"),
        ({"query": "x", "max_results": 0}, "greater than or equal"),
    ],
)
def test_searches_that_make_no_sense_are_refused(folder: Folder, arguments: dict[str, Any], why: str) -> None:
    with pytest.raises(ToolFailed, match=why):
        run(folder, "search_in_code", **{"regex": True, **arguments})


def test_a_pattern_that_would_match_for_ever_is_ended(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(searching, "PATTERN_SECONDS", 0.5)
    (folder.root / "long.txt").write_text("a" * 60 + "!")
    with pytest.raises(ToolFailed, match="use a simpler one"):
        run(folder, "search_in_code", query="(a+)+$", regex=True)


def test_a_search_is_bounded_in_bytes(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(searching, "MAX_BYTES", 60)
    assert run(folder, "search_in_code", query="first").endswith(
        "… stopped after 60 bytes: name a path or a file pattern"
    )


# --- changing


def test_a_file_is_written_whole_with_its_mode_kept_and_a_copy_where_asked(folder: Folder) -> None:
    assert run(folder, "write_file", path="new.py", content="пять\n") == "Created new.py (9 bytes)"
    os.chmod(folder.root / "new.py", 0o700)
    assert run(folder, "write_file", path="new.py", content="six\r\n", backup=True) == "Replaced new.py (5 bytes)"
    assert (folder.root / "new.py").read_bytes() == b"six\r\n"
    assert (folder.root / "new.py.bak").read_text() == "пять\n"
    assert stat.S_IMODE((folder.root / "new.py").stat().st_mode) == 0o700
    assert not [place for place in folder.root.iterdir() if place.name.startswith(".new")]


def test_parents_are_made_only_where_asked(folder: Folder) -> None:
    with pytest.raises(ToolFailed, match="No such file"):
        run(folder, "write_file", path="a/b/c.txt", content="x")
    assert run(folder, "write_file", path="a/b/c.txt", content="x", create_dirs=True) == "Created a/b/c.txt (1 bytes)"


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ({"path": "src", "content": "x"}, "directory"),
        ({"path": "x.txt", "content": "я", "encoding": "ascii"}, "cannot be written as ascii"),
        ({"path": "x.txt", "content": "x", "encoding": "none"}, "cannot be written as none"),
        ({"path": "README.md/x", "content": "x", "create_dirs": True}, "exists|directory"),
    ],
)
def test_what_cannot_be_written_leaves_nothing_behind(folder: Folder, arguments: dict[str, Any], why: str) -> None:
    before = sorted(folder.root.rglob("*"))
    with pytest.raises(ToolFailed, match=why):
        run(folder, "write_file", **arguments)
    assert sorted(folder.root.rglob("*")) == before


def test_folders_are_made_files_moved_and_deleted(folder: Folder) -> None:
    assert run(folder, "create_directory", path="a/b") == "Created a/b/"
    assert run(folder, "move_file", source="README.md", destination="a/b/R.md") == "Moved README.md to a/b/R.md"
    assert run(folder, "delete_file", path="a/b/R.md") == "Deleted a/b/R.md"
    assert list((folder.root / "a" / "b").iterdir()) == []


def test_deleting_a_link_leaves_what_it_points_to(folder: Folder) -> None:
    assert run(folder, "delete_file", path="link.txt") == "Deleted link.txt"
    assert (folder.root.parent / "secret.txt").exists()


@pytest.mark.parametrize(
    ("name", "arguments", "why"),
    [
        ("move_file", {"source": "README.md", "destination": "logo.png"}, "exists already"),
        ("move_file", {"source": "none", "destination": "x"}, "No such file"),
        ("delete_file", {"path": "src"}, "directory|not permitted"),
        ("delete_file", {"path": "."}, "outside"),
        ("create_directory", {"path": "a/b", "recursive": False}, "No such file"),
        ("apply_diff", {"path": "logo.png", "diff": "@@ -1 +1 @@\n-a\n+b"}, "binary"),
        ("format_disk", {}, "no tool 'format_disk'"),
    ],
)
def test_changes_that_cannot_be_made_are_said(folder: Folder, name: str, arguments: dict[str, Any], why: str) -> None:
    with pytest.raises(ToolFailed, match=why):
        run(folder, name, **arguments)


def test_a_diff_is_applied_to_the_file(folder: Folder) -> None:
    diff = "--- a/README.md\n+++ b/README.md\n@@ -3,2 +3,2 @@\n first line\n-second line\n+2nd line\n"
    assert run(folder, "apply_diff", path="README.md", diff=diff) == "Changed README.md"
    assert (folder.root / "README.md").read_text() == "# Title\n\nfirst line\n2nd line\n"


@pytest.mark.parametrize(
    ("text", "diff", "result"),
    [
        ("a\nb\nc\n", "@@ -2,1 +2,1 @@\n-b\n+B", "a\nB\nc\n"),
        ("a\nb\nc\n", "@@ -1,0 +2,1 @@\n+new", "a\nnew\nb\nc\n"),
        ("", "@@ -0,0 +1,2 @@\n+one\n+two\n", "one\ntwo\n"),
        ("x\na\nb\n", "@@ -1,1 +1,1 @@\n-a\n+A", "x\nA\nb\n"),
        ("a\na\na\n", "@@ -3,1 +3,1 @@\n-a\n+A", "a\na\nA\n"),
        ("a\r\nb\r\n", "@@ -1,2 +1,2 @@\n a\n-b\n+B\n", "a\r\nB\r\n"),
        ("a\nb\nc\nd\n", "@@ -1,1 +1,2 @@\n-a\n+1\n+2\n@@ -4,1 +5,1 @@\n-d\n+D\n", "1\n2\nb\nc\nD\n"),
        ("a\nb", "@@ -2,1 +2,1 @@\n-b\n\\ No newline at end of file\n+B\n", "a\nB"),
        ("a\n\nb\n", "@@ -1,3 +1,3 @@\n a\n\n-b\n+B\n", "a\n\nB\n"),
    ],
)
def test_diffs_are_placed_by_their_context(text: str, diff: str, result: str) -> None:
    assert applied(text, diff) == result


@pytest.mark.parametrize(
    ("diff", "why"),
    [
        ("", "empty"),
        ("--- a\n+++ b\n", "empty"),
        ("just text", "starts with something other"),
        ("@@ -1,1 +1,1 @@\n-z\n+y", "Hunk 1 does not fit"),
        ("@@ -1,1 +1,1 @@\n-a\n+A\n@@ -2,1 +2,1 @@\n-z\n+y", "Hunk 2 does not fit"),
        ("@@ -1,1 +1,1 @@\n*a", "neither space"),
    ],
)
def test_diffs_that_do_not_fit_change_nothing(diff: str, why: str) -> None:
    with pytest.raises(ToolFailed, match=why):
        applied("a\nb\n", diff)


# --- commands


@pytest.mark.parametrize(
    ("arguments", "result"),
    [
        ({"command": "echo hi"}, "exit code 0\nhi\n"),
        ({"command": "echo hi; exit 3"}, "exit code 0\nhi; exit 3\n"),
        ({"command": "echo hi; echo no >&2; exit 3", "shell": True}, "exit code 3\nhi\nno\n"),
        ({"command": "cat app.py", "cwd": "src"}, "exit code 0\ndef run():\n    return 'first'\n"),
        ({"command": "cat"}, "exit code 0\n"),
        ({"command": "echo $AGENT_RUNTIME__INTERNAL_API_KEY.", "shell": True}, "exit code 0\n.\n"),
    ],
)
def test_a_command_runs_in_the_folder_without_input_and_without_our_key(
    folder: Folder, monkeypatch: pytest.MonkeyPatch, arguments: dict[str, Any], result: str
) -> None:
    monkeypatch.setenv("AGENT_RUNTIME__INTERNAL_API_KEY", "leaked")
    assert run(folder, "execute_command", **arguments) == result


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ({"command": "no-such-program-here"}, "No such file"),
        ({"command": "echo 'open"}, "No closing quotation"),
        ({"command": "  "}, "empty"),
        ({"command": "true", "timeout": 301}, "timeout"),
        ({"command": "true", "cwd": "none"}, "No such file"),
    ],
)
def test_commands_that_cannot_start_are_said(folder: Folder, arguments: dict[str, Any], why: str) -> None:
    with pytest.raises(ToolFailed, match=why):
        run(folder, "execute_command", **arguments)


def test_a_command_that_takes_too_long_is_ended_with_all_that_it_started(folder: Folder) -> None:
    with pytest.raises(ToolFailed, match=r"Stopped after 1 seconds\. Output so far:\nstarted"):
        run(folder, "execute_command", command="sh -c 'echo started; sleep 60 & sleep 60'", timeout=1)


def test_a_flood_of_output_keeps_its_beginning_and_end(folder: Folder) -> None:
    told = run(folder, "execute_command", command="seq 1 200000")
    assert told.startswith("exit code 0\n1\n2\n")
    assert told.endswith("\n200000\n")
    assert "bytes left out" in told
    assert len(told) < 270_000
