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
_Way = tuple[list[tuple[str, str, str]], list[tuple[str, Callable[[], Any]]]]
"""The relations that are given, as (name, its column's attribute, the other's key), and what is made for each row."""
UNCHANGING = (str, int, float, bool, type(None))  # types of defaults that all instances may share


class Blank(Generic[M]):
    """A model's form to be filled in: `blank(session=session, seq=1)` makes what `Model(session=session, seq=1)` does.

    It reads the model at its first use: where it is made, the model may not be whole yet.
    """

    def __init__(self, model: type[M]) -> None:
        self._model = model
        self._shared: dict[str, Any] = {}
        self._made: dict[str, Callable[[], Any]] = {}
        self._related: list[tuple[str, str, str]] = []
        self._ways: dict[tuple[str, ...], _Way] = {}

    def __call__(self, **fields: Any) -> M:
        given = tuple(fields)
        related, made = self._ways.get(given) or self._way(given)
        values = {**self._shared, **fields, "_state": (state := ModelState())}
        state.fields_cache = cache = {}
        for name, own, key in related:
            cache[name] = one = values.pop(name)
            values[own] = None if one is None else one.__dict__[key]
        for name, make in made:
            values[name] = make()
        row = self._model.__new__(self._model)
        row.__dict__ = values
        return row

    def _way(self, given: tuple[str, ...]) -> _Way:
        """What is to be done where just these fields are given; found out once for each place in the code."""
        if not self._shared:
            self._read()
        related = [relation for relation in self._related if relation[0] in given]
        known = {*self._shared, *self._made, *(name for name, *_ in related)}
        if wrong := [name for name in given if name not in known]:
            raise TypeError(f"{self._model.__name__} has no field {min(wrong)!r}")
        self._ways[given] = way = related, [(name, make) for name, make in self._made.items() if name not in given]
        return way

    def _read(self) -> None:
        """`_shared` comes last and whole: another thread may look at the same moment."""
        shared: dict[str, Any] = {}
        made, related = {}, []
        for field in self._model._meta.concrete_fields:
            if isinstance(field, models.ForeignKey):
                related.append((field.name, field.attname, field.target_field.attname))
            default = field.get_default()
            if isinstance(default, UNCHANGING):
                shared[field.attname] = default
            else:
                made[field.attname] = field.default if callable(field.default) else field.get_default
        self._made, self._related, self._shared = made, related, shared


def stored(model: type[M], database: str, values: dict[str, Any]) -> M:
    """A row of the database, by the names of its columns' attributes; what is left out is deferred. Takes `values`."""
    values["_state"] = state = ModelState()
    state.db, state.adding = database, False
    row = model.__new__(model)
    row.__dict__ = values
    return row
