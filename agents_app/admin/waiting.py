"""A tool call that waits for a person or for its client, as operators see it: exactly what would run."""

from __future__ import annotations

import json
from datetime import timedelta
from functools import cached_property

from django.utils import timezone

from sessions_app.admin import shown
from sessions_app.admin.attention import IN_DOUBT_SECONDS
from sessions_app.models import Approval, ToolCall, ToolCallState


class WaitingCall:
    """`call` with its approval, if any; both as they are stored."""

    def __init__(self, call: ToolCall, approval: Approval | None = None) -> None:
        self.call = call
        self.approval: Approval | None = approval or getattr(call, "approval", None)

    @property
    def needs_decision(self) -> bool:
        return self.call.state == ToolCallState.PENDING

    @property
    def in_doubt(self) -> bool:
        """Sent to the client, and nothing heard since: it may have run."""
        late = timezone.now() - timedelta(seconds=IN_DOUBT_SECONDS)
        return self.call.state == ToolCallState.OUT and self.call.requested_at < late

    @cached_property
    def arguments(self) -> list[tuple[str, str]]:
        return shown.arguments(self.call.arguments)

    @property
    def editable(self) -> str:
        return json.dumps(self.call.arguments, ensure_ascii=False, indent=2)
