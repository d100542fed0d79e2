"""Statements of a turn, written by Django from the models once and then run again with other values.

Writing the SQL is most of what a statement costs through the ORM: several times what the database needs for it. Here a
queryset with `Slot`s where values belong is compiled once a thread (threads and databases never change), and rows come
back as what the queryset gives: models, or tuples for `values_list`. Nothing here knows a table or a column by name.

    BY_NAME = Select(lambda: Session.objects.filter(session_id=Slot("name")))
    BY_NAME.first(name="s1")
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from operator import itemgetter
from typing import Any, Generic, TypeVar
from uuid import UUID

import orjson
from django.db import DEFAULT_DB_ALIAS, connections, models
from django.db.models import Value, sql
from django.db.models.expressions import Col
from django.db.models.fields.json import JSONField
from django.db.models.query import ModelIterable

from sessions_app import rows
from sessions_app.conf import settings

R = TypeVar("R")

Store = Callable[[Any], Any]
# Fields whose values a driver takes as they are.
FIT = frozenset(
    {
        models.CharField, models.TextField, models.BooleanField, models.FloatField,
        models.BigAutoField, models.IntegerField, models.PositiveIntegerField, models.PositiveSmallIntegerField,
        models.PositiveBigIntegerField,
    }
)  # fmt: skip
PLACES = re.compile("%[s%]")
AT_ONCE = 40  # rows; SQLite binds no more than 999 values
MOMENTS = 64


class Slot(Value):
    """The place of a value in a prepared statement, named."""

    def __init__(self, name: str, output_field: models.Field[Any, Any] | None = None) -> None:
        super().__init__(name, output_field=output_field)

    def as_sql(self, compiler: Any, connection: Any) -> tuple[str, Any]:
        return "%s", (self,)


def _with_constants(text: str, params: Sequence[Any]) -> tuple[str, list[Any]]:
    """The statement with its constants, which are the code's and never anybody's words, written out; its other values.

    SQLite plans a statement anew each time that a value is bound which a partial index may depend on: that cost more
    than the statement did. PostgreSQL's generic plans can use such an index only then.
    """
    left, places = [], iter(params)

    def place(found: re.Match[str]) -> str:
        if found[0] == "%%":
            return found[0]
        value = next(places)
        if isinstance(value, str) and value.isascii() and value.isprintable() and "\\" not in value:
            return "'{}'".format(str(value).replace("'", "''").replace("%", "%%"))
        if isinstance(value, int) and not isinstance(value, bool):
            return str(int(value))
        left.append(value)
        return found[0]

    return PLACES.sub(place, text), left


class _Statement:
    """One statement of the current thread's connection; compiled at its first use."""

    def compile(self, connection: Any) -> Any:
        """What a run of the statement needs; the thread's own connection is found once, which is not free either."""
        raise NotImplementedError


class _Compiled(dict[_Statement, Any]):
    """What a thread's runs of each statement need."""

    def __missing__(self, statement: _Statement) -> Any:
        made = self[statement] = statement.compile(connections[DEFAULT_DB_ALIAS])
        return made


class _ThreadState(threading.local):
    def __init__(self) -> None:
        self.compiled = _Compiled()
        self.moment: Store | None = None


_thread = _ThreadState()


class _Text:
    """A statement's text, ready for its connection's driver."""

    def __init__(self, connection: Any, text: str) -> None:
        self.connection, self._text, self._debug = connection, text, settings.DEBUG
        self._ready, self._on_sqlite = text, connection.vendor == "sqlite"
        if self._on_sqlite:
            self._ready = PLACES.sub(lambda found: "?" if found[0] == "%s" else "%", text)

    def execute(self, values: Sequence[Any]) -> Any:
        """The driver's cursor. Django's own goes through the text for placeholders each time; it is taken when
        somebody looks on, such as a test that counts statements."""
        connection = self.connection
        if connection.execute_wrappers or connection.force_debug_cursor or self._debug:
            cursor = connection.cursor()
            cursor.execute(self._text, values)
            return cursor
        if connection.connection is None:
            connection.ensure_connection()
        if connection.needs_rollback:
            connection.validate_no_broken_transaction()
        try:
            if self._on_sqlite:
                return connection.connection.execute(self._ready, values)
            cursor = _Preparing(connection.connection)
            cursor.execute(self._ready, values)
            return cursor
        except Exception:
            with connection.wrap_database_errors:  # only now: it costs as much as a small statement
                raise

    def execute_each(self, several: Sequence[Sequence[Any]]) -> None:
        """The statement with each of these values; it gives nothing back."""
        with self.connection.cursor() as cursor:
            cursor.executemany(self._text, several)


class _Preparing:
    """A cursor of PostgreSQL's whose statement is read and planned once, and kept by the connection until a transaction
    of it fails. Django's own sends each with its values in the text, as a new one; of those psycopg must keep nothing,
    so it prepares only meanwhile."""

    def __init__(self, connection: Any) -> None:
        from django.db.backends.postgresql import base

        make: Any = base.ServerBindingCursor
        self._connection, self._cursor = connection, make(connection)
        self.fetchall = self._cursor.fetchall

    @property
    def rowcount(self) -> int:
        return int(self._cursor.rowcount)

    def execute(self, text: str, values: Sequence[Any]) -> None:
        self._connection.prepare_threshold = 0 if settings.DB_PREPARE else None
        try:
            self._cursor.execute(text, values)
        finally:
            self._connection.prepare_threshold = None


class Select(_Statement, Generic[R]):
    """The rows of a queryset."""

    def __init__(self, queryset: Callable[[], models.QuerySet[Any, R]]) -> None:
        self._queryset = queryset

    def compile(self, connection: Any) -> tuple[_Text, Sequence[Any], list[Any], Callable[[Sequence[Any]], R]]:
        queryset = self._queryset()
        compiler = queryset.query.get_compiler(connection=connection)
        text, params = _with_constants(*compiler.as_sql())
        columns = [column for column, *_ in compiler.select]
        converters = [
            (position, converter, expression)
            for position, (some, expression) in compiler.get_converters(columns).items()
            if not _comes_fit(expression, connection)
            for converter in some
        ]
        return _Text(connection, text), params, converters, _maker(queryset, compiler)

    def all(self, **values: Any) -> list[R]:
        text, params, converters, make = _thread.compiled[self]
        cursor = text.execute([values[param.value] if isinstance(param, Slot) else param for param in params])
        try:
            found: list[Any] = cursor.fetchall()
        except Exception:
            with text.connection.wrap_database_errors:
                raise
        if converters:
            _convert(found, converters, text.connection)
        return [*map(make, found)]

    def first(self, **values: Any) -> R | None:
        """The first row, of a queryset that has an order or gives no more than one."""
        return next(iter(self.all(**values)), None)


def _convert(rows: list[Any], converters: list[Any], connection: Any) -> None:
    for place, row in enumerate(rows):
        values = None
        for position, converter, expression in converters:
            if row[position] is not None:
                values = values or [*row]
                values[position] = converter(values[position], expression, connection)
        if values:
            rows[place] = values


def _maker(queryset: models.QuerySet[Any, Any], compiler: Any) -> Callable[[Sequence[Any]], Any]:
    """Makes of a row what the queryset would: the way of `ModelIterable`, or a tuple."""
    if queryset._iterable_class is not ModelIterable:
        return tuple
    model, database = compiler.klass_info["model"], queryset.db
    places = {compiler.select[place][0].target.attname: place for place in compiler.klass_info["select_fields"]}
    places |= compiler.annotation_col_map
    names, values = [*places], _getter([*places.values()])
    return lambda row: rows.stored(model, database, dict(zip(names, values(row), strict=True)))


class Update(_Statement):
    """Sets columns of the rows that a queryset with Slots names; `columns` are set to the values of the same names."""

    def __init__(self, queryset: Callable[[], models.QuerySet[Any]], columns: Sequence[str]) -> None:
        self._queryset, self._columns = queryset, columns

    def compile(self, connection: Any) -> tuple[_Text, dict[str, Any], _Columns]:
        queryset = self._queryset()
        query: Any = queryset.query.chain(sql.UpdateQuery)
        known = {field.name: field for field in queryset.model._meta.concrete_fields}
        fields = [known[name] for name in self._columns]
        query.add_update_fields([(field, None, Slot(field.name, field)) for field in fields])
        text, params = _with_constants(*query.get_compiler(connection=connection).as_sql())
        stores = {field.name: _store(field, connection) for field in fields}
        # What is no slot is kept under a name that no column has.
        names = [param.value if isinstance(param, Slot) else f"={place}" for place, param in enumerate(params)]
        known_values = {name: param for name, param in zip(names, params, strict=True) if name.startswith("=")}
        columns = _Columns([(name, stores.get(name)) for name in names])
        return _Text(connection, text), known_values, columns

    def run(self, **values: Any) -> int:
        """How many rows it changed."""
        text, known, columns = _thread.compiled[self]
        return int(text.execute(columns.bound({**values, **known} if known else values)).rowcount)

    def run_each(self, several: Sequence[Mapping[str, Any]]) -> None:
        """As `run` for each, in one go."""
        text, known, columns = _thread.compiled[self]
        text.execute_each([columns.bound({**values, **known}) for values in several])

    def set(self, row: models.Model, **values: Any) -> int:
        """The columns of a model's instance, which are no relations, as they are in it."""
        return self.run(**{**row.__dict__, **values})


class _Insert(_Statement):
    """So many rows of a model at once."""

    def __init__(self, model: type[models.Model], rows: int) -> None:
        self._model, self._rows = model, rows
        self.fields = [field for field in model._meta.concrete_fields if not field.generated and not field.primary_key]
        self._key = model._meta.pk.attname
        self._relations = [(field.name, field.attname) for field in self.fields if field.is_relation]

    def compile(self, connection: Any) -> tuple[_Text, _Columns]:
        query = sql.InsertQuery(self._model)
        # Expressions, so that PostgreSQL too is given a placeholder for each value.
        sample = self._model(**{field.attname: Slot(field.name, field) for field in self.fields})
        query.insert_values(self.fields, [sample] * self._rows, raw=True)
        compiler: Any = query.get_compiler(connection=connection)
        if connection.vendor != "sqlite":  # there it takes longer than the insert itself
            compiler.returning_fields = [self._model._meta.pk]
        [(text, _)] = compiler.as_sql()
        columns = _Columns([(field.attname, _store(field, connection)) for field in self.fields])
        return _Text(connection, str(text)), columns

    def run(self, rows: Sequence[models.Model]) -> None:
        text, columns = _thread.compiled[self]
        values: list[Any] = []
        bound, relations = columns.bound, self._relations
        for row in rows:
            known = row.__dict__
            for name, attname in relations:  # what was stored after the row was made has its key only now
                if known[attname] is None and (one := row._state.fields_cache.get(name)) is not None:
                    known[attname] = one.pk
            values += bound(known)
        connection, cursor = text.connection, text.execute(values)
        keys: Sequence[int]
        if connection.vendor == "sqlite":  # one writer at a time: the keys of one statement follow each other
            keys = range(cursor.lastrowid - len(rows) + 1, cursor.lastrowid + 1)
        else:
            with connection.wrap_database_errors:
                keys = [key for (key,) in cursor.fetchall()]
        for row, key in zip(rows, keys, strict=True):
            known = row.__dict__
            known[self._key], state = key, known["_state"]
            state.adding, state.db = False, connection.alias


_inserts: dict[tuple[type[models.Model], int], _Insert] = {}


def insert(rows: Sequence[models.Model]) -> None:
    """Stores new rows of one model, and gives them their keys. No signals are sent, no field sets itself."""
    model = type(rows[0])
    for first in range(0, len(rows), AT_ONCE):
        some = rows[first : first + AT_ONCE]
        key = model, len(some)
        if key not in _inserts:
            _inserts[key] = _Insert(*key)
        _inserts[key].run(some)


class _Columns:
    """The values of a row, by the names of its columns, as the database takes them. Most are fit for it: in columns of
    text, numbers and truth code puts those, or nothing, and a driver takes them as they are."""

    def __init__(self, columns: Sequence[tuple[str, Store | None]]) -> None:
        self._all = _getter([name for name, _ in columns])
        made_fit = [(place, store) for place, (_, store) in enumerate(columns) if store is not None]
        self._choices = [place for place, store in made_fit if store is _of_choice]
        self._made_fit = [(place, store) for place, store in made_fit if store is not _of_choice]

    def bound(self, values: Mapping[str, Any]) -> list[Any]:
        getter = self._all
        found = [*getter(values)]
        for place in self._choices:
            if type(found[place]) is not str:
                found[place] = _of_choice(found[place])
        for place, store in self._made_fit:
            found[place] = store(found[place])
        return found


def _getter(names: Sequence[Any]) -> Callable[[Any], tuple[Any, ...]]:
    """What takes these of a mapping, as a tuple also where there is one or none."""
    if len(names) > 1:
        return itemgetter(*names)
    return lambda values: tuple(values[name] for name in names)


def _comes_fit(expression: Any, connection: Any) -> bool:
    """Whether SQLite's driver gives what is to be read as it is meant, so that nothing is left to convert: numbers
    always, and truth and moments of a column, whose type the driver sees."""
    field = expression.output_field
    if connection.vendor != "sqlite" or hasattr(field, "from_db_value"):
        return False
    if isinstance(field, models.IntegerField):
        return True
    return isinstance(expression, Col) and type(field) in (models.BooleanField, models.DateTimeField)


def _store(field: models.Field[Any, Any], connection: Any) -> Store | None:
    """What makes a field's values fit for the database: the field, which is asked where there is no shorter way to the
    same. None where they are fit as they are."""

    def store(value: Any) -> Any:
        return field.get_db_prep_save(value, connection)

    def as_json(value: Any) -> Any:
        try:
            return None if value is None else orjson.dumps(value).decode()
        except TypeError:  # beyond 64 bits, or keys that are no text
            return store(value)

    kind, on_sqlite = type(field), connection.vendor == "sqlite"
    if kind is models.DateTimeField:
        return _moment(connection)
    if kind is models.UUIDField:
        return (lambda value: f"{value.int:032x}" if isinstance(value, UUID) else store(value)) if on_sqlite else store
    if isinstance(field, JSONField):
        return as_json if on_sqlite and field.encoder is None else store
    if isinstance(field, models.ForeignKey):
        return _store(field.target_field, connection)
    if kind in FIT:
        return (_of_choice if kind is models.CharField else store) if field.choices else None
    return store


def _of_choice(value: Any) -> Any:
    """A driver takes text itself, or nothing, not one of an enumeration."""
    return None if value is None else str(value)


def _moment(connection: Any) -> Store:
    """What makes moments fit for the thread's database: one for all columns, since a change says `now` in many."""
    if _thread.moment is None:
        field = models.DateTimeField()
        as_text = connection.vendor == "sqlite" and connection.timezone is UTC

        def store(value: Any) -> Any:
            if as_text and type(value) is datetime and value.tzinfo is UTC:
                return str(value.replace(tzinfo=None))
            return field.get_db_prep_save(value, connection)

        _thread.moment = lru_cache(MOMENTS)(store)
    return _thread.moment
