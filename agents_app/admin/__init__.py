"""The operators' pages that act. What an operator asks for goes the way of a client's message, under the operator's
name, with the operator's permissions."""

from agents_app.admin import agents, inbox, policies, runs, sessions, webhooks

__all__ = ["agents", "inbox", "policies", "runs", "sessions", "webhooks"]
