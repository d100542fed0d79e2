"""An answer of each endpoint of the contract, and a body where one is sent; a test holds them against the schemas."""

from __future__ import annotations

from typing import Any

AT, LATER = "2026-11-22T12:00:00Z", "2026-11-22T12:00:04.250000Z"
ITEM = {
    "id": "demo",
    "session_id": "demo",
    "title": "Write a.txt",
    "description": None,
    "message_count": 2,
    "created_at": AT,
    "last_activity": LATER,
    "is_active": True,
    "current_agent": "coder",
}
CALL = {"id": "call_2", "type": "function", "function": {"name": "write_file", "arguments": '{"path":"a.txt"}'}}
SWITCH = {"from_agent": "orchestrator", "to_agent": "coder", "reason": "code", "confidence": "high"}
CONTEXT = {
    "context": {
        "id": "1",
        "session_id": "demo",
        "current_agent": "coder",
        "switch_count": 1,
        "switch_history": [{**SWITCH, "switched_at": AT}],
        "last_switch_at": AT,
        "created_at": AT,
    }
}
WAITING = {
    "request_id": "call_2",
    "request_type": "tool",
    "subject": "write_file",
    "details": {"arguments": {"path": "a.txt"}},
    "reason": "It changes files.",
    "created_at": AT,
    "call_id": "call_2",
    "tool_name": "write_file",
    "arguments": {"path": "a.txt"},
}
MESSAGES = [
    {"role": "user", "content": "Write a.txt"},
    {"role": "assistant", "content": "", "tool_calls": [CALL]},
]
REQUESTED = {
    "timestamp": AT,
    "model": "gpt-4o-mini",
    "duration_ms": 1200,
    "prompt_tokens": 900,
    "completion_tokens": 60,
    "total_tokens": 960,
    "has_tool_calls": True,
    "success": True,
    "error": None,
}
AGENT = {
    "type": "architect",
    "name": "Architect",
    "description": "Designs and documents.",
    "allowed_tools": ["read_file", "list_files", "search_in_code", "write_file"],
    "has_file_restrictions": True,
}

BODIES: dict[str, Any] = {
    "post /sessions": {"session_id": "demo"},
    "patch /sessions/{session_id}": {"title": "Write a.txt"},
    "post /agents/{session_id}/switch": {"target_agent": "coder", "reason": "User requested"},
}
ANSWERS: dict[str, Any] = {
    "get /health": {"status": "healthy", "service": "agent-runtime", "version": "0.1.0"},
    "post /sessions": {
        "id": "demo",
        "session_id": "demo",
        "message_count": 0,
        "created_at": AT,
        "is_active": True,
        "current_agent": "orchestrator",
    },
    "get /sessions": {"sessions": [ITEM], "total": 1, "limit": 100, "offset": 0},
    "get /sessions/{session_id}": {
        "session": {
            "id": "demo",
            "title": "Write a.txt",
            "description": None,
            "message_count": 2,
            "messages": None,
            "last_activity": LATER,
            "is_active": True,
            "created_at": AT,
            "duration_seconds": 4.25,
        }
    },
    "patch /sessions/{session_id}": ITEM,
    "get /sessions/{session_id}/history": {
        "session_id": "demo",
        "messages": MESSAGES,
        "message_count": 2,
        "last_activity": LATER,
        "current_agent": "coder",
        "agent_history": [{"from": "orchestrator", "to": "coder", "reason": "code", "timestamp": AT}],
    },
    "get /sessions/{session_id}/pending-approvals": {
        "session_id": "demo",
        "pending_approvals": [WAITING],
        "count": 1,
    },
    "post /sessions/{session_id}/cancel": {"session_id": "demo", "run_id": 7, "state": "cancelled"},
    "get /agents": {"agents": [AGENT], "total": 1},
    "get /agents/{session_id}/current": CONTEXT,
    "post /agents/{session_id}/switch": CONTEXT,
    "get /events/metrics": {
        "metrics": {
            "agent_switches": {"orchestrator_to_coder": 1},
            "agent_processing": {
                "coder": {"count": 1, "total_duration_ms": 4250, "success_count": 1, "failure_count": 0}
            },
            "tool_executions": {"write_file": {"requested": 1, "completed": 1, "failed": 0, "requires_approval": 1}},
            "hitl_decisions": {"write_file": {"APPROVE": 1, "EDIT": 0, "REJECT": 0}},
            "errors": {},
        },
        "computed": {"coder_avg_duration_ms": 4250.0, "write_file_success_rate": 1.0},
        "timestamp": LATER,
    },
    "get /events/metrics/session/{session_id}": {
        "session_id": "demo",
        "total_requests": 1,
        "successful_requests": 1,
        "failed_requests": 0,
        "total_duration_ms": 1200,
        "average_duration_ms": 1200.0,
        "total_prompt_tokens": 900,
        "total_completion_tokens": 60,
        "total_tokens": 960,
        "average_tokens_per_request": 960.0,
        "requests_with_tools": 1,
        "requests": [REQUESTED],
    },
    "get /events/metrics/sessions": {"sessions": ["demo"], "count": 1},
    "get /events/audit-log": {
        "audit_log": [
            {
                "timestamp": AT,
                "event_type": "agent_switched",
                "event_id": "6f1c1c7e-6c0e-4c43-9d0a-2b7f6f0f4d11",
                "session_id": "demo",
                "correlation_id": "4bf92f3577b34da6a3ce929d0e0e4736",
                **SWITCH,
            }
        ],
        "count": 1,
        "filters": {"session_id": None, "event_type": None, "limit": 100},
    },
    "get /events/stats": {
        "total_published": 12,
        "successful_handlers": 0,
        "failed_handlers": 0,
        "last_event_time": LATER,
        "success_rate": 1.0,
    },
}


def add(path: str, method: str, operation: dict[str, Any]) -> None:
    """Puts the examples into an operation; those of the root hold under /api/v1, too."""
    name = f"{method} {path.removeprefix('/api/v1')}"
    if name in BODIES:
        operation["requestBody"]["content"]["application/json"]["example"] = BODIES[name]
    if name in ANSWERS:
        status = min(operation["responses"])
        operation["responses"][status]["content"]["application/json"]["example"] = ANSWERS[name]
