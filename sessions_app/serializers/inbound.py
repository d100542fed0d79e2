"""What comes in, checked: wrong types are refused, nothing is guessed or trimmed."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers

from sessions_app.session_ids import MAX_CHARACTERS, is_session_id
from sessions_app.strict_json import clean


class Text(serializers.CharField):
    """A string as it was sent: 5 is not "5", spaces stay, NUL is written out."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"trim_whitespace": False, "allow_blank": True, **options})

    def to_internal_value(self, data: Any) -> str:
        if not isinstance(data, str):
            self.fail("invalid")
        return str(clean(data))


class SessionId(serializers.CharField):
    default_error_messages = {  # noqa: RUF012
        "session_id": f"Must be 1 to {MAX_CHARACTERS} characters, none of them a control character."
    }

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"trim_whitespace": False, "allow_blank": True, **options})

    def run_validation(self, data: Any = serializers.empty) -> Any:
        if isinstance(data, str) and not is_session_id(data):
            self.fail("session_id")
        return super().run_validation(data)

    def to_internal_value(self, data: Any) -> str:
        if not isinstance(data, str):
            self.fail("invalid")
        return str(data)


class NewSession(serializers.Serializer[Any]):
    session_id = SessionId(required=False, allow_null=True, help_text="Made up when absent.")


class SessionChange(serializers.Serializer[Any]):
    title = Text(required=False, allow_null=True)
    description = Text(required=False, allow_null=True)


class SessionQuery(serializers.Serializer[Any]):
    active_only = serializers.BooleanField(default=True)


class DetailsQuery(serializers.Serializer[Any]):
    include_messages = serializers.BooleanField(default=False)


class AuditQuery(serializers.Serializer[Any]):
    session_id = Text(default=None, allow_null=True)
    event_type = Text(default=None, allow_null=True)
    limit = serializers.IntegerField(default=100, min_value=1, max_value=1000)
