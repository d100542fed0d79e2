"""Commands in the client's workspace."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from agents_app.tools.declaration import CLIENT, Path, Words, tool


@tool(side=CLIENT, approval="Runs a command")
def execute_command(
    command: Annotated[Words, Field(max_length=32_000, description="The command line.")],
    cwd: Annotated[Path | None, Field(description="Folder to run it in; the project's root if left out.")] = None,
    timeout: Annotated[int, Field(ge=1, le=300, description="Seconds after which it is stopped.")] = 60,
    shell: Annotated[bool, Field(description="Run it through a shell, for pipes and variables.")] = False,
) -> None:
    """Run a command and read its output and exit code. It gets no input: choose flags that never ask, and nothing
    that runs for ever, such as a server or a watcher."""
