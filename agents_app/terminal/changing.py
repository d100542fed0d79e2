"""Tools that change files. Whoever runs one has asked the person; the folder's limits hold all the same."""

from __future__ import annotations

from agents_app.terminal.folder import Folder, ToolFailed, failures_named
from agents_app.terminal.patches import applied
from agents_app.terminal.reading import decoded
from agents_app.terminal.toolbox import tool


@tool()
def write_file(
    folder: Folder,
    /,
    path: str,
    content: str,
    encoding: str = "utf-8",
    create_dirs: bool = False,
    backup: bool = False,
) -> str:
    data = _encoded(content, encoding)
    place = folder.locate(path)
    existed = place.exists()
    with failures_named(path):
        if create_dirs:
            place.parent.mkdir(parents=True, exist_ok=True)
    if existed and backup:
        folder.write(f"{path}.bak", folder.read(path))
    folder.write(path, data)
    return f"{'Replaced' if existed else 'Created'} {folder.label(place)} ({len(data)} bytes)"


@tool()
def apply_diff(folder: Folder, /, path: str, diff: str) -> str:
    before = decoded(folder.read(path), path)
    folder.write(path, applied(before, diff).encode())
    return f"Changed {folder.label(folder.locate(path))}"


@tool()
def create_directory(folder: Folder, /, path: str, recursive: bool = True) -> str:
    place = folder.locate(path)
    with failures_named(path):
        place.mkdir(parents=recursive, exist_ok=True)
    return f"Created {folder.label(place)}/"


@tool()
def delete_file(folder: Folder, /, path: str) -> str:
    place = folder.entry(path)
    with failures_named(path):
        place.unlink()
    return f"Deleted {folder.label(place)}"


@tool()
def move_file(folder: Folder, /, source: str, destination: str) -> str:
    origin, target = folder.entry(source), folder.entry(destination)
    if target.exists() or target.is_symlink():
        raise ToolFailed(f"{destination!r} exists already")
    with failures_named(source):
        origin.rename(target)
    return f"Moved {folder.label(origin)} to {folder.label(target)}"


def _encoded(content: str, encoding: str) -> bytes:
    try:
        return content.encode(encoding)
    except (UnicodeError, LookupError) as fault:
        raise ToolFailed(f"The content cannot be written as {encoding}: {fault}") from fault
