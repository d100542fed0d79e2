"""What counts as a clean path, and what an agent with file rules may write."""

from __future__ import annotations

import ntpath
import posixpath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents_app import paths

MARKDOWN = ("**/*.md",)


@pytest.mark.parametrize(
    ("written", "clean"),
    [
        ("x.md", "x.md"),
        ("docs/x.md", "docs/x.md"),
        ("./docs/./x.md", "docs/x.md"),
        (".github/README.md", ".github/README.md"),
        ("docs/a b (1).md", "docs/a b (1).md"),
        ("документы/схема.md", "документы/схема.md"),
        ("docs/100%.md", "docs/100%.md"),
        ("a..b/c...d.md", "a..b/c...d.md"),
        ("docs/~draft.md", "docs/~draft.md"),
    ],
)
def test_clean_paths_are_relative_and_keep_their_names(written: str, clean: str) -> None:
    assert paths.normalise(written) == clean


@pytest.mark.parametrize(
    "written",
    [
        "",
        ".",
        "./",
        "..",
        "../x.md",
        "docs/../x.md",
        "docs/../x.py.md",
        "docs/../../etc/passwd",
        "x.md/../y.py",
        "x.md/..",
        "/etc/x.md",
        "//host/x.md",
        "~/x.md",
        "~root/x.md",
        "C:\\x.md",
        "C:x.md",
        "c:/x.md",
        "docs\\x.md",
        "..\\x.md",
        "file:///x.md",
        "x.py:stream.md",
        "%2e%2e/x.md",
        "docs/%2E%2e%2fx.md",
        "x.py%00.md",
        "docs//x.md",
        "docs/",
        "a.md\n",
        "a\n.md",
        "a.py\0.md",
        "a\x7f.md",
        "a\x85b.md",
        "a\u2028b.md",
        "a\ud800.md",
        "yp.\u202edm.md",
        "\u2066x.md",
        ".. /x.md",
        " ../x.md",
        ".../x.md",
        "x.md.",
        "x.md ",
        " /x.md",
        "．．/x.md",
        "‥/x.md",
        "docs／..／x.md",
        "x" * 5000 + ".md",
    ],
)
def test_what_could_be_read_as_another_file_is_refused(written: str) -> None:
    with pytest.raises(paths.PathRefused):
        paths.normalise(written)


def test_a_refusal_says_why_without_repeating_the_path() -> None:
    with pytest.raises(paths.PathRefused, match="segment") as refusal:
        paths.normalise("secret/../x.md")
    assert "secret" not in str(refusal.value)


@pytest.mark.parametrize(
    ("path", "rules", "allowed"),
    [
        ("x.md", MARKDOWN, True),
        ("a/b/c/x.md", MARKDOWN, True),
        (".hidden/x.md", MARKDOWN, True),
        (".x.md", MARKDOWN, True),
        ("x.py", MARKDOWN, False),
        ("x.md.py", MARKDOWN, False),
        ("x.md/y.py", MARKDOWN, False),
        ("xmd", MARKDOWN, False),
        ("X.MD", MARKDOWN, False),
        ("docs/x.md", ("docs/*.md",), True),
        ("docs/a/x.md", ("docs/*.md",), False),
        ("other/docs/x.md", ("docs/*.md",), False),
        ("docs/a/x.md", ("docs/**",), True),
        ("DOCS/x.md", ("docs/**",), False),
        ("x.txt", ("*.md", "*.txt"), True),
        ("{a,b}.md", ("{a,b}.md",), True),
        ("a.md", ("{a,b}.md",), False),
        ("a.md", ("!b.md",), False),
        ("a.md", (), False),
    ],
)
def test_rules_match_segment_by_segment_and_by_exact_case(path: str, rules: tuple[str, ...], allowed: bool) -> None:
    assert paths.matches(path, rules) is allowed


@pytest.mark.parametrize("path", ["a\0", "a\r", "\x1b[2Ja", "a\u2029", "a\udfff", "a\u202eb"])
def test_characters_that_deceive_the_eye_are_refused_in_any_path(path: str) -> None:
    with pytest.raises(paths.PathRefused):
        paths.check_characters(path)


@pytest.mark.parametrize("path", ["/home/user/x.py", "C:\\src\\x.py", "../x", "имя файла", "می\u200cروم.md"])
def test_a_path_without_such_characters_is_left_to_the_client(path: str) -> None:
    assert paths.check_characters(path) == path


ATOMS = [".", "..", "/", "\\", "//", "a", "b.md", ".md", "x.py", " ", "~", ":", "%2e", "%2F", "．", "／", "\n", "\0"]
WRITTEN = st.lists(st.sampled_from(ATOMS), max_size=8).map("".join) | st.text("ab./\\ ~:%2e\n\0．é", max_size=20)


@given(WRITTEN)
def test_whatever_passes_stays_below_the_root_on_every_system(written: str) -> None:
    try:
        clean = paths.normalise(written)
    except paths.PathRefused:
        return
    assert paths.normalise(clean) == clean
    assert posixpath.normpath(f"/root/{clean}") == f"/root/{clean}"
    assert ntpath.normpath(f"C:/root/{clean}") == "C:\\root\\" + clean.replace("/", "\\")
    assert not ntpath.splitdrive(clean)[0]


@given(WRITTEN.map(lambda text: text + ".md") | WRITTEN)
def test_whatever_matches_the_markdown_rule_is_a_markdown_file(written: str) -> None:
    try:
        clean = paths.normalise(written)
    except paths.PathRefused:
        return
    assert paths.matches(clean, MARKDOWN) is clean.endswith(".md")
