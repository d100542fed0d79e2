"""What a client may say: the message object of the stream endpoint and the WebSocket, checked.

The Gateway forwards its client's object unchanged, so extra keys and nulls are fine. What a program did wrong raises
`Refused` with the status of the contract, and nothing has happened yet.
"""

from __future__ import annotations

import json
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, StrictStr, ValidationError, field_validator

from agents_app import agents
from sessions_app import strict_json
from sessions_app.session_ids import MAX_CHARACTERS, is_session_id

IDE_KEYS = frozenset(
    {"call_id", "tool_name", "result", "error", "decision", "modified_arguments", "feedback", "reason"}
)
OnBusy = Literal["wait", "reject", "interrupt", "rollback"]
StreamMode = Literal["auto", "tokens", "messages"]


class Refused(Exception):
    """A message that is not accepted; `detail` is the answer's, `status` 400 or 422."""

    def __init__(self, status: int, detail: Any) -> None:
        super().__init__(str(detail))
        self.status, self.detail = status, detail


class ClientMessage(BaseModel):
    """What every message may carry."""

    model_config = ConfigDict(extra="ignore")
    message_id: StrictStr | None = None
    stream_mode: StreamMode | None = None

    @field_validator("message_id")
    @classmethod
    def _short(cls, value: str | None) -> str | None:
        if value is not None and not 0 < len(value) <= MAX_CHARACTERS:
            raise ValueError(f"must have 1 to {MAX_CHARACTERS} characters")
        return value


class UserMessage(ClientMessage):
    """A person's message to an agent."""

    type: Literal["user_message"]
    content: StrictStr
    role: StrictStr | None = None
    agent_type: StrictStr | None = None
    on_busy: OnBusy | None = None

    @field_validator("content")
    @classmethod
    def _not_blank(cls, value: str) -> str:
        if not value.strip():
            raise ValueError("must not be blank")
        return value

    @field_validator("agent_type")
    @classmethod
    def _known(cls, value: str | None) -> str | None:
        if value is None:
            return None
        known = agents.resolve(value)
        if known is None:
            raise ValueError(f"unknown agent {value[:64]!r}")
        return known


class ToolResult(ClientMessage):
    """The client's answer to a tool call: any JSON as the result, or an error."""

    type: Literal["tool_result"]
    call_id: StrictStr
    result: Any = None
    error: StrictStr | None = None

    @property
    def failed(self) -> bool:
        """A client that sends all its keys may leave the error empty beside a result."""
        return bool(self.error) or (self.error is not None and self.result is None)

    @property
    def text(self) -> str:
        """What the model reads: a text as it is, everything else as JSON."""
        if self.failed:
            return f"Error: {self.error}"
        if isinstance(self.result, str) and self.result:
            return self.result
        return json.dumps(self.result, ensure_ascii=False)


class SwitchAgent(ClientMessage):
    """A person's wish for another agent; `content` is a label for people."""

    type: Literal["switch_agent"]
    agent_type: StrictStr
    reason: StrictStr | None = None
    content: Any = None

    @field_validator("agent_type")
    @classmethod
    def _known(cls, value: str) -> str:
        known = agents.resolve(value)
        if known is None:
            raise ValueError(f"unknown agent {value[:64]!r}")
        return known


class HitlDecision(ClientMessage):
    """A person's decision about a call that needs approval."""

    type: Literal["hitl_decision"]
    call_id: StrictStr
    decision: Literal["approve", "edit", "reject"]
    modified_arguments: dict[str, Any] | None = None
    feedback: StrictStr | None = None
    arguments_hash: StrictStr | None = None


Message = UserMessage | ToolResult | SwitchAgent | HitlDecision
MODELS: dict[str, type[UserMessage | ToolResult | SwitchAgent | HitlDecision]] = {
    "user_message": UserMessage,
    "tool_result": ToolResult,
    "switch_agent": SwitchAgent,
    "hitl_decision": HitlDecision,
}
UNCLEANED = ("modified_arguments",)
# What the contract answers with 400 instead of 422: the field is there for programs to get right.
REQUIRED = {"tool_result": ("call_id",), "switch_agent": ("agent_type",), "hitl_decision": ("call_id", "decision")}
# And which values of it: no agent but the known ones, whatever it is; no text but the three decisions.
CHOSEN: dict[str, tuple[str, type]] = {"switch_agent": ("agent_type", object), "hitl_decision": ("decision", str)}


def session_id_of(value: Any) -> str:
    """The session a body names: any non-empty text of at most 255 characters without control characters."""
    if not isinstance(value, str) or not is_session_id(value):
        why = "must be a non-empty string of at most 255 characters without control characters"
        raise Refused(422, [{"loc": ["body", "session_id"], "msg": why, "type": "value_error"}])
    return value


def parse(value: Any) -> Message:
    """The message of a JSON value. Raises Refused."""
    if not isinstance(value, dict):
        raise Refused(422, [{"loc": ["body", "message"], "msg": "must be an object", "type": "dict_type"}])
    type_ = value.get("type")
    model = MODELS.get(type_) if isinstance(type_, str) else None
    if model is None:
        raise Refused(400, f"Unsupported message type: {str(type_)[:64]}")
    for field in REQUIRED.get(str(type_), ()):
        if value.get(field) in (None, ""):
            raise Refused(400, f"{field} is required for {type_}")
    # New arguments are judged as they are, like the model's own.
    return _checked(model, strict_json.clean(value) | {key: value[key] for key in UNCLEANED if key in value})


def _checked(model: type[Message], value: dict[str, Any]) -> Message:
    try:
        message = model.model_validate(value)
    except ValidationError as error:
        raise _refused(value, error) from None
    if isinstance(message, HitlDecision) and message.decision == "edit" and message.modified_arguments is None:
        raise Refused(400, "modified_arguments is required for the decision edit")
    return message


def _refused(value: dict[str, Any], error: ValidationError) -> Refused:
    chosen, kind = CHOSEN.get(value["type"], ("", str))
    details = [
        {"loc": ["body", "message", *one["loc"]], "msg": one["msg"].removeprefix("Value error, "), "type": one["type"]}
        for one in error.errors(include_url=False, include_context=False, include_input=False)
    ]
    for one in details:
        if one["loc"][-1] == chosen and isinstance(value[chosen], kind):
            return Refused(400, f"{chosen}: {one['msg']}")
    return Refused(422, details)


def from_ide(value: dict[str, Any]) -> bool:
    """Whether a user_message carries other types' keys as nulls: the IDE that sends every key of its model."""
    return None in [value[key] for key in IDE_KEYS & value.keys()]


def in_one_line(detail: Any) -> str:
    """A refusal's detail in one line."""
    if isinstance(detail, list):
        return "; ".join(f"{'.'.join(str(part) for part in one['loc'])}: {one['msg']}" for one in detail)
    return str(detail)
