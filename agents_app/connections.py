"""How many sockets and streams an address holds open in this process: they live in one, and so does their count."""

from __future__ import annotations

from types import TracebackType

from sessions_app.conf import settings

_open: dict[str, int] = {}


class counted:  # noqa: N801  what it is called as
    """Counts one for as long as it lasts, where there is room for it, or `always`; says whether there was."""

    __slots__ = ("_address", "_has_room")

    def __init__(self, address: str, *, always: bool = False) -> None:
        self._address = address
        most = settings.MAX_SOCKETS_PER_ADDRESS
        self._has_room = always or most <= 0 or _open.get(address, 0) < most

    def __enter__(self) -> bool:
        if self._has_room:
            _open[self._address] = _open.get(self._address, 0) + 1
        return self._has_room

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._has_room:
            left = _open.pop(self._address) - 1
            if left:
                _open[self._address] = left
