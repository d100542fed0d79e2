"""The folder that the tools may touch, and nothing outside it: every path is resolved before it is used."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MAX_FILE_BYTES = 8 * 1024 * 1024
# Neither waits for a pipe's other end nor follows a link that was put there after the check.
READ_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)


class ToolFailed(Exception):
    """A call could not be carried out; the message is what the model reads."""


class Folder:
    def __init__(self, root: str | Path) -> None:
        self.root = Path(root).resolve(strict=True)
        if not self.root.is_dir():
            raise NotADirectoryError(f"{str(root)!r} is not a folder")

    def locate(self, path: str) -> Path:
        """The real place of `path`, all links followed; whether it exists is another matter."""
        return self._inside(path, self.root / path)

    def entry(self, path: str) -> Path:
        """The place of `path` itself, a link included: for what is deleted or moved."""
        joined = Path(os.path.normpath(self.root / path))
        if not joined.name:
            raise ToolFailed(f"{path!r} is outside the folder")
        return self._inside(path, joined.parent) / joined.name

    def label(self, place: Path) -> str:
        return place.relative_to(self.root).as_posix()

    def read(self, path: str) -> bytes:
        """The whole of a regular file of at most MAX_FILE_BYTES."""
        with failures_named(path):
            return read_regular(self.locate(path))

    def write(self, path: str, data: bytes) -> None:
        """Replaces the file in one step, its mode kept; a reader never sees half of it."""
        place = self.locate(path)
        with failures_named(path):
            mode = stat.S_IMODE(place.stat().st_mode) if place.exists() else 0o666 & ~_umask()
            draft, name = tempfile.mkstemp(dir=place.parent, prefix=f".{place.name[:100]}.")
            try:
                with os.fdopen(draft, "wb") as out:
                    out.write(data)
                os.chmod(name, mode)
                os.replace(name, place)
            except BaseException:
                os.unlink(name)
                raise

    def _inside(self, path: str, place: Path) -> Path:
        if not path.strip():
            raise ToolFailed("The path is empty")
        with failures_named(path):
            real = place.resolve()
        if real != self.root and self.root not in real.parents:
            raise ToolFailed(f"{path!r} is outside the folder")
        return real


def read_regular(place: Path, limit_bytes: int = MAX_FILE_BYTES) -> bytes:
    """Bytes of a file that is one: no folder, pipe, socket or device; OSError and ToolFailed otherwise."""
    with open(place, "rb", opener=lambda name, _: os.open(name, READ_FLAGS)) as file:
        facts = os.fstat(file.fileno())
        if not stat.S_ISREG(facts.st_mode):
            raise ToolFailed(f"{place.name!r} is not a regular file")
        if facts.st_size > limit_bytes:
            raise ToolFailed(f"{place.name!r} has {facts.st_size} bytes; at most {limit_bytes} are read")
        return file.read(limit_bytes)


@contextmanager
def failures_named(path: str) -> Iterator[None]:
    """What the system says about `path`, as the call's failure; full paths of this machine stay out of it."""
    try:
        yield
    except UnicodeError as fault:
        raise ToolFailed(f"{path!r}: {fault}") from fault
    except (OSError, ValueError, RuntimeError) as fault:
        told = str(fault) if isinstance(fault, ValueError) else "the links form a loop"
        raise ToolFailed(f"{path!r}: {getattr(fault, 'strerror', None) or told}") from fault


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
