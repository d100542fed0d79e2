"""Path globs of rules: exact where they allow, every reading of the path where they ask or forbid, always in time."""

from __future__ import annotations

import pytest

from agents_app.commands import Match
from agents_app.globs import PathGlob


@pytest.mark.parametrize(
    ("glob", "path", "matches"),
    [
        ("secrets/**", "secrets/key", True),
        ("secrets/**", "secrets", True),
        ("secrets/**", "src/secrets/x", False),
        ("secrets/**", "secretsx/y", False),
        ("**/.env", ".env", True),
        ("**/.env", "a/b/.env", True),
        ("*.md", "a.md", True),
        ("*.md", "a/b.md", False),
        ("*.md", "a.MD", False),
        ("**/*.md", "a/b.md", True),
        ("**", ".", True),
        ("**", "a/b", True),
        ("*", "a/b", False),
        ("docs/*/x", "docs/a/x", True),
        ("docs/*/x", "docs/a/b/x", False),
        ("a/**/b", "a/b", True),
        ("a/**/b", "a/x/y/b", True),
        ("a?c", "abc", True),
        ("a?c", "a/c", False),
        ("[!a]b", "cb", True),
        ("[!a]b", "ab", False),
        ("[a-c]", "b", True),
        ("a.b", "axb", False),
        ("a(b", "a(b", True),
        ("[", "[", True),
        ("файл?.txt", "файл1.txt", True),
        ("src/**", "./src//a.py", False),  # what has to be interpreted is never allowed
        ("**", "../a", False),
        ("**", "/a", False),
        ("**", "a\\b", False),
        ("**", "a/../b", False),
        ("**", "%61", False),
        ("**", "C:a", False),
        ("**", "ａ/．．/b", False),
    ],
)
def test_what_is_allowed_is_exactly_what_the_glob_says(glob: str, path: str, matches: bool) -> None:
    assert PathGlob.of(glob).allows(path) is matches


@pytest.mark.parametrize(
    "path",
    [
        "secrets/key", "./secrets//key", "a/../secrets/key", "SECRETS/key", "Secrets\\key", "/home/me/secrets/key",
        "../p/secrets/key", "%73ecrets/key", "ｓecrets/key", "~/secrets/key", "c:secrets/key", "C:\\p\\secrets\\key",
        "secrets./key", "secrets /key", "secrets::$DATA/key", "secrets/", "/secrets", "secrets/a/../../secrets/b",
    ],
)  # fmt: skip
def test_a_forbidden_path_is_found_in_whatever_spelling(path: str) -> None:
    assert PathGlob.of("secrets/**").suspects(path) is Match.YES


def test_an_odd_path_may_be_anything_and_a_clean_one_is_only_itself() -> None:
    assert PathGlob.of("secrets/**").suspects("src/a b.py") is Match.NO
    assert PathGlob.of("secrets/**").suspects(".") is Match.NO
    for odd in ("/etc/passwd", "../x", "a/%2e%2e/x", "x:y"):
        assert PathGlob.of("secrets/**").suspects(odd) is Match.MAYBE


@pytest.mark.timeout(60)
@pytest.mark.parametrize("glob", ["**/a/**/a/**/a/**/b", "*a*a*a*a*b", "**/*/**/*/**/b", "[a]" * 300])
def test_no_glob_and_no_path_take_long(glob: str) -> None:
    made = PathGlob.of(glob)
    for path in ("a/" * 2000 + "a", "a" * 4096, "../" * 1300):
        made.suspects(path)
        made.allows(path)
