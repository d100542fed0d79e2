"""Django's settings, for all of ours: `from sessions_app.conf import settings`. Imports nothing of ours.

Django looks through its own object each time, in Python; a turn asks some sixty times. Here a value is asked for once,
and again when a test has changed it by Django's `override_settings` or pytest's `settings`. Who assigns to Django's
own object is not heard.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from django import conf
from django.core.signals import setting_changed

if TYPE_CHECKING:
    from django.conf import LazySettings


class _Known:
    def __getattr__(self, name: str) -> Any:
        known = vars(self)
        value = known[name] = getattr(conf.settings, name)
        return value


settings = cast("LazySettings", _Known())


def _forget(**_: object) -> None:
    settings.__dict__ = {}  # another one: who asks at this moment keeps what he found in the old one


setting_changed.connect(_forget)
