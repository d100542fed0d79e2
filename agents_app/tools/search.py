"""Finding text in the client's files."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from agents_app.tools.declaration import CLIENT, Glob, Path, Words, tool


@tool(side=CLIENT)
def search_in_code(
    query: Annotated[Words, Field(max_length=2000, description="The text to find, or an expression with regex.")],
    path: Annotated[Path, Field(description="The folder to search, relative to the project's root.")] = ".",
    file_pattern: Annotated[Glob | None, Field(description="Only files that match this glob, such as *.py.")] = None,
    case_sensitive: Annotated[bool, Field(description="Tell upper and lower case apart.")] = False,
    regex: Annotated[bool, Field(description="Read the query as a regular expression.")] = False,
    max_results: Annotated[int, Field(ge=1, le=1000, description="Stop after this many matches.")] = 100,
) -> None:
    """Find text in the project's files; gives the matching lines with their files and numbers. The fastest way to
    where something is defined or used."""
