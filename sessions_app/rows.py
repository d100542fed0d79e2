"""Instances of models, made as their constructor and `from_db` make them, with the loops over all fields done once.

A turn makes some twenty; Django's constructor costs it more than its statements do. What is left out: the signals
`pre_init` and `post_init`, which nobody here listens to, and setters of fields, which no column here has.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

from django.db import models
from django.db.models.base import ModelState

M = TypeVar("M", bound=models.Model)
UNCHANGING = (str, int, float, bool, type(None))  # types of defaults that all instances may share


class Blank(Generic[M]):
    """A model's form to be filled in: `blank(session=session, seq=1)` makes what `Model(session=session, seq=1)` does.

    It reads the model at its first use: where it is made, the model may not be whole yet.
    """

    def __init__(self, model: type[M]) -> None:
        self._model = model
        self._shared: dict[str, Any] = {}
        self._made: dict[str, Callable[[], Any]] = {}
        self._related: dict[str, tuple[str, str]] = {}

    def __call__(self, **fields: Any) -> M:
        if not self._shared:
            self._read()
        state = ModelState()
        values = {"_state": state, **self._shared}
        for name, value in fields.items():
            if name in self._related:
                state.fields_cache[name] = value
                own, key = self._related[name]
                values[own] = None if value is None else value.__dict__[key]
            elif name in self._shared or name in self._made:
                values[name] = value
            else:
                raise TypeError(f"{self._model.__name__} has no field {name!r}")
        for name, make in self._made.items():
            if name not in fields:
                values[name] = make()
        return _with(self._model, values)

    def _read(self) -> None:
        """`_shared` comes last and whole: another thread may look at the same moment."""
        shared: dict[str, Any] = {}
        for field in self._model._meta.concrete_fields:
            if isinstance(field, models.ForeignKey):
                self._related[field.name] = field.attname, field.target_field.attname
            default = field.get_default()
            if isinstance(default, UNCHANGING):
                shared[field.attname] = default
            else:
                self._made[field.attname] = field.get_default
        self._shared = shared


def stored(model: type[M], database: str, values: dict[str, Any]) -> M:
    """A row of the database, by the names of its columns' attributes; what is left out is deferred. Takes `values`."""
    values["_state"] = state = ModelState()
    state.db, state.adding = database, False
    return _with(model, values)


def _with(model: type[M], values: dict[str, Any]) -> M:
    row = model.__new__(model)
    row.__dict__ = values
    return row
