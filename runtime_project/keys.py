"""Secrets that nobody had to choose: made once, kept beside the database. Used by settings.py: imports no Django."""

import contextlib
import os
import secrets
from pathlib import Path


def stored_secret(name: str, *, directory: Path) -> str:
    """The secret in the file `directory/name`; made on first need, once, however many processes ask at the same time.

    The directory is made with mode 0700 where there is none, the file with 0600. Where that is impossible this ends the
    program in one line: it runs while the settings load, where nobody could catch anything.
    """
    path = directory / name
    try:
        if not path.exists():
            _make(path)
        secret = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as fault:
        raise SystemExit(f"The secret {str(path)!r} can be neither read nor made: {_reason(fault)}.") from fault
    if not secret:
        raise SystemExit(f"The secret {str(path)!r} is empty: delete the file, and a new one is made.")
    return secret


def _make(path: Path) -> None:
    if not path.parent.exists():
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    file = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(file, "w", encoding="ascii") as out:
            out.write(secrets.token_urlsafe(48) + "\n")
        _publish(draft, path)
    finally:
        draft.unlink()


def _publish(draft: Path, path: Path) -> None:
    """Appears whole or not at all; who comes second keeps the first one's secret."""
    with contextlib.suppress(FileExistsError):
        os.link(draft, path)


def _reason(fault: Exception) -> str:
    return getattr(fault, "strerror", None) or str(fault)
