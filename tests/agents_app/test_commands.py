"""Command lines as rules read them: strictly where they allow, suspiciously where they ask or forbid."""

from __future__ import annotations

import pytest

from agents_app import commands


@pytest.mark.parametrize(
    "line",
    ["git status", "git  status -s", ' git status "a b"', "git status --porcelain -- a.py", "git 'status'"],
)
def test_one_simple_command_is_allowed_by_its_prefix(line: str) -> None:
    assert commands.allows(line, "git status")


@pytest.mark.parametrize(
    "line",
    [
        "", "   ", "git", "gitstatus", "git statusx", "GIT status", "status git", "/usr/bin/git status",
        "git status; rm -rf /", "git status;rm", "git status && rm", "git status || rm", "git status | sh",
        "git status & rm", "git status $(rm)", "git status `rm`", "git status ${IFS}", "git status > a",
        "git status < a", "git status\nrm", "git status\r\nrm", "git status \u2028rm", "git status\u0000",
        "git status \u00a0rm",
        "git status 'a; b'", 'git status "$(rm)"', "git status \\; rm", "git status %X%", "git status ^& rm",
        "(git status)", "{ git status", "A=1 git status", "PATH=. git status", "! git status", "git status 'open",
    ],
)  # fmt: skip
def test_whatever_may_be_more_than_that_is_not(line: str) -> None:
    assert not commands.allows(line, "git status")


def test_an_empty_prefix_allows_nothing() -> None:
    assert not commands.allows("rm", "")
    assert not commands.allows("rm", "  ")


@pytest.mark.parametrize(
    "line",
    [
        "rm -rf /", "ls; rm x", "ls && /bin/rm x", "ls || rm x", "true||rm x", "a&rm x", "ls | xargs rm", "(rm x)",
        "ls\nrm x", "ls \\\n; rm", "echo $(rm x)", 'echo "$(rm x)"', "echo `rm x`", 'echo "`rm x`"', "cat <(rm x)",
        "A=1 rm x", "sudo -u root rm x", "env A=1 rm x", "timeout 5 rm x", "find . -exec rm {} +", "bash -c 'rm x'",
        "bash -c \"sudo sh -c 'rm x'\"", "r''m x", 'r"m" x', "r\\m x", "rm$IFS-rf$IFS/", "RM x", "Rm.exe x",
        "C:\\bin\\rm.exe x", "d^el x & r^m x", "if true; then rm x; fi", "{ rm x; }", "cmd /c rm x",
    ],
)  # fmt: skip
def test_a_command_is_found_wherever_it_hides(line: str) -> None:
    assert commands.suspicious(line).match("rm") is commands.Match.YES


@pytest.mark.parametrize(
    "line", ["X=rm; $X x", "/bin/r? x", "$(echo rm) x", "echo 'a", "eval x", ". ./x", "ls; ${X} y", "%COMSPEC% /c x"]
)
def test_where_nobody_can_tell_it_may_be(line: str) -> None:
    assert commands.suspicious(line).match("rm") is commands.Match.MAYBE


@pytest.mark.parametrize("line", ["ls", "ls $HOME", "echo rm", "echo rmx", "git commit -m 'rm x'", "cat rm", "rmdir x"])
def test_a_word_that_is_not_run_is_not_it(line: str) -> None:
    assert commands.suspicious(line).match("rm") is commands.Match.NO


def test_a_prefix_of_several_words_is_matched_word_by_word() -> None:
    assert commands.suspicious("ls; git push --force").match("git push") is commands.Match.YES
    assert commands.suspicious("git pull").match("git push") is commands.Match.NO
    assert commands.suspicious("git $X").match("git push") is commands.Match.MAYBE
    assert commands.suspicious("git").match("git push") is commands.Match.NO


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "line",
    [
        "sudo " + "a " * 15_000, "bash -c '" + "$(" * 10_000, "bash " + "\"bash 'x y' \" " * 1500, "a;" * 16_000,
        "'" * 31_999,
    ],
    ids=["wrapped", "nested", "shells", "parts", "quotes"],
)  # fmt: skip
def test_a_hostile_line_is_read_to_its_end(line: str) -> None:
    assert commands.suspicious(line).match("rm") in commands.Match
    assert not commands.allows(line, "rm")
