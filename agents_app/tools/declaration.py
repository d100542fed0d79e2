"""What a tool is, and how a function becomes one. Imports `paths` only.

    @tool(side=CLIENT, approval="Deletes a file")
    def delete_file(path: Path) -> None:
        \"\"\"Delete one file.\"\"\"

The signature is the JSON schema and the check of what the model sends, the docstring is what the model reads.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, get_args, get_type_hints

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, create_model, field_validator
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import ErrorDetails, PydanticCustomError, core_schema

from agents_app.paths import MAX_PATH_LENGTH, PathRefused, check_characters

Side = Literal["client", "server", "control"]
CLIENT: Side = "client"
SERVER: Side = "server"
CONTROL: Side = "control"

UNSTORABLE = re.compile("[\0\ud800-\udfff]")
MAX_COMPLAINTS = 5
MAX_NAME_SHOWN = 60


class ToolRefused(Exception):
    """A call that must not happen; its text is what the model reads as the call's result."""


class Arguments(BaseModel):
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    @field_validator("*")
    @classmethod
    def storable(cls, value: object) -> object:
        """PostgreSQL stores no NUL in text or JSON, lone surrogates have no UTF-8, and no tool needs either."""
        for text in value if isinstance(value, list) else [value]:
            if isinstance(text, str) and UNSTORABLE.search(text):
                raise PydanticCustomError("unstorable", "must not hold NUL or broken characters")
        return value


@dataclass(frozen=True, slots=True)
class Tool:
    """One tool. `side` is who executes it: the client, this server, or the turn itself (control). `run` gives the
    text of server tools, and of those control tools whose text ends the turn; it may raise ToolRefused."""

    name: str
    description: str
    side: Side
    schema: dict[str, Any]
    arguments: type[Arguments]
    dangerous: bool = False
    reason: str = ""
    writes: bool = False
    on_request: bool = False
    path_fields: tuple[str, ...] = ()
    run: Callable[..., str] | None = field(default=None, compare=False)

    def validated(self, arguments: object) -> dict[str, Any]:
        """The arguments with defaults filled in, those given as null or left out without a default left out."""
        if not isinstance(arguments, dict):
            raise ToolRefused(f"The arguments of {self.name} must be one JSON object.")
        optional = {name for name, info in self.arguments.model_fields.items() if not info.is_required()}
        given = {key: value for key, value in arguments.items() if value is not None or key not in optional}
        try:
            return self.arguments.model_validate(given).model_dump(exclude_none=True)
        except ValidationError as error:
            raise ToolRefused(self._complaint(error)) from None

    def _complaint(self, error: ValidationError) -> str:
        details = error.errors(include_url=False, include_context=False, include_input=False)
        told = "; ".join(self._told(detail) for detail in details[:MAX_COMPLAINTS])
        more = f"; and {len(details) - MAX_COMPLAINTS} more" if len(details) > MAX_COMPLAINTS else ""
        return f"Invalid arguments for {self.name}: {told}{more}."

    def _told(self, detail: ErrorDetails) -> str:
        where = ".".join(shown(part) for part in detail["loc"]) or "a name"
        if detail["type"] == "extra_forbidden":
            return f"{where} is no argument of it, it takes {', '.join(self.arguments.model_fields)}"
        return f"{where}: {detail['msg'][:1].lower()}{detail['msg'][1:]}"


def shown(name: object) -> str:
    """A name that came from a model, fit for a message: short, printable, on one line."""
    text = str(name)
    plain = text if text.isascii() and text.isidentifier() else ascii(text)
    return plain if len(plain) <= MAX_NAME_SHOWN else plain[:MAX_NAME_SHOWN] + "..."


class PlainSchema(GenerateJsonSchema):
    """JSON schema as strict providers like it: no titles, and an optional argument is one that is not required."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False

    def nullable_schema(self, schema: core_schema.NullableSchema) -> JsonSchemaValue:
        return self.generate_inner(schema["schema"])

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        plain = super().default_schema(schema)
        return plain if plain.get("default", ...) is not None else {k: v for k, v in plain.items() if k != "default"}


class IsPath:
    """Marks an argument as a path of the client's."""


def _plain_path(path: str) -> str:
    try:
        return check_characters(path)
    except PathRefused as refusal:
        raise PydanticCustomError("path", "{why}", {"why": str(refusal)}) from None


def _not_blank(text: str) -> str:
    if not text.strip():
        raise PydanticCustomError("blank", "must not be blank")
    return text


Path = Annotated[str, Field(min_length=1, max_length=MAX_PATH_LENGTH), AfterValidator(_plain_path), IsPath()]
Glob = Annotated[str, Field(min_length=1, max_length=1000), AfterValidator(_plain_path)]
Words = Annotated[str, Field(min_length=1), AfterValidator(_not_blank)]


def tool(
    *, side: Side, approval: str = "", writes: bool = False, on_request: bool = False, runs: bool = False
) -> Callable[[Callable[..., Any]], Tool]:
    """Make a function a tool. `approval` says why a person is asked by default (empty: not asked), `writes` that an
    agent's file rules apply to its paths, `on_request` that it is offered only where settings.CLIENT_TOOLS names it,
    and `runs` that the function's body is the tool."""

    def declare(function: Callable[..., Any]) -> Tool:
        arguments = _arguments(function)
        return Tool(
            name=function.__name__,
            description=inspect.cleandoc(function.__doc__ or ""),
            side=side,
            schema=_schema(arguments),
            arguments=arguments,
            dangerous=bool(approval),
            reason=approval,
            writes=writes,
            on_request=on_request,
            path_fields=tuple(name for name, hint in _hints(function).items() if _holds_path(hint)),
            run=function if runs else None,
        )

    return declare


def _arguments(function: Callable[..., Any]) -> type[Arguments]:
    hints = _hints(function)
    fields: dict[str, Any] = {
        name: (hints[name], ... if parameter.default is parameter.empty else parameter.default)
        for name, parameter in inspect.signature(function).parameters.items()
    }
    return create_model(function.__name__, __base__=Arguments, **fields)


def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    hints = get_type_hints(function, include_extras=True)
    return {name: hint for name, hint in hints.items() if name != "return"}


def _holds_path(hint: Any) -> bool:
    return isinstance(hint, IsPath) or any(_holds_path(part) for part in get_args(hint))


def _schema(arguments: type[Arguments]) -> dict[str, Any]:
    generated = arguments.model_json_schema(schema_generator=PlainSchema)
    return {
        "type": "object",
        "properties": generated.get("properties", {}),
        "required": generated.get("required", []),
        "additionalProperties": False,
    }
