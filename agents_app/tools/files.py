"""The client's files: read, list, write, change, move, delete."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from agents_app.tools.declaration import CLIENT, Glob, Path, Words, tool

Line = Annotated[int, Field(ge=1)]
Encoding = Annotated[str, Field(min_length=1, max_length=40, description="Text encoding of the file.")]


@tool(side=CLIENT)
def read_file(
    path: Annotated[Path, Field(description="The file, relative to the project's root.")],
    encoding: Encoding = "utf-8",
    start_line: Annotated[Line | None, Field(description="First line to read, counted from 1.")] = None,
    end_line: Annotated[Line | None, Field(description="Last line to read, included.")] = None,
) -> None:
    """Read a text file, or a range of its lines. Read a file before you change it."""


@tool(side=CLIENT, approval="Writes a file", writes=True)
def write_file(
    path: Annotated[Path, Field(description="The file, relative to the project's root.")],
    content: Annotated[str, Field(description="The whole new content of the file, never an excerpt.")],
    encoding: Encoding = "utf-8",
    create_dirs: Annotated[bool, Field(description="Create missing parent folders.")] = False,
    backup: Annotated[bool, Field(description="Keep a copy of the file that is overwritten.")] = True,
) -> None:
    """Create a file or replace it completely. The content given becomes the whole file: include every line that
    should stay."""


@tool(side=CLIENT)
def list_files(
    path: Annotated[Path, Field(description="The folder, relative to the project's root.")] = ".",
    recursive: Annotated[bool, Field(description="Also list what lies in its folders.")] = False,
    include_hidden: Annotated[bool, Field(description="Also list names that begin with a dot.")] = False,
    pattern: Annotated[Glob | None, Field(description="Only names that match this glob, such as *.py.")] = None,
) -> None:
    """List a folder. Start without recursion in an unknown project: it may be large."""


@tool(side=CLIENT, approval="Creates a directory", writes=True)
def create_directory(
    path: Annotated[Path, Field(description="The folder to create, relative to the project's root.")],
    recursive: Annotated[bool, Field(description="Create missing parent folders too.")] = True,
) -> None:
    """Create a folder. Not needed before write_file with create_dirs."""


@tool(side=CLIENT, approval="Changes a file", writes=True, on_request=True)
def apply_diff(
    path: Annotated[Path, Field(description="The file to change, relative to the project's root.")],
    diff: Annotated[Words, Field(description="A unified diff of this one file, with a few lines of context.")],
) -> None:
    """Change parts of one existing file by a unified diff. Prefer it to write_file for small changes of large files."""


@tool(side=CLIENT, approval="Deletes a file", writes=True, on_request=True)
def delete_file(
    path: Annotated[Path, Field(description="The file to delete, relative to the project's root.")],
) -> None:
    """Delete one file. It cannot be undone from here."""


@tool(side=CLIENT, approval="Moves or renames a file", writes=True, on_request=True)
def move_file(
    source: Annotated[Path, Field(description="The file as it is called now, relative to the project's root.")],
    destination: Annotated[Path, Field(description="Its new path, relative to the project's root.")],
) -> None:
    """Move or rename one file. References to it in other files are not changed."""
