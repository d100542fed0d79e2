"""The one family of errors. Imports nothing of ours.

`str(error)` is English for programs and logs; `error.text()` is for people, in the active language. Neither carries
secrets, prompts or internals.
"""

from __future__ import annotations

from typing import Any

from django.utils.translation import gettext, override
from django.utils.translation import gettext_noop as _


class RuntimeFault(Exception):
    """Something the caller is told, with a stable `code`, an HTTP `status` and whether trying again may help."""

    code = "INTERNAL"
    status = 500
    retryable = False
    message = _("Something went wrong on our side. Please try again.")

    def __init__(self, *, metadata: dict[str, Any] | None = None, **params: Any) -> None:
        self.params = params
        self.metadata = metadata or {}
        with override("en"):
            super().__init__(self.text())

    def text(self) -> str:
        return gettext(self.message).format(**self.params)

    def body(self) -> dict[str, Any]:
        """What a program reads of it."""
        told = {"detail": str(self), "code": self.code}
        return told | ({"metadata": self.metadata} if self.metadata else {})


class SessionNotFound(RuntimeFault):
    code, status = "SESSION_NOT_FOUND", 404
    message = _("Session {session_id} not found")


class SessionExists(RuntimeFault):
    code, status = "SESSION_ALREADY_EXISTS", 409
    message = _("Session {session_id} already exists")


class SessionInactive(RuntimeFault):
    code, status = "SESSION_INACTIVE", 409
    message = _("This session has been closed. Start a new one.")


class SessionExpired(SessionInactive):
    code = "SESSION_EXPIRED"
    message = _("This session was closed because nobody had used it for long. Start a new one.")


class SessionFull(RuntimeFault):
    code, status = "SESSION_FULL", 409
    message = _("This session holds {limit} messages and takes no more. Start a new one.")


class SessionBusy(RuntimeFault):
    code, status, retryable = "SESSION_BUSY", 409, True
    message = _("The session is still answering another message. Wait for it, or cancel it.")


class SessionInUse(RuntimeFault):
    code, status, retryable = "SESSION_IN_USE", 409, True
    message = _("The session is in use: it works, a message waits, or a person or its client is waited for.")


class NothingToDo(RuntimeFault):
    code, status = "NOTHING_TO_DO", 409
    message = _("There is nothing to do here: {why}")


class WaitedTooLong(RuntimeFault):
    code, status, retryable = "WAITED_TOO_LONG", 503, True
    message = _("The message waited {seconds} seconds for its turn and was dropped. Send it again.")


class QueueFull(RuntimeFault):
    code, status, retryable = "QUEUE_FULL", 429, True
    message = _("Too many messages wait in this session already.")


class TooManyTurns(QueueFull):
    """Of all sessions together, not of one."""

    message = _("Too many turns are at work and wait already. Please try again in a moment.")


class IdempotencyConflict(RuntimeFault):
    code, status = "IDEMPOTENCY_CONFLICT", 409
    message = _("This idempotency key was used for another message.")


class Draining(RuntimeFault):
    code, status, retryable = "DRAINING", 503, True
    message = _("The server is restarting. Send it again in a moment.")


class AnsweredLater(Draining):
    retryable = False
    message = _("The server is restarting. What you sent is kept and goes on after it: do not send it again.")


class AgentSwitchRefused(RuntimeFault):
    code, status = "AGENT_SWITCH_REFUSED", 400
    message = _("Cannot switch to agent {agent!r}: {why}")


class MessageInvalid(RuntimeFault):
    code, status = "MESSAGE_INVALID", 422
    message = _("Invalid message: {why}")


class NotPermitted(RuntimeFault):
    code, status = "NOT_PERMITTED", 403
    message = _("Your account may not do this.")


class CallNotFound(RuntimeFault):
    code, status = "CALL_NOT_FOUND", 404
    message = _("No tool call {call_id!r} is open in this session.")


class CallAnswered(RuntimeFault):
    code, status = "CALL_ALREADY_ANSWERED", 409
    message = _("Tool call {call_id!r} already has another result.")


class CallClosed(RuntimeFault):
    code, status = "CALL_CLOSED", 409
    message = _("Tool call {call_id!r} was closed before its result came.")


class ApprovalDecided(RuntimeFault):
    code, status = "APPROVAL_ALREADY_DECIDED", 409
    message = _("Tool call {call_id!r} does not wait for a decision: it is {state}.")


class DecidedBy(ApprovalDecided):
    message = _("Tool call {call_id!r} does not wait for a decision: it is {state}. {who} was first.")


class ApprovalExpired(RuntimeFault):
    code, status = "APPROVAL_EXPIRED", 409
    message = _("The approval of tool call {call_id!r} has expired: nobody decided in time.")


class ArgumentsChanged(RuntimeFault):
    code, status = "ARGUMENTS_CHANGED", 409
    message = _("The arguments of tool call {call_id!r} are not those that you have seen. Look at them again.")


class CallForbidden(RuntimeFault):
    code, status = "FORBIDDEN_BY_POLICY", 409
    message = _("A rule forbids tool call {call_id!r} by now; it can only be rejected. {reason}")


class ArgumentsRefused(RuntimeFault):
    code, status = "ARGUMENTS_REFUSED", 422
    message = _("The edited arguments were refused: {why}")


class IssuerUnavailable(RuntimeFault):
    code, status, retryable = "ISSUER_UNAVAILABLE", 503, True
    message = _("The token cannot be checked right now. Please try again.")


class KeyNotFound(RuntimeFault):
    code, status = "KEY_NOT_FOUND", 404
    message = _("There is no key {key_id!r} that could be revoked.")


class KeyInvalid(RuntimeFault):
    code, status = "KEY_INVALID", 422
    message = _("This key cannot be made: {why}.")


class WebhookInvalid(RuntimeFault):
    code, status = "WEBHOOK_INVALID", 422
    message = _("Invalid webhook: {why}")


class WebhookNotFound(RuntimeFault):
    code, status = "WEBHOOK_NOT_FOUND", 404
    message = _("There is no webhook {webhook_id}.")


class RunNotFound(RuntimeFault):
    code, status = "RUN_NOT_FOUND", 404
    message = _("Run {run_id} not found")


class NothingToRetry(RuntimeFault):
    code, status = "NOTHING_TO_RETRY", 409
    message = _("There is no interrupted or failed turn to retry.")


class CursorInvalid(RuntimeFault):
    code, status = "CURSOR_INVALID", 400
    message = _("The cursor {cursor!r} does not belong to this session's log.")


class CursorExpired(RuntimeFault):
    code, status = "CURSOR_EXPIRED", 410
    message = _("The log no longer reaches back to the cursor {cursor!r}. Read the history instead.")


class ConcurrentChange(RuntimeFault):
    code, status, retryable = "CONCURRENT_CHANGE", 409, True
    message = _("Somebody else changed this at the same moment. Look again and repeat.")


class LeaseLost(ConcurrentChange):
    code = "LEASE_LOST"
    message = _("This run is no longer ours to write.")


class StorageUnavailable(RuntimeFault):
    code, status, retryable = "STORAGE_UNAVAILABLE", 503, True
    message = _("The storage is not available right now. Please try again.")


class EventDeliveryFailed(RuntimeFault):
    code, status, retryable = "EVENT_DELIVERY_FAILED", 500, True
    message = _("An event could not be delivered.")


class RateLimited(RuntimeFault):
    code, status, retryable = "RATE_LIMITED", 429, True
    message = _("Too many messages. Wait {retry_after} seconds.")


class TooManySockets(RuntimeFault):
    code, status, retryable = "TOO_MANY_SOCKETS", 429, True
    message = _("Too many connections are open from your address. Please try again in a moment.")


class RunCancelled(RuntimeFault):
    code, status = "CANCELLED", 409
    message = _("Stopped.")


class RunInterrupted(RuntimeFault):
    code, status, retryable = "INTERRUPTED", 503, True
    message = _("The answer was cut short; {kept} characters of it were kept. You can retry.")


class StepLimit(RuntimeFault):
    code, status = "STEP_LIMIT", 500
    message = _("The turn was stopped after {limit} steps.")


class SwitchLimit(RuntimeFault):
    code, status = "SWITCH_LIMIT", 500
    message = _("The turn was stopped after {limit} agent switches.")


class MistakeLimit(RuntimeFault):
    code, status = "TOOL_MISTAKE_LIMIT", 500
    message = _("The model kept calling tools wrongly; the turn was stopped after {limit} refused calls.")


class AnswerTooLong(RuntimeFault):
    code, status = "ANSWER_TOO_LONG", 500
    message = _("The answer grew beyond {limit} bytes and was stopped.")


class TurnTooLong(RuntimeFault):
    code, status = "TURN_TOO_LONG", 500
    message = _("The turn took more than {limit} seconds and was stopped.")


class LLMFault(RuntimeFault):
    """The LLM proxy or the provider behind it failed."""

    code, status, retryable = "LLM_ERROR", 502, True
    message = _("The language model failed to answer. Please try again.")


class LLMUnavailable(LLMFault):
    code = "LLM_UNAVAILABLE"
    message = _("The language model cannot be reached right now. Please try again.")


class LLMCircuitOpen(LLMUnavailable):
    """Nothing was asked: the upstream has failed too often just now."""

    message = _("The language model cannot be reached right now. Please try again in {seconds} s.")


class LLMTimeout(LLMFault):
    code, status = "LLM_TIMEOUT", 504
    message = _("The language model fell silent. Please try again.")


class LLMRateLimited(LLMFault):
    code = "LLM_RATE_LIMITED"
    message = _("The language model is overloaded right now. Please try again later.")


class LLMRefused(LLMFault):
    code, retryable = "LLM_REFUSED", False
    message = _("The language model refused the request.")


class LLMModelUnknown(LLMRefused):
    """The upstream is there, and has no model of that name."""


class LLMCut(LLMFault):
    code = "LLM_CUT"
    message = _("The language model's answer broke off. Please try again.")


class LLMGarbage(LLMFault):
    code = "LLM_INVALID_RESPONSE"
    message = _("The language model's answer could not be understood. Please try again.")


class LLMOutputLimit(LLMFault):
    code, retryable = "LLM_OUTPUT_LIMIT", False
    message = _("The language model reached its output limit; the answer is incomplete.")


class ContextTooLong(LLMFault):
    """The provider says that the request does not fit its context window."""

    code, retryable = "CONTEXT_TOO_LONG", False
    message = _("The conversation no longer fits the language model.")
